"""Several apps behind one gateway, in the fast lane and without it.

Each request reaches the upstream that its access rule names. What depends on the upstream (`aud`, `max_header_bytes`,
`@authority`) is that upstream's own.
"""

from __future__ import annotations

import base64
import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from tests.support.certificates import self_signed
from tests.support.environment import ACCESS, HMAC_SECRET, Browser, GatewayEnv
from tests.support.logs import complete_lines
from tests.support.ports import free_port
from tests.support.processes import AppServer, GatewayProcess
from tests.support.upstream_apps import IndependentVerifier
from tests.support.waiting import until

RULES: list[dict[str, Any]] = [
    {"path": "/public/reports/*", "require": "nothing", "upstream": "reports"},
    {"path": "/reports/*", "require": "any", "otherwise": "unauthorized", "upstream": "reports"},
    {"path": "/pair/*", "require": "any", "otherwise": "unauthorized", "upstream": "pair"},
    {"path": "/down/*", "require": "nothing", "upstream": "down"},
    *ACCESS,
]
OF_PATH = {"/accounts/x": "app", "/reports/x": "reports", "/public/x": "app", "/public/reports/x": "reports"}
WAYS = ["lane", "asgi"]


class Named:
    """Respond with the app's name, the connection that the request came on, and the received headers."""

    def __init__(self, name: str) -> None:
        self._name = name

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        if scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.accept"})
            await send({"type": "websocket.send", "text": self._name})
            while (message := await receive())["type"] == "websocket.receive":
                await send({"type": "websocket.send", "text": message["text"]})
        elif scope["type"] == "http":
            headers = {name.decode(): value.decode() for name, value in scope["headers"]}
            seen = {"app": self._name, "client": scope["client"][1], "headers": headers}
            response = json.dumps(seen).encode()
            start = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(response))]
            await send({"type": "http.response.start", "status": 200, "headers": start})
            await send({"type": "http.response.body", "body": response})


class Apps:
    """`app` (the default), `reports` (https), `pair` (two addresses) and `down`, whose port nothing listens on."""

    def __init__(self, folder: Path) -> None:
        self.port_of_down = free_port()
        certificate = folder / "reports.pem"
        certificate.write_bytes(self_signed())
        # uvicorn would discard the port of the connection if X-Forwarded-For named the client.
        self._app, self._one, self._two = (
            AppServer(Named(name), proxy_headers=False) for name in ("app", "one", "two")
        )
        self._reports = AppServer(Named("reports"), ssl_certfile=str(certificate))
        self.url = self._app.url
        reports = {
            "url": f"https://127.0.0.1:{self._reports.port}",
            "tls": {"ca": str(certificate)},
            "max_header_bytes": "4KiB",
            "websocket": {"max_message": "1kB"},
        }
        self.others = {
            "reports": reports,
            "pair": {"url": [self._one.url, self._two.url]},
            "down": {"url": f"http://127.0.0.1:{self.port_of_down}"},
        }
        self.urls = {"app": self.url, "reports": reports["url"]}

    def __enter__(self) -> Apps:
        for server in (self._app, self._one, self._two, self._reports):
            server.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        for server in (self._app, self._one, self._two, self._reports):
            server.__exit__()


