"""Tests that forward-auth in the fast lane responds as the ASGI path does, and only while the result is valid."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.fast_lane.exchanges import settled
from tests.support.environment import Browser, GatewayEnv
from tests.support.ports import free_port
from tests.support.processes import GatewayProcess
from tests.support.raw_http import Client, Response

ROUTE = b"/akoya/forward-auth"
NGINX = b"X-Original-Method: GET\r\nX-Original-URI: /accounts?x=1\r\n"
TRAEFIK = b"X-Forwarded-Method: GET\r\nX-Forwarded-Uri: /accounts\r\nX-Forwarded-Host: app.example\r\n"
PUBLIC = b"X-Forwarded-Method: GET\r\nX-Forwarded-Uri: /public/x\r\n"


def question(lines: bytes, cookies: bytes, below: bytes = b"", method: bytes = b"GET") -> bytes:
    return method + b" " + ROUTE + below + b" HTTP/1.1\r\nHost: app.example\r\n" + lines + cookies + b"\r\n"


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[GatewayEnv, GatewayProcess]]:
    changes = {"trusted_proxies": ["127.0.0.1/32"], "forward_auth": True}
    with GatewayEnv(tmp_path_factory.mktemp("env"), changes=changes, algorithm="hmac-sha256") as env:
        config = {**env.config(), "listen": f"127.0.0.1:{free_port()}", "admin": None}
        folder = tmp_path_factory.mktemp("plain")
        with GatewayProcess(folder, config, env.environ, "--no-fast-lane") as plain:
            yield env, plain


@pytest.fixture
def browser(both: tuple[GatewayEnv, GatewayProcess]) -> Iterator[Browser]:
    with Browser(both[0]) as browser:
        browser.connect()
        yield browser


QUESTIONS = {
    "nginx": (NGINX, b"", b"GET"),
    "traefik": (TRAEFIK, b"", b"GET"),
    "envoy": (b"", b"/accounts?x=1", b"GET"),
    "envoy asks for HEAD": (b"", b"/accounts", b"HEAD"),
    "envoy asks for a body": (b"Content-Length: 2\r\n", b"/accounts", b"POST"),
    "public": (PUBLIC, b"", b"GET"),
    "another cookie": (TRAEFIK + b"Cookie: theirs=1\r\n", b"", b"GET"),
    "a header of ours": (TRAEFIK + b"Akoya-Owner: me\r\n", b"", b"GET"),
    "an alias of ours": (TRAEFIK + b"Akoya_Owner: me\r\n", b"", b"GET"),
    "an alias through nginx": (NGINX + b"Akoya_Owner: me\r\n", b"", b"GET"),
    "a mount point through nginx": (NGINX + b"Any-Script-Name: /x\r\n", b"", b"GET"),
    "an unlisted forwarded header through nginx": (NGINX + b"X-Forwarded-Anything: x\r\n", b"", b"GET"),
    "a remote user through nginx": (NGINX + b"Any-Remote-User: x\r\n", b"", b"GET"),
    "an alias of a moving header through nginx": (NGINX + b"Any.Script.Name: x\r\n", b"", b"GET"),
    "a name of a hosting service through nginx": (NGINX + b"Cf-Ray: x\r\nX-Amzn-Any: x\r\n", b"", b"GET"),
    "what nginx sends": (
        NGINX + b"X-Forwarded-For: 1.2.3.4\r\nX-Forwarded-Proto: https\r\nX-Real-IP: 1.2.3.4\r\n",
        b"",
        b"GET",
    ),
    "an override": (TRAEFIK + b"X-HTTP-Method-Override: DELETE\r\n", b"", b"GET"),
    "two ways": (TRAEFIK + NGINX, b"", b"GET"),
    "no way": (b"", b"", b"GET"),
    "no rule": (b"X-Forwarded-Method: GET\r\nX-Forwarded-Uri: /nowhere\r\n", b"", b"GET"),
    "our own route": (b"X-Forwarded-Method: GET\r\nX-Forwarded-Uri: /akoya/\r\n", b"", b"GET"),
    "a dot segment": (b"X-Forwarded-Method: GET\r\nX-Forwarded-Uri: /public/../accounts\r\n", b"", b"GET"),
    "for the client": (NGINX + b"X-Akoya-Answer: client\r\n", b"", b"GET"),
    "a socket": (TRAEFIK + b"Upgrade: websocket\r\nOrigin: https://evil.example\r\n", b"", b"GET"),
}


@pytest.mark.parametrize("name", QUESTIONS)
@pytest.mark.parametrize("known", [True, False], ids=["session", "no session"])
def test_both_paths_respond_alike_for_any_number_of_requests(
    both: tuple[GatewayEnv, GatewayProcess], browser: Browser, name: str, known: bool
) -> None:
    env, plain = both
    lines, below, method = QUESTIONS[name]
    body = b"ok" if method == b"POST" else b""
    content = question(lines, browser.cookie_header() if known else b"", below, method) + body
    seen = []
    for port in (plain.port, env.port):
        responses = []
        for _ in range(2):
            with Client(port) as client:
                # The decision about this session is cached before anything is refused.
                client.request(question(NGINX, browser.cookie_header()))
                for _ in range(3):
                    client.send(content)
                    response = Response(0, [], client.head()) if method == b"HEAD" else client.response()
                    responses.append((settled(response.head), settled(response.body)))
        seen.append(responses)
    assert seen[0] == seen[1]


ADDED = [
    b"X-Own: 1", b"X_Own: 2", b"Connection: keep-alive", b"Connection: Akoya-Owner", b"Connection: Cookie, X-Own", b"AKOYA_ID_TOKEN: evil",
    b"Akoya.Owner: evil", b"Signature: x=:YQ==:", b"Signature-Input: x=()", b"Signature_Input: x", b"Content-Digest: x", b"X-Method-Override: GET",
    b"X.Http-Method: PUT", b"X-Original-URL: /any", b"SCRIPT_NAME: /p", b"Daphne-Root-Path: /p", b"X-Forwarded-For: 1.2.3.4", b"X-Forwarded-Host: evil",
    b"Forwarded: for=1.2.3.4", b"TE: trailers", b"Expect: 100-continue", b"Content-Length: 0", b"Origin: http://evil.example", b"X-Request-Id: abc",
    b"X-Empty:", b"X-High: \xe9", b"Host: other", b"Upgrade: websocket", b"X-Akoya-Answer: x", b"X-Original-URI: /public/x", b"X-Original-Method: POST",
    b"X-Forwarded-Uri: /public/x", b"X-Forwarded-Method: POST", b"X-Forwarded-Anything: x", b"Remote-User: x", b"Oidc-Any: x", b"X-B3-TraceId: 1",
    b"Authorization: Bearer x", b"Cookie: theirs=1", b"Cf-Any: 1", b"X-Envoy-External-Address: 1.2.3.4", b"$WSRU: root", b"X~Script~Name: /x",
]  # fmt: skip


@pytest.mark.parametrize("way", [NGINX, TRAEFIK, b""], ids=["nginx", "traefik", "envoy"])
def test_any_header_added_to_an_allowed_check_has_the_same_effect_on_both_paths(
    both: tuple[GatewayEnv, GatewayProcess], browser: Browser, way: bytes
) -> None:
    env, plain = both
    allowed = question(way, browser.cookie_header(), b"" if way else b"/accounts")
    for port in (plain.port, env.port):
        with Client(port) as client:
            assert [client.request(allowed).status for _ in range(2)] == [200, 200]
    for line in ADDED:
        changed = allowed[:-2] + line + b"\r\n\r\n"
        seen = []
        for port in (plain.port, env.port):
            with Client(port) as client:
                # The second time, the fast lane may have cached the check.
                responses = [client.request(content) for content in (changed, allowed, changed)]
                seen.append([(settled(response.head), settled(response.body)) for response in responses])
        assert seen[0] == seen[1], line


def test_logout_and_disconnect_end_a_cached_allow_decision_at_once(both: tuple[GatewayEnv, GatewayProcess]) -> None:
    env, _ = both
    for path in ("/akoya/disconnect/mikomo", "/akoya/logout"):
        with Browser(env) as browser, Client(env.port) as client:
            browser.connect()
            content = question(TRAEFIK, browser.cookie_header())
            for _ in range(4):
                assert client.request(content).status == 200
            csrf = browser.connections()["csrf"]
            assert browser.fetch(path, "POST", data={"csrf": csrf}).status_code in (200, 303)
            assert client.request(content).status == 401


def test_each_response_has_its_own_signature_and_request_id(
    both: tuple[GatewayEnv, GatewayProcess], browser: Browser
) -> None:
    env, _ = both
    content = question(TRAEFIK, browser.cookie_header())
    before = len(env.log().splitlines())
    with Client(env.port) as client:
        heads = [client.request(content).head for _ in range(5)]
    signatures = {line for head in heads for line in head.split(b"\r\n") if line.startswith(b"signature: ")}
    assert len(signatures) == 5
    # The log is written after the responses.
    deadline = time.monotonic() + 30
    requests: list[dict[str, Any]] = []
    while len(requests) < 5 and time.monotonic() < deadline:
        records = [json.loads(line) for line in env.log().split("\n")[before:-1] if line.startswith("{")]
        requests = [one for one in records if one.get("event") == "request" and one["path"] == "/accounts"]
    assert len({one["request_id"] for one in requests}) == len(requests) == 5
    assert {one["outcome"] for one in requests} == {"passed"}
