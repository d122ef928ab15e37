"""Writes the test vectors: `python tests/vectors/generate.py`. The output is deterministic.

It uses neither the gateway's signer nor its verifier: signature bases are built by hand and signed with
`cryptography` alone, so that both are tested against an independent implementation.
"""

from __future__ import annotations

import base64
import copy
import hashlib
import hmac
import json
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

HERE = Path(__file__).parent
NOW = 1_790_000_000
SECRET = "vector-secret-0123456789abcdef-0123456789abcdef"
Json = dict[str, Any]


def b64u(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


class Ed25519:
    algorithm, jws = "ed25519", "EdDSA"

    def __init__(self, kid: str, seed: int) -> None:
        self.kid = kid
        self.private = ed25519.Ed25519PrivateKey.from_private_bytes(bytes([seed]) * 32)

    def sign(self, message: bytes) -> bytes:
        return self.private.sign(message)

    def public_raw(self) -> bytes:
        return self.private.public_key().public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)

    def published(self) -> Json:
        jwk = {"kty": "OKP", "crv": "Ed25519", "x": b64u(self.public_raw())}
        return {"public_jwk": {**jwk, "kid": self.kid, "use": "sig", "alg": self.jws}, "public_pem": pem(self.private)}

    def private_jwk(self) -> Json:
        raw = self.private.private_bytes(
            serialization.Encoding.Raw, serialization.PrivateFormat.Raw, serialization.NoEncryption()
        )
        return {"kty": "OKP", "crv": "Ed25519", "x": b64u(self.public_raw()), "d": b64u(raw), "kid": self.kid}


class Ecdsa:
    algorithm, jws = "ecdsa-p256-sha256", "ES256"

    def __init__(self, kid: str, seed: int) -> None:
        self.kid = kid
        self.private = ec.derive_private_key(int.from_bytes(bytes([seed]) * 32, "big"), ec.SECP256R1())

    def der(self, message: bytes) -> bytes:
        return self.private.sign(message, ec.ECDSA(hashes.SHA256(), deterministic_signing=True))

    def sign(self, message: bytes) -> bytes:
        r, s = decode_dss_signature(self.der(message))
        return r.to_bytes(32, "big") + s.to_bytes(32, "big")

    def point(self) -> Json:
        numbers = self.private.public_key().public_numbers()
        return {"x": b64u(numbers.x.to_bytes(32, "big")), "y": b64u(numbers.y.to_bytes(32, "big"))}

    def published(self) -> Json:
        jwk = {"kty": "EC", "crv": "P-256", **self.point()}
        return {"public_jwk": {**jwk, "kid": self.kid, "use": "sig", "alg": self.jws}, "public_pem": pem(self.private)}

    def private_jwk(self) -> Json:
        d = self.private.private_numbers().private_value.to_bytes(32, "big")
        return {"kty": "EC", "crv": "P-256", **self.point(), "d": b64u(d), "kid": self.kid}


class Hmac:
    algorithm, jws = "hmac-sha256", "HS256"

    def __init__(self, kid: str, secret: bytes) -> None:
        self.kid = kid
        self.secret = secret

    def sign(self, message: bytes) -> bytes:
        return hmac.digest(self.secret, message, hashlib.sha256)

    def published(self) -> Json:
        return {"secret": self.secret.decode()}

    def private_jwk(self) -> Json:
        return {"kty": "oct", "k": b64u(self.secret), "kid": self.kid}


Key = Ed25519 | Ecdsa | Hmac


def pem(private: Any) -> str:
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    return str(private.public_key().public_bytes(serialization.Encoding.PEM, form).decode())


ED, EC, MAC = Ed25519("ed", 7), Ecdsa("ec", 9), Hmac("mac", SECRET.encode())
KEYS: tuple[Key, ...] = (ED, EC, MAC)

