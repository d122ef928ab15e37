"""Paths, headers and the meaning of responses, without I/O."""

from __future__ import annotations

import json
from dataclasses import replace
from urllib.parse import unquote, unquote_to_bytes

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from akoya_gateway.access.path_normalization import PathRefused, normalize_path
from akoya_gateway.config.model import DataApi, Dialect, Environment, Intent, Seconds
from akoya_gateway.config.presets import PRODUCTS
from akoya_gateway.data_api.headers import context_headers, interaction_id, request_headers, response_headers
from akoya_gateway.data_api.paths import UnknownProduct, forwarded_query, target_path
from akoya_gateway.data_api.responses import MAX_ERROR_BYTES, Meaning, error_code, meaning_of
from akoya_gateway.errors import UserError
from akoya_gateway.secret import Secret
from akoya_verify.client import NeedsReconnect, TokenClient

ENVIRONMENT = Environment("e", None, "", "", None, None, "https://products.example.com:8443/base/", Dialect())
API = DataApi("bank-data", ENVIRONMENT, "v3", Intent.NONPAYMENTS, PRODUCTS, Seconds(12.0))
BASE = httpx.URL(API.base_url)

# Characters that servers and clients treat specially, mixed with arbitrary ones.
hostile = st.text(
    st.one_of(
        st.sampled_from("/\\.%;?#@:&=+ \t\r\n\0[]{}<>|^`\"'2fF5cCeE~é\u2044\uff0f"), st.characters(codec="ascii")
    ),
    max_size=24,
)


def url_of(path: str, query: bytes = b"") -> httpx.URL:
    return BASE.copy_with(raw_path=BASE.raw_path.rstrip(b"/") + path.encode() + (b"?" + query if query else b""))


def test_path_is_product_version_provider_and_the_rest() -> None:
    assert target_path(API, "mikomo", "balances") == "/balances/v3/mikomo"
    assert target_path(API, "first bank/é", "transactions/123") == "/transactions/v3/first%20bank%2F%C3%A9/123"
    assert target_path(replace(API, version="v2"), "m", "statements/1/2") == "/statements/v2/m/1/2"


@pytest.mark.parametrize("rest", ["", "/balances", "Balances", "balances2", "..", "v3", "balances?x"])
def test_other_products_are_unknown(rest: str) -> None:
    with pytest.raises(UnknownProduct):
        target_path(API, "mikomo", rest)


@given(product=st.sampled_from(sorted(PRODUCTS)), provider=hostile, rest=hostile)
def test_no_path_or_provider_leaves_the_product_or_the_host(product: str, provider: str, rest: str) -> None:
    """Whatever the connector is called and the client sends: host and base stay, and so do the first three segments."""
    try:
        path = target_path(API, provider, f"{product}/{rest}")
    except UserError:
        assert not {".", ".."}.isdisjoint({provider, *rest.split("/")})
        return
    url = url_of(path)
    assert (url.scheme, url.host, url.port) == ("https", "products.example.com", 8443)
    assert url.query == b""
    segments = url.raw_path.decode("ascii").split("/")
    assert segments[:4] == ["", "base", product, "v3"]
    assert unquote(segments[4]) == provider
    assert [unquote(segment) for segment in segments[5:]] == rest.split("/")
    assert not {".", ".."} & {unquote(segment) for segment in segments}


@given(raw=st.binary(max_size=40), product=st.sampled_from(sorted(PRODUCTS)))
def test_no_raw_path_that_the_gateway_accepts_leaves_the_product(raw: bytes, product: str) -> None:
    try:
        rest = normalize_path(b"/" + product.encode() + b"/" + raw).removeprefix("/")
    except PathRefused:
        return
    segments = url_of(target_path(API, "mikomo", rest)).raw_path.decode("ascii").split("/")
    assert segments[:5] == ["", "base", product, "v3", "mikomo"]
    assert not {"", ".", ".."} & {unquote(segment) for segment in segments[5:-1]}
    assert not any(set("/\\;?#") & set(unquote(segment)) for segment in segments[5:])


@given(query=st.binary(max_size=60))
def test_query_stays_a_query_and_loses_only_the_gateways_parameters(query: bytes) -> None:
    url = url_of("/balances/v3/mikomo", forwarded_query(query, ("login", "owner")))
    assert (url.host, url.fragment) == ("products.example.com", "")
    assert url.raw_path.startswith(b"/base/balances/v3/mikomo")
    names = [unquote_to_bytes(pair.partition(b"=")[0].replace(b"+", b" ")) for pair in url.query.split(b"&")]
    assert not {b"login", b"owner"} & set(names)
    kept = [
        pair
        for pair in query.split(b"&")
        if unquote_to_bytes(pair.partition(b"=")[0].replace(b"+", b" ")) not in (b"login", b"owner")
    ]
    assert unquote_to_bytes(url.query) == unquote_to_bytes(b"&".join(kept))


def test_query_without_own_parameters_is_unchanged() -> None:
    assert forwarded_query(b"startTime=2026-01-01T00:00:00Z&a=%2F&b", ()) == b"startTime=2026-01-01T00:00:00Z&a=%2F&b"
    assert forwarded_query(b"l%6fgin=g_1&a=1&login=x", ("login",)) == b"a=1"


def test_only_listed_headers_of_the_client_go_along() -> None:
    sent = [
        (b"accept", b"application/pdf"),
        (b"accept-language", b"de"),
        (b"if-none-match", b'"1"'),
        (b"range", b"bytes=0-9"),
        (b"content-type", b"text/plain"),
        (b"content-length", b"3"),
        (b"cookie", b"a=b"),
        (b"authorization", b"Bearer theirs"),
        (b"x-akoya-interaction-type", b"batch"),
        (b"x-forwarded-for", b"1.2.3.4"),
        (b"accept", b"a\r\nx: y"),
    ]
    names = [b"accept", b"accept-language", b"if-none-match", b"range"]
    assert [name for name, _ in request_headers(sent, has_body=False)] == names
    assert [name for name, _ in request_headers(sent, has_body=True)] == [*names, b"content-type", b"content-length"]


