"""Which requests are admitted, and which responses the others get."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from tests.support.environment import Browser, GatewayEnv


def test_navigation_is_sent_to_connect_and_comes_back_to_the_page(browser: Browser) -> None:
    response = browser.go("/mikomo?x=1")
    assert (response.status_code, response.headers["location"]) == (
        302,
        "/akoya/connect/mikomo?return_to=/mikomo%3Fx%3D1",
    )


def test_with_several_banks_to_choose_from_it_is_sent_to_the_connections_page(browser: Browser) -> None:
    response = browser.go("/accounts")
    assert (response.status_code, response.headers["location"]) == (302, "/akoya/?return_to=/accounts")
    page = browser.go(response.headers["location"])
    assert "/akoya/connect/mikomo?return_to=/accounts" in page.text


def test_anything_else_gets_a_problem_with_the_connect_url(env: GatewayEnv, browser: Browser) -> None:
    response = browser.fetch("/mikomo")
    assert response.status_code == 401
    assert response.headers["content-type"] == "application/problem+json"
    problem = response.json()
    assert problem["connect_url"] == f"{env.url}/akoya/connect/mikomo?return_to=/mikomo"
    assert problem["status"] == 401
    assert problem["type"].endswith("not-connected")
    assert problem["request_id"]


def test_post_is_never_redirected_to_a_login(browser: Browser) -> None:
    response = browser.http.post("/accounts", headers=browser.NAVIGATION)
    assert response.status_code == 401


def test_public_paths_need_nothing_and_get_no_token(env: GatewayEnv, browser: Browser) -> None:
    browser.connect()
    for path in ("/", "/public/a/b"):
        headers = dict(browser.fetch(path).json()["headers"])
        assert not [name for name in headers if name.startswith(("akoya", "signature"))]


def test_path_without_a_rule_is_refused(browser: Browser) -> None:
    browser.connect()
    assert browser.fetch("/nowhere").status_code == 403
    assert browser.fetch("/api/banks/mikomo/x", "DELETE").status_code == 403


def test_unknown_bank_is_not_found(browser: Browser) -> None:
    browser.connect()
    assert browser.fetch("/api/banks/nobody/x").status_code == 404
    assert browser.go("/akoya/connect/nobody").status_code == 404


def test_otherwise_forbidden_returns_403_and_pass_passes(browser: Browser) -> None:
    assert browser.fetch("/closed").status_code == 403
    without = browser.fetch("/optional")
    assert without.status_code == 200
    assert not [n for n, _ in without.json()["headers"] if n.startswith("akoya")]
    browser.connect()
    assert browser.passed("/optional")["akoya-connector"] == "mikomo"


def test_session_of_one_user_gives_no_access_to_anothers_banks(env: GatewayEnv, browser: Browser) -> None:
    browser.connect(user="mikomo_1")
    with env.browser() as second:
        assert second.fetch("/accounts").status_code == 401
        second.connect(user="mikomo_4")
        assert second.passed()["akoya-owner"] != browser.passed()["akoya-owner"]
        assert second.passed()["akoya-id-token"] != browser.passed()["akoya-id-token"]


@pytest.mark.parametrize(
    "target",
    ["/public/../accounts", "/public/%2e%2e/accounts", "/public/..%2faccounts", "/public//accounts", "/public/..;/accounts",
     "/public\\..\\accounts", "/public%5c..%5caccounts", "/public/%00", "/public/%c0%ae%c0%ae/accounts", "/%2561ccounts", "*"],
)  # fmt: skip
def test_ambiguous_path_never_reaches_the_upstream(env: GatewayEnv, target: str) -> None:
    assert status_of(env, f"GET {target} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n") in (400, 403, 404)


def test_absolute_target_is_matched_by_its_path(env: GatewayEnv) -> None:
    request = f"GET {env.url}/accounts HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n"
    assert status_of(env, request) == 401


@pytest.mark.parametrize("host", ["", "a b", "a,b", "a/b", "user@a", "a\x7f"])
def test_invalid_host_is_refused(env: GatewayEnv, browser: Browser, host: str) -> None:
    browser.connect()
    cookies = "; ".join(f"{n}={v}" for n, v in browser.http.cookies.items())
    request = f"GET /accounts HTTP/1.1\r\nHost: {host}\r\nCookie: {cookies}\r\nConnection: close\r\n\r\n"
    assert status_of(env, request) == 400


def test_return_to_outside_the_list_is_refused_before_anything_starts(browser: Browser) -> None:
    for target in ("https://evil.example/", "//evil.example", "/\\evil.example", "/nowhere", "/akoya/logout"):
        response = browser.go("/akoya/connect/mikomo", params={"return_to": target})
        assert response.status_code == 400
        assert "evil" not in response.headers.get("location", "")


def test_parameter_that_occurs_twice_is_refused(browser: Browser) -> None:
    response = browser.fetch("/akoya/connect/mikomo?return_to=/accounts&return_to=/both")
    assert (response.status_code, response.json()["type"]) == (400, "urn:akoya-gateway:problem:duplicate-parameter")


def test_form_of_another_media_type_is_refused(browser: Browser) -> None:
    """A JSON body is not one of the gateway's forms, so a script on another site could send it."""
    browser.connect()
    csrf = browser.connections()["csrf"]
    for path in ("/akoya/logout", "/akoya/disconnect/mikomo"):
        response = browser.fetch(path, "POST", json={"csrf": csrf})
        assert (response.status_code, response.json()["type"]) == (415, "urn:akoya-gateway:problem:wrong-form")
    assert browser.fetch("/accounts").status_code == 200


