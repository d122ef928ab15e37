"""Each real proxy with its file from deploy/: the gateway's guarantees also hold behind the proxy."""

from __future__ import annotations

import asyncio
import json
import re

import pytest
import websockets

from tests.support.environment import Browser
from tests.support.forward_auth import ProxiedEnv, cookies, get, raw

OURS = ("akoya", "signature")


def test_user_connects_a_bank_and_the_app_gets_a_signed_token(env: ProxiedEnv, browser: Browser) -> None:
    refused = browser.go("/mikomo?tab=2")
    assert (refused.status_code, refused.headers["location"]) == (
        302,
        "/akoya/connect/mikomo?return_to=/mikomo%3Ftab%3D2",
    )
    landed = browser.connect(return_to="/mikomo?tab=2")
    assert (landed.status_code, landed.headers["location"]) == (302, "/mikomo?tab=2")
    seen = browser.go("/mikomo?tab=2").json()
    headers = dict(seen["headers"])
    assert (seen["method"], seen["path"], seen["query"]) == ("GET", "/mikomo", "tab=2")
    assert headers["akoya-connector"] == "mikomo"
    assert headers["akoya-connections"].startswith("mikomo=live")
    assert headers["host"] == f"127.0.0.1:{env.port}"
    assert seen["signature"].startswith("valid: @authority @method @path @query @signature-params akoya-connections")
    assert browser.connections()["connections"][0]["connector"] == "mikomo"


def test_signature_covers_the_original_method_and_a_body_goes_through(member: Browser) -> None:
    seen = member.fetch(
        "/accounts/new?x=%20y", "POST", content=b"a body", headers={"content-type": "text/plain"}
    ).json()
    assert (seen["method"], seen["path"], seen["query"], seen["body"]) == ("POST", "/accounts/new", "x=%20y", "a body")
    assert seen["signature"].startswith("valid: ")


def test_program_gets_a_problem_with_the_connect_url(env: ProxiedEnv, browser: Browser) -> None:
    response = browser.fetch("/mikomo")
    assert response.status_code == 401
    assert response.headers["content-type"] == "application/problem+json"
    assert response.json()["connect_url"] == f"{env.url}/akoya/connect/mikomo?return_to=/mikomo"
    post = browser.fetch("/accounts", "POST", content=b"x")
    assert (post.status_code, post.json()["status"]) == (401, 401)
    assert browser.http.head("/mikomo").status_code == 401


def test_path_that_no_rule_allows_is_forbidden(member: Browser) -> None:
    assert member.fetch("/nowhere").json()["status"] == 403
    assert member.go("/nowhere").status_code == 403
    assert member.fetch("/api/banks/mikomo/x", "DELETE").status_code == 403


SPELLINGS = (
    "Akoya-Owner", "akoya-id-token", "AKOYA-CONNECTOR", "Akoya_Owner", "akoya_id_token", "Akoya.Owner", "Akoya-Assertion",
    "Signature", "Signature-Input", "Signature_Input", "Akoya-Connections",
)  # fmt: skip


@pytest.mark.parametrize("path", ["/accounts", "/public/x", "/optional"])
def test_gateway_headers_of_a_client_are_removed(env: ProxiedEnv, member: Browser, path: str) -> None:
    for name in SPELLINGS:
        status, seen = get(env.port, path, f"Cookie: {cookies(member)}", f"{name}: spoofed", f"{name}: again")
        assert status == 200, name
        spoofed = ("spoofed", "again", "spoofed,again", "spoofed, again")
        assert not [pair for pair in seen["headers"] if pair[1] in spoofed], name
        ours = [key for key, _ in seen["headers"] if key.startswith(OURS)]
        assert len(ours) == len(set(ours)), f"each gateway header occurs once, with {name}"
        if path == "/public/x":
            assert not ours, name
        else:
            assert seen["signature"].startswith("valid: "), name


