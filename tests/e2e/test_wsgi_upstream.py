"""A plain WSGI app behind the gateway: its server folds `-` and `_`, and it verifies with a third-party library."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

import pytest

from tests.support.environment import HMAC_SECRET, Browser, GatewayEnv
from tests.support.shutdown import done
from tests.support.upstream_apps import wsgi_app


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True


class _Quiet(WSGIRequestHandler):
    def log_message(self, *values: Any) -> None:
        pass


class WsgiUpstream:
    """The standard library's WSGI server in a thread."""

    def __init__(self, app: Any) -> None:
        self._server = make_server("127.0.0.1", 0, app, server_class=_Server, handler_class=_Quiet)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    def __enter__(self) -> WsgiUpstream:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        done(self._server.shutdown, "the WSGI server has stopped")
        self._server.server_close()


@pytest.fixture(scope="module")
def env(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayEnv]:
    upstream = WsgiUpstream(wsgi_app(HMAC_SECRET.encode()))
    with GatewayEnv(tmp_path_factory.mktemp("env"), algorithm="hmac-sha256", upstream=upstream) as env:
        yield env


@pytest.fixture
def browser(env: GatewayEnv) -> Iterator[Browser]:
    with env.browser() as browser:
        yield browser


def test_app_gets_the_token_and_a_signature_that_another_library_accepts(browser: Browser) -> None:
    browser.connect()
    seen = browser.fetch("/accounts?tab=2").json()
    headers = dict(seen["headers"])
    assert headers["akoya-connector"] == "mikomo"
    assert headers["akoya-id-token"].count(".") == 2
    assert seen["signature"].startswith("valid: @authority @method @path @query")


@pytest.mark.parametrize("name", ["Akoya-Owner", "Akoya_Owner", "AKOYA_OWNER", "akoya_id_token", "Signature_Input"])
def test_no_spelling_of_a_client_header_is_folded_into_a_gateway_header(browser: Browser, name: str) -> None:
    browser.connect()
    ours = {n: v for n, v in browser.fetch("/accounts").json()["headers"] if n == "akoya-owner"}
    seen = browser.fetch("/accounts", headers={name: "forged"}).json()
    headers = dict(seen["headers"])
    assert headers["akoya-owner"] == ours["akoya-owner"]
    assert not [value for value in headers.values() if "forged" in value]
    assert seen["signature"].startswith("valid: ")


def test_forged_headers_are_removed_from_public_paths(browser: Browser) -> None:
    seen = browser.fetch("/public/page", headers={"Akoya_Owner": "forged", "Signature": "akoya=:AAAA:"}).json()
    assert not [name for name, _ in seen["headers"] if name.startswith(("akoya", "signature"))]
