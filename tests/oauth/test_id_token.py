from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from akoya_gateway.config.model import Dialect
from akoya_gateway.oauth.id_token import (
    MAX_CANDIDATES,
    MAX_HEADER_BYTES,
    MAX_ID_TOKEN_BYTES,
    IdToken,
    IdTokenRejected,
    SubjectMismatch,
    UnknownKey,
    Unverified,
    WrongSignature,
    signed_claims,
    validate_id_token,
)
from akoya_gateway.oauth.jwks import KeySet, read_keys
from akoya_gateway.secret import Secret
from tests.support.oauth_values import (
    ISSUER,
    NOW,
    claims,
    client,
    ec_key,
    environment,
    hmac_signed,
    key_set,
    okp_key,
    rsa_key,
    signed,
)


def validate(token: Secret, keys: KeySet | None = None, **options: Any) -> IdToken:
    env = options.pop("environment", environment())
    return validate_id_token(token, keys, client(), env, options.pop("now", NOW), **options)


def segment(value: bytes) -> str:
    return base64.urlsafe_b64encode(value).rstrip(b"=").decode()


def unsigned(header: Any, body: Any, signature: str = "AA") -> Secret:
    raw = [part if isinstance(part, bytes) else json.dumps(part).encode() for part in (header, body)]
    return Secret(f"{segment(raw[0])}.{segment(raw[1])}.{signature}")


@pytest.mark.parametrize(
    ("key", "alg"),
    [
        (rsa_key(), "RS256"),
        (rsa_key(), "RS512"),
        (rsa_key(), "PS256"),
        (ec_key(), "ES256"),
        (ec_key("P-384", "e2"), "ES384"),
        (ec_key("P-521", "e3"), "ES512"),
        (okp_key(), "EdDSA"),
        (okp_key(), "Ed25519"),
    ],
)
def test_valid_id_token_is_accepted(key: Any, alg: str) -> None:
    keys = key_set(rsa_key("other"), key)
    assert validate(signed(claims(), key, alg), keys) == IdToken(
        sub="CghtaWtvbW9fMRIGbWlrb21v",
        issuer=ISSUER,
        expires_at=NOW + 900,
        issued_at=NOW - 5,
        consent_id="7f0c2c52-grant",
        verified=True,
    )


@pytest.mark.parametrize("key", [rsa_key(), ec_key(), okp_key()])
def test_changed_token_is_refused(key: Any) -> None:
    alg = {"RSA": "RS256", "EC": "ES256", "OKP": "EdDSA"}[key.key_type]
    header, body, signature = signed(claims(), key, alg).reveal().split(".")
    other = segment(json.dumps(claims(sub="someone-else")).encode())
    flipped = ("A" if signature[5] != "A" else "B").join((signature[:5], signature[6:]))
    for forged in (f"{header}.{other}.{signature}", f"{header}.{body}.{flipped}", f"{header}.{body}.AA"):
        with pytest.raises(IdTokenRejected, match="signature is wrong"):
            validate(Secret(forged), key_set(key))


@pytest.mark.parametrize("alg", ["none", "None", "NONE", "nOnE", "", None, 7])
@pytest.mark.parametrize("keys", [None, key_set(rsa_key())])
def test_none_is_never_an_algorithm_even_where_signatures_are_not_checked(alg: Any, keys: KeySet | None) -> None:
    with pytest.raises(IdTokenRejected, match="no algorithm"):
        validate(unsigned({"alg": alg, "kid": "r1"}, claims()), keys)


def test_empty_signature_is_refused_even_where_signatures_are_not_checked() -> None:
    with pytest.raises(IdTokenRejected, match="signature is not base64url"):
        validate(unsigned({"alg": "RS256"}, claims(), signature=""))


def test_public_key_is_never_an_hmac_secret() -> None:
    """CVE-2022-29217 and similar: HS256 with the text of the public key as the secret."""
    for text in (rsa_key().as_pem(private=False), rsa_key().as_der(private=False)):
        with pytest.raises(IdTokenRejected, match="algorithm does not belong to the key"):
            validate(hmac_signed(claims(), text, kid="r1"), key_set(rsa_key()))