class Both:
    """A gateway with the fast lane, and one without it that shares its sessions."""

    def __init__(self, folder: Path, *, signing: Any = None, settings: Any = None, **changes: Any) -> None:
        (folder / "apps").mkdir()
        (folder / "asgi").mkdir()
        self.apps = Apps(folder / "apps")
        self.env = GatewayEnv(
            folder,
            upstream=self.apps,
            changes={"access": RULES, "upstreams": self.apps.others, **changes},
            algorithm="hmac-sha256",
            signing=signing,
            settings=settings,
        )
        config = {**self.env.config(), "listen": f"127.0.0.1:{free_port()}", "admin": None}
        self.without = GatewayProcess(folder / "asgi", config, self.env.environ, "--no-fast-lane")

    def __enter__(self) -> Both:
        self.env.__enter__()
        self.without.start()
        with Browser(self.env) as browser:
            browser.connect()
            self.cookies = dict(browser.http.cookies)
        return self

    def __exit__(self, *_: object) -> None:
        self.without.__exit__()
        self.env.__exit__()

    def port(self, way: str) -> int:
        return self.env.port if way == "lane" else self.without.port

    def client(self, way: str) -> httpx.Client:
        base = f"http://127.0.0.1:{self.port(way)}"
        return httpx.Client(base_url=base, cookies=self.cookies, trust_env=False, timeout=60)

    def dial(self, way: str, path: str) -> ClientConnection:
        cookies = "; ".join(f"{name}={value}" for name, value in self.cookies.items())
        headers = {"cookie": cookies, "origin": self.env.url}
        return connect(f"ws://127.0.0.1:{self.port(way)}{path}", additional_headers=headers, proxy=None)

    def clients(self) -> Iterator[httpx.Client]:
        for way in WAYS:
            with self.client(way) as client:
                yield client


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Both]:
    with Both(tmp_path_factory.mktemp("env")) as both:
        yield both


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
def test_each_request_reaches_the_upstream_of_its_rule(both: Both, way: str, method: str) -> None:
    with both.client(way) as client:
        # Several times on one connection: the first request of a kind is evaluated, the others use the cached decision.
        for _ in range(3):
            for path, app in OF_PATH.items():
                response = client.request(method, path, content=b"a body" if method == "POST" else b"")
                assert (response.status_code, response.json()["app"]) == (200, app)


@pytest.mark.parametrize("way", WAYS)
def test_pipelined_requests_to_two_upstreams_get_responses_in_order(both: Both, way: str) -> None:
    cookies = "; ".join(f"{name}={value}" for name, value in both.cookies.items())
    head = f" HTTP/1.1\r\nHost: a\r\nCookie: {cookies}\r\n\r\n"
    paths = [*OF_PATH] * 3
    with socket.create_connection(("127.0.0.1", both.port(way)), 60) as raw:
        raw.sendall("".join(f"GET {path}{head}" for path in paths).encode())
        data = b""
        while data.count(b'"app": ') < len(paths):
            data += raw.recv(65536)
    names = [piece.partition(b'"')[0].decode() for piece in data.split(b'"app": "')[1:]]
    assert names == [OF_PATH[path] for path in paths]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("path", "app"), OF_PATH.items())
def test_each_websocket_reaches_the_upstream_of_its_rule(both: Both, way: str, path: str, app: str) -> None:
    with both.dial(way, path) as socket_:
        assert socket_.recv(10) == app


@pytest.mark.parametrize("way", WAYS)
def test_each_upstream_has_a_limit_for_messages(both: Both, way: str) -> None:
    for path, app in OF_PATH.items():
        with both.dial(way, path) as socket_:
            assert socket_.recv(10) == app
            socket_.send("x" * 1001)
            if app == "app":
                assert socket_.recv(10) == "x" * 1001
                continue
            with pytest.raises(ConnectionClosed) as closed:
                socket_.recv(10)
            assert closed.value.rcvd is not None
            assert closed.value.rcvd.code == 1009


@pytest.mark.parametrize("way", WAYS)
def test_named_upstream_takes_its_addresses_in_turn(both: Both, way: str) -> None:
    with both.client(way) as client:
        names = [client.get("/pair/x").json()["app"] for _ in range(8)]
    assert set(names) == {"one", "two"}


