"""Tests that an app serves the request that was authorized and signed, whatever headers the client sends.

They run real app servers. By default these are tested behind the sidecar, plus daphne with the middleware inside,
because the full matrix of servers and entry points takes long.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import yaml

from akoya_gateway.client_header_names import FROM_PROXIES, MOVES_THE_REQUEST
from tests.path.app_servers import ASGI, QUICK, SLOW, AppProcess, ServerMissing
from tests.support.environment import Browser, GatewayEnv
from tests.support.forward_auth import ProxiedEnv, cookies, get
from tests.support.proxies import PROXIES, ProxyMissing

LONG = pytest.mark.skipif(
    os.environ.get("AKOYA_SOAK") != "full", reason="the matrix of servers and entry points runs with AKOYA_SOAK=full"
)
NAMES = sorted(name.decode() for name in MOVES_THE_REQUEST | FROM_PROXIES)
SPELLINGS = [*NAMES, *(name.upper().replace("-", "_") for name in NAMES if "-" in name)]
ALONE = [
    "SCRIPT_NAME",
    "PATH_INFO",
    "Daphne-Root-Path",
    "X-Script-Name",
    "X-Forwarded-Prefix",
    "X-Original-URL",
    "Root-Path",
]
DESCRIBING = ("x-original-uri", "x-original-method", "x-forwarded-uri", "x-forwarded-method")


def lines_with(base: str, together: int = 40) -> Iterator[list[str]]:
    """Yield sets of header lines that claim that the app is mounted at `base`, or that the request is for `base`."""
    value = {name: "DELETE" if "method" in name.lower() else base for name in SPELLINGS}
    yield from ([f"{name}: {base}"] for name in ALONE)
    for at in range(0, len(SPELLINGS), together):
        yield [
            f"{name}: {value[name]}"
            for name in SPELLINGS[at : at + together]
            if name.lower().replace("_", "-") not in DESCRIBING
        ]


def require_unmoved(port: int, base: str, member: str) -> None:
    """Assert that public and signed requests below `base` are served with their own path, mount and method."""
    for path, cookie in ((f"{base}/pub/admin/secret", ""), (f"{base}/bank/second/transfer", member)):
        for lines in lines_with(f"{base}/pub" if not cookie else f"{base}/bank"):
            status, received = get(port, path, *([f"Cookie: {cookie}"] if cookie else []), *lines)
            assert status == 200, (lines, received)
            assert (received["path"], received["mount"], received["method"], received["user"]) == (
                path,
                "",
                "GET",
                None,
            ), lines
            assert bool(received.get("owner", cookie)) is bool(cookie)


def rules(base: str = "", **more: Any) -> list[dict[str, Any]]:
    return [
        {"path": f"{base}/pub/*", "require": "nothing", **more},
        {"path": f"{base}/bank/*", "require": "any", "otherwise": "unauthorized", **more},
    ]


class AppServersEnv:
    """One gateway in front of several app servers, each below a path named after it."""

    def __init__(
        self, folder: Path, names: tuple[str, ...], entrypoint: str = "sidecar", options: tuple[str, ...] = ()
    ) -> None:
        self._stack = ExitStack()
        self._servers: dict[str, AppProcess] = {}
        self.missing: dict[str, str] = {}
        environ = {"AKOYA_TEST_EXEMPT": " ".join(f"/{name}/pub/*" for name in names)}
        for name in names:
            try:
                self._servers[name] = AppProcess(name, folder / name, environ)
            except ServerMissing as missing:
                self.missing[name] = str(missing)
        changes = {
            "access": [rule for name in self._servers for rule in rules(f"/{name}", upstream=name)]
            + [{"path": "/accounts", "require": "any"}],
            "upstreams": {name: {"url": server.url} for name, server in self._servers.items()},
        }
        self.env = GatewayEnv(folder, algorithm="hmac-sha256", changes=changes, entrypoint=entrypoint, options=options)
        self.member = ""

    def __enter__(self) -> AppServersEnv:
        for server in self._servers.values():
            server.start()
        self._stack.enter_context(self.env)
        for server in self._servers.values():
            self._stack.enter_context(server)
        with Browser(self.env) as browser:
            browser.connect()
            self.member = cookies(browser)
        return self

    def __exit__(self, *_: Any) -> None:
        self._stack.close()

    def require_unmoved(self, name: str) -> None:
        if name in self.missing:
            pytest.skip(self.missing[name])
        require_unmoved(self.env.port, f"/{name}", self.member)


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AppServersEnv]:
    with AppServersEnv(tmp_path_factory.mktemp("servers"), QUICK) as env:
        yield env


@pytest.mark.parametrize("name", QUICK)
def test_behind_the_sidecar_an_app_server_serves_what_was_decided(servers: AppServersEnv, name: str) -> None:
    servers.require_unmoved(name)


@pytest.fixture(
    scope="module",
    params=[("sidecar", ()), ("sidecar", ("--no-fast-lane",)), ("app", ())],
    ids=["sidecar", "general", "app"],
)
def all_servers(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[AppServersEnv]:
    entrypoint, options = request.param
    with AppServersEnv(tmp_path_factory.mktemp("servers"), (*QUICK, *SLOW), entrypoint, options) as env:
        yield env


@LONG
@pytest.mark.soak
@pytest.mark.parametrize("name", [*QUICK, *SLOW])
def test_behind_each_entry_point_every_app_server_serves_what_was_decided(
    all_servers: AppServersEnv, name: str
) -> None:
    all_servers.require_unmoved(name)


def inside(name: str, folder: Path) -> AppProcess:
    """An ASGI server whose app has the gateway as middleware."""
    with_keys = GatewayEnv(
        folder,
        algorithm="hmac-sha256",
        changes={"access": rules(), "sessions": {"store": "memory://", "keys": [{"env": "AKOYA_GATEWAY_KEY"}]}},
    )
    config = {key: value for key, value in with_keys.config().items() if key not in ("upstream", "admin")}
    path = folder / "gateway.yaml"
    path.write_text(yaml.safe_dump(config))
    environ = {
        **with_keys.environ,
        "AKOYA_GATEWAY_CONFIG": str(path),
        "AKOYA_TEST_INSIDE": "1",
    }
    return AppProcess(name, folder, environ, inside=True)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name == "daphne" else [LONG, pytest.mark.soak]) for name in ASGI]
)
def test_around_an_app_the_middleware_serves_what_was_decided_or_refuses(tmp_path: Path, name: str) -> None:
    try:
        started = inside(name, tmp_path)
    except ServerMissing as missing:
        pytest.skip(str(missing))
    with started as server:
        assert get(server.port, "/pub/admin/secret")[0] == 200
        assert get(server.port, "/bank/second")[0] == 401
        for lines in lines_with("/pub", together=80):
            status, received = get(server.port, "/pub/admin/secret", *lines)
            assert status in (200, 400), (lines, received)
            if status == 200:
                assert (received["path"], received["mount"], received["method"]) == ("/pub/admin/secret", "", "GET"), (
                    lines
                )


@LONG
@pytest.mark.soak
@pytest.mark.parametrize("name", QUICK)
@pytest.mark.parametrize("proxy", PROXIES)
def test_behind_each_proxy_every_app_server_serves_what_was_decided(tmp_path: Path, proxy: str, name: str) -> None:
    server = AppProcess(name, tmp_path / "server", {"AKOYA_TEST_EXEMPT": "/pub/*"})
    access = [*rules(), {"path": "/accounts", "require": "any"}]
    try:
        env = ProxiedEnv(tmp_path / "env", proxy, algorithm="hmac-sha256", changes={"access": access}, upstream=server)
    except ProxyMissing as missing:
        pytest.skip(str(missing))
    (tmp_path / "env").mkdir(exist_ok=True)
    with env, env.browser() as browser:
        browser.connect()
        require_unmoved(env.port, "", cookies(browser))
