"""Tests of what the middleware gives to an app in the same process: `scope["akoya"]` and `signing.in_process`."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import httpx
import pytest
import yaml
from websockets.sync.client import connect

from akoya_gateway import Gateway, load_config
from akoya_gateway.admission.header_injector import claims_of_request
from akoya_verify import Verified
from tests.support.environment import GatewayEnv
from tests.support.forward_auth import cookies
from tests.support.processes import AppServer

CLIENT_HEADERS = {"akoya-owner": "me", "akoya-connector": "mikomo", "signature": "akoya=:AA==:"}
NO_HEADERS: Mapping[str, str] = {}
CHANGES: dict[str, Any] = {"trusted_proxies": ["127.0.0.1/32"], "forward_auth": True}


async def app(scope: Any, receive: Any, send: Any) -> None:
    """Respond with what the request has of the gateway."""
    if scope["type"] == "lifespan":
        raise ValueError("no lifespan")
    found = scope["akoya"]
    assert found is None or isinstance(found, Verified)
    headers = {name.decode(): value.decode() for name, value in scope["headers"]}
    changes = b"change" in scope["query_string"]
    content = json.dumps({"akoya": None if found is None else asdict(found), "headers": headers})
    if changes and found is not None:
        found.id_tokens["planted"] = "token"
        scope["headers"].append((b"x-planted", b"1"))
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.send", "text": content})
        await send({"type": "websocket.close"})
        return
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"application/json")]})
    await send({"type": "http.response.body", "body": content.encode()})


@dataclass
class Served:
    """A middleware whose outer app leaves a value of its own in every scope, and the cookies of a connected user."""

    in_process: str
    port: int
    cookies: str

    def get(
        self, path: str, headers: Mapping[str, str] = NO_HEADERS, *, method: str = "GET", member: bool = True
    ) -> Any:
        sent = {**CLIENT_HEADERS, **headers, **({"cookie": self.cookies} if member else {})}
        body = b"a body" if method == "POST" else b""
        response = httpx.request(
            method, f"http://127.0.0.1:{self.port}{path}", headers=sent, content=body, trust_env=False, timeout=30
        )
        assert response.status_code == 200
        return response.json() if response.content else dict(response.headers)

    def websocket(self, path: str) -> Any:
        url = f"ws://127.0.0.1:{self.port}{path}"
        headers = {**CLIENT_HEADERS, "cookie": self.cookies}
        with connect(url, additional_headers=headers, proxy=None, open_timeout=30) as socket:
            return json.loads(socket.recv(timeout=30))


@pytest.fixture(scope="module")
def env(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[GatewayEnv, str]]:
    with GatewayEnv(tmp_path_factory.mktemp("env"), changes=CHANGES) as env, env.browser() as browser:
        browser.connect()
        yield env, cookies(browser)


@pytest.fixture(scope="module", params=["headers", "scope"])
def served(request: pytest.FixtureRequest, env: tuple[GatewayEnv, str]) -> Iterator[Served]:
    environment, member = env
    config = {key: value for key, value in environment.config().items() if key not in ("admin", "upstream")}
    config["signing"] = {**config["signing"], "in_process": request.param, "content_digest": 1000}
    path = environment.folder / f"{request.param}.yaml"
    path.write_text(yaml.safe_dump(config))
    gateway = Gateway(app, load_config(path, environment.environ))

    async def outer(scope: Any, receive: Any, send: Any) -> None:
        await gateway({**scope, "akoya": "a value of another app"}, receive, send)

    with AppServer(outer, lifespan="on") as server:
        yield Served(request.param, server.port, member)


def check(served: Served, seen: Any) -> None:
    """Check what the app has of a request with a grant."""
    akoya, headers = seen["akoya"], seen["headers"]
    assert (akoya["connector"], akoya["environment"]) == ("mikomo", "double")
    assert [one["connector"] for one in akoya["connections"]] == ["mikomo"]
    assert akoya["id_token"].count(".") == 2
    assert akoya["owner"] != "me"
    assert akoya["rule"]
    assert (akoya["key_id"], akoya["signed_at"]) == ("", 0)
    gateway_headers = {name for name in headers if name.startswith(("akoya", "signature"))}
    if served.in_process == "scope":
        assert gateway_headers == set()
    else:
        assert "signature" in gateway_headers
        assert headers["akoya-owner"] == akoya["owner"]
        assert headers["akoya-id-token"] == akoya["id_token"]
        assert headers["akoya-expires"] == str(akoya["expires"])
        assert headers["akoya-provider"] == akoya["provider"]
        assert headers["akoya-grant"] == akoya["grant"] == akoya["connections"][0]["id"]
        assert headers["akoya-interaction-type"] == akoya["interaction_type"]
        assert headers.get("akoya-last-access") == akoya["last_access"]
        assert headers["akoya-scope"].split(" ") == akoya["scope"]


def test_request_with_a_grant_has_the_claims_in_the_scope(served: Served) -> None:
    for _ in range(2):  # The second one is admitted by the fast path.
        check(served, served.get("/accounts"))
    posted = served.get("/accounts", method="POST")
    check(served, posted)
    assert ("content-digest" in posted["headers"]) is (served.in_process == "headers")


def test_websocket_with_a_grant_has_the_claims_in_the_scope(served: Served) -> None:
    check(served, served.websocket("/accounts"))


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_request_without_a_grant_has_no_claims_of_another_app(served: Served, method: str) -> None:
    for member in (True, False, True):
        seen = served.get("/public/x", method=method, member=member)
        assert seen["akoya"] is None
        assert not [name for name in seen["headers"] if name.startswith(("akoya", "signature"))]
    assert served.websocket("/public/x")["akoya"] is None


def test_forward_auth_signs_headers_in_both_modes(served: Served) -> None:
    injected = served.get("/akoya/forward-auth", {"x-forwarded-method": "GET", "x-forwarded-uri": "/accounts"})
    assert injected["akoya-connector"] == "mikomo"
    assert injected["akoya-owner"] != "me"
    assert "signature" in injected


@pytest.mark.parametrize("tokens", [{"mikomo": "token"}, {}])
def test_app_that_changes_its_tokens_changes_no_other_request(tokens: dict[str, str]) -> None:
    shared = Verified("own_1", id_tokens={**tokens})
    first = claims_of_request(shared)
    first.id_tokens["other"] = "changed"
    assert claims_of_request(shared) == shared == Verified("own_1", id_tokens=tokens)


def test_app_that_changes_the_claims_of_its_request_changes_no_other(served: Served) -> None:
    """The app adds to everything that can be changed. No later request of the same user has it."""
    for _ in range(3):
        seen = served.get("/accounts?change=1")
        check(served, seen)
        assert seen["akoya"]["id_tokens"] == {}
        assert "x-planted" not in seen["headers"]