def test_context_headers_reach_the_app_and_cannot_be_injected(env: ProxiedEnv, member: Browser) -> None:
    names = ["provider", "grant", "consent", "interaction-type", "last-access", "id-tokens"]
    spoofed = [f"Akoya-{name.title()}: spoofed" for name in names]
    _, seen = get(env.port, "/accounts", f"Cookie: {cookies(member)}", *spoofed)
    headers = dict(seen["headers"])
    assert seen["signature"].startswith("valid: ")
    assert headers["akoya-provider"] == "mikomo"
    assert headers["akoya-interaction-type"] == "user"
    assert f'id="{headers["akoya-grant"]}"' in headers["akoya-connections"]
    assert headers["akoya-consent"]
    assert headers["akoya-last-access"].startswith("20")
    for target in ("/accounts", "/public/x", "/optional"):
        _, seen = get(env.port, target, f"Cookie: {cookies(member)}", *spoofed)
        assert "spoofed" not in json.dumps(seen["headers"])


def test_unknown_headers_with_the_gateway_prefix_are_removed(env: ProxiedEnv) -> None:
    status, seen = get(env.port, "/public/x", "Akoya-New: spoofed")
    assert status == 403 or "spoofed" not in json.dumps(seen["headers"])


def test_app_gets_no_gateway_headers_without_a_grant(env: ProxiedEnv) -> None:
    status, seen = get(env.port, "/optional", "Cookie: theirs=kept")
    assert status == 200
    assert not [name for name, _ in seen["headers"] if name.startswith(OURS)]
    assert dict(seen["headers"])["cookie"] == "theirs=kept"


def test_request_without_cookies_has_none_at_the_app(env: ProxiedEnv) -> None:
    status, seen = get(env.port, "/public/x")
    assert status == 200
    assert "cookie" not in dict(seen["headers"])


def test_gateway_headers_named_in_connection_are_not_dropped(env: ProxiedEnv, member: Browser) -> None:
    head = f"GET /accounts HTTP/1.1\r\nHost: 127.0.0.1:{env.port}\r\nConnection: close, Akoya-Owner, Akoya-Id-Token\r\n"
    status, body = raw(env.port, f"{head}Cookie: {cookies(member)}\r\n\r\n")
    assert status == 200
    seen = json.loads(body)
    assert {"akoya-owner", "akoya-id-token"} <= {name for name, _ in seen["headers"]}
    assert seen["signature"].startswith("valid: ")


def test_session_cookie_stays_at_the_gateway(env: ProxiedEnv, member: Browser) -> None:
    member.http.cookies.set("theirs", "kept", domain="127.0.0.1")
    for path in ("/accounts", "/public/x"):
        assert dict(member.fetch(path).json()["headers"])["cookie"] == "theirs=kept"


def test_token_the_app_echoes_does_not_reach_the_browser(member: Browser) -> None:
    response = member.fetch("/accounts/echo")
    assert response.status_code == 200
    assert not [name for name in response.headers if name.startswith("akoya")]


def test_app_cannot_send_a_client_to_the_gateways_response_with_the_token(member: Browser) -> None:
    response = member.fetch("/accounts/redirect")
    assert response.status_code in (200, 404)
    names = {name for name in response.headers if name.startswith(("akoya", "signature", "cookie"))}
    assert names == set()


PATHS = [
    "/public/../accounts", "/public/%2e%2e/accounts", "/public/..%2faccounts", "/public/..%2Faccounts", "/public//accounts",
    "//accounts", "/public/..;/accounts", "/public;x/accounts", "/public\\..\\accounts", "/public%5c..%5caccounts",
    "/public/%00", "/public/%c0%ae%c0%ae/accounts", "/%2561ccounts", "/public/./x", "/public/%2e/x", "/accounts%23",
    "/accounts#x", "/public/%3f/../../accounts", "/akoya/../accounts", "/akoya/%2e%2e/accounts", "/akoya/..%2faccounts",
    "/akoya//../accounts", "/accounts/%zz", "/accounts/%", "/accounts/..",
]  # fmt: skip


