"""Each real proxy with its file from deploy/ removes the headers that could mislead an app or the gateway."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from akoya_gateway.client_headers import FROM_PROXIES, MOVES_THE_REQUEST
from tests.support.environment import Browser
from tests.support.forward_auth import ProxiedEnv, cookies, get
from tests.support.proxies import PROXIES, ProxyMissing

SPOOFED = "6.6.6.6"
KNOWN = sorted(name.decode() for name in MOVES_THE_REQUEST | FROM_PROXIES)
PREFIXED = ["X-Auth-Request-User", "X-Auth-Request-Email", "X-Forwarded-User", "X-Forwarded-Email", "X-Forwarded-Prefix", "X-Forwarded-Groups",
            "X-Envoy-External-Address", "X-Authentik-Username", "SSL-Client-Verify", "X-SSL-Client-Cert", "Tailscale-User-Login", "WL-Proxy-Client-IP",
            "X-Goog-Authenticated-User-Email", "X-MS-Client-Principal", "X-Original-Host", "X-Accel-Mapping", "MS-ASPNETCORE-TOKEN"]  # fmt: skip
UNDERSCORED = [
    "SCRIPT_NAME",
    "PATH_INFO",
    "REMOTE_USER",
    "X_Forwarded_User",
    "X_Script_Name",
    "X_Original_URL",
    "X_Forwarded-User",
    "X_Own",
]


@pytest.mark.parametrize("path", ["/public/x", "/accounts"])
def test_no_header_of_the_lists_reaches_the_app(env: ProxiedEnv, member: Browser, path: str) -> None:
    # In batches, because most servers accept about 100 header lines.
    for names in (KNOWN[::3], KNOWN[1::3], KNOWN[2::3], PREFIXED, UNDERSCORED):
        names = [
            name
            for name in names
            if not name.startswith("x-original-") and name not in ("x-forwarded-uri", "x-forwarded-method")
        ]
        status, seen = get(env.port, path, f"Cookie: {cookies(member)}", *(f"{name}: {SPOOFED}" for name in names))
        assert status == 200, seen
        assert not [name for name, value in seen["headers"] if SPOOFED in value]
        if path == "/accounts":
            assert seen["signature"].startswith("valid: ")


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
