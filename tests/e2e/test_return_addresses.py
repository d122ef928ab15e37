"""A user who opens a deep link without a grant returns to exactly that URL after connecting the bank."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import parse_qsl, quote, urlsplit

import pytest
from starlette.types import Message

from akoya_gateway.access.request import RequestInfo
from akoya_gateway.admission.denial_responses import ErrorResponder
from akoya_gateway.authentication.principal import ANONYMOUS
from akoya_gateway.endpoints.request import EndpointRequest
from tests.support.config_documents import validated
from tests.support.environment import Browser, GatewayEnv

# As browsers send them (WHATWG URL), and what curl sends unencoded.
DEEP_LINKS = [
    "/mikomo?x=1",
    "/mikomo?panes={%22a%22:1}&org=1",
    "/mikomo?filter=name^2",
    "/mikomo?q=a`b",
    "/mikomo?path=C:\\dir",
    "/mikomo?a[]=1&b=[2]|3",
    "/mikomo?q='x'&q=%22&a=1;b=2",
    "/mikomo?q=%&p=%zz",
    "/mikomo?q=a+b%20c%2B",
    "/mikomo?q=" + "x" * 7900,
    "/mikomo?q=" + "%7B%22" * 1200,
]


@pytest.fixture(scope="module", params=["sidecar", "middleware"])
def env(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayEnv]:
    changes = {"redirects": {"after_connect": "/accounts", "allow": ["/mikomo", "/accounts"]}}
    with GatewayEnv(tmp_path_factory.mktemp("env"), entrypoint=request.param, changes=changes) as env:
        yield env


def location(env: GatewayEnv, target: str) -> tuple[int, str]:
    """Return status and Location of a navigation to the raw target, which Python's HTTP clients would encode."""
    with socket.create_connection(("127.0.0.1", env.port), 60) as raw, raw.makefile("rb") as response:
        raw.sendall(
            b"GET "
            + target.encode()
            + b" HTTP/1.1\r\nHost: %s\r\nAccept: text/html\r\nConnection: close\r\n\r\n"
            % urlsplit(env.url).netloc.encode()
        )
        lines = response.read().partition(b"\r\n\r\n")[0].decode("ascii").split("\r\n")
    found = [line.partition(":")[2].strip() for line in lines if line.lower().startswith("location:")]
    return int(lines[0].split()[1]), found[0] if found else ""


@pytest.mark.parametrize("link", DEEP_LINKS, ids=range(len(DEEP_LINKS)))
def test_deep_link_without_a_grant_keeps_its_address_over_the_bank(
    env: GatewayEnv, browser: Browser, link: str
) -> None:
    status, connect = location(env, link)
    assert status == 302
    assert dict(parse_qsl(urlsplit(connect).query, strict_parsing=True)) == {"return_to": link}
    begun = browser.go(connect)
    assert begun.status_code == 302, begun.text
    landed = browser.go(env.akoya.consent(begun.headers["location"], "mikomo_1"))
    assert (landed.status_code, landed.headers["location"]) == (302, link)


def test_raw_bytes_beyond_ascii_are_escaped_not_decoded(tmp_path: Path) -> None:
    """Some servers let these characters through; httptools and browsers do not."""
    config = validated(tmp_path, {"redirects": {"allow": ["/accounts"]}}).config
    assert config is not None
    request = RequestInfo("GET", b"/accounts", b"q=caf\xc3\xa9&p=\xff#x", [(b"accept", b"text/html")], None, "1")
    where = ErrorResponder(config).connect_path(("mikomo",), request)
    assert where == "/akoya/connect/mikomo?return_to=" + quote("/accounts?q=caf%C3%A9&p=%FF%23x", safe="/")
    request = RequestInfo("GET", b"/akoya/connect/mikomo", b"return_to=/accounts?q=caf\xc3\xa9", [], None, "1")
    assert EndpointRequest(EndpointRequest.scope_of({"type": "http"}, request, ANONYMOUS), no_body).parameters() == {
        "return_to": "/accounts?q=caf\u00e9"
    }


async def no_body() -> Message:
    raise AssertionError("no body is read")


def test_deep_link_that_is_too_long_is_dropped_with_a_log_line(env: GatewayEnv) -> None:
    assert location(env, "/mikomo?q=" + "x" * 8200) == (302, "/akoya/connect/mikomo")
    if env.entrypoint == "sidecar":
        lines = [json.loads(line) for line in env.log().splitlines() if "return address dropped" in line]
        assert "It is longer than 8192 characters." in [line["reason"] for line in lines]


@pytest.mark.parametrize(
    ("query", "named"),
    [
        ("return_to=/accounts?year=2026&month=7", '"month"'),
        ("returnTo=/accounts", '"returnTo"'),
        ("return_to=/accounts&RETURN_TO=/mikomo", '"RETURN_TO"'),
        ("return_to=/accounts?a=1&b[]=2", '"b[]"'),
        ("return_to=/accounts?a=1&%3Cscript%3E=2", "one of them"),
        ("return_to=/accounts?a=1&=2", "one of them"),
        ("utm_source=mail&x=1", '"x"'),
    ],
)
def test_unknown_parameter_of_the_connect_route_is_refused_by_name(browser: Browser, query: str, named: str) -> None:
    response = browser.fetch(f"/akoya/connect/mikomo?{query}")
    assert (response.status_code, response.json()["type"]) == (400, "urn:akoya-gateway:problem:unknown-parameter")
    assert response.json()["detail"] == (
        f"{named} is not a parameter of this address. If it belongs to the address to return to, write & as %26 there."
    )


@pytest.mark.parametrize(
    "more", ["utm_source=mail&utm_campaign=x", "fbclid=a", "gclid=a&_gl=b", "msclkid=a", "mc_eid=a"]
)
def test_tracking_parameters_of_the_connect_route_are_ignored(env: GatewayEnv, browser: Browser, more: str) -> None:
    begun = browser.go(f"/akoya/connect/mikomo?return_to=/mikomo&{more}")
    assert begun.status_code == 302, begun.text
    assert browser.go(env.akoya.consent(begun.headers["location"], "mikomo_1")).headers["location"] == "/mikomo"


def test_connections_page_refuses_half_a_return_address_and_nothing_else(browser: Browser) -> None:
    assert browser.go("/akoya/?return_to=/accounts?year=2026&month=7").status_code == 400
    assert (
        browser.go("/akoya/?return_to=/accounts&error=access_denied&connector=mikomo&utm_source=x").status_code == 200
    )
    assert browser.go("/akoya/?lang=de").status_code == 200


def test_return_address_on_another_origin_is_built_from_validated_parts(tmp_path: Path) -> None:
    changes = {"redirects": {"allow": ["https://Pages.example.com/*".lower()]}}
    with GatewayEnv(tmp_path, changes=changes) as env, env.browser() as browser:
        for requested, landing in (
            ("HTTPS://Pages.Example.com?x=1", "https://pages.example.com/?x=1"),
            ("https://pages.example.com/a;v=1?q={b}#c[1]", "https://pages.example.com/a;v=1?q={b}#c[1]"),
        ):
            assert browser.connect(return_to=requested).headers["location"] == landing
        for hostile in (
            "https://pages.example.com\\@evil.example/",
            "https://pages.example.com/..;/x",
            "http://pages.example.com/",
        ):
            assert browser.go(f"/akoya/connect/mikomo?return_to={quote(hostile, safe='')}").status_code == 400
