"""Origin, listeners, upstream, redirects, trusted proxies, identity."""

from __future__ import annotations

from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, PrivateFormat

from akoya_gateway.config.diagnostics import quoted
from akoya_gateway.config.model import (
    Bytes,
    Config,
    Identity,
    IdentitySource,
    Listen,
    Origin,
    Seconds,
    WebSocketBounds,
)
from akoya_gateway.trusted_proxies import TrustedProxies
from tests.support.certificates import self_signed
from tests.support.config_documents import ENVIRON, error_lines, validated, warning_lines

LOOPBACK = {"public_url": "http://localhost:8080", "clients.demo-app.redirect_uri": "http://localhost:8080/cb"}


def _config(tmp_path: Path, changes: dict[str, Any]) -> Config:
    result = validated(tmp_path, changes)
    assert result.config is not None, error_lines(result)
    return result.config


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"public_url": "http://app.example.com"}, "public_url: plain http is accepted for loopback addresses only"),
        ({"public_url": "https://app.example.com/base"}, "public_url: an origin has no path and no query"),
        ({"public_url": "https://app.example.com?"}, "public_url: an origin has no path and no query"),
        ({"public_url": "https://127.1/"}, "public_url: "),
        ({"public_url": "https://-bad.example.com"}, "public_url: the host of the URL cannot be read"),
        ({"public_url": "https://bücher.example"}, "public_url: a URL must be ASCII"),
        ({"listen": "127.0.0.1:70000"}, "listen: a port is 0 to 65535"),
        ({"listen": "999.0.0.1:80"}, "listen: 999.0.0.1 is not an IP address"),
        ({"listen": "1:30"}, "listen: 1 is not an IP address; write one like 127.0.0.1"),
        ({"listen": "unix:/" + "x" * 200}, "listen: the path of a unix socket has at most 107 bytes"),
        ({"admin": {"listen": "127.0.0.1:8080"}}, "admin.listen: admin must not listen where the public does"),
        ({"upstream": {"url": "http://10.0.0.1:3000"}}, "upstream.url: plain http to an address that is not loopback"),
        ({"upstream": {"url": "http://app:3000"}}, "upstream.url: plain http to an address that is not loopback"),
        (
            {"upstream": {"url": ["http://[::1]:1", "http://a"]}},
            "upstream.url[1]: plain http to an address that is not",
        ),
        ({"upstream": {"url": "http://127.0.0.1:0"}}, "upstream.url: the port of the URL cannot be read"),
        ({"upstream": {"url": "http://::1"}}, "upstream.url: "),
        ({"upstream": {"url": "http://127.0.0.1", "max_header_bytes": 100}}, "upstream.max_header_bytes: must be 4KiB"),
        (
            {"upstream": {"url": "http://127.0.0.1", "timeout": {"read": "0s"}}},
            "upstream.timeout.read: must be more than 0",
        ),
        (
            {"upstream": {"url": "http://127.0.0.1", "websocket": {"max_message": "0MB"}}},
            "upstream.websocket.max_message: must be more than 0",
        ),
        (
            {"upstream": {"url": "http://127.0.0.1", "websocket": {"idle_timeout": "0s"}}},
            "upstream.websocket.idle_timeout: must be more than 0",
        ),
        ({"upstream": {"url": "https://a", "tls": {"ca": "no.pem"}}}, "upstream.tls.ca: there is no file"),
        ({"redirects.allow": ["https://evil.example.com*"]}, "redirects.allow[0]: a `*` right after the host"),
        ({"redirects.allow": ["/a*b"]}, "redirects.allow[0]: a `*` is only allowed at the end of the path"),
        ({"redirects.allow": ["https://*.example.com/"]}, "redirects.allow[0]: a `*` is only allowed at the end"),
        ({"redirects.allow": ["//evil.example.com/*"]}, "redirects.allow[0]: empty and dot segments"),
        ({"redirects.allow": ["/a/../b"]}, "redirects.allow[0]: empty and dot segments"),
        ({"redirects.allow": ["/a?b=*"]}, "redirects.allow[0]: patterns match the path only"),
        ({"redirects.allow": ["http://other.example.com/*"]}, "redirects.allow[0]: plain http"),
        ({"redirects.allow": ["https://u@h.example.com/*"]}, "redirects.allow[0]: no user name"),
        ({"redirects.allow": ["https://H.example.com/*"]}, "redirects.allow[0]: an origin is written in lower case"),
        (
            {"redirects.allow": ["javascript:alert(1)"]},
            "redirects.allow[0]: expected a path that begins with /, or a URL",
        ),
        ({"redirects.after_connect": "//evil.example.com"}, "redirects.after_connect: empty and dot segments"),
        ({"redirects.after_connect": "/a*"}, "redirects.after_connect: a `*` is only allowed in redirects.allow"),
        ({"redirects.after_error": "data:text/html,x"}, "redirects.after_error: expected a path"),
        ({"trusted_proxies": ["0.0.0.0/0"]}, "trusted_proxies[0]: this trusts every client"),
        ({"trusted_proxies": ["::/0"]}, "trusted_proxies[0]: this trusts every client"),
        ({"trusted_proxies": ["::ffff:0.0.0.0/96"]}, "trusted_proxies[0]: this trusts every client"),
        (
            {"trusted_proxies": ["10.1.2.3/8"]},
            "trusted_proxies[0]: the address has bits beyond the length of its network",
        ),
        ({"trusted_proxies": ["proxy.internal"]}, 'trusted_proxies[0]: "proxy.internal" is not an address or network'),
        ({"identity": {"header": "X-User"}}, "identity.header: a header is only trusted from trusted_proxies"),
        ({"identity": {"header": "X-User"}, "trusted_proxies": []}, "identity.header: a header is only trusted from"),
        (
            {"identity": {"header": "Cookie"}, "trusted_proxies": ["::1"]},
            "identity.header: the header Cookie has a meaning",
        ),
        (
            {"identity": {"header": "akoya_owner"}, "trusted_proxies": ["::1"]},
            "identity.header: the header akoya_owner has",
        ),
        ({"identity": {"header": "X_User"}, "trusted_proxies": ["::1"]}, "identity.header: a header with `_` can be"),
        (
            {"identity": {"from": "session", "header": "X-User"}, "trusted_proxies": ["::1"]},
            "identity.header: from and header cannot be used together",
        ),
        (
            {"identity": {"jwt": {"jwks_uri": "http://idp.example.com/k", "issuer": "i", "audience": "a"}}},
            "identity.jwt.jwks_uri: plain http",
        ),
    ],
)
def test_one_mistake_is_one_fault(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    lines = error_lines(validated(tmp_path, changes))
    assert len(lines) == 1, lines
    assert lines[0].startswith(message), lines[0]


@pytest.mark.parametrize(
    ("listen", "admin", "url", "key"),
    [
        ("127.0.0.1:8080", None, "http://localhost:8080", "listen"),
        ("0.0.0.0:8080", None, "http://127.0.0.1:8080", "listen"),
        ("[::]:8080", None, "http://[::1]:8080", "listen"),
        ("unix:/run/a.sock", None, "unix:/run/a.sock", "listen"),
        ("127.0.0.1:8080", {"listen": "127.0.0.1:9100"}, "http://127.0.0.1:9100", "admin.listen"),
        ("[::]:8080", None, "http://127.0.0.1:8080", "listen"),
        ("127.0.0.1:8080", None, "http://127.0.0.2:8080", None),
        ("0.0.0.0:8080", None, "http://[::1]:8080", None),
        ("127.0.0.1:8080", None, "http://[::1]:8080", None),
        ("unix:/run/a.sock", None, "unix:/run/b.sock", None),
    ],
)
def test_upstream_that_is_the_gateway_itself_is_refused(
    tmp_path: Path, listen: str, admin: dict[str, str] | None, url: str, key: str | None
) -> None:
    """One request to such a gateway became hundreds, each forwarded to itself with more headers, until 431 or 504."""
    changes = {"listen": listen, "admin": admin, "upstreams": {"other": {"url": url}}, "access.0.upstream": "other"}
    lines = error_lines(validated(tmp_path, changes))
    if key is None:
        assert lines == []
    else:
        (line,) = lines
        assert line.startswith(f"upstreams.other.url: this is the gateway's own address ({key}): ")


def test_upstream_at_a_default_listener_or_at_public_url_is_a_warning(tmp_path: Path) -> None:
    urls = {"listen": "http://127.0.0.1:8080", "admin.listen": "http://127.0.0.1:9090"}
    urls["public_url"] = "https://app.example.com:443"
    upstreams = {name.partition(".")[0]: {"url": url} for name, url in urls.items()}
    result = validated(tmp_path, {"upstreams": upstreams, "access.0.upstream": "listen"})
    assert result.config is not None
    lines = [line for line in warning_lines(result) if ": this is " in line]
    assert [line.partition(": this is ")[2].partition(":")[0] for line in lines] == [
        "the gateway's own address (listen)",
        "the gateway's own address (admin.listen)",
        "public_url",
    ]


def test_trusted_proxies_in_ipv4_mapped_form_match_their_ipv4_peers(tmp_path: Path) -> None:
    proxies = _config(tmp_path, {"trusted_proxies": ["::ffff:10.1.2.3", "::ffff:172.16.0.0/108"]}).trusted_proxies
    trusted = TrustedProxies(proxies)
    assert trusted("10.1.2.3")
    assert trusted("::ffff:10.1.2.3")
    assert trusted("172.20.1.1")
    assert not trusted("10.1.2.4")
    assert not trusted("172.32.0.1")


def test_origin_is_taken_apart(tmp_path: Path) -> None:
    assert _config(tmp_path, {}).public_url == Origin("https", "app.example.com", 443)
    assert _config(tmp_path, {"public_url": "https://APP.example.com:443/"}).public_url == Origin(
        "https", "app.example.com", 443
    )


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "127.9.9.9", "[::1]", "app.localhost"])
def test_plain_http_is_accepted_on_loopback_with_a_warning(tmp_path: Path, host: str) -> None:
    origin = f"http://{host}:8080"
    result = validated(tmp_path, {"public_url": origin, "clients.demo-app.redirect_uri": f"{origin}/cb"})
    assert result.config is not None, error_lines(result)
    assert result.config.clients["demo-app"].callback_path == "/cb"
    assert any(line.startswith("public_url: http on loopback") for line in warning_lines(result))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0.0.0.0:8080", Listen("0.0.0.0", 8080)),
        ("[::]:80", Listen("::", 80)),
        ("localhost:0", Listen("localhost", 0)),
        ("unix:/run/g.sock", Listen("", 0, "/run/g.sock")),
    ],
)
def test_listeners_are_read(tmp_path: Path, text: str, expected: Listen) -> None:
    assert _config(tmp_path, {"listen": text}).listen == expected