@pytest.mark.parametrize("alg", ["HS256", "RS1", "ES256", "ES384", "RSA-OAEP", "dir", "EdDSA", "A" * 2000])
def test_algorithm_that_the_key_does_not_allow_is_refused(alg: str) -> None:
    with pytest.raises(IdTokenRejected, match="algorithm does not belong to the key"):
        validate(unsigned({"alg": alg, "kid": "r1"}, claims()), key_set(rsa_key()))


def test_key_with_alg_allows_only_that_algorithm() -> None:
    with pytest.raises(IdTokenRejected, match="algorithm does not belong to the key"):
        validate(signed(claims(), alg="PS256"), key_set(rsa_key(), alg="RS256"))
    assert validate(signed(claims(), alg="RS256"), key_set(rsa_key(), alg="RS256")).verified


def test_key_in_the_token_header_is_never_used() -> None:
    """CVE-2026-27962: `jwk`, `jku` and `x5c` in the token's header are ignored."""
    own = rsa_key("attacker")
    token = signed(claims(), own, kid="r1", jwk=own.as_dict(private=False), jku="https://evil.example/keys", x5c=["AA"])
    with pytest.raises(IdTokenRejected, match="signature is wrong"):
        validate(token, key_set(rsa_key()))


@pytest.mark.parametrize("crit", [["exp"], [], ["b64"], "b64", None])
def test_token_with_crit_header_is_refused(crit: Any) -> None:
    with pytest.raises(IdTokenRejected, match="crit"):
        validate(unsigned({"alg": "RS256", "crit": crit, "b64": False}, claims()))


def test_unknown_kid_requires_fresh_keys() -> None:
    with pytest.raises(UnknownKey):
        validate(signed(claims(), rsa_key("new")), key_set(rsa_key()))


def test_number_as_kid_names_the_key_with_that_number() -> None:
    for kid in (7, "7"):
        assert validate(signed(claims(), kid=kid), key_set(rsa_key(), kid=7)).verified
        with pytest.raises(WrongSignature):
            validate(signed(claims(), rsa_key("stranger"), kid=kid), key_set(rsa_key(), kid=7))


def test_token_without_kid_is_tried_with_the_keys_that_fit() -> None:
    keys = key_set(ec_key(), rsa_key("other"), rsa_key())
    assert validate(signed(claims(), kid=None), keys).verified
    with pytest.raises(UnknownKey):
        validate(signed(claims(), rsa_key("stranger"), kid=None), keys)


@pytest.mark.parametrize("kid", [[], {}, 7.5, "k" * 513])
def test_unreadable_kid_is_refused(kid: Any) -> None:
    with pytest.raises(IdTokenRejected, match="an unreadable kid") as rejected:
        validate(unsigned({"alg": "RS256", "kid": kid}, claims()), key_set(rsa_key()))
    assert not isinstance(rejected.value, UnknownKey), "no keys are fetched for it"


