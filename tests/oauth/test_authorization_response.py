from __future__ import annotations

from urllib.parse import quote, urlencode

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from akoya_gateway.oauth.authorization_response import (
    AuthorizationRefused,
    CodeReceived,
    MalformedResponse,
    foreign_issuer,
    parse_authorization_response,
)
from akoya_gateway.secret import Secret
from tests.support.oauth_values import ISSUER, environment


@pytest.mark.parametrize(
    "code",
    [
        "vhmji7kmopeil4jyb57wc4znx",
        "ory_ac_Zx1-9.q_w~" + "a" * 90,
        "a",
        "SplxlOBeZQQYbYS6WxSbIA",
        "".join(map(chr, range(0x21, 0x7F))),
        "x" * 4096,
    ],
)
def test_code_of_any_form_is_received(code: str) -> None:
    query = urlencode({"code": code, "state": "xyz12345"}).encode()
    assert parse_authorization_response(query) == CodeReceived(Secret(code), "xyz12345")


def test_unknown_extras_are_tolerated_even_when_repeated_or_unreadable() -> None:
    parsed = parse_authorization_response(
        b"scope=openid+x&code=c&scope=again&state=s&session_state=%FF%00&flag&=&;&utm=1"
    )
    assert parsed == CodeReceived(Secret("c"), "s")


def test_iss_is_exposed_and_compared_exactly() -> None:
    query = urlencode({"code": "c", "state": "s", "iss": ISSUER}).encode()
    mine = parse_authorization_response(query)
    assert isinstance(mine, CodeReceived)
    assert mine.iss == ISSUER
    assert not foreign_issuer(mine, environment())
    assert foreign_issuer(mine, environment(issuer=ISSUER.rstrip("/")))
    assert not foreign_issuer(mine, environment(issuer=None))
    assert not foreign_issuer(CodeReceived(Secret("c"), "s"), environment())
    assert foreign_issuer(AuthorizationRefused("e", None, "s", iss="https://evil.example"), environment())


@pytest.mark.parametrize("name", ["code", "state", "iss", "error", "error_description"])
@pytest.mark.parametrize("spelled", ["plain", "escaped"])
def test_parameter_that_we_read_must_not_occur_twice(name: str, spelled: str) -> None:
    base = {"error": "access_denied", "error_description": "d"} if name.startswith("error") else {"code": "c"}
    query = urlencode({**base, "state": "s", "iss": ISSUER})
    again = name if spelled == "plain" else "".join(f"%{ord(c):02x}" for c in name)
    for extra in (f"{again}=zzz", f"{again}=", again):
        parsed = parse_authorization_response(f"{query}&{extra}".encode())
        assert parsed == MalformedResponse(f"{name} occurs twice", None if name == "state" else "s")
    assert not isinstance(parse_authorization_response(query.encode()), MalformedResponse)


@pytest.mark.parametrize(
    ("query", "reason", "state"),
    [
        (b"", "neither code nor error", None),
        (b"state=abc", "neither code nor error", "abc"),
        (b"code=c", "no state", None),
        (b"code=c&state=", "no state", None),
        (b"code=&state=abc", "neither code nor error", "abc"),
        (b"code=c&error=access_denied&state=abc", "both code and error", "abc"),
        (b"code=%zz&state=abc", "code is not percent-encoded correctly", "abc"),
        (b"code=%&state=abc", "code is not percent-encoded correctly", "abc"),
        (b"code=a%00b&state=abc", "code contains characters that are not allowed", "abc"),
        (b"code=a%0d%0aSet-Cookie:x&state=abc", "code contains characters that are not allowed", "abc"),
        (b"code=a%C3%A9&state=abc", "code contains characters that are not allowed", "abc"),
        (b"code=a+b&state=abc", "code contains characters that are not allowed", "abc"),
        (b"code=c&state=a%0ab", "state contains characters that are not allowed", None),
        (b"code=c&state=%f0%28", "state contains characters that are not allowed", None),
        (b"c%ode=c&state=abc", "a parameter name is not percent-encoded correctly", "abc"),
        (b"code=c&st%ate=abc", "a parameter name is not percent-encoded correctly", None),
        (b"code=a&code=b&code=c&state=abc", "code occurs twice", "abc"),
        (b"code=a&code=b&state=abc&error=e&error=f", "code occurs twice", "abc"),
        (b"code=a&code=b&state=a%0ab", "state contains characters that are not allowed", None),
        (b"code=c&state=abc&state=abc", "state occurs twice", None),
        (b"code=c&state=abc&state=&state=abc", "state occurs twice", None),
        (b"code=" + b"x" * 4097 + b"&state=abc", "code is too long", "abc"),
        (b"code=c&state=" + b"x" * 513, "state is too long", None),
        (b"code=c&state=s&x=" + b"y" * 16384, "the query is too long", None),
        (b"code=c&state=s" + b"&a" * 63, "too many parameters", None),
        (b"error=%00&state=abc", "error contains characters that are not allowed", "abc"),
        (b"error=a%22b&state=abc", "error contains characters that are not allowed", "abc"),
        (b"code=c&state=abc&iss=%0a", "iss contains characters that are not allowed", "abc"),
    ],
)
def test_unreadable_response_is_refused_with_the_reason(query: bytes, reason: str, state: str | None) -> None:
    assert parse_authorization_response(query) == MalformedResponse(reason, state)