def test_ambiguous_path_never_reaches_the_app(env: ProxiedEnv, member: Browser) -> None:
    for target in PATHS:
        status, seen = get(env.port, target, f"Cookie: {cookies(member)}")
        assert status in (400, 403, 404, 301, 308), (target, seen)
        assert "headers" not in (seen if isinstance(seen, dict) else {}), target


@pytest.mark.parametrize(
    "target", ["/public/a%20b", "/public/%C3%A4?x=%2F..%2f&y=//", "/public/a+b:@,=~!$&'()*", "/public/a%2Db", "/public/x?", "/public/x/"]
)  # fmt: skip
def test_app_receives_the_path_that_was_matched(env: ProxiedEnv, target: str) -> None:
    status, seen = get(env.port, target)
    assert status == 200
    if env.proxy.name == "traefik":
        # Traefik decodes unreserved characters before its check, so the gateway authorizes what the app receives.
        target = target.replace("%2D", "-")
    assert seen["path"] + ("?" + seen["query"] if seen["query"] else "") == target.removesuffix("?")


def test_signed_path_is_the_path_that_the_app_sees(env: ProxiedEnv, member: Browser) -> None:
    status, seen = get(env.port, "/accounts/a%2Db%7E/%C3%A4%41?x=%2D%2f", f"Cookie: {cookies(member)}")
    assert status == 200
    assert seen["signature"].startswith("valid: ")


QUESTIONS = (
    "/akoya/forward-auth", "/akoya/forward-auth/accounts", "/akoya/%66orward-auth/accounts",
    "/akoya/x/../forward-auth/accounts", "/akoya//forward-auth/accounts", "/akoya/forward%2Dauth", "/akoya/forward-auth/refusal",
)  # fmt: skip


def test_forward_auth_request_of_a_client_is_refused(env: ProxiedEnv, member: Browser) -> None:
    for target in QUESTIONS:
        for extra in (
            [],
            ["X-Original-URI: /accounts", "X-Original-Method: GET"],
            ["X-Forwarded-Uri: /accounts", "X-Forwarded-Method: GET"],
        ):
            response = member.http.get(target, headers=dict(line.split(": ") for line in extra))
            assert response.status_code != 200, (target, extra)
            assert not [name for name in response.headers if name.startswith("akoya")], (target, extra)
            assert get(env.port, target, f"Cookie: {cookies(member)}", *extra)[0] not in (200, 0), (target, extra)


DESCRIPTIONS = (
    ["X-Original-URI: /public/x"], ["X-Original-URI: /public/x", "X-Original-Method: GET"], ["X-Forwarded-Uri: /public/x"],
    ["X-Forwarded-Uri: /public/x", "X-Forwarded-Method: GET"], ["X-Forwarded-Method: HEAD"], ["X_Forwarded_Uri: /public/x"],
    ["X-Akoya-Answer: client"],
)  # fmt: skip


def test_client_cannot_describe_another_request(env: ProxiedEnv) -> None:
    for lines in DESCRIPTIONS:
        status, seen = get(env.port, "/accounts", *lines)
        assert status in (400, 401, 403), (lines, seen)


BELIEVED = (
    "Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Port", "X-Forwarded-Prefix", "X-Forwarded-Proto", "X-Forwarded-Server",
    "X-Forwarded-Scheme", "X-Forwarded-Ssl", "X-Forwarded-Uri", "X-Forwarded-Method", "X-Real-IP", "X-Original-Host", "X-Original-URL",
    "X-Rewrite-URL",
)  # fmt: skip


def test_what_an_app_may_believe_of_a_proxy_does_not_come_from_the_client(env: ProxiedEnv) -> None:
    """With `X-Original-URL: /admin` some frameworks serve another path than the authorized one (CVE-2018-14773)."""
    for name in (*BELIEVED, *(name.replace("-", "_") for name in BELIEVED if "-" in name)):
        status, seen = get(env.port, "/public/x", f"{name}: 6.6.6.6")
        assert status == 200, (name, seen)
        assert "6.6.6.6" not in str(seen["headers"]), name