def test_token_without_keys_is_checked_by_its_claims() -> None:
    id_token = validate(signed(claims(), rsa_key("unknown")))
    assert id_token.sub == "CghtaWtvbW9fMRIGbWlrb21v"
    assert not id_token.verified
    with pytest.raises(IdTokenRejected):
        validate(signed(claims(aud="someone-else"), rsa_key("unknown")))


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"iss": None}, "iss"),
        ({"iss": ISSUER.rstrip("/")}, "iss"),
        ({"iss": ISSUER.upper()}, "iss"),
        ({"iss": [ISSUER]}, "iss"),
        ({"iss": "https://idp.ddp.akoya.com/"}, "iss"),
        ({"aud": None}, "aud"),
        ({"aud": "a3f9"}, "aud"),
        ({"aud": "a3f9:demo-and-more"}, "aud"),
        ({"aud": []}, "aud"),
        ({"aud": ["other"]}, "aud"),
        ({"aud": [["a3f9:demo"]]}, "aud"),
        ({"aud": {"a3f9:demo": 1}}, "aud"),
        ({"azp": "other"}, "azp"),
        ({"azp": ["a3f9:demo"]}, "azp"),
        ({"sub": None}, "sub"),
        ({"sub": ""}, "sub"),
        ({"sub": 7}, "sub"),
        ({"sub": ["x"]}, "sub"),
        ({"sub": "x" * 2049}, "sub"),
        ({"sub": "a\nb"}, "sub"),
        ({"sub": "a\x00"}, "sub"),
        ({"sub": "\ud800"}, "sub"),
        ({"exp": None}, "exp is missing"),
        ({"iat": None}, "iat is missing"),
        ({"exp": NOW - 61}, "exp is past"),
        ({"exp": 0}, "exp is past"),
        ({"exp": "1900000000"}, "exp is not a number"),
        ({"exp": True}, "exp is not a number"),
        ({"exp": [1]}, "exp is not a number"),
        ({"exp": -1}, "exp is not a time"),
        ({"exp": 10**400}, "exp is not a time"),
        ({"exp": 1e300}, "exp is not a time"),
        ({"iat": NOW + 61}, "iat is in the future"),
        ({"iat": "now"}, "iat is not a number"),
        ({"nbf": NOW + 61}, "nbf is in the future"),
    ],
)
@pytest.mark.parametrize("keys", [None, key_set(rsa_key())])
def test_invalid_claims_are_refused(changes: Any, reason: str, keys: KeySet | None) -> None:
    with pytest.raises(IdTokenRejected, match=reason):
        validate(signed(claims(**changes)), keys)


@pytest.mark.parametrize(
    "changes",
    [
        {"aud": ["other", "a3f9:demo"]},
        {"aud": ["a3f9:demo"], "azp": "a3f9:demo"},
        {"exp": NOW - 59},
        {"exp": NOW + 0.5},
        {"iat": NOW + 59},
        {"sub": "x" * 2048},
        {"sub": "CoABM" + "é" * 100},
        {"name": "mikomo_1", "accounts": ["a"] * 1000, "products": ["balances"], "connectorId": "Mikomo"},
    ],
)
def test_claims_within_bounds_are_accepted(changes: Any) -> None:
    assert validate(signed(claims(**changes)), key_set(rsa_key())).verified


def test_azp_of_null_counts_as_missing() -> None:
    """Serializers that write every member write null for a claim without a value."""
    assert validate(signed({**claims(), "azp": None}), key_set(rsa_key())).verified


@pytest.mark.parametrize("claim", ["exp", "iat"])
@pytest.mark.parametrize("expected_sub", [None, "CghtaWtvbW9fMRIGbWlrb21v"])
def test_claim_may_be_missing_only_if_the_dialect_allows_it(claim: str, expected_sub: str | None) -> None:
    """OpenID Connect Core section 2 requires both, at login and refresh."""
    token = signed(claims(**{claim: None}))
    lenient = environment(dialect=Dialect(optional_claims=frozenset({claim})))
    assert validate(token, environment=lenient, expected_sub=expected_sub).sub
    other = environment(dialect=Dialect(optional_claims=frozenset({"exp", "iat"} - {claim})))
    for strict in (environment(), other):
        with pytest.raises(IdTokenRejected, match=f"{claim} is missing"):
            validate(token, environment=strict, expected_sub=expected_sub)


def test_issuer_is_not_checked_where_the_environment_has_none() -> None:
    id_token = validate(signed(claims(iss="https://tenant.example")), environment=environment(issuer=None))
    assert id_token.issuer is None


@pytest.mark.parametrize("responded", [None, "", "another", 7, ["n-1"], "n-1 ", "\ud800"])
def test_token_without_the_sent_nonce_is_refused(responded: Any) -> None:
    with pytest.raises(IdTokenRejected, match="nonce"):
        validate(signed(claims(nonce=responded)), nonce="n-1")


def test_expected_nonce_is_accepted_and_an_unexpected_one_ignored() -> None:
    assert validate(signed(claims(nonce="n-1")), nonce="n-1").sub
    assert validate(signed(claims(nonce="whatever"))).sub