FULL = [
    ["akoya-connector", "mikomo"],
    ["akoya-id-token", "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJtaWtvbW9fMSJ9.c2lnbmF0dXJl"],
    ["akoya-expires", "1790000900"],
    ["akoya-scope", "openid profile offline_access"],
    ["akoya-environment", "sandbox"],
    ["akoya-owner", "o-3Jd9Qm1Zx"],
    [
        "akoya-connections",
        'mikomo=live;expires=1790000900;id="g_3q2-7wQBAgMEBQYHCAkKCw", '
        'second-bank=(live;expires=1790000600;id="g_AAECAwQFBgcICQoLDA0ODw" revoked;expires=0;id="g_Dw4NDAsKCQgHBgUEAwIBAA")',
    ],
    ["akoya-provider", "mikomo-provider"],
    ["akoya-grant", "g_3q2-7wQBAgMEBQYHCAkKCw"],
    ["akoya-consent", "7f0c2c52-grant"],
    ["akoya-interaction-type", "user"],
    ["akoya-last-access", "2026-09-21T14:12:37Z"],
    ["akoya-id-tokens", 'mikomo="eyJhbGciOiJSUzI1NiJ9.e30.c2ln", second-bank="eyJhbGciOiJSUzI1NiJ9.e31.c2ln"'],
]
SAYS_FULL = {
    "owner": "o-3Jd9Qm1Zx",
    "connector": "mikomo",
    "id_token": FULL[1][1],
    "expires": 1790000900,
    "scope": ["openid", "profile", "offline_access"],
    "environment": "sandbox",
    "connections": [
        {"connector": "mikomo", "state": "live", "expires": 1790000900, "id": "g_3q2-7wQBAgMEBQYHCAkKCw"},
        {"connector": "second-bank", "state": "live", "expires": 1790000600, "id": "g_AAECAwQFBgcICQoLDA0ODw"},
        {"connector": "second-bank", "state": "revoked", "expires": 0, "id": "g_Dw4NDAsKCQgHBgUEAwIBAA"},
    ],
    "provider": "mikomo-provider",
    "grant": "g_3q2-7wQBAgMEBQYHCAkKCw",
    "consent": "7f0c2c52-grant",
    "interaction_type": "user",
    "last_access": "2026-09-21T14:12:37Z",
    "id_tokens": {
        "mikomo": "eyJhbGciOiJSUzI1NiJ9.e30.c2ln",
        "second-bank": "eyJhbGciOiJSUzI1NiJ9.e31.c2ln",
    },
}
OWNER_ONLY = [["akoya-owner", "j%C3%BCrgen 50%25".replace(" ", "%20")]]
SAYS_OWNER: Json = {
    "owner": "jürgen 50%",
    "connector": None,
    "id_token": None,
    "expires": None,
    "scope": [],
    "environment": None,
    "connections": [],
    "provider": None,
    "grant": None,
    "consent": None,
    "interaction_type": None,
    "last_access": None,
    "id_tokens": {},
}
DERIVED = ["@method", "@authority", "@path", "@query"]


def target(
    method: str = "GET", authority: str = "app.example.com", path: str = "/api/balances", query: str = ""
) -> Json:
    return {"method": method, "authority": authority, "path": path, "query": query}


def component(name: str) -> str:
    return name if ";" in name else f'"{name}"'


def value_of(name: str, to: Json, headers: list[list[str]]) -> str:
    derived = {
        "@method": to["method"],
        "@authority": to["authority"],
        "@path": to["path"] or "/",
        "@query": "?" + to["query"],
    }
    if name in derived:
        return str(derived[name])
    return ", ".join(value for header, value in headers if header.lower() == name)


def parameters(
    key: Key,
    covered: list[str],
    *,
    created: int = NOW,
    expires: int = NOW + 60,
    nonce: str = "00112233445566778899aabbccddeeff",
    kid: str | None = None,
    alg: str | None = None,
    tag: str | None = "akoya-gateway",
) -> str:
    listed = " ".join(component(name) for name in covered)
    end = "" if tag is None else f';tag="{tag}"'
    return (
        f'({listed});created={created};expires={expires};nonce="{nonce}"'
        f';keyid="{kid or key.kid}";alg="{alg or key.algorithm}"{end}'
    )


def base_of(to: Json, headers: list[list[str]], covered: list[str], params: str) -> str:
    lines = [f"{component(name)}: {value_of(name.partition(';')[0].strip(chr(34)), to, headers)}" for name in covered]
    return "\n".join([*lines, f'"@signature-params": {params}'])


