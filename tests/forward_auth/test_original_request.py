"""Which descriptions of a request are accepted, and from which peers: checks sent directly to the gateway."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.environment import Browser, GatewayEnv
from tests.support.forward_auth import cookies, get
from tests.support.proxies import DEPLOY
from tests.support.waiting import until

TRUSTING = {"trusted_proxies": ["127.0.0.1/32"], "forward_auth": True}


@pytest.fixture(scope="module")
def env(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayEnv]:
    with GatewayEnv(tmp_path_factory.mktemp("env"), changes=TRUSTING) as env:
        yield env


@pytest.fixture(scope="module")
def member(env: GatewayEnv) -> Iterator[Browser]:
    with env.browser() as browser:
        browser.connect()
        yield browser


def fetch(
    env: GatewayEnv, *lines: str, below: str = "", member: Browser | None = None, method: str = "GET"
) -> tuple[int, Any, dict[str, str]]:
    headers = [(name, value) for name, _, value in (line.partition(": ") for line in lines)]
    if member is not None:
        headers.append(("Cookie", cookies(member)))
    with env.browser() as browser:
        response = browser.http.request(method, "/akoya/forward-auth" + below, headers=headers)
    body = (
        response.json() if response.content and "json" in response.headers.get("content-type", "") else response.content
    )
    return response.status_code, body, dict(response.headers)


NGINX = ("X-Original-Method: GET", "X-Original-URI: /accounts?x=1")
TRAEFIK = ("X-Forwarded-Method: GET", "X-Forwarded-Uri: /accounts?x=1", "X-Forwarded-Host: app.example")


@pytest.mark.parametrize(("lines", "below"), [(NGINX, ""), (TRAEFIK, ""), ((), "/accounts?x=1")])
def test_untrusted_proxy_gets_no_decision(tmp_path: Path, lines: tuple[str, ...], below: str) -> None:
    with GatewayEnv(tmp_path, changes={"forward_auth": True}) as env, env.browser() as browser:
        browser.connect()
        status, body, headers = fetch(env, *lines, below=below, member=browser)
        assert (status, body["type"]) == (403, "urn:akoya-gateway:problem:untrusted-proxy")
        assert not [name for name in headers if name.startswith("akoya")]


@pytest.mark.parametrize(("lines", "below"), [(NGINX, ""), (TRAEFIK, ""), ((), "/accounts?x=1")])
def test_each_way_of_asking_gets_the_signed_headers(
    env: GatewayEnv, member: Browser, lines: tuple[str, ...], below: str
) -> None:
    status, body, headers = fetch(env, *lines, below=below, member=member)
    assert status == 200
    assert headers["akoya-connector"] == "mikomo"
    assert headers["signature-input"].startswith("akoya=(")
    assert body == b""
    assert headers["cache-control"] == "no-store"


@pytest.mark.parametrize(
    ("lines", "below"),
    [
        ((), ""),
        ((*NGINX, *TRAEFIK), ""),
        (NGINX, "/accounts"),
        (TRAEFIK, "/accounts"),
        (("X-Original-URI: /accounts",), ""),
        (("X-Forwarded-Uri: /accounts",), ""),
        (("X-Forwarded-Uri: /accounts", "X-Original-Method: GET"), ""),
        ((*NGINX, "X-Original-URI: /public/x"), ""),
        ((*NGINX, "X-Original-Method: POST"), ""),
        ((*TRAEFIK, "X-Forwarded-Uri: /public/x"), ""),
        ((*TRAEFIK, "X-Forwarded-Host: other.example"), ""),
        (("X-Original-Method: get", "X-Original-URI: /accounts"), ""),
        (("X-Original-Method: GET /x", "X-Original-URI: /accounts"), ""),
    ],
)
def test_description_that_is_missing_or_contradicts_itself_is_refused(
    env: GatewayEnv, member: Browser, lines: tuple[str, ...], below: str
) -> None:
    status, body, headers = fetch(env, *lines, below=below, member=member)
    assert status in (400, 403)
    assert body["type"] == "urn:akoya-gateway:problem:invalid-original-request"
    assert not [name for name in headers if name.startswith("akoya")]


def test_nginx_gets_only_the_statuses_it_can_pass_on(env: GatewayEnv, member: Browser) -> None:
    def status(method: str, uri: str, *lines: str, of: Browser | None = None) -> int:
        return fetch(env, f"X-Original-Method: {method}", f"X-Original-URI: {uri}", *lines, member=of)[0]

    assert status("GET", "/accounts", of=member) == 200
    assert status("GET", "/accounts") == 401
    assert status("GET", "/nowhere", of=member) == 403
    assert status("GET", "/api/banks/nobody/x", of=member) == 403, "404 for other proxies"
    assert status("GET", "/public/../accounts", of=member) == 403, "400 for other proxies"
    assert status("GET", "/" + "x" * 9000, of=member) == 403, "414 for other proxies"


@pytest.mark.parametrize(
    "route", ["/akoya", "/akoya/", "/akoya/connect/mikomo", "/akoya/callback", "/akoya/forward-auth", "/%61koya/logout"]
)
def test_original_request_for_a_gateway_route_is_refused(env: GatewayEnv, member: Browser, route: str) -> None:
    """A proxy that forwarded these to the app would leak the code that comes with a callback."""
    question = ("X-Forwarded-Method: GET", f"X-Forwarded-Uri: {route}?code=x", "X-Forwarded-Host: app.example")
    status, body, _ = fetch(env, *question, member=member)
    assert (status, body["type"]) == (403, "urn:akoya-gateway:problem:own-route")


def test_nginx_gets_a_redirect_as_a_401_with_the_location(env: GatewayEnv) -> None:
    status, _, headers = fetch(env, "X-Original-Method: GET", "X-Original-URI: /mikomo", "Sec-Fetch-Mode: navigate")
    assert (status, headers["location"]) == (401, "/akoya/connect/mikomo?return_to=/mikomo")


def test_cookie_sent_twice_is_a_403_for_nginx_and_a_page_for_the_client(env: GatewayEnv) -> None:
    """`auth_request` turns a 400 into a 500."""
    twice = f"Cookie: akoya-{env.port}=x; akoya-{env.port}=y"
    assert fetch(env, *NGINX, twice)[0] == 403
    status, body, _ = fetch(env, *NGINX, twice, "X-Akoya-Answer: client")
    assert (status, body["type"]) == (400, "urn:akoya-gateway:problem:cookie-twice")


def test_denial_response_never_contains_a_token(env: GatewayEnv, member: Browser) -> None:
    status, body, headers = fetch(env, *NGINX, "X-Akoya-Answer: client", member=member)
    assert (status, body["type"]) == (503, "urn:akoya-gateway:problem:decision-changed")
    assert not [name for name in headers if name.startswith("akoya")]
    status, _, headers = fetch(env, *NGINX, "X-Akoya-Answer: client", "Sec-Fetch-Mode: navigate")
    assert (status, headers["location"]) == (302, "/akoya/?return_to=/accounts%3Fx%3D1")


@pytest.mark.parametrize("name", ["Akoya-New", "Akoya_Owner", "akoya.owner", "Signature_Input"])
def test_value_that_nginx_would_not_replace_is_refused(env: GatewayEnv, name: str) -> None:
    question = ("X-Original-Method: GET", "X-Original-URI: /public/x")
    assert fetch(env, *question, "Akoya-Owner: spoofed")[0] == 200, "the nginx file replaces it"
    for more in ((), ("X-Akoya-Answer: client",)):
        status, body, _ = fetch(env, *question, f"{name}: spoofed", *more)
        assert (status, body["type"]) == (403, "urn:akoya-gateway:problem:invalid-original-request")


def test_envoy_gets_the_list_of_headers_to_remove(env: GatewayEnv, member: Browser) -> None:
    _, _, headers = fetch(env, "akoya_owner: x", "Akoya-Owner: x", "Akoya-New: x", below="/accounts", member=member)
    gone = headers["x-envoy-auth-headers-to-remove"].split(",")
    assert set(gone) == {"akoya_owner", "akoya-new", "cookie"}, "headers that the gateway sets itself are not removed"
    _, _, headers = fetch(env, "Akoya-Owner: x", "Cookie: theirs=kept", below="/public/x")
    assert headers["x-envoy-auth-headers-to-remove"] == "akoya-owner"
    assert headers["cookie"] == "theirs=kept"


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "HEAD", "OPTIONS"])
def test_envoy_sends_the_clients_own_method(env: GatewayEnv, method: str) -> None:
    assert fetch(env, below="/accounts", method=method)[0] == 401
    assert fetch(env, below="/public/x", method=method)[0] == 200


@pytest.mark.parametrize("target", ["/akoya/%66orward-auth/accounts", "/akoya/forward%2Dauth", "/akoya/forward-aut%68"])
def test_route_has_one_spelling(env: GatewayEnv, member: Browser, target: str) -> None:
    status, body = get(env.port, target, f"Cookie: {cookies(member)}", *NGINX)
    assert (status, body["type"]) == (400, "urn:akoya-gateway:problem:ambiguous-path")


@pytest.mark.parametrize("origin", ["https://evil.example", "null"])
@pytest.mark.parametrize(
    "sign", ["Upgrade: websocket", "Upgrade: WebSocket", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="]
)
def test_websocket_from_another_site_is_refused(env: GatewayEnv, member: Browser, origin: str, sign: str) -> None:
    """Traefik does not forward `Upgrade`, but does forward the rest of the handshake."""
    question = (*NGINX, sign, f"Origin: {origin}")
    assert fetch(env, *question, member=member)[0] == 403
    assert fetch(env, *NGINX, sign, f"Origin: {env.url}", member=member)[0] == 200
    assert fetch(env, *NGINX, "Upgrade: h2c", f"Origin: {origin}", member=member)[0] == 200, (
        "h2c does not open a WebSocket"
    )


def test_log_names_the_request_that_was_meant(env: GatewayEnv) -> None:
    fetch(env, "X-Original-Method: DELETE", "X-Original-URI: /logged/here?secret=1", "X-Request-Id: forward-auth-log")
    until(lambda: "forward-auth-log" in env.log(), "the line is written, after the response")
    line = next(line for line in env.log().splitlines() if "forward-auth-log" in line)
    assert '"method":"DELETE","path":"/logged/here","status":403' in line
    assert "secret" not in line


def test_traefik_files_have_the_form_that_the_responses_need() -> None:
    """Checks the files themselves, so that it also runs where Traefik is not installed."""
    import re

    http = yaml.safe_load((DEPLOY / "traefik" / "dynamic.yaml").read_text())["http"]
    question = http["middlewares"]["akoya"]["forwardAuth"]
    assert question["trustForwardHeader"] is False
    removed = re.compile(question["authResponseHeadersRegex"])
    for name in (
        "Akoya-Owner",
        "akoya_owner",
        "Akoya.Id.Token",
        "Akoya-New",
        "Signature",
        "Signature-Input",
        "signature_input",
    ):
        assert removed.search(name), name
    for name in ("X-Akoya", "Content-Type", "Signature-Agent", "Cookie"):
        assert not removed.search(name), name
    assert question["authResponseHeaders"] == ["Cookie", "X-Request-Id"]
    app, nobody = http["routers"]["app"], http["routers"]["question"]
    assert app["middlewares"].index("describe") < app["middlewares"].index("akoya")
    assert nobody["priority"] > http["routers"]["gateway"]["priority"] > app["priority"]
    assert http["middlewares"][nobody["middlewares"][0]]["ipAllowList"]["sourceRange"] == ["255.255.255.255/32"]
    for name, router in http["routers"].items():
        assert router["service"] in http["services"], name
        assert set(router.get("middlewares", [])) <= set(http["middlewares"]), name
    assert yaml.safe_load((DEPLOY / "traefik" / "traefik.yaml").read_text())["providers"]["file"]["filename"].endswith(
        "dynamic.yaml"
    )


@pytest.mark.parametrize(
    "host", ["app.example,6.6.6.6", "app.example  Akoya-Owner: x", "user@app.example", "app.example:80:81"]
)
def test_request_without_one_valid_host_is_refused(env: GatewayEnv, host: str) -> None:
    original = ("X-Original-Method: GET", "X-Original-URI: /public/x")
    forwarded = ("X-Forwarded-Method: GET", "X-Forwarded-Uri: /public/x")
    nginx = fetch(env, *original, f"Host: {host}")
    traefik = fetch(env, *forwarded, "Host: app.example", f"X-Forwarded-Host: {host}")
    envoy = fetch(env, f"Host: {host}", below="/public/x")
    # nginx `auth_request` turns 400 into 500.
    assert (nginx[0], traefik[0], envoy[0]) == (403, 400, 400)
    assert {response[1]["detail"] for response in (nginx, traefik, envoy)} == {"There must be one valid Host."}
    assert [
        fetch(env, *original, "Host: app.example:8080")[0],
        fetch(env, *forwarded, "X-Forwarded-Host: [::1]:80")[0],
    ] == [200, 200]