def test_admin_listener_has_a_default_and_can_be_switched_off(tmp_path: Path) -> None:
    assert _config(tmp_path, {}).admin == Listen("127.0.0.1", 9090)
    assert _config(tmp_path, {"admin": None}).admin is None
    assert _config(tmp_path, {"listen": "127.0.0.1:0", "admin": {"listen": "127.0.0.1:0"}}).admin == Listen(
        "127.0.0.1", 0
    )


@pytest.mark.parametrize(
    ("listen", "insecure", "refused"),
    [
        ("127.0.0.1:9090", False, False),
        ("[::1]:9090", False, False),
        ("unix:/run/admin.sock", False, False),
        ("0.0.0.0:9090", False, True),
        ("[::]:9090", False, True),
        ("10.1.2.3:9090", False, True),
        ("0.0.0.0:9090", True, False),
    ],
)
def test_token_route_on_plain_http_beyond_loopback_is_refused_unless_it_is_switched_on(
    tmp_path: Path, listen: str, insecure: bool, refused: bool
) -> None:
    admin = {"listen": listen, "insecure_http": insecure}
    assert error_lines(validated(tmp_path, {"admin": admin})) == []
    lines = error_lines(
        validated(tmp_path, {"admin": admin | {"token_bearer": {"env": "BEARER"}}}, {**ENVIRON, "BEARER": "b" * 32})
    )
    assert [line.partition(" (")[0] for line in lines] == [
        "admin.token_bearer: plain http beyond loopback would show the bearer and the tokens to the network"
    ] * refused


