"""Identity provider for the tests: serves its keys over HTTP and issues valid and invalid tokens."""

from __future__ import annotations

import base64
import hmac
import json
import time
from typing import Any, Self

from joserfc import jwt
from joserfc.jwk import ECKey

from tests.support.processes import AppServer

ISSUER = "https://idp.example.com"
AUDIENCE = "the-app"


class Issuer:
    def __init__(self) -> None:
        self.key = ECKey.generate_key("P-256", {"kid": "e1", "alg": "ES256", "use": "sig"}, private=True)
        self.served = [self.key.as_dict(private=False)]
        self.fetched = 0
        self.down = False
        self._server = AppServer(self._app, interface="asgi3")
        self.jwks_uri = f"{self._server.url}/keys"

    async def _app(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        self.fetched += 1
        body = json.dumps({"keys": self.served}).encode()
        status = 500 if self.down else 200
        await send(
            {"type": "http.response.start", "status": status, "headers": [(b"content-type", b"application/json")]}
        )
        await send({"type": "http.response.body", "body": body})

    def __enter__(self) -> Self:
        self._server.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.__exit__()

    def config(self, **more: Any) -> dict[str, Any]:
        return {"jwt": {"jwks_uri": self.jwks_uri, "issuer": ISSUER, "audience": AUDIENCE, **more}}

    def token(self, user: str = "alice", **changes: Any) -> str:
        """Return a JWT with `changes` to its claims (None removes one).

        Two keywords are no claims: `header` changes the header, `key` is the signing key.
        """
        header = {"alg": "ES256", "kid": "e1", **changes.pop("header", {})}
        key = changes.pop("key", self.key)
        claims: dict[str, Any] = {"iss": ISSUER, "aud": AUDIENCE, "sub": user, "exp": int(time.time()) + 300, **changes}
        claims = {name: value for name, value in claims.items() if value is not None}
        return jwt.encode({k: v for k, v in header.items() if v is not None}, claims, key, algorithms=["ES256"])

    def bad_tokens(self) -> dict[str, str]:
        now = int(time.time())
        unknown_key = ECKey.generate_key("P-256", {"kid": "e1"}, private=True)
        confused = f"{encode({'alg': 'HS256', 'kid': 'e1'})}.{self.token().split('.')[1]}"
        mac = hmac.digest(self.key.as_pem(private=False), confused.encode(), "sha256")
        good = self.token()
        head, body, signature = good.split(".")
        return {
            "expired": self.token(exp=now - 60),
            "no exp": self.token(exp=None),
            "exp is text": self.token(exp="tomorrow"),
            "not yet valid": self.token(nbf=now + 600),
            "from the future": self.token(iat=now + 600),
            "another issuer": self.token(iss="https://idp.example.com/"),
            "no issuer": self.token(iss=None),
            "another audience": self.token(aud="another-app"),
            "audiences without ours": self.token(aud=["a", "b"]),
            "no audience": self.token(aud=None),
            "no user": self.token(sub=None),
            "an empty user": self.token(sub=""),
            "a user that is no text": self.token(sub={"name": "alice"}),
            "a stranger's signature": self.token(key=unknown_key),
            "a key nobody has": self.token(header={"kid": "e2"}, key=unknown_key),
            "alg confusion": f"{confused}.{base64.urlsafe_b64encode(mac).rstrip(b'=').decode()}",
            "alg none": f"{encode({'alg': 'none'})}.{body}.",
            "no signature": f"{head}.{body}.",
            "another body": f"{head}.{encode({'iss': ISSUER, 'aud': AUDIENCE, 'sub': 'bob', 'exp': now + 300})}.{signature}",
            "crit": self.token(header={"crit": ["b64"], "b64": True}),
            "oversized": self.token(filler="x" * 20_000),
            "not a JWT": "a.b",
            "garbage": "....",
        }


def encode(value: dict[str, Any]) -> str:
    return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()