@pytest.mark.parametrize("way", WAYS)
def test_upstream_that_is_down_does_not_affect_the_others(both: Both, way: str) -> None:
    with both.client(way) as client:
        kept = client.get("/public/x").json()["client"]
        for _ in range(5):
            response = client.get("/down/x")
            assert response.status_code == 502
            assert response.json()["type"].endswith("upstream-unreachable")
            for path, app in OF_PATH.items():
                assert client.get(path).json()["app"] == app

        def is_logged() -> bool:
            log = both.env.log() if way == "lane" else complete_lines(both.without.log)
            failed = [line for line in log.splitlines() if "request failed" in line]
            return any(f"http://127.0.0.1:{both.apps.port_of_down}" in line and "/down" in line for line in failed)

        until(is_logged, "the address is logged")
        assert client.get("/public/x").json()["client"] == kept > 0
        with AppServer(Named("up again"), port=both.apps.port_of_down):
            assert client.get("/down/x").json()["app"] == "up again"
        assert client.get("/down/x").status_code == 502


HOSTS = ["app.example", "app.example:80", "app.example:443", "app.example:8443"]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("host", HOSTS)
@pytest.mark.parametrize(("path", "scheme"), [("/accounts/x", "http"), ("/reports/x", "https")])
def test_signature_is_for_the_authority_that_the_upstream_sees(
    both: Both, way: str, host: str, path: str, scheme: str
) -> None:
    """The signed authority omits the default port, which is a different one for https. Verified by a third-party library."""
    verifier = IndependentVerifier(HMAC_SECRET.encode())
    with both.client(way) as client:
        for _ in range(2):
            headers = client.get(path, headers={"host": host}).json()["headers"]
            assert headers["host"] == host
            signed = [("host", without_default_port(host, scheme))]
            signed += [(name, value) for name, value in headers.items() if name != "host"]
            assert verifier.verify("GET", f"{scheme}://{signed[0][1]}{path}", signed).startswith("valid")


def without_default_port(host: str, scheme: str) -> str:
    return host.removesuffix(":443" if scheme == "https" else ":80")


def test_assertion_is_for_the_upstream_that_gets_it(tmp_path: Path) -> None:
    with Both(tmp_path, signing={"scheme": "jwt"}, trusted_proxies=["127.0.0.1"], forward_auth=True) as both:
        for client in both.clients():
            for _ in range(2):
                for path, app in (("/accounts/x", "app"), ("/reports/x", "reports"), ("/accounts", "app")):
                    assert audience(client.get(path)) == both.apps.urls[app]
            assert len({audience(client.get("/pair/x")) for _ in range(4)}) == 1, "one for both addresses"
            for path, app in OF_PATH.items():
                original = {"x-forwarded-method": "GET", "x-forwarded-uri": path, "x-forwarded-host": "a"}
                names = client.get("/akoya/forward-auth", headers=original)
                assert names.status_code == 200
                if "public" not in path:
                    assert aud(names.headers["akoya-assertion"]) == both.apps.urls[app]


def test_middleware_passes_every_rule_to_its_app(tmp_path: Path) -> None:
    everything = [{**rule, "upstream": "down"} for rule in RULES]
    changes = {"access": everything, "upstreams": {"down": {"url": "http://127.0.0.1:9"}}}
    with (
        GatewayEnv(tmp_path, entrypoint="middleware", app=Named("around"), changes=changes) as env,
        env.browser() as browser,
    ):
        browser.connect()
        for path in OF_PATH:
            assert browser.fetch(path).json()["app"] == "around"


def audience(response: httpx.Response) -> str:
    return aud(response.json()["headers"]["akoya-assertion"])


def aud(assertion: str) -> str:
    body = assertion.split(".")[1]
    return str(json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))["aud"])


def test_each_upstream_has_a_limit_for_gateway_headers(tmp_path: Path) -> None:
    with Both(tmp_path, settings={"account_count": 300}) as both:
        for client in both.clients():
            for _ in range(2):
                refused = client.get("/reports/x")
                assert refused.status_code == 503
                assert "upstreams.reports.max_header_bytes (4096)" in refused.json()["detail"]
                assert len(client.get("/accounts/x").json()["headers"]["akoya-id-token"]) > 4096