def test_upstreams_are_one_or_several_or_none(tmp_path: Path) -> None:
    assert _config(tmp_path, {}).upstream is None
    several = {
        "url": ["http://127.0.0.1:3000", "https://app.internal", "unix:/run/app.sock"],
        "max_header_bytes": "8KiB",
    }
    upstream = _config(tmp_path, {"upstream": several}).upstream
    assert upstream is not None
    assert upstream.origins == (
        Origin("http", "127.0.0.1", 3000),
        Origin("https", "app.internal", 443),
        Origin("http", "localhost", 80, "/run/app.sock"),
    )
    assert upstream.max_header_bytes == 8192
    assert (upstream.connect_timeout, upstream.read_timeout, upstream.pool) == (5.0, 60.0, 100)


def test_websockets_have_bounds_that_can_be_others(tmp_path: Path) -> None:
    upstream = _config(tmp_path, {"upstream": {"url": "http://127.0.0.1"}}).upstream
    assert upstream is not None
    assert upstream.websocket == WebSocketBounds() == WebSocketBounds(Bytes(16 << 20), Seconds(600.0))
    bounds = {"max_message": "1MB", "idle_timeout": "90s"}
    upstream = _config(tmp_path, {"upstream": {"url": "http://127.0.0.1", "websocket": bounds}}).upstream
    assert upstream is not None
    assert upstream.websocket == WebSocketBounds(Bytes(1_000_000), Seconds(90.0))