def test_trace_request_never_reaches_the_app(env: ProxiedEnv, member: Browser) -> None:
    status, seen = get(env.port, "/accounts", f"Cookie: {cookies(member)}", method="TRACE")
    assert status in (403, 405), seen
    assert "akoya-id-token" not in str(seen)


@pytest.mark.parametrize("host", ["evil.example", "EVIL.example:80"])
def test_forwarded_host_of_the_clients_is_not_what_is_signed(env: ProxiedEnv, member: Browser, host: str) -> None:
    status, seen = get(env.port, "/accounts", f"Cookie: {cookies(member)}", f"X-Forwarded-Host: {host}")
    assert status == 200
    assert seen["signature"].startswith("valid: ")


def test_websocket_opens_with_gateway_headers_and_echoes(env: ProxiedEnv, member: Browser) -> None:

    async def talk() -> tuple[list[str], str]:
        headers = {"Cookie": cookies(member), "Origin": env.url}
        async with websockets.connect(
            f"ws://127.0.0.1:{env.port}/accounts/ws", additional_headers=headers, proxy=None
        ) as ws:
            names = json.loads(await ws.recv())
            await ws.send("hello")
            return names, str(await ws.recv())

    names, echoed = asyncio.run(talk())
    assert {"akoya-id-token", "akoya-owner", "signature", "signature-input"} <= set(names)
    assert echoed == "hello"


@pytest.mark.parametrize("origin", ["https://evil.example", "null", None])
def test_websocket_of_another_site_or_without_a_session_is_refused(
    env: ProxiedEnv, member: Browser, origin: str | None
) -> None:
    headers = {"Cookie": cookies(member), "Origin": origin} if origin else {}

    async def status() -> int:
        try:
            async with websockets.connect(
                f"ws://127.0.0.1:{env.port}/accounts/ws", additional_headers=headers, proxy=None
            ):
                return 101
        except websockets.InvalidStatus as refusal:
            return refusal.response.status_code

    assert asyncio.run(status()) == (403 if origin else 401)


def test_other_upgrades_are_not_passed_on(env: ProxiedEnv) -> None:
    head = f"GET /public/x HTTP/1.1\r\nHost: 127.0.0.1:{env.port}\r\nConnection: Upgrade, HTTP2-Settings, close\r\n"
    settings = "HTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n\r\n"
    for upgrade in (
        "h2c",
        "websocket, h2c",
        "h2c, websocket",
        "websocket\r\nUpgrade: h2c",
        "h2c\r\nUpgrade: websocket",
        "foo",
        "TLS/1.0, HTTP/1.1",
        "connect-udp",
        "websocket/13",
    ):
        status, body = raw(env.port, f"{head}Upgrade: {upgrade}\r\n{settings}")
        # Envoy treats `connect-udp` as a CONNECT request, which has no route.
        assert status in (200, 400, 401, 403, 404, 426, 501), upgrade
        if status == 200:
            passed = [value for name, value in json.loads(body)["headers"] if name == "upgrade"]
            assert set(passed) <= {"websocket"}, upgrade


@pytest.mark.parametrize("path", ["/accounts", "/public/x"])
def test_request_id_of_the_gateway_reaches_the_app_and_the_client(env: ProxiedEnv, member: Browser, path: str) -> None:
    seen = set()
    for _ in range(2):
        response = member.fetch(path, headers={"x-request-id": "chosen-by-the-client"})
        assert response.status_code == 200
        [request_id] = [value for name, value in response.json()["headers"] if name == "x-request-id"]
        assert re.fullmatch(r"[0-9a-f]{16}", request_id)
        # Traefik cannot add a header of the request to the response.
        assert response.headers.get_list("x-request-id") == ([] if env.kind == "traefik" else [request_id])
        seen.add(request_id)
    assert len(seen) == 2
