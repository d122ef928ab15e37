"""Each real proxy with its file from deploy/ removes the headers that could mislead an app or the gateway."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from akoya_gateway.client_header_names import FROM_PROXIES, IN_FAMILIES, MOVES_THE_REQUEST
from tests.support.client_header_lists import DEPLOY, FILES, with_lists
from tests.support.environment import Browser
from tests.support.forward_auth import ProxiedEnv, cookies, get
from tests.support.proxies import PROXIES, ProxyMissing

SPOOFED = "6.6.6.6"
DESCRIBING = ("x-original-uri", "x-original-method", "x-forwarded-uri", "x-forwarded-method")
KNOWN = sorted(name.decode() for name in MOVES_THE_REQUEST | FROM_PROXIES | IN_FAMILIES)
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
"""Names that are in no list. nginx has no patterns, so the gateway refuses requests with them."""


TURNED_ON = {
    "envoy": ["# - remove: kept", "# - append: {header: {key: kept", "# - append: {header: {key: x-original-filename"],
    "haproxy": ["# http-request set-var(txn.kept)", "# http-request set-header X-Original-Filename"],
    "caddy": ["# vars kept", "# request_header X-Original-Filename", "# import if_sent X-Original"],
}
"""Lines of the files that let X-Original-Filename through, which are comments by default."""
OF_HOSTING_SERVICES = ("X-Envoy-", "X-Amzn-", "Cf-")
"""nginx passes on unlisted names of these families, because services may add new ones to requests at any time."""


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


def test_header_that_nginx_cannot_remove_is_refused(env: ProxiedEnv, member: Browser) -> None:
    if env.kind == "nginx":
        for path in ("/public/x", "/accounts"):
            for name in (*UNKNOWN["all"], *UNKNOWN["patterns"]):
                status, seen = get(env.port, path, f"Cookie: {cookies(member)}", f"{name}: {SPOOFED}")
                if name.startswith(OF_HOSTING_SERVICES):
                    assert status == 200
                    continue
                detail = f"The request contains the header {name.lower()}, which the proxy would pass on to the app."
                closed = name.startswith(("X-Invoke-", "X-Accel-", "Oidc-"))
                remedy = "" if closed else " If the app needs it, list it in `allow_client_headers`."
                assert (status, seen["detail"]) == (403, detail + remedy)


def test_nginx_that_lists_what_it_passes_on_passes_on_nothing_else(tmp_path: Path) -> None:
    """The alternative of docs/forward-auth.md, because nginx has no patterns."""
    listed = "proxy_pass_request_headers off; proxy_set_header Accept $http_accept;"
    changes = {"proxy_pass http://akoya_app;": f"{listed} proxy_pass http://akoya_app;"}
    try:
        env = ProxiedEnv(tmp_path, "nginx", proxy_changes=changes)
    except ProxyMissing as missing:
        pytest.skip(str(missing))
    with env, env.browser() as browser:
        browser.connect()
        sent = (
            "Cf-Anything: a",
            "X-Own: b",
            "Accept: c",
            "X-Envoy-Anything: d",
            "Cookie: theirs=e; " + cookies(browser),
        )
        status, seen = get(env.port, "/accounts", *sent)
        assert (status, seen["signature"][:7]) == (200, "valid: ")
        headers = {name: value for name, value in seen["headers"] if not name.startswith(("akoya-", "signature"))}
        del headers["host"], headers["x-request-id"], headers["x-forwarded-host"]
        assert headers == {
            "accept": "c",
            "cookie": "theirs=e",
            "x-forwarded-for": "127.0.0.1",
            "x-forwarded-proto": "http",
        }


def test_lists_of_the_files_are_those_of_the_gateway() -> None:
    for name in FILES:
        text = (DEPLOY / name).read_text()
        assert text == with_lists(name, text), f"{name}: run python -m tests.support.client_header_lists"


@pytest.fixture(scope="module", params=list(PROXIES))
def identified(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ProxiedEnv]:
    """The gateway trusts the proxy's `X-Forwarded-User`, and the app needs `X-Original-Filename`."""
    changes = {"identity": {"header": "X-Forwarded-User"}, "allow_client_headers": ["x-original-filename"]}
    folder = tmp_path_factory.mktemp(request.param)
    try:
        env = ProxiedEnv(
            folder,
            request.param,
            changes=changes,
            proxy_changes={line: line[2:] for line in TURNED_ON.get(request.param, ())},
        )
    except ProxyMissing as missing:
        pytest.skip(str(missing))
    with env:
        yield env


@pytest.mark.parametrize("sent", [["{env.PATH}"], []])
def test_header_that_the_operator_allows_reaches_the_app(identified: ProxiedEnv, sent: list[str]) -> None:
    names = ["X-Original-Filename", "Kept", "X_Original_Filename", "X.Original.Filename"]
    lines = [f"{name}: {value}" for name in names for value in (sent if name == names[0] else ["dropped"])]
    status, seen = get(identified.port, "/public/x", *lines)
    assert status == 200, seen
    found = [(name, value) for name, value in seen["headers"] if "filename" in name or name == "kept"]
    # Caddy and nginx pass on a header of another name.
    assert [pair for pair in found if pair != ("kept", "dropped")] == [("x-original-filename", value) for value in sent]


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