def test_plain_http_to_an_upstream_is_switched_on_by_name(tmp_path: Path) -> None:
    upstream = _config(tmp_path, {"upstream": {"url": "http://app:3000", "insecure_http": True}}).upstream
    assert upstream is not None
    assert upstream.origins == (Origin("http", "app", 3000),)


def test_certificate_needs_its_key(tmp_path: Path) -> None:
    (tmp_path / "c.pem").write_bytes(self_signed())
    tls = {"certificate": "c.pem"}
    assert error_lines(validated(tmp_path, {"upstream": {"url": "https://a", "tls": tls}})) == [
        "upstream.tls.certificate: a certificate without its key (add key)"
    ]
    upstream = _config(tmp_path, {"upstream": {"url": "https://a", "tls": {**tls, "key": "c.pem"}}}).upstream
    assert upstream is not None
    assert upstream.tls.certificate == upstream.tls.key == tmp_path / "c.pem"


def test_tls_files_of_an_upstream_that_cannot_be_used_are_faults_of_the_file(tmp_path: Path) -> None:
    """They used to cause a traceback at startup, and OpenSSL prompted for the passphrase of an encrypted key."""
    (tmp_path / "good.pem").write_bytes(self_signed())
    (tmp_path / "other.pem").write_bytes(self_signed())
    (tmp_path / "junk.pem").write_text("x")
    key = ed25519.Ed25519PrivateKey.generate()
    encrypted = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"pw"))
    (tmp_path / "encrypted.pem").write_bytes(encrypted)
    reason = "certificate and key cannot be used: not PEM, not a pair, or encrypted"
    for tls, message in (
        ({"ca": "junk.pem"}, f"ca: {quoted(str(tmp_path / 'junk.pem'))} cannot be used: no certificate in PEM"),
        ({"certificate": "junk.pem", "key": "good.pem"}, f"certificate: {reason}"),
        ({"certificate": "good.pem", "key": "other.pem"}, f"certificate: {reason}"),
        ({"certificate": "good.pem", "key": "encrypted.pem"}, f"certificate: {reason}"),
    ):
        assert error_lines(validated(tmp_path, {"upstream": {"url": "https://a", "tls": tls}})) == [
            f"upstream.tls.{message}"
        ]
    good = {"ca": "good.pem", "certificate": "good.pem", "key": "good.pem"}
    assert error_lines(validated(tmp_path, {"upstream": {"url": "https://a", "tls": good}})) == []


def test_redirect_defaults_are_on_the_public_origin(tmp_path: Path) -> None:
    redirects = _config(tmp_path, {"prefix": "/banks", "redirects.after_connect": "/accounts"}).redirects
    assert redirects.after_error == "/banks/"
    assert redirects.allow == ("/accounts",)


def test_redirect_patterns_are_kept_as_written(tmp_path: Path) -> None:
    allow = ["/", "/accounts", "/accounts/*", "https://app.example.com/*", "https://other.example.com:8443/x"]
    assert _config(tmp_path, {"redirects.allow": allow}).redirects.allow == tuple(allow)


def test_trusting_all_proxies_requires_trust_all_proxies(tmp_path: Path) -> None:
    config = _config(tmp_path, {"trusted_proxies": ["0.0.0.0/0", "::1"], "trust_all_proxies": True})
    assert config.trusted_proxies == (ip_network("0.0.0.0/0"), ip_network("::1/128"))


def test_identity_header_that_no_file_of_deploy_removes_is_a_warning(tmp_path: Path) -> None:
    for name, warned in (
        ("X-User", True),
        ("X-Forwarded-User", False),
        ("Remote-User", False),
        ("Oidc-Claim-Any", False),
    ):
        result = validated(tmp_path, {"identity": {"header": name}, "trusted_proxies": ["10.0.0.0/8"]})
        assert result.config is not None
        text = f"no file of deploy/ removes a client's own {name}, and your proxy may pass it on"
        assert (text in [warning.message for warning in result.warnings]) is warned


def test_identities_are_read(tmp_path: Path) -> None:
    assert _config(tmp_path, {}).identity == Identity()
    by_header = _config(tmp_path, {"identity": {"header": "X-User"}, "trusted_proxies": ["10.0.0.0/8"]}).identity
    assert by_header == Identity(IdentitySource.HEADER, "x-user")
    jwt = {"jwks_uri": "https://idp.example.com/k", "issuer": "i", "audience": "a", "claim": "email"}
    assert _config(tmp_path, {"identity": {"jwt": jwt}}).identity == Identity(
        IdentitySource.JWT, "authorization", "https://idp.example.com/k", "i", "a", "email"
    )