def test_return_to_never_names_a_gateway_route_even_if_every_path_is_allowed(tmp_path: Path) -> None:
    with (
        GatewayEnv(tmp_path, entrypoint="middleware", changes={"redirects": {"allow": ["/*"]}}) as env,
        env.browser() as browser,
    ):
        for target in ("/akoya/connect/mikomo", "/akoya/logout", "/akoya/callback?code=x"):
            assert browser.go("/akoya/connect/mikomo", params={"return_to": target}).status_code == 400
        assert browser.connect(return_to="/akoya/").headers["location"] == "/akoya/"


def test_without_a_session_there_is_nothing_to_disconnect(browser: Browser) -> None:
    response = browser.fetch("/akoya/disconnect/mikomo", "POST", data={"csrf": "x"})
    assert (response.status_code, response.json()["type"].rpartition(":")[2]) == (401, "no-session")


@pytest.mark.parametrize(
    "name", ["Akoya-Owner", "akoya_owner", "AKOYA.OWNER", "Akoya-Id-Token", "Akoya_Connector", "Akoya-New"]
)
def test_gateway_headers_of_a_client_are_removed(env: GatewayEnv, browser: Browser, name: str) -> None:
    browser.connect()
    for path in ("/accounts", "/public/x", "/optional"):
        seen = browser.fetch(path, headers={name: "spoofed"}).json()["headers"]
        assert "spoofed" not in [value for _, value in seen]


def test_signature_of_a_client_is_passed_and_one_with_the_gateways_label_is_removed(browser: Browser) -> None:
    browser.connect()
    headers = {
        "Signature-Input": 'mine=("@method");created=1, akoya=("@path")',
        "Signature": "mine=:YQ==:, akoya=:YQ==:",
    }
    seen = browser.fetch("/accounts", headers=headers).json()
    text = " ".join(value for name, value in seen["headers"] if name.startswith("signature"))
    assert 'mine=("@method")' in text
    assert text.count("akoya=(") == 1
    assert 'akoya=("@path")' not in text


def test_gateway_headers_named_in_connection_are_not_dropped(browser: Browser) -> None:
    browser.connect()
    seen = browser.fetch("/accounts", headers={"Connection": "Akoya-Id-Token, Akoya-Owner, close"}).json()
    names = {name for name, _ in seen["headers"]}
    assert {"akoya-id-token", "akoya-owner"} <= names


def test_gateway_pages_cannot_be_framed_scripted_or_cached(browser: Browser) -> None:
    browser.connect()
    response = browser.go("/akoya/")
    policy = response.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy
    assert response.headers["cache-control"] == "no-store"
    assert response.headers["referrer-policy"] == "same-origin"
    assert response.headers["x-content-type-options"] == "nosniff"
    assert "<script" not in response.text