def test_token_of_another_sub_is_distinguished_from_an_invalid_token() -> None:
    with pytest.raises(SubjectMismatch):
        validate(signed(claims(sub="another-login")), key_set(rsa_key()), expected_sub="CghtaWtvbW9fMRIGbWlrb21v")
    with pytest.raises(IdTokenRejected) as forged:
        validate(signed(claims(sub="another-login"), rsa_key("x"), kid="r1"), key_set(rsa_key()), expected_sub="me")
    assert not isinstance(forged.value, SubjectMismatch)


@pytest.mark.parametrize(
    "token",
    [
        "", ".", "..", "...", "a.b", "a.b.c.d", "a.b.c.d.e", "a b.c.d", "é.é.é", "=.=.=", "e30=.e30.AA", "e30.e30.AA",
        "e31.e30.AA", "bnVsbA.bnVsbA.AA", "W10.W10.AA", "x" * 65537, "." * 60000, ("a" * 9000) + ".e30.AA",
        "e30.e30.AA\n", "\x00", "\ud800",
    ],
)  # fmt: skip
@pytest.mark.parametrize("keys", [None, key_set(rsa_key())])
def test_text_that_is_not_a_jwt_is_refused(token: str, keys: KeySet | None) -> None:
    with pytest.raises(IdTokenRejected):
        validate(Secret(token), keys)


@pytest.mark.parametrize(
    "body",
    [b"[]", b"null", b'{"sub":"a","sub":"b"}', b'{"exp":NaN}', b'{"exp":Infinity}', b"\xff", b'{"a":' * 5000, b""],
)
def test_claims_that_two_parsers_could_read_differently_are_refused(body: bytes) -> None:
    with pytest.raises(IdTokenRejected):
        validate(signed(body), key_set(rsa_key()))


def test_base64_of_a_token_has_one_spelling() -> None:
    token = signed(claims(sub="x")).reveal()
    header, body, signature = token.split(".")
    for last in "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_":
        if last != signature[-1]:
            with pytest.raises(IdTokenRejected):
                validate(Secret(f"{header}.{body}.{signature[:-1]}{last}"), key_set(rsa_key()))


def test_rejection_quotes_nothing_of_the_token() -> None:
    token = signed(claims(aud="secret-audience", sub="secret-sub"))
    with pytest.raises(IdTokenRejected) as rejected:
        validate(token)
    assert "secret" not in repr(rejected.value) + str(rejected.value)


_HEADERS = st.fixed_dictionaries(
    {},
    optional={
        "alg": st.sampled_from(["RS256", "ES256", "none", "HS256"]) | st.none() | st.integers() | st.text(max_size=5),
        "kid": st.sampled_from(["r1", "e1", "zz"]) | st.integers() | st.none() | st.text(max_size=5),
        "crit": st.just(["x"]),
        "typ": st.text(max_size=5),
    },
)
_VALUES = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.lists(st.text(max_size=3))
_CLAIMS = st.dictionaries(
    st.sampled_from(["iss", "aud", "sub", "exp", "iat", "nbf", "azp", "nonce", "grant_id"]), _VALUES
)


@settings(max_examples=200)
@given(
    header=_HEADERS | st.binary(max_size=20), body=_CLAIMS | st.binary(max_size=20), signature=st.binary(max_size=70)
)
def test_any_token_is_accepted_or_raises_a_rejection(header: Any, body: Any, signature: bytes) -> None:
    if isinstance(body, dict) and len(body) % 2:
        body = {**claims(), **body}
    token = unsigned(header, body, segment(signature))
    with pytest.raises(IdTokenRejected):
        validate(token, key_set(rsa_key(), ec_key()))
    try:
        id_token = validate(
            token, None, nonce="n" if len(signature) % 2 else None, environment=environment(issuer=None)
        )
    except IdTokenRejected:
        return
    assert id_token.sub.isprintable()
    assert id_token.expires_at is None or id_token.expires_at > NOW - 60


@given(st.text(max_size=100))
def test_any_text_is_accepted_or_raises_a_rejection(text: str) -> None:
    with pytest.raises(IdTokenRejected):
        validate(Secret(text), key_set(rsa_key()))


def test_expiry_is_checked_with_the_clock_of_the_caller() -> None:
    token = signed(claims())
    assert validate(token, now=NOW + 900).sub
    with pytest.raises(IdTokenRejected, match="exp"):
        validate(token, now=NOW + 960)
    with pytest.raises(IdTokenRejected, match="iat"):
        validate(token, now=NOW - 100, leeway=10.0)


