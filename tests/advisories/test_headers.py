"""Attacks with client headers that a gateway or an app trusts."""

from __future__ import annotations

import base64

import pytest

from akoya_gateway.access.request import RequestInfo
from akoya_gateway.endpoints.rate_limit import client_key
from tests.advisories.advisory import advisory
from tests.support.environment import Browser
from tests.support.target import Target

OURS = ("akoya", "signature")
SPOOFED = "akoya=:c3Bvb2ZlZA==:"
"""In `Signature` it uses the gateway's label. Members with other labels are kept there on purpose."""


def ours(target: Target, path: str, *lines: str) -> list[tuple[str, str]]:
    """Return the gateway headers that the upstream received."""
    reply = target.fetch(path, *lines)
    assert reply.seen is not None, (reply.status, reply.text[:300])
    assert reply.seen.get("signature", "valid").startswith("valid")
    return [(name, value) for name, value in reply.seen["headers"] if name.startswith(OURS)]


@pytest.mark.parametrize(
    "uri",
    [
        "X-Forwarded-Uri",
        "X-Original-URI",
        "X-Original-URL",
        "X-Rewrite-URL",
        "X_Forwarded_Uri",
        "X-Envoy-Original-Path",
    ],
)
@advisory("CVE-2026-40575", "GHSA-7x63", attack="The client sends `X-Forwarded-Uri: /public`, and skip-auth rules are matched against that path.",
          ours="Only forward-auth reads such headers, and only from `trusted_proxies`. A request with two descriptions is refused.")  # fmt: skip
def test_cve_2026_40575_forwarded_uri_of_the_clients(target: Target, uri: str) -> None:
    for method in ("X-Forwarded-Method: GET", "X-Original-Method: GET", "X-HTTP-Method-Override: GET"):
        assert not target.fetch(target.protected, f"{uri}: {target.public}", method).let_in
        assert not target.fetch(
            target.protected, method, f"{uri}: {target.public}", "X-Forwarded-Host: " + target.authority
        ).let_in


@pytest.mark.parametrize(
    "agent", ["GoogleHC/1.0", "kube-probe/1.29", "ELB-HealthChecker/2.0", "ping", "Prometheus/2.45", "Envoy/HC", ""]
)
@advisory("CVE-2026-34457", "GHSA-5hvv", attack="A `User-Agent` equal to the configured ping agent turns a refusal into 200.",
          ours="Only the session cookie or the configured identity authenticates a request. Health checks use the admin port.")  # fmt: skip
def test_cve_2026_34457_health_check_agent(target: Target, agent: str) -> None:
    assert not target.fetch(target.protected, f"User-Agent: {agent}").let_in
    assert not target.fetch(target.protected, f"User-Agent: {agent}", "Health-Check: true", method="HEAD").let_in


@pytest.mark.parametrize(
    "bearer", ["Bearer x", "bearer x", "Bearer", "Basic YWRtaW46YWRtaW4=", "Bearer eyJhbGciOiJub25lIn0.e30.", "DPoP x"]
)
@advisory("CVE-2022-29226", attack="Any `Authorization: Bearer x` counts as authenticated.",
          ours="`Authorization` belongs to the app and never authenticates a request, unless `identity.jwt` names it and verifies its token.")  # fmt: skip
def test_cve_2022_29226_any_bearer(target: Target, bearer: str) -> None:
    assert not target.fetch(target.protected, f"Authorization: {bearer}").let_in
    assert not target.fetch(target.protected, f"Cookie: Authorization={bearer}", f"Authorization: {bearer}").let_in


@pytest.mark.parametrize("value", ["https", "http", "https, http", "https\r\nX-Evil: 1", "wss", "javascript"])
@advisory("CVE-2026-33495", "CVE-2026-54764", "CVE-2026-35051", "GHSA-6384",
          attack="An untrusted `X-Forwarded-Proto`, `-Port` or `-Prefix` selects another rule or misleads the decision service.",
          ours="Rules depend on method and path only. The sidecar and the files for other proxies drop such headers from untrusted peers.")  # fmt: skip