def signed(
    key: Key,
    headers: list[list[str]],
    to: Json | None = None,
    covered: list[str] | None = None,
    label: str = "akoya",
    **options: Any,
) -> tuple[Json, str]:
    """Return a signed request and its signature base."""
    to = to or target()
    covered = covered if covered is not None else [name for name, _ in headers] + DERIVED
    params = parameters(key, covered, **options)
    base = base_of(to, headers, covered, params)
    signature = b64(key.sign(base.encode("ascii")))
    added = [["signature-input", f"{label}={params}"], ["signature", f"{label}=:{signature}:"]]
    return {**to, "headers": [["host", to["authority"]], *copy.deepcopy(headers), *added]}, base


BESIDE = [
    (
        "parameters of every type",
        'a=("@method" "x-y";sf "z";key="k" tok 1);created=1;keyid="q, akoya=(1)";t=to/k:en;n=-1.5;f=?0;o=:AAAA:;b, c=();x',
        "a=:AAAA:, c=::",
    ),
    (
        "numbers of the most digits",
        "a=();i=99999999999999;j=-99999999999999;d=99999999999.999;e=-99999999999.999",
        "a=:AA==:",
    ),
    ("a string of 4,000 characters", 'a=();s="{}"'.format('\\"' * 1000 + "x" * 2000), "a=:AAA=:"),
    ("a list of 1,000 components", "a=({})".format(" ".join(['"x"'] * 1000)), f"a=:{'A' * 4000}:"),
    ("a label of every character", "*a0_-.*=();*a0_-.*", "*a0_-.*=::"),
]
"""Name, `Signature-Input` and `Signature` of a client, as the gateway passes them on."""


def cases() -> list[Json]:
    found: list[Json] = []

    def add(name: str, key: Key, request: Json, base: str, says: Json, now: int = NOW + 1) -> None:
        found.append({"name": name, "keyid": key.kid, "now": now, "request": request, "base": base, "says": says})

    for key in KEYS:
        add(f"{key.algorithm}: all headers", key, *signed(key, FULL), SAYS_FULL)
        to = target("POST", "app.example.com:8443", "/api/banks/mik%C3%B6mo/a%20b", "a=1&b=%2F&a=2&empty=")
        add(f"{key.algorithm}: raw path, query and port", key, *signed(key, FULL, to), SAYS_FULL)
        add(f"{key.algorithm}: no grant, encoded owner", key, *signed(key, OWNER_ONLY), SAYS_OWNER)
    unescaped = target(path="/a[1]'(c)d=e,f:g@h", query="filter[a]={x}|y^`&c=d/e?f\\g'h")
    add("what browsers send unescaped", ED, *signed(ED, FULL, unescaped), SAYS_FULL)
    add("an empty path is signed as a slash", ED, *signed(ED, FULL, target(path="")), SAYS_FULL)
    add("nothing but the request is signed", ED, *signed(ED, []), {**SAYS_OWNER, "owner": ""})

    request, base = signed(ED, FULL)
    recased = copy.deepcopy(request)
    recased["headers"] = [["-".join(w.capitalize() for w in n.split("-")), v] for n, v in request["headers"]]
    add("names in another case", ED, recased, base, SAYS_FULL)
    shuffled = {**request, "headers": request["headers"][::-1]}
    add("header lines in another order", ED, shuffled, base, SAYS_FULL)
    padded = {**request, "headers": [[n, f" {v}\t"] for n, v in request["headers"]]}
    add("white space around values", ED, padded, base, SAYS_FULL)
    add("authority in another case", ED, {**request, "authority": "App.Example.COM"}, base, SAYS_FULL)
    add("the last second", ED, request, base, SAYS_FULL, NOW + 59)

    theirs = [["signature-input", 'theirs=("@method");created=1;keyid="x"'], ["signature", "theirs=:AAAA:"]]
    beside = {**request, "headers": theirs + request["headers"]}
    add("another label beside ours, on lines of its own", ED, beside, base, SAYS_FULL)
    add(
        "another label beside ours, on one line", ED, {**request, "headers": merged(beside["headers"])}, base, SAYS_FULL
    )
    for name, their_input, their_signature in BESIDE:
        theirs = [["signature-input", their_input], ["signature", their_signature]]
        add(f"beside ours, {name}", ED, {**request, "headers": theirs + request["headers"]}, base, SAYS_FULL)
    unsigned = [["x-name", "Zo\u00eb \u00a9"], ["x!#$%&'*+.^`|~", "tab\tinside"], ["x-empty", ""]]
    add("headers of the client with any characters", ED, plus(request, *unsigned), base, SAYS_FULL)
    long = [["akoya-owner", "o1"], ["akoya-id-tokens", f'mikomo="{"eyJh" * 4000}"']]
    long_request, long_base = signed(ED, long)
    says_long = {**SAYS_OWNER, "owner": "o1", "id_tokens": {"mikomo": "eyJh" * 4000}}
    add("a token of 16,000 characters", ED, long_request, long_base, says_long)

    body = b'{"amount": 1}'
    digest = f"sha-256=:{b64(hashlib.sha256(body).digest())}:"
    with_digest = [*FULL, ["content-digest", digest]]
    covered = [name for name, _ in FULL] + DERIVED + ["content-digest"]
    request, base = signed(ED, with_digest, target("POST"), covered)
    add("a covered content-digest", ED, request, base, {**SAYS_FULL, "content_digest": digest})
    return found


