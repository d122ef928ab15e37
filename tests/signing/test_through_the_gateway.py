"""End to end: a browser, the gateway as a process, and an app that verifies with keys fetched from the gateway."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

import akoya_verify as v
from akoya_gateway.config.model import SigningAlgorithm
from akoya_gateway.signing import key_generation
from tests.support.environment import Browser, GatewayEnv
from tests.support.processes import AppServer, GatewayProcess

AUDIENCE = "the-app"
SPOOFED = {
    "Akoya-Owner": "evil",
    "akoya_id_token": "evil",
    "AKOYA.Connector": "evil",
    "Akoya-Assertion": "evil",
    "Connection": "keep-alive, Akoya-Owner, Signature",
    "Signature-Input": 'theirs=("@method");created=1;keyid="x", akoya=("@method");created=1',
    "Signature": "theirs=:AAAA:, akoya=:BBBB:",
}


class LateKeys:
    """The gateway's keys, once its address is known."""

    def __init__(self) -> None:
        self.remote: v.RemoteKeys | None = None

    def get(self, key_id: str, /) -> v.Key | None:
        assert self.remote is not None
        return self.remote.get(key_id)

    def peek(self, key_id: str, /) -> v.Key | None:
        assert self.remote is not None
        return self.remote.peek(key_id)


async def app(scope: Any, receive: Any, send: Any) -> None:
    verified: v.Verified | None = scope["akoya"]
    seen = {
        "owner": verified and verified.owner,
        "connector": verified and verified.connector,
        "token": verified and verified.id_token,
        "key": verified and verified.key_id,
        "headers": [(name.decode("latin-1"), value.decode("latin-1")) for name, value in scope["headers"]],
    }
    text = json.dumps(seen).encode()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"application/json")]})
    await send({"type": "http.response.body", "body": text})


def verifying_env(folder: Path, scheme: str) -> GatewayEnv:
    keys = LateKeys()
    jwt: Any = {"issuer": "", "audience": AUDIENCE} if scheme == "jwt" else {}
    verifier = v.AsgiVerifier(app, keys, exempt={"/public/*"}, **jwt)
    env = GatewayEnv(folder, upstream=AppServer(verifier, lifespan="off"))
    if jwt:
        verifier._policy = v.AsgiVerifier(app, keys, exempt={"/public/*"}, issuer=env.url, audience=AUDIENCE)._policy
    key_set = folder / "signing-keys.json"
    key_set.touch(0o600)
    key_set.write_text(
        key_generation.as_set(
            [key_generation.as_jwk(key_generation.generate_private_key(SigningAlgorithm.ED25519), time.time())]
        )
    )
    env._changes["signing"] = {
        "scheme": scheme,
        "algorithm": "ed25519",
        "audience": AUDIENCE,
        "keys": [{"file": str(key_set)}],
    }
    keys.remote = v.RemoteKeys(f"{env.url}/akoya/jwks.json", throttle=0.05)
    return env


@pytest.fixture(scope="module", params=["http-message-signatures", "jwt"])
def scheme(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def env(scheme: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayEnv]:
    with verifying_env(tmp_path_factory.mktemp("signed"), scheme) as env:
        yield env


@pytest.fixture
def browser(env: GatewayEnv) -> Iterator[Browser]:
    with env.browser() as browser:
        browser.connect()
        yield browser


@pytest.mark.parametrize("path", ["/accounts", "/accounts/a%20b?x=%2F&y=1&y=2", "/accounts/%C3%BC?"])
def test_app_receives_the_owner_and_the_token(browser: Browser, path: str) -> None:
    verified = browser.fetch(path).json()
    assert verified["connector"] == "mikomo"
    assert verified["owner"]
    assert verified["token"].count(".") == 2


def test_identity_headers_of_a_client_are_ignored(browser: Browser) -> None:
    honest = browser.fetch("/accounts").json()
    response = browser.fetch("/accounts", headers=SPOOFED)
    assert response.status_code == 200, response.text
    verified = response.json()
    assert (verified["owner"], verified["connector"], verified["token"]) == (
        honest["owner"],
        honest["connector"],
        honest["token"],
    )
    assert "evil" not in json.dumps(verified)
    assert "BBBB" not in json.dumps(verified)
    assert ["signature", "theirs=:AAAA:"] in verified["headers"]


def test_public_path_drops_identity_headers_of_a_client(env: GatewayEnv, browser: Browser) -> None:
    other_browser = httpx.get(f"{env.url}/public/x", headers=SPOOFED, trust_env=False, timeout=60)
    for response in (other_browser, browser.fetch("/public/x", headers=SPOOFED)):
        assert response.status_code == 200, response.text
        assert "evil" not in response.text
        assert "BBBB" not in response.text


def test_request_that_bypasses_the_gateway_is_refused_by_the_app(
    env: GatewayEnv, browser: Browser, scheme: str
) -> None:
    captured = [
        (n, x) for n, x in browser.fetch("/accounts").json()["headers"] if n.startswith(("akoya", "signat", "host"))
    ]

    def fetch(path: str, headers: list[tuple[str, str]]) -> int:
        return httpx.get(f"{env.upstream.url}{path}", headers=headers, trust_env=False, timeout=60).status_code

    assert fetch("/accounts", captured) == 200
    assert fetch("/accounts", []) == 401
    assert fetch("/accounts", [line for line in captured if not line[0].startswith("signat")]) == (
        401 if scheme == "http-message-signatures" else 200
    )
    assert fetch("/accounts", [*captured, ("akoya-owner", "evil")]) == 401
    # An assertion is not bound to a path, but a signature is.
    assert fetch("/accounts/other", captured) == (401 if scheme == "http-message-signatures" else 200)


def test_key_rotation_needs_no_restart_and_refuses_no_request(env: GatewayEnv, browser: Browser) -> None:
    gateway = env.gateway
    assert isinstance(gateway, GatewayProcess)
    assert gateway.process is not None
    first = browser.fetch("/accounts").json()["key"]
    key_set = env.folder / "signing-keys.json"
    rotation = key_generation.rotate(key_set.read_text(), SigningAlgorithm.ED25519, time.time(), lead=4)
    key_set.write_text(rotation.text)
    gateway.process.send_signal(signal.SIGHUP)

    seen: list[str] = []
    deadline = time.monotonic() + 60
    while rotation.next_id not in seen:
        assert time.monotonic() < deadline, seen[-1]
        response = browser.fetch("/accounts")
        assert response.status_code == 200, response.text
        if not seen or seen[-1] != response.json()["key"]:
            seen.append(response.json()["key"])
        time.sleep(0.05)
    assert seen == [first, rotation.next_id]
    published = [
        jwk["kid"] for jwk in httpx.get(f"{env.url}/akoya/jwks.json", trust_env=False, timeout=60).json()["keys"]
    ]
    assert published == [rotation.next_id, first]