def test_cve_2026_33495_forwarded_proto_port_and_prefix(target: Target, value: str) -> None:
    for name in ("X-Forwarded-Proto", "X-Forwarded-Scheme", "X-Forwarded-Ssl", "Forwarded"):
        assert not target.fetch(target.protected, f"{name}: {value}").let_in
    for line in (
        "X-Forwarded-Port: 443",
        "X-Forwarded-Prefix: /public",
        "X-Forwarded-Server: localhost",
        "X-Forwarded-Prefix: /../public",
    ):
        assert not target.fetch(target.protected, line, f"X-Forwarded-Proto: {value.partition(chr(13))[0]}").let_in
    if target.entrypoint in ("sidecar", "forward-auth"):  # the app's own server forwards them to a middleware
        seen = target.fetch(
            target.public,
            "X-Forwarded-Port: 6666",
            "X-Forwarded-Prefix: /spoofed",
            "X-Forwarded-Proto: spoofed",
            "Forwarded: for=spoofed",
        ).seen
        assert seen is not None
        assert not [line for line in seen["headers"] if "6666" in line[1] or "spoofed" in line[1]]


@pytest.mark.parametrize("name", ["X_Forwarded_Proto", "x_forwarded_for", "X_Forwarded_Host", "X.Forwarded.Proto"])
@advisory("GHSA-5m6w-wvh7-57vm", attack="`X_Forwarded_Proto` survives, and the server behind the proxy treats it as the dashed header.",
          ours="The proxy drops every spelling of `X-Forwarded-*` from a client, and the decision does not use them.")  # fmt: skip
def test_ghsa_5m6w_wvh7_57vm_underscore_alias_of_forwarded(target: Target, session: str, name: str) -> None:
    reply = target.fetch(target.protected, session, f"{name}: spoofed.example")
    assert reply.seen is not None
    assert reply.seen["signature"].startswith("valid")
    if target.entrypoint != "middleware":  # the app's own server forwards them, and it is the app that reads them
        assert "spoofed.example" not in str(reply.seen["headers"])


@pytest.mark.parametrize("address", ["127.0.0.1", "10.0.0.1", "::1", "localhost", "127.0.0.1, 127.0.0.1", "unknown"])
@advisory("CVE-2024-21494", attack="`X-Forwarded-For: 127.0.0.1` makes the client a trusted address.",
          ours="Rules do not use addresses. The peer is always the TCP peer.")  # fmt: skip
def test_cve_2024_21494_forwarded_for_spoof(target: Target, address: str) -> None:
    for name in ("X-Forwarded-For", "X-Real-IP", "X-Client-IP", "CF-Connecting-IP", "True-Client-IP", "Forwarded"):
        value = f"for={address}" if name == "Forwarded" else address
        assert not target.fetch(target.protected, f"{name}: {value}").let_in


@pytest.mark.parametrize("name", ["X-Forwarded-Host", "X-Forwarded-Proto", "X-Forwarded-Server", "X-Host", "Forwarded"])
@advisory("CVE-2024-21498", "CVE-2024-21499", attack="`X-Forwarded-Host/Proto` decide where requests go (SSRF) or are written into headers.",
          ours="Redirects and outgoing requests are built from `public_url` and the configuration, never from headers.")  # fmt: skip
def test_cve_2024_21498_forwarded_host_is_not_used(target: Target, name: str) -> None:
    for value in ("evil.example", "evil.example, other.example", "javascript:alert(1)", "host=evil.example"):
        for path in (target.protected, target.connect or target.protected):
            reply = target.navigate(path, f"{name}: {value}")
            assert not any("evil.example" in text.split("?")[0] for text in reply.all("location"))
            assert "evil" not in "".join(f"{key}{text}" for key, text in reply.headers if key != "location")


@pytest.mark.parametrize(
    "name", ["akoya_owner", "Akoya_Owner", "AKOYA-OWNER", "Akoya.Owner", "akoya-Owner", "Akoya_Id_Token", "Akoya_Connector", "Akoya-Assertion",
             "Akoya_Anything_New", "Signature_Input", "SIGNATURE", "Akoya-", "akoya~owner"],
)  # fmt: skip
@advisory("CVE-2025-64484", "GHSA-vjrc", attack="`X_Forwarded_User` survives stripping, and a WSGI or PHP app reads it as the dashed header.",
          ours="Gateway header names are compared ignoring case and treating `-`, `_` and `.` as equal. Every alias is removed, also of unknown `Akoya-` names.")  # fmt: skip
def test_cve_2025_64484_underscore_header_alias(target: Target, session: str, name: str) -> None:
    for path in (target.protected, target.public):
        reply = target.fetch(path, session, f"{name}: {SPOOFED}")
        if reply.seen is None:
            assert reply.status in (400, 403)  # a request with headers that the proxy cannot remove is refused
            continue
        assert SPOOFED not in str(reply.seen["headers"])


