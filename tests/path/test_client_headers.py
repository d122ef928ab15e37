"""Client headers that servers use to override path, method, user or address. One list applies to all spellings."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from akoya_gateway import client_headers
from akoya_gateway.access.request import RequestInfo
from akoya_gateway.client_header_names import FROM_PROXIES, MOVES_THE_REQUEST
from akoya_gateway.client_headers import LOGGED_NAMES, ClientHeaders, Handling, is_alias, is_known
from akoya_gateway.config.model import Cookie, Seconds
from akoya_gateway.gateway.original_request import OriginalRequestCache
from akoya_gateway.sessions.gateway_cookies import GatewayCookies
from tests.support.config_documents import validated

MOVING = ["SCRIPT_NAME", "PATH_INFO", "Script-Name", "Daphne-Root-Path", "X-Script-Name", "X-Original-URI", "X-Original-URL",
          "X-Original-Path", "X-Rewrite-URL", "X-Envoy-Original-Path", "X-Forwarded-Uri", "Request-Uri", "X-Accel-Mapping",
          "X-HTTP-Method-Override", "X-Method-Override", "X-HTTP-Method", "Request-Method", "Proxy", "X-Waws-Unencoded-Url",
          "MS-ASPNETCORE-WINAUTHTOKEN", "X-Any-Script-Name", "X-Any-Method-Override", "Any-Original-Url", "X-Invoke-Any", "X-Astro-Path",
          "X-Middleware-Override-Headers", "X-CouchDB-Requested-Path", "X-Traversal-Path", "Method-Override", "X-HTTP-Verb", "Http-Url",
          "Proxy-Url", "Redirect-Url", "Request-Target", "X-Request-Base", "Request-Base", "X-Tomcat-DocRoot", "XAJP-Path-Info", "X-CF-Forwarded-Url",
          "X-React-Router-Prerender-Data", "X-JFrog-Override-Base-Url", "X-Tunneled-Method", "Grpc-Metadata-Akoya-Owner", "Grpc-Metadata-X-Forwarded-User"]  # fmt: skip
SAID_BY_PROXIES = ["X-Forwarded-For", "X-Forwarded-Prefix", "X-Forwarded-User", "X-Real-IP", "True-Client-IP", "X-Client-IP", "Client-IP",
                   "CF-Connecting-IP", "X-Proxied-Https", "Remote-User", "X-Remote-User", "X-Auth-Request-User", "Forwarded",
                   "X-Envoy-External-Address", "Front-End-Https", "X-Scheme", "Fastly-Client-IP", "$WSRU", "WL-Proxy-Client-IP",
                   "Client-Cert", "SSL-Client-Verify", "Tailscale-User-Login", "X-Appengine-Cron", "X-AppEngine-User-Is-Admin", "X-Amzn-Oidc-Data",
                   "X-Goog-IAP-JWT-Assertion", "Cf-IPCountry", "Fastly-SSL", "Any-Client-IP", "X-Any-Real-IP", "Any-Remote-User", "Forwarded-Host", "X-Orig-Host",
                   "X-Apigateway-Event", "L5d-Dst-Override", "Oidc-Claim-Sub", "Iv-User", "Remote-Groups", "X-Pomerium-Claim-Email", "Traceparent", "Tracestate",
                   "B3", "X-B3-TraceId", "Sentry-Trace", "X-Datadog-Trace-Id", "X-Custom-IP-Authorization", "X-Forwarder-For", "X-Client-Cert-Subject-DN", "X-SSL-Subject",
                   "Client-Cert-Chain", "Mellon-Any", "X-Vouch-Any", "X-Token-User-Roles", "X-JWT-Assertion", "X-ProxiedEntitiesChain", "Logon-User", "Proxy-Host", "Impersonate-User", "Tailscale-App-Capabilities",
                   "Ngrok-Auth-User-Email", "Sf-Context-Current-User", "X-Streamlit-User", "Plotly-User-Data", "Dapr-App-Id", "Knative-Serving-Revision",
                   "X-WebObjects-Remote-User", "SSLClientCertSubject", "Cert-Chain-0", "X-TLS-Version", "SM-AuthType", "Eppn", "X-Any-Forwarded-User",
                   "X-Any-Subject-DN", "Jaeger-Debug-Id", "Sw8", "X-Instana-T", "Pinpoint-Sampled", "X-Amzn-Ava-User-Context"]  # fmt: skip

COOKIES = GatewayCookies(Cookie("akoya", secure=False, idle=Seconds(1.0), lifetime=Seconds(1.0)), Seconds(1.0))


@pytest.mark.parametrize("name", MOVING)
def test_header_that_changes_the_request_is_dropped_from_every_peer(name: str) -> None:
    headers = ClientHeaders()
    for spelling in (
        name,
        name.lower(),
        name.upper(),
        name.replace("-", "_"),
        name.replace("-", "."),
        name.replace("_", "-"),
    ):
        assert headers.handling(spelling.encode()) is Handling.DROP
        assert not headers.passes(spelling.encode(), from_proxy=True)


@pytest.mark.parametrize("name", SAID_BY_PROXIES)
def test_name_that_proxies_use_passes_from_proxies_alone_in_its_own_spelling(name: str) -> None:
    headers = ClientHeaders()
    for spelling in (name, name.lower(), name.upper()):
        assert headers.passes(spelling.encode(), from_proxy=True)
        assert not headers.passes(spelling.encode(), from_proxy=False)
    for spelling in (name.replace("-", "_"), name.replace("-", "."), name.replace("-", "!")):
        assert spelling == name or headers.handling(spelling.encode()) is Handling.DROP


@pytest.mark.parametrize(
    "name",
    [
        "Accept",
        "X-Own",
        "Authorization",
        "X-Request-Id",
        "Sec-Fetch-Mode",
        "Akoya",
        "x.own",
        "X-User-Id",
        "Range",
        "X-Middleware-Prefetch",
        "X-SvelteKit-Pathname",
        "Access-Control-Request-Method",
        "HX-Current-URL",
        "Next-Url",
        "CDN-Loop",
        "Baggage",
        "X-Requested-With",
        "Origin-Path",
        "Grpc-Metadata-Authorization",
        "X-Serverless-Authorization",
        "Ngrok-Skip-Browser-Warning",
    ],
)
def test_unknown_header_is_forwarded(name: str) -> None:
    assert ClientHeaders().handling(name.encode()) is Handling.PASS


@pytest.mark.parametrize(
    "name", ["X_Own", "_", "x_", "Content_Length", "Host_", "X_Http_Method_Override", "Authorization_"]
)
def test_name_with_an_underscore_is_dropped_unless_allowed(name: str) -> None:
    assert ClientHeaders().handling(name.encode()) is Handling.DROP
    assert ClientHeaders([name.lower()]).handling(name.encode()) is Handling.PASS


def test_token_that_names_the_user_passes_whatever_its_name() -> None:
    assert ClientHeaders(identity="x-forwarded-access-token").handling(b"X-Forwarded-Access-Token") is Handling.PASS
    assert ClientHeaders(identity="x-forwarded-access-token").handling(b"X_Forwarded_Access_Token") is Handling.DROP


def test_every_name_of_the_lists_is_known_and_spelled_as_it_folds() -> None:
    # spring.cloud.function.routing-expression has dots.
    assert ClientHeaders().handling(b"spring.cloud.function.routing-expression") is Handling.DROP
    for name in MOVES_THE_REQUEST | FROM_PROXIES:
        assert client_headers.fold(name) == name
        assert is_known(name)
        assert "-" not in name.decode() or is_alias(name.replace(b"-", b"_"))


@pytest.mark.parametrize("name", ["X-Forwarded-Anything", "Oidc-Any", "Any-Real-Ip", "Any-Script-Name", "X.Real-Ip"])
def test_name_that_nginx_cannot_remove_makes_a_check_irreplaceable(name: str) -> None:
    def check(*names: str, identity: str | None = None) -> bytes | None:
        headers = [
            (b"host", b"h"),
            (b"x-original-uri", b"/"),
            (b"x-original-method", b"GET"),
            *((one.lower().encode(), b"x") for one in names),
        ]
        cache = OriginalRequestCache(b"/r", COOKIES, ClientHeaders(), identity)
        return cache.read(RequestInfo("GET", b"/r", b"", headers, "127.0.0.1", "id")).irreplaceable

    assert check("X-Forwarded-For", "X-Forwarded-Proto", "X-Real-Ip", "Cf-Any", "X-Own", "Traceparent") is None
    assert check("Accept", name) == name.lower().encode()
    # Only the header that the operator has configured may come from nginx.
    assert check(name, identity=name.lower()) is None
    assert check(name, "X-Remote-Any", identity=name.lower()) == b"x-remote-any"


def test_dropped_name_is_logged_once_and_a_bounded_number_of_them(caplog: pytest.LogCaptureFixture) -> None:
    headers = ClientHeaders()
    with caplog.at_level(logging.WARNING):
        for number in range(LOGGED_NAMES * 3):
            for _ in range(2):
                headers.log_dropped(b"x_%d" % number)
    assert len(caplog.records) == LOGGED_NAMES


@pytest.mark.parametrize(
    "name",
    [
        "script_name",
        "X_Forwarded_For",
        "akoya_owner",
        "signature_input",
        "content_length",
        "x_http_method_override",
        "remote_user",
    ],
)
def test_name_that_folds_to_a_known_one_cannot_be_allowed(tmp_path: Path, name: str) -> None:
    faults = validated(tmp_path, {"allow_underscore_headers": [name]}).diagnostics
    assert [diagnostic.message for diagnostic in faults] == [
        f"a server can take {name} for a header that the gateway decides about"
    ]


def test_allowed_names_are_read_in_lower_case_and_need_an_underscore(tmp_path: Path) -> None:
    result = validated(tmp_path, {"allow_underscore_headers": ["X_Legacy"]})
    assert result.config is not None
    assert result.config.allow_underscore_headers == ("x_legacy",)
    assert "only names with `_` are dropped" in str(
        validated(tmp_path, {"allow_underscore_headers": ["X-Legacy"]}).diagnostics[0]
    )