def merged(headers: list[list[str]]) -> list[list[str]]:
    values: dict[str, list[str]] = {}
    for name, value in headers:
        values.setdefault(name, []).append(value)
    return [[name, ", ".join(lines)] for name, lines in values.items()]


def attacks() -> list[Json]:
    found: list[Json] = []

    def add(name: str, request: Json, reason: str, now: int = NOW + 1) -> None:
        found.append({"name": name, "now": now, "reason": reason, "request": request})

    for key in KEYS:
        good, base = signed(key, FULL)
        kind = key.algorithm
        for name, value in FULL:
            add(f"{kind}: {name} changed", replaced(good, name, value.replace("i", "j", 1) + "0"), "bad-signature")
        for part, other in (
            ("method", "POST"),
            ("authority", "other.example.com"),
            ("path", "/api/balances/"),
            ("query", "a=1"),
        ):
            add(f"{kind}: other {part}", {**good, part: other}, "bad-signature")
        add(f"{kind}: signature truncated", resigned(good, key.sign(base.encode())[:-1]), "bad-signature")
        add(f"{kind}: signature empty", resigned(good, b""), "bad-signature")
        add(f"{kind}: signature one byte longer", resigned(good, key.sign(base.encode()) + b"\0"), "bad-signature")
        text = b64(key.sign(base.encode()))
        end = len(text.rstrip("="))
        alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
        next_last = alphabet[alphabet.index(text[end - 1]) + 1]
        url_safe = text.replace("+", "-").replace("/", "_")
        for spelling, other in (
            ("with an unused bit set", text[: end - 1] + next_last + text[end:]),
            ("without its padding", text[:end]),
            ("with one sign of padding less", text[:-1]),
            ("with one sign of padding more", text + "="),
            ("with four signs of padding more", text + "===="),
            ("with padding in the middle", text[:40] + "====" + text[40:]),
            ("with a space", text[:40] + " " + text[40:]),
            ("with the alphabet for URLs", url_safe if url_safe != text else "-" + text[1:]),
        ):
            add(f"{kind}: signature {spelling}", replaced(good, "signature", f"akoya=:{other}:"), "malformed")
        flipped = bytearray(key.sign(base.encode()))
        flipped[5] ^= 1
        add(f"{kind}: one bit of the signature flipped", resigned(good, bytes(flipped)), "bad-signature")
        for another in KEYS:
            if another is not key:
                swapped, _ = signed(another, FULL, kid=key.kid)
                add(f"{kind}: key id of this key, signed by {another.kid}", swapped, "wrong-algorithm")
                swapped, _ = signed(another, FULL, kid=key.kid, alg=kind)
                add(f"{kind}: key id and alg of this key, signed by {another.kid}", swapped, "bad-signature")
                lying, _ = signed(key, FULL, alg=another.algorithm)
                add(f"{kind}: alg says {another.algorithm}", lying, "wrong-algorithm")

    unknown_key = Ed25519("ed", 8)
    add("signed by another key of the same kind and id", signed(unknown_key, FULL)[0], "bad-signature")
    add("signed by another P-256 key of the same id", signed(Ecdsa("ec", 10), FULL)[0], "bad-signature")
    add("signed with another secret", signed(Hmac("mac", SECRET.encode() + b"x"), FULL)[0], "bad-signature")
    add("unknown key id", signed(unknown_key, FULL, kid="nobody")[0], "unknown-key")
    for key, shown in ((ED, ED.public_raw()), (EC, pem(EC.private).encode()), (ED, pem(ED.private).encode())):
        confused = Hmac(key.kid, shown)
        length = len(shown)
        add(f"HMAC with the public key of {key.kid} ({length} bytes)", signed(confused, FULL)[0], "wrong-algorithm")
        forged, _ = signed(confused, FULL, alg=key.algorithm)
        add(f"HMAC with the public key of {key.kid} ({length} bytes), alg unchanged", forged, "bad-signature")
    good, base = signed(EC, FULL)
    add("ECDSA signature in DER", resigned(good, EC.der(base.encode())), "bad-signature")
    add("ECDSA signature of zeros", resigned(good, bytes(64)), "bad-signature")

    good, base = signed(ED, FULL)
    bare, _ = signed(ED, OWNER_ONLY)
    add("header added", plus(bare, ["akoya-connector", "mikomo"]), "not-covered")
    add("unknown header of our prefix added", plus(good, ["akoya-admin", "true"]), "not-covered")
    add("assertion added", plus(good, ["akoya-assertion", "e30.e30."]), "not-covered")
    add("header added in another case", plus(bare, ["AKOYA-CONNECTOR", "mikomo"]), "not-covered")
    add("header removed", without(good, "akoya-scope"), "missing-header")
    add("owner removed", without(good, "akoya-owner"), "missing-header")
    add("header duplicated, same value", plus(good, ["akoya-owner", "o-3Jd9Qm1Zx"]), "duplicate")
    add("header duplicated, other value", plus(good, ["Akoya-Owner", "evil"]), "duplicate")
    add("header duplicated in front", {**good, "headers": [["akoya-owner", "evil"], *good["headers"]]}, "duplicate")
    add("header joined with another value", replaced(good, "akoya-owner", "o-3Jd9Qm1Zx, evil"), "bad-signature")
    add("underscored copy", plus(good, ["akoya_owner", "evil"]), "alias")
    add("underscored copy, half", plus(good, ["Akoya_Id-Token", "evil"]), "alias")
    add("dotted copy", plus(good, ["akoya.owner", "evil"]), "alias")
    for name in ("akoya~owner", "akoya!id-token", "signature+input"):
        add(f"{name} beside the signed headers", plus(good, [name, "evil"]), "alias")
    for character in "\x0b\x85\xa0":
        padded = replaced(good, "akoya-owner", f"o-3Jd9Qm1Zx{character}")
        reason = "bad-signature" if character.isascii() else "malformed"
        add(f"white space U+{ord(character):04X} after a value", padded, reason)
    renamed = [["akoya_owner" if n == "akoya-owner" else n, v] for n, v in good["headers"]]
    add("underscored instead of dashed", {**good, "headers": renamed}, "alias")
    add("header emptied", replaced(good, "akoya-scope", ""), "bad-signature")
    add("two values swapped", swapped_values(good, "akoya-connector", "akoya-environment"), "bad-signature")

    add("path encoded in another way", {**good, "path": "/api/b%61lances"}, "bad-signature")
    add("path in another case", {**good, "path": "/API/balances"}, "bad-signature")
    add("path with a dot segment", {**good, "path": "/api/x/../balances"}, "bad-signature")
    add("path without a slash in front", {**good, "path": ":80/api/balances"}, "bad-signature")
    q, _ = signed(ED, FULL, target(query="a=1&b=2"))
    add("query parameters reordered", {**q, "query": "b=2&a=1"}, "bad-signature")
    add("query removed", {**q, "query": ""}, "bad-signature")
    add("query extended", {**q, "query": "a=1&b=2&admin=1"}, "bad-signature")
    add("port added to the authority", {**good, "authority": "app.example.com:8080"}, "bad-signature")
    for authority, spelled in (
        ("app.example.com:8080", "app.example.com:08080"),
        ("127.0.0.1", "0x7f.1"),
        ("[::1]", "[0:0::1]"),
    ):
        to = target(authority=authority)
        add(
            f"authority {authority} spelled {spelled}",
            {**signed(ED, FULL, to)[0], "authority": spelled},
            "bad-signature",
        )
    add("method in lower case", {**good, "method": "get"}, "bad-signature")

    add("expired", good, "expired", NOW + 3600)
    add("expired just now", good, "expired", NOW + 66)
    add("from the future", good, "from-the-future", NOW - 3600)
    longer = edited(good, f"expires={NOW + 60}", f"expires={NOW + 6000}")
    add("expiry extended", longer, "bad-signature", NOW + 100)
    add("created moved", edited(good, f"created={NOW}", f"created={NOW + 1}"), "bad-signature")
    add("expires before created", signed(ED, FULL, expires=NOW - 1)[0], "malformed")
    no_end = without_parameter(good, f";expires={NOW + 60}")
    add("no expires", no_end, "malformed")
    add("no created", without_parameter(good, f";created={NOW}"), "malformed")
    add("no key id", without_parameter(good, ';keyid="ed"'), "malformed")
    add("nonce changed", edited(good, "00112233", "99112233"), "bad-signature")
    for name, old, new in (
        ("expires is a string", f"expires={NOW + 60}", f'expires="{NOW + 60}"'),
        ("expires is a decimal", f"expires={NOW + 60}", f"expires={NOW + 60}.5"),
        ("expires is a boolean", f"expires={NOW + 60}", "expires"),
        ("created is a boolean", f"created={NOW}", "created"),
        ("key id is a token", 'keyid="ed"', "keyid=ed"),
    ):
        add(name, resigned_after(good, old, new), "malformed")

    add("tag of another application", signed(ED, FULL, tag="other-gateway")[0], "wrong-tag")
    add("no tag", signed(ED, FULL, tag=None)[0], "wrong-tag")
    add("another label only", signed(ED, FULL, label="other")[0], "missing-signature")
    relabelled = [[n, v.replace("akoya=", "other=", 1) if n == "signature" else v] for n, v in good["headers"]]
    add("label swapped on the signature", {**good, "headers": relabelled}, "missing-signature")
    relabelled = [[n, v.replace("akoya=", "other=", 1) if n == "signature-input" else v] for n, v in good["headers"]]
    add("label swapped on the input", {**good, "headers": relabelled}, "missing-signature")
    weak, _ = signed(unknown_key, [], covered=["@method"], label="other")
    crossed = [
        [n, v.replace("akoya=", "x=").replace("other=", "akoya=")] for n, v in [*good["headers"], *weak["headers"][1:]]
    ]
    add("our label moved to a foreign signature", {**good, "headers": crossed}, "not-covered")
    twice = [*good["headers"], *[h for h in bare["headers"] if h[0].startswith("signature")]]
    add("our label twice, on two lines", {**good, "headers": twice}, "duplicate")
    add("our label twice, on one line", {**good, "headers": merged(twice)}, "duplicate")

    for name in ("signature", "signature-input"):
        again = [[name, header(good, name)], *good["headers"]]
        add(f"our label twice in {name}, same value", {**good, "headers": again}, "duplicate")
        wrong_first = [[name, "akoya=:AAAA:" if name == "signature" else "akoya"], *good["headers"]]
        add(f"our label twice in {name}, the second is right", {**good, "headers": merged(wrong_first)}, "duplicate")

    for name in DERIVED:
        covered = [n for n, _ in FULL] + [n for n in DERIVED if n != name]
        add(f"{name} not covered", signed(ED, FULL, covered=covered)[0], "not-covered")
    covered = [n for n, _ in FULL if n != "akoya-id-token"] + DERIVED
    add("id_token not covered", signed(ED, FULL, covered=covered)[0], "not-covered")
    add("nothing covered", signed(ED, FULL, covered=[])[0], "not-covered")
    twice_covered = [n for n, _ in FULL] + DERIVED + ["@path"]
    add("a component covered twice", signed(ED, FULL, covered=twice_covered)[0], "duplicate")
    of_request = [n for n, _ in FULL] + ['"@method";req', "@authority", "@path", "@query"]
    add("a component with a parameter", signed(ED, FULL, covered=of_request)[0], "malformed")
    add("covered components reordered", edited(good, '"@path" "@query"', '"@query" "@path"'), "bad-signature")
    add("a component dropped from the list", edited(good, ' "@query"', ""), "not-covered")

    add("no signature at all", without(without(good, "signature"), "signature-input"), "missing-signature")
    add("Signature removed", without(good, "signature"), "missing-signature")
    add("Signature-Input removed", without(good, "signature-input"), "missing-signature")
    add(
        "Signature-Input truncated",
        replaced(good, "signature-input", header(good, "signature-input")[:-10]),
        "malformed",
    )
    add("Signature truncated", replaced(good, "signature", header(good, "signature")[:-3]), "malformed")
    add("Signature is a string", replaced(good, "signature", 'akoya="AAAA"'), "missing-signature")
    add("Signature-Input is a token", replaced(good, "signature-input", "akoya=yes"), "malformed")
    add("Signature-Input is empty", replaced(good, "signature-input", ""), "missing-signature")
    under = [["signature_input" if n == "signature-input" else n, v] for n, v in good["headers"]]
    add("Signature_Input instead of Signature-Input", {**good, "headers": under}, "alias")
    add("headers of one request, signature of another", grafted(good, bare), "not-covered")
    return found