@pytest.mark.parametrize("name", ["akoya-owner", "AKOYA-OWNER", "akoya-id-token", "signature"])
@advisory(
    "CVE-2020-14359",
    attack="Lower-case header names bypass checks.",
    ours="Header names are compared in lower case everywhere.",
)
def test_cve_2020_14359_lower_case_names(target: Target, session: str, name: str) -> None:
    for path in (target.protected, target.public):
        reply = target.fetch(path, f"{name}: {SPOOFED}", session)
        assert reply.seen is not None
        assert SPOOFED not in str(reply.seen["headers"])
    lowered = target.fetch(target.protected, session.replace("Cookie", "cookie"))
    assert lowered.seen is not None


@pytest.mark.parametrize("times", [1, 2, 50])
@advisory("CVE-2021-32777", attack="The decision uses one of several headers of the same name, the upstream another.",
          ours="Every client copy is removed and the gateway's header occurs once. Two session cookies count as no cookie, two identity headers are an error.")  # fmt: skip
def test_cve_2021_32777_several_headers_of_one_name(target: Target, session: str, times: int) -> None:
    names = [name for name, _ in ours(target, target.protected, session, *["Akoya-Owner: spoofed"] * times)]
    assert names.count("akoya-owner") == 1
    assert names.count("signature") == 1
    name, _, value = session.removeprefix("Cookie: ").partition("; ")[0].partition("=")
    assert not target.fetch(target.protected, f"Cookie: {name}={value}", f"Cookie: {name}={'x' * len(value)}").let_in
    assert not target.fetch(target.protected, f"Cookie: {name}={'x' * len(value)}; {name}={value}").let_in


@pytest.mark.parametrize(
    "options",
    ["Akoya-Id-Token", "akoya-owner, akoya-connector", "Signature, Signature-Input", "close, Akoya_Owner", "Cookie"],
)
@advisory("CVE-2024-45410", "CVE-2025-48865", attack="`Connection: X-Forwarded-User` makes the proxy drop its own identity header.",
          ours="Gateway header names are removed from `Connection` before the hop-by-hop fields are removed.")  # fmt: skip
def test_cve_2024_45410_gateway_headers_named_in_connection_are_kept(
    target: Target, session: str, options: str
) -> None:
    head = f"GET {target.protected} HTTP/1.1\r\nHost: {target.authority}\r\nConnection: close, {options}\r\n{session}\r\n\r\n"
    reply = target.raw(head.encode())
    assert reply.seen is not None, (reply.status, reply.text[:200])
    names = {name for name, _ in reply.seen["headers"]}
    assert {"akoya-id-token", "akoya-owner", "akoya-connector", "signature", "signature-input"} <= names
    assert reply.seen["signature"].startswith("valid")


@advisory("CVE-2024-47616", attack="A token issued for another purpose is accepted as the gateway's own credential.",
          ours="Nothing that the upstream receives (id_token, signature, owner) authenticates a request. The session is a random value in a cookie.")  # fmt: skip
def test_cve_2024_47616_what_the_upstream_gets_is_no_credential(target: Target, session: str, browser: Browser) -> None:
    passed = dict(ours(target, target.protected, session))
    cookie = session.removeprefix("Cookie: ").partition("=")[0]
    for value in (passed["akoya-id-token"], passed["akoya-owner"], passed["signature"]):
        assert not target.fetch(target.protected, f"Authorization: Bearer {value}").let_in
        assert not target.fetch(target.protected, f"Cookie: {cookie}={value}").let_in
    assert not target.fetch(target.protected, *(f"{name}: {value}" for name, value in passed.items())).let_in


@advisory("CVE-2026-47203", "CVE-2024-21500", attack="A rate limit is keyed by raw text, so that variants of a value allow more attempts.",
          ours="Login starts are limited per address. All spellings of an address share one key, and so do all addresses of an IPv6 /64.")  # fmt: skip
def test_cve_2026_47203_every_spelling_of_an_address_is_one_bucket() -> None:
    spellings = [
        "2001:db8::1",
        "2001:DB8:0:0::1",
        "2001:0db8:0000:0000:0000:0000:0000:0001",
        "2001:db8::ffff:1.2.3.4",
        "2001:db8::1%eth0",
    ]
    assert len({client_key(RequestInfo("GET", b"/", b"", [], text, ""), ()) for text in spellings}) == 1
    assert client_key(RequestInfo("GET", b"/", b"", [], "::ffff:192.0.2.1", ""), ()) == client_key(
        RequestInfo("GET", b"/", b"", [], "192.0.2.1", ""), ()
    )