def test_context_headers_have_the_bearer_the_type_the_last_access_and_the_intent() -> None:
    made = dict(context_headers(API, Secret("token"), "batch", "2026-11-30T08:00:00Z"))
    assert made[b"authorization"] == b"Bearer token"
    assert made[b"x-akoya-interaction-type"] == b"batch"
    assert made[b"x-akoya-last-access"] == b"2026-11-30T08:00:00Z"
    assert made[b"x-akoya-intent-type"] == b"nonpayments"


def test_response_cannot_set_cookies_lead_away_or_run_in_the_origin() -> None:
    names = (
        "Set-Cookie", "Location", "Refresh", "Link", "Clear-Site-Data", "Access-Control-Allow-Origin", "Akoya-Owner",
        "Strict-Transport-Security", "Content-Security-Policy", "Cache-Control", "Connection", "Transfer-Encoding",
        "X-Request-Id", "Service-Worker-Allowed", "Content-Location", "SourceMap", "Alt-Svc", "WWW-Authenticate",
    )  # fmt: skip
    kept = {b"Content-Type": b"application/json", b"X-Akoya-Interaction-Id": b"i-1", b"ETag": b'"1"'}
    made = response_headers([*((name.encode(), b"theirs") for name in names), *kept.items()])
    assert made == [
        *((name.lower(), value) for name, value in kept.items()),
        (b"x-content-type-options", b"nosniff"),
        (b"content-security-policy", b"sandbox"),
        (b"cache-control", b"private, no-store"),
    ]


@pytest.mark.parametrize(
    ("sent", "made"),
    [
        (b"application/problem+json", b"application/json"),
        (b"Application/Problem+JSON ; charset=utf-8", b"application/json"),
        (b"application/json; charset=utf-8", b"application/json; charset=utf-8"),
    ],
)
def test_problem_document_of_a_bank_becomes_plain_json(sent: bytes, made: bytes) -> None:
    """Clients take what a problem document says, such as an address to reconnect at, for the gateway's own words."""
    assert (b"content-type", made) in response_headers([(b"Content-Type", sent)], 409)


@pytest.mark.parametrize(("value", "found"), [(b"a-1", "a-1"), (b"", ""), (b"a b", ""), (b"x" * 129, "")])
def test_interaction_id_that_is_unsafe_to_log_is_dropped(value: bytes, found: str) -> None:
    assert interaction_id([(b"X-Akoya-Interaction-Id", value)]) == found


def _body(code: object) -> bytes:
    return json.dumps({"code": code}).encode()


MEANINGS = [
    (200, b"", Meaning.PASS),
    (206, b"", Meaning.PASS),
    (304, b"", Meaning.PASS),
    (301, b"", Meaning.REDIRECT),
    (302, b"", Meaning.REDIRECT),
    (307, b"", Meaning.REDIRECT),
    (400, _body(702), Meaning.PASS),
    (401, _body(602), Meaning.TOKEN_REJECTED),
    (401, _body("602"), Meaning.TOKEN_REJECTED),
    (401, _body(601), Meaning.TOKEN_REJECTED),
    (401, b"", Meaning.TOKEN_REJECTED),
    (401, b"<html>", Meaning.TOKEN_REJECTED),
    (401, _body(700), Meaning.PASS),
    (403, _body(602), Meaning.TOKEN_REJECTED),
    (403, b"", Meaning.PASS),
    (404, _body(701), Meaning.PASS),
    (404, _body(601), Meaning.TOKEN_REJECTED),
    (404, _body(602), Meaning.PASS),
    (408, b"", Meaning.TIMED_OUT),
    (429, b"", Meaning.LIMITED),
    (400, _body(1207), Meaning.LIMITED),
    (403, _body("1207"), Meaning.LIMITED),
    (500, b"", Meaning.UNAVAILABLE),
    (501, b"", Meaning.PASS),
    (502, b"", Meaning.UNAVAILABLE),
    (503, b"", Meaning.UNAVAILABLE),
    (504, b"", Meaning.UNAVAILABLE),
    (505, b"", Meaning.PASS),
]


def test_every_response_has_the_meaning_of_the_table() -> None:
    assert [(status, body, meaning_of(status, body)) for status, body, _ in MEANINGS] == MEANINGS


@pytest.mark.parametrize(
    "body", [b"", b"602", b"[602]", b'{"code": true}', b'{"code": 602.5}', b'{"code": "6 02"}', b"[" * 50_000, b"\xff"]
)
def test_body_without_an_integer_code_has_none(body: bytes) -> None:
    assert error_code(body) is None


def test_code_in_a_body_that_is_too_large_is_not_read() -> None:
    assert error_code(b'{"code": 602}' + b" " * MAX_ERROR_BYTES) is None


def test_token_client_takes_only_problem_documents_for_errors_of_the_gateway() -> None:
    body = {"type": "urn:akoya-gateway:problem:not-connected", "connect_url": "https://evil.example"}
    media_type = "application/json"

    def respond(_: httpx.Request) -> httpx.Response:
        return httpx.Response(409, json=body, headers={"content-type": media_type})

    http = httpx.Client(transport=httpx.MockTransport(respond))
    with TokenClient("http://127.0.0.1:9", "bearer", http=http) as client:
        assert client.data("mikomo", "owner", "balances").json() == body
        media_type = "application/problem+json"
        with pytest.raises(NeedsReconnect):
            client.data("mikomo", "owner", "balances")