def header(request: Json, name: str) -> str:
    return str(next(v for n, v in request["headers"] if n == name))


def replaced(request: Json, name: str, value: str) -> Json:
    return {**request, "headers": [[n, value if n == name else v] for n, v in request["headers"]]}


def without(request: Json, name: str) -> Json:
    return {**request, "headers": [[n, v] for n, v in request["headers"] if n != name]}


def plus(request: Json, *lines: list[str]) -> Json:
    return {**request, "headers": [*request["headers"], *lines]}


def resigned(request: Json, signature: bytes) -> Json:
    return replaced(request, "signature", f"akoya=:{b64(signature)}:")


def edited(request: Json, old: str, new: str) -> Json:
    before = header(request, "signature-input")
    assert old in before, old
    return replaced(request, "signature-input", before.replace(old, new, 1))


def without_parameter(request: Json, text: str) -> Json:
    return resigned_after(request, text, "")


def resigned_after(request: Json, old: str, new: str) -> Json:
    """Change one parameter and sign again, so that only the rule for that parameter can reject the request."""
    left = edited(request, old, new)
    params = header(left, "signature-input").removeprefix("akoya=")
    plain = [[n, v] for n, v in left["headers"] if n.startswith("akoya-")]
    base = base_of(left, plain, [n for n, _ in plain] + DERIVED, params)
    return resigned(left, ED.sign(base.encode()))