@pytest.mark.parametrize("count", [3000])
@advisory("CVE-2024-24814", "GHSA-hxr6", attack="A cookie that claims a huge number of chunks exhausts memory and CPU.",
          ours="Each gateway cookie is one short random value. Cookies are not split into chunks.")  # fmt: skip
def test_cve_2024_24814_huge_chunk_count(target: Target, count: int) -> None:
    names = ("akoya", "__Host-akoya", "mod_auth_openidc_session", "_oauth2_proxy", "session")
    for name in names:
        for text in (
            f"{name}_chunks=99999999999999999999; {name}_0=x",
            f"{name}_chunks=-1; {name}=x",
            f"{name}=" + "9" * 6000,
        ):
            assert not target.fetch(target.protected, f"Cookie: {text}").let_in
    crumbs = "; ".join(f"akoya_{number}=x" for number in range(count))
    assert not target.fetch(target.protected, f"Cookie: {crumbs}").let_in
    assert target.fetch(target.public).let_in, "the gateway still runs"


@pytest.mark.parametrize(
    "cookie", ["=", ";", ";;;;", "=;=", "akoya", "akoya=", "=akoya", "akoya==;akoya", "; ; akoya=x", 'akoya="x;y"', "\xff\xfe", "a=b;" * 500, "akoya= ;akoya",
               "akoya=" + "A" * 43 + "; akoya", ",", "$Version=1; akoya=x"],
)  # fmt: skip
@advisory("CVE-2023-28625", "GHSA-f5xw", attack="A crafted cookie crashes the code that strips cookies.",
          ours="Cookies are read and stripped by linear searches over bytes, fuzzed with random input.")  # fmt: skip
def test_cve_2023_28625_crafted_cookies(target: Target, session: str, cookie: str) -> None:
    assert not target.fetch(target.protected, f"Cookie: {cookie}").let_in
    with_session = target.fetch(target.protected, f"{session}; {cookie}")
    value = session.partition("=")[2].partition(";")[0]
    assert with_session.status in (200, 400, 401)
    if with_session.seen is not None:
        assert value not in str(with_session.seen["headers"])
    assert target.fetch(target.public).let_in


@advisory("CVE-2026-47774", attack="Very many Cookie headers with one crumb each exhaust memory.",
          ours="The whole request head is bounded (`limits.header_bytes`), however it is divided. Crumbs are joined once.")  # fmt: skip
def test_cve_2026_47774_cookie_crumbs(target: Target) -> None:
    few = target.fetch(target.public, *["Cookie: a=b"] * 90)
    assert few.status in (200, 400, 431)
    many = target.fetch(target.protected, *["Cookie: a=b"] * 9000)
    assert not many.let_in
    if target.entrypoint != "middleware":  # there the app server's limit applies
        assert many.status in (0, 400, 431, 494)
    assert target.fetch(target.public).let_in


@pytest.mark.parametrize(
    "header",
    [
        "X-Ok: a\r\n b",
        "X-Ok: a\r\n\tAkoya-Owner: me",
        "Akoya-Owner : me",
        "Akoya-Owner\t: me",
        " Akoya-Owner: me",
        "X-Ok: a\nAkoya-Owner: me",
    ],
)
@advisory("CVE-2024-21493", attack="Input of an unexpected form is not validated, and a handler panics or interprets it differently.",
          ours="Folded lines, spaces before the colon and bare line feeds are refused or never become a gateway header.")  # fmt: skip
def test_cve_2024_21493_headers_of_an_odd_shape(target: Target, session: str, header: str) -> None:
    reply = target.fetch(target.protected, session, header)
    if reply.seen is not None:
        owners = [value for name, value in reply.seen["headers"] if name.replace("_", "-").strip() == "akoya-owner"]
        assert len(owners) == 1
        assert owners != ["me"]
        assert reply.seen["signature"].startswith("valid")
    else:
        assert reply.status in (0, 400, 401, 403)
    assert target.fetch(target.public).let_in


def test_id_token_is_really_one(target: Target, session: str) -> None:
    """Check that "spoofed" would be found, so that its absence above proves something."""
    token = dict(ours(target, target.protected, session))["akoya-id-token"]
    header = token.split(".")[0]
    assert b'"alg"' in base64.urlsafe_b64decode(header + "=" * (-len(header) % 4))