@pytest.mark.parametrize(
    "error",
    ["access_denied", "invalid_request", "invalid_scope", "unauthorized_client", "server_error", "invalid_state",
     "temporarily_unavailable", "BANK-4711: user said no"],
)  # fmt: skip
def test_unknown_error_code_is_accepted(error: str) -> None:
    parsed = parse_authorization_response(urlencode({"error": error, "state": "s"}).encode())
    assert parsed == AuthorizationRefused(error, None, "s")


def test_documented_refusals_as_they_are_on_the_wire() -> None:
    parsed = parse_authorization_response(
        b'error=invalid_scope&error_description=Missing+required+scope(s)+["openid"].&state='
    )
    assert parsed == AuthorizationRefused("invalid_scope", 'Missing required scope(s) ["openid"].', None)


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        ("%00%1b[31mred%07", "[31mred"),
        ("a%0d%0aX-Header:%20b", "a X-Header: b"),
        ("Zugriff%20verweigert%FC", "Zugriff verweigert\ufffd"),
        ("%zz", "%zz"),
        ("%E2%80%AEright-to-left", "right-to-left"),
        ("%20%0a", None),
    ],
)
def test_description_is_made_fit_for_a_page_and_hides_no_refusal(raw: str, shown: str | None) -> None:
    parsed = parse_authorization_response(f"error=access_denied&error_description={raw}&state=s".encode())
    assert parsed == AuthorizationRefused("access_denied", shown, "s")


def test_long_error_description_is_truncated() -> None:
    parsed = parse_authorization_response(b"error=e&state=s&error_description=" + b"x" * 9000)
    assert isinstance(parsed, AuthorizationRefused)
    assert parsed.description is not None
    assert len(parsed.description) == 300


def test_codes_and_states_are_not_printed() -> None:
    shown = repr(parse_authorization_response(b"code=very-secret-code&state=very-secret-state"))
    shown += repr(parse_authorization_response(b"error=e&state=very-secret-state")) + repr(
        parse_authorization_response(b"state=very-secret-state")
    )
    assert "very-secret" not in shown


_PIECES = st.sampled_from(
    [
        b"code",
        b"state",
        b"error",
        b"error_description",
        b"iss",
        b"=",
        b"&",
        b"%",
        b"%00",
        b"%c3",
        b"+",
        b"x",
        b";",
        b"%3d",
    ]
)


@given(st.one_of(st.binary(max_size=200), st.lists(_PIECES, max_size=30).map(b"".join)))
@example(b"\xff" * 10)
def test_any_query_is_parsed_to_printable_values_or_refused(query: bytes) -> None:
    parsed = parse_authorization_response(query)
    if isinstance(parsed, CodeReceived):
        assert all("!" <= c <= "~" for c in parsed.code.reveal() + parsed.state)
    elif isinstance(parsed, AuthorizationRefused):
        assert all(" " <= c <= "~" for c in parsed.error)
        assert parsed.description is None or parsed.description.isprintable()
    else:
        assert parsed.reason


@given(code=st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=1, max_size=200))
def test_every_visible_code_comes_through_unchanged(code: str) -> None:
    parsed = parse_authorization_response(f"code={quote(code, safe='')}&state=s".encode())
    assert isinstance(parsed, CodeReceived)
    assert parsed.code.reveal() == code