def test_admin_routes_are_not_on_the_public_port(env: GatewayEnv, browser: Browser) -> None:
    for path in ("/metrics", "/livez", "/readyz", "/akoya/metrics"):
        assert browser.fetch(path).status_code in (403, 404)


def status_of(env: GatewayEnv, request: str) -> int:
    with socket.create_connection(("127.0.0.1", env.port), 60) as raw:
        raw.sendall(request.encode("latin-1"))
        response = raw.recv(65536)
    return int(response.split(b" ", 2)[1])


@pytest.mark.parametrize(
    "name", ["X-HTTP-Method-Override", "x_http_method_override", "X-Method-Override", "X-HTTP-Method"]
)
def test_rule_for_get_is_not_passed_by_an_override(browser: Browser, name: str) -> None:
    browser.connect()
    assert browser.fetch("/api/banks/mikomo/x").status_code == 200
    assert browser.fetch("/api/banks/mikomo/x", headers={name: "DELETE"}).status_code == 400
    assert browser.fetch("/accounts", headers={name: "DELETE"}).status_code == 200, (
        "no rule of that path names a method"
    )


@pytest.mark.parametrize(
    "name", ["X-HTTP-Method-Override", "x_http_method_override", "X.HTTP.Method", "X-Method_Override"]
)
def test_request_with_another_method_does_not_disclose_the_rules_method(browser: Browser, name: str) -> None:
    assert browser.fetch("/public/admin").status_code == 401
    assert browser.fetch("/public/admin", "POST").status_code == 200, "only GET needs a connection"
    assert browser.fetch("/public/admin", "POST", headers={name: "GET"}).status_code == 400
    assert browser.fetch("/public/x", "POST", headers={name: "GET"}).status_code == 200


@pytest.mark.parametrize(
    "purpose",
    [
        {"sec-purpose": "prefetch"},
        {"sec-purpose": "prefetch;prerender"},
        {"purpose": "prefetch"},
        {"x-moz": "prefetch"},
    ],
)
def test_page_loaded_ahead_of_time_begins_no_attempt(browser: Browser, purpose: dict[str, str]) -> None:
    headers = {**browser.NAVIGATION, **purpose}
    begun = browser.http.get("/akoya/connect/mikomo", headers=headers)
    assert begun.status_code == 403
    assert "set-cookie" not in begun.headers
    assert browser.http.get("/accounts", headers=headers).status_code == 401


def test_cookie_of_another_app_with_the_gateways_name_gets_a_page_and_no_redirect_loop(
    env: GatewayEnv, browser: Browser
) -> None:
    """The other cookie has a narrower path, so the connect route and the callback receive only the gateway's cookie."""
    browser.connect()
    assert browser.fetch("/accounts").status_code == 200
    name = f"akoya-{env.port}"
    ours = browser.http.cookies[name]
    for other in ("of-another-app", "A" * 43):
        response = browser.http.get(
            "/accounts", headers={**browser.NAVIGATION, "cookie": f"{name}={other}; {name}={ours}"}
        )
        assert response.status_code == 400
        assert "Delete the cookies for this site in your browser" in response.text
    problem = browser.fetch("/accounts", headers={"cookie": f"{name}=x; {name}={ours}"})
    assert (problem.status_code, problem.json()["type"]) == (400, "urn:akoya-gateway:problem:cookie-twice")
    twice = {"cookie": f"{name}-browser=x; {name}-browser=y"}
    assert browser.http.get("/akoya/connect/mikomo", headers={**browser.NAVIGATION, **twice}).status_code == 400
    if env.entrypoint == "sidecar":
        assert env.log().count("duplicate cookie received") == 1
    public = browser.http.get("/public/x", headers={"cookie": f"{name}=x; {name}={ours}"})
    assert public.status_code == 200, "needs no session"


def test_cookie_of_a_gateway_on_another_port_is_left_alone(env: GatewayEnv, browser: Browser) -> None:
    browser.connect()
    ours = "; ".join(f"{name}={value}" for name, value in browser.http.cookies.items())
    response = browser.fetch("/accounts", headers={"cookie": f"akoya=of-another-app; akoya-1={'B' * 43}; {ours}"})
    assert response.status_code == 200
    assert ("cookie", f"akoya=of-another-app; akoya-1={'B' * 43}") in [
        tuple(pair) for pair in response.json()["headers"]
    ]