def swapped_values(request: Json, one: str, other: str) -> Json:
    first, second = header(request, one), header(request, other)
    return replaced(replaced(request, one, second), other, first)


def grafted(to: Json, source: Json) -> Json:
    names = ("signature", "signature-input")
    return {**to, "headers": [[n, header(source, n) if n in names else v] for n, v in to["headers"]]}


ISSUER, AUDIENCE = "https://app.example.com", "http://127.0.0.1:3000"
CLAIMS: Json = {
    "iss": ISSUER,
    "aud": AUDIENCE,
    "sub": "o-3Jd9Qm1Zx",
    "jti": "00112233445566778899aabbccddeeff",
    "iat": NOW,
    "exp": NOW + 60,
    "rule": "access[1] /api/banks/{connector}/*",
    "connector": "mikomo",
    "environment": "sandbox",
    "id_token": FULL[1][1],
    "expires": 1790000900,
    "scope": "openid profile offline_access",
    "connections": SAYS_FULL["connections"],
    "provider": "mikomo-provider",
    "grant": "g_3q2-7wQBAgMEBQYHCAkKCw",
    "consent": "7f0c2c52-grant",
    "interaction_type": "user",
    "last_access": "2026-09-21T14:12:37Z",
    "id_tokens": SAYS_FULL["id_tokens"],
}


