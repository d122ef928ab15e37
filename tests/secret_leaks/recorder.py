"""A proxy between the gateway and the emulator that records every secret that passes through it."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable
from typing import Any
from urllib.parse import parse_qsl, quote, quote_plus

import httpx

from tests.support.asgi import read_body

SECRET_FIELDS = ("code", "refresh_token", "access_token", "id_token", "client_secret", "token", "code_verifier")


class Known:
    """Secrets by where they came from."""

    def __init__(self) -> None:
        self.secrets: dict[str, str] = {}

    def add(self, secret: str | None, what: str) -> None:
        if not secret or len(secret) < 8:
            return
        self.secrets.setdefault(secret, what)
        parts = secret.split(".")
        if len(parts) == 3 and secret.startswith("ey"):
            # A JWT's header is not secret: it only names the key. Record the claims and the signature.
            self.secrets[parts[1]] = f"{what} (claims)"
            self.secrets[parts[2]] = f"{what} (signature)"

    def forms(self) -> Iterable[tuple[bytes, str]]:
        """Return every encoding in which a secret could appear."""
        for secret, what in self.secrets.items():
            raw = secret.encode()
            yield from (
                (form, what)
                for form in {
                    raw,
                    *_encoded(raw),
                    quote(secret, safe="").encode(),
                    quote_plus(secret).encode(),
                    json.dumps(secret)[1:-1].encode(),
                }
            )

    def found_in(self, where: str, data: bytes) -> list[str]:
        return [f"{what} in {where}" for form, what in self.forms() if form in data]


def _encoded(raw: bytes) -> set[bytes]:
    """Return hex and base64 at each of the three offsets, without the characters that depend on the neighbours."""
    found = {raw.hex().encode(), raw.hex().upper().encode()}
    for offset in range(3):
        for encode in (base64.b64encode, base64.urlsafe_b64encode):
            text = encode(b"\0" * offset + raw).rstrip(b"=")
            found.add(text[(0, 2, 3)[offset] : -1])
    return found


class RecordingProxy:
    """An ASGI app that proxies to the emulator and records the fields of every form and JSON response in `known`."""

    def __init__(self, target: str, known: Known) -> None:
        self._target = target
        self._known = known

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        body = await read_body(receive)
        for name, value in parse_qsl(body.decode()):
            if name in SECRET_FIELDS:
                self._known.add(value, f"{name} of a request")
        headers = {
            name.decode(): value.decode()
            for name, value in scope["headers"]
            if name not in (b"host", b"content-length", b"connection")
        }
        if headers.get("authorization", "").startswith("Basic "):
            self._known.add(headers["authorization"].removeprefix("Basic "), "Authorization of the client")
        try:
            async with httpx.AsyncClient(trust_env=False, timeout=60) as http:
                response = await http.request(
                    scope["method"], self._target + scope["path"], headers=headers, content=body
                )
        except httpx.HTTPError:
            # The emulator cut the connection. The secrets it had created are recorded from a later response.
            await send({"type": "http.response.start", "status": 502, "headers": []})
            await send({"type": "http.response.body", "body": b"cut"})
            return
        try:
            for name, value in response.json().items():
                if name in SECRET_FIELDS:
                    self._known.add(value, f"{name} of an answer")
        except (ValueError, AttributeError):
            pass
        await send(
            {
                "type": "http.response.start",
                "status": response.status_code,
                "headers": [(b"content-type", response.headers.get("content-type", "").encode())],
            }
        )
        await send({"type": "http.response.body", "body": response.content})
