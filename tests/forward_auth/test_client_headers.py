"""Each real proxy with its file from deploy/ removes the headers that could mislead an app or the gateway."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from akoya_gateway.client_headers import FROM_PROXIES, MOVES_THE_REQUEST
from tests.support.client_header_lists import DEPLOY, FILES, IN_FAMILIES, with_lists
from tests.support.environment import Browser
from tests.support.forward_auth import ProxiedEnv, cookies, get
from tests.support.proxies import PROXIES, ProxyMissing

SPOOFED = "6.6.6.6"
DESCRIBING = ("x-original-uri", "x-original-method", "x-forwarded-uri", "x-forwarded-method")
KNOWN = sorted({*(name.decode() for name in MOVES_THE_REQUEST | FROM_PROXIES), *IN_FAMILIES})
UNKNOWN = {
    "patterns": [
        "X-Forwarded-Anything", "X-Original-Anything", "X-Envoy-Anything", "X-Amzn-Anything", "Cf-Anything", "Any-Client-Ip", "Any-Real-Ip",
        "Any-Remote-User", "X-Any-Forwarded-For", "Any-X-Forwarded-Proto", "Any-Forwarded-Host", "Remote-Anything", "Oidc-Anything",
    ],
    "all": ["Any-Script-Name", "Any-Path-Info", "Any-Original-Url", "X-Any-Method-Override", "X-Invoke-Anything", "X-Accel-Anything"],
    "spelled": [
        "SCRIPT_NAME", "X_Forwarded_User", "X_Own", "X_Forwarded-User", "X.Forwarded.For", "X~Script~Name", "X|Forwarded|User",
        "X!Original!Url", "X'Remote'User", "X`Forwarded`Host", "X*Real*Ip", "X+Rewrite+Url", "X^Scheme", "X%Http%Method", "X#Proxy#User",
        "X&Forwarded&Prefix", "$WSRU", "Content.Length", "spring.cloud.function.routing-expression",
    ],
}  # fmt: skip
"""Names that no list has. nginx has no patterns, so it removes those of `all` by refusing the request."""


@pytest.mark.parametrize("path", ["/public/x", "/accounts"])
def test_no_header_of_the_lists_reaches_the_app(env: ProxiedEnv, member: Browser, path: str) -> None:
    known = [name for name in KNOWN if name not in DESCRIBING]
    unknown = [UNKNOWN["spelled"], *([] if env.kind == "nginx" else [UNKNOWN["patterns"], UNKNOWN["all"]])]
    # In batches, because most servers accept about 100 header lines.
    for names in (*(known[at : at + 80] for at in range(0, len(known), 80)), *unknown):
        status, seen = get(env.port, path, f"Cookie: {cookies(member)}", *(f"{name}: {SPOOFED}" for name in names))
        assert status == 200, seen
        assert not [name for name, value in seen["headers"] if SPOOFED in value]
        if path == "/accounts":
            assert seen["signature"].startswith("valid: ")


def test_name_that_moves_the_request_and_is_on_no_list_of_nginx_is_refused(env: ProxiedEnv, member: Browser) -> None:
    if env.kind == "nginx":
        for name in UNKNOWN["all"]:
            status, seen = get(env.port, "/accounts", f"Cookie: {cookies(member)}", f"{name}: {SPOOFED}")
            assert (status, seen["detail"]) == (
                403,
                "The request contains a gateway header that the proxy would pass on.",
            )


def test_lists_of_the_files_are_those_of_the_gateway() -> None:
    for name in FILES:
        text = (DEPLOY / name).read_text()
        assert text == with_lists(name, text), f"{name}: run python -m tests.support.client_header_lists"


@pytest.fixture(scope="module", params=list(PROXIES))
def identified(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ProxiedEnv]:
    """The gateway trusts the proxy's `X-Forwarded-User`; the proxy's file is unchanged."""
    try:
        env = ProxiedEnv(
            tmp_path_factory.mktemp(request.param), request.param, changes={"identity": {"header": "X-Forwarded-User"}}
        )
    except ProxyMissing as missing:
        pytest.skip(str(missing))
    with env:
        yield env


@pytest.mark.parametrize("name", ["X-Forwarded-User", "x-forwarded-user", "X_Forwarded_User"])
@pytest.mark.parametrize("path", ["/akoya/connect/mikomo", "/public/x", "/akoya/"])
def test_identity_header_of_the_client_is_not_believed(identified: ProxiedEnv, name: str, path: str) -> None:
    """The client's header neither lets it connect a bank, which requires an identified user, nor reaches the app."""
    status, seen = get(
        identified.port,
        path,
        "Accept: text/html",
        "Sec-Fetch-Mode: navigate",
        "Sec-Fetch-Dest: document",
        f"{name}: alice",
    )
    if path == "/public/x":
        assert status == 200
        assert "alice" not in str(seen)
    else:
        nobody = get(identified.port, path, "Accept: text/html", "Sec-Fetch-Mode: navigate", "Sec-Fetch-Dest: document")
        assert status in (nobody[0], 400)
        assert path == "/akoya/" or status in (400, 401)