def assertion(key: Key, claims: Json | None = None, header: Json | None = None) -> str:
    protected = {"alg": key.jws, "kid": key.kid, "typ": "akoya-assertion+jwt", **(header or {})}
    parts = [{k: v for k, v in part.items() if v is not None} for part in (protected, {**CLAIMS, **(claims or {})})]
    text = ".".join(b64u(json.dumps(part, separators=(",", ":")).encode()) for part in parts)
    return f"{text}.{b64u(key.sign(text.encode()))}"


def assertions() -> Json:
    says = {**SAYS_FULL, "rule": CLAIMS["rule"]}
    good = [
        {"name": key.jws, "now": NOW + 1, "headers": [["Akoya-Assertion", assertion(key)]], "says": says}
        for key in KEYS
    ]
    bad: list[Json] = []

    def add(name: str, reason: str, *tokens: str, now: int = NOW + 1, more: list[list[str]] | None = None) -> None:
        lines = [["akoya-assertion", token] for token in tokens]
        bad.append({"name": name, "now": now, "reason": reason, "headers": lines + (more or [])})

    token = assertion(ED)
    head, claims, signature = token.split(".")
    none = b64u(b'{"alg":"none","kid":"ed","typ":"akoya-assertion+jwt"}')
    add("no assertion", "missing-signature")
    add("two assertions", "duplicate", token, token)
    add("a plain header beside it", "not-covered", token, more=[["akoya-owner", "evil"]])
    add("an alias beside it", "not-covered", token, more=[["akoya_assertion", token]])
    add("alg none", "wrong-algorithm", f"{none}.{claims}.")
    add("alg none, signature kept", "wrong-algorithm", f"{none}.{claims}.{signature}")
    add("other audience", "wrong-audience", assertion(ED, {"aud": "http://127.0.0.1:4000"}))
    add("no audience", "wrong-audience", assertion(ED, {"aud": None}))
    add("other issuer", "wrong-issuer", assertion(ED, {"iss": "https://evil.example"}))
    add("no exp", "malformed", assertion(ED, {"exp": None}))
    add("exp is a string", "malformed", assertion(ED, {"exp": str(NOW + 60)}))
    add("expired", "expired", token, now=NOW + 3600)
    add("from the future", "from-the-future", token, now=NOW - 3600)
    add("other typ", "wrong-tag", assertion(ED, header={"typ": "JWT"}))
    add("crit", "wrong-tag", assertion(ED, header={"crit": ["b64"], "b64": False}))
    add("unknown key", "unknown-key", assertion(ED, header={"kid": "nobody"}))
    add("no key id", "malformed", assertion(ED, header={"kid": None}))
    add("another key of the same id", "bad-signature", assertion(Ed25519("ed", 8)))
    for key in (ED, EC):
        public = key.public_raw() if isinstance(key, Ed25519) else pem(key.private).encode()
        forged = Hmac(key.kid, public)
        add(f"HS256 with the public key of {key.kid}", "wrong-algorithm", assertion(forged))
        add(f"the same, alg unchanged ({key.kid})", "bad-signature", assertion(forged, header={"alg": key.jws}))
    add("claims changed", "bad-signature", f"{head}.{assertion(ED, {'sub': 'evil'}).split('.')[1]}.{signature}")
    add("signature truncated", "bad-signature", token[:-2])
    add("signature padded", "malformed", token + "==")
    add("signature missing", "malformed", f"{head}.{claims}")
    add("five parts", "malformed", f"{token}.x.y")
    add("not base64", "malformed", f"{head}.{claims}.§§§".replace("§", "!"))
    add("too long", "malformed", f"{head}.{'A' * 70000}.{signature}")
    twice = b64u(b'{"alg":"EdDSA","alg":"none","kid":"ed","typ":"akoya-assertion+jwt"}')
    add("a header member twice", "malformed", f"{twice}.{claims}.{signature}")
    return {"issuer": ISSUER, "audience": AUDIENCE, "skew": 5, "keys": published(), "cases": good, "attacks": bad}


def published() -> list[Json]:
    return [
        {"kid": key.kid, "algorithm": key.algorithm, **key.published(), "private_jwk": key.private_jwk()}
        for key in KEYS
    ]


def main() -> None:
    messages: Json = {"skew": 5, "keys": published(), "cases": cases(), "attacks": attacks()}
    for name, document in (("messages.json", messages), ("assertions.json", assertions())):
        names = [one["name"] for one in [*document["cases"], *document["attacks"]]]
        assert len(names) == len(set(names)), [n for n in names if names.count(n) > 1]
        (HERE / name).write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