@pytest.mark.parametrize("more", ["", ".AA", ".AA.AA"])
def test_sound_token_with_parts_too_few_or_too_many_is_refused(more: str) -> None:
    """Five parts are a JWE (RFC 7516 section 7.1)."""
    sound = signed(claims()).reveal()
    text = sound + more if more else sound.rpartition(".")[0]
    with pytest.raises(IdTokenRejected, match="compact form"):
        validate(Secret(text), key_set(rsa_key()))


def test_token_beyond_the_limit_is_refused_before_it_is_parsed() -> None:
    """A valid token just below the limit is accepted, so only the length can cause the other's rejection."""
    room = MAX_ID_TOKEN_BYTES - len(signed(claims(accounts=[""])).reveal())
    below = signed(claims(accounts=["g" * (room * 3 // 4 - 8)]))
    above = signed(claims(accounts=["g" * (room * 3 // 4 + 8)]))
    assert len(below) <= MAX_ID_TOKEN_BYTES < len(above) < MAX_ID_TOKEN_BYTES + 32
    assert validate(below, key_set(rsa_key())).verified
    with pytest.raises(IdTokenRejected, match="longer than"):
        validate(above, key_set(rsa_key()))


def test_header_beyond_its_limit_is_refused() -> None:
    with pytest.raises(IdTokenRejected, match="the header is too long"):
        validate(signed(claims(), x="h" * MAX_HEADER_BYTES), key_set(rsa_key()))


def test_refreshed_id_token_may_lack_the_nonce_but_has_no_other() -> None:
    """OpenID Connect Core section 12.2."""
    sub = claims()["sub"]
    assert validate(signed(claims()), nonce="n-1", expected_sub=sub).sub
    assert validate(signed(claims(nonce="n-1")), nonce="n-1", expected_sub=sub).sub
    assert validate(signed(claims(nonce="any")), nonce=None, expected_sub=sub).sub
    for wrong in ("n-2", "", 7, ["n-1"]):
        with pytest.raises(IdTokenRejected, match="nonce"):
            validate(signed(claims(nonce=wrong)), nonce="n-1", expected_sub=sub)


def test_token_signed_by_another_key_than_its_kid_names_is_accepted() -> None:
    """`kid` is a hint (RFC 7515 section 4.1.4): Hydra keeps the kid that was current at login (ory/hydra#3573)."""
    old, today = rsa_key("old"), rsa_key("today")
    assert validate(signed(claims(), today, kid="old"), key_set(old, today)).verified
    assert validate(signed(claims(), today, kid="gone"), key_set(old, today)).verified
    with pytest.raises(WrongSignature, match="the signature is wrong"):
        validate(signed(claims(), rsa_key("stranger"), kid="old"), key_set(old, today))


def test_other_keys_are_tried_only_with_their_own_algorithms() -> None:
    token = signed(claims(), rsa_key("today"), "RS256", kid="e1")
    assert validate(token, key_set(ec_key(), rsa_key("today"))).verified
    members = [ec_key().as_dict(private=False), {**rsa_key("today").as_dict(private=False), "alg": "RS512"}]
    with pytest.raises(WrongSignature):
        validate(token, read_keys(json.dumps({"keys": members}).encode()))
    with pytest.raises(IdTokenRejected, match="algorithm does not belong") as rejected:
        validate(hmac_signed(claims(), b"x" * 32, kid="r1"), key_set(rsa_key()))
    assert not isinstance(rejected.value, Unverified), "no keys are fetched for it"


def test_number_of_keys_tried_for_a_token_is_limited() -> None:
    crowd = [ec_key("P-256", f"k{n}") for n in range(MAX_CANDIDATES + 1)]
    last = crowd[-1]
    assert validate(signed(claims(), last, "ES256", kid="k0"), key_set(*crowd)).verified
    with pytest.raises(Unverified):
        signed_claims(signed(claims(), last, "ES256", kid="k0"), key_set(*crowd))
    assert signed_claims(signed(claims(), last, "ES256"), key_set(*crowd))
