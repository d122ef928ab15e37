"""Signatures of clients (RFC 9421), for tests of every entry point and every verifier."""

from __future__ import annotations

from random import Random

from akoya_gateway.signing.header_names import strip

Fields = list[tuple[bytes, bytes]]
INPUT, SIGNATURE = b"signature-input", b"signature"


def both(signature_input: bytes, signature: bytes) -> Fields:
    """Return the two fields, in the order in which the gateway writes them."""
    return [(SIGNATURE, signature), (INPUT, signature_input)]


def left_of(fields: Fields) -> Fields:
    """Return what the gateway leaves of these fields."""
    return [header for header in strip(fields) if header[0] in (SIGNATURE, INPUT)]


PASSED: list[tuple[str, Fields, Fields]] = [
    ("alone", both(b'x=("@method");created=1', b"x=:AA==:"), both(b'x=("@method");created=1', b"x=:AA==:")),
    ("not canonical", both(b'x=(  "a"   "b" );  y;i=007', b"x=:AA==:"), both(b'x=("a" "b");y;i=7', b"x=:AA==:")),
    (
        "several",
        both(b'x=("a";sf);t=to/k , y=();b=?0;q="q, akoya=(1)"', b"x=:AA==:\t,y=::"),
        both(b'x=("a";sf);t=to/k, y=();b=?0;q="q, akoya=(1)"', b"x=:AA==:, y=::"),
    ),
    (
        "labels in another order",
        both(b"x=(), y=()", b"y=:AA==:, x=::"),
        both(b"x=(), y=()", b"y=:AA==:, x=::"),
    ),
    (
        "on several lines",
        [(INPUT, b"x=()"), (SIGNATURE, b"x=::"), (b"Signature", b"y=:AA==:"), (b"SIGNATURE-INPUT", b"y=()")],
        both(b"x=(), y=()", b"x=::, y=:AA==:"),
    ),
    ("beside the gateway's label", both(b'akoya=("@path"), x=()', b"x=::, akoya=:AA==:"), both(b"x=()", b"x=::")),
    (
        "long numbers",
        both(b"x=();i=99999999999999;d=-99999999999.999", b"x=::"),
        both(b"x=();i=99999999999999;d=-99999999999.999", b"x=::"),
    ),
]
"""Name, what the client sends, and what reaches the app."""

_INPUTS = {
    "unfinished list": b'x=("a',
    "no value": b"x=",
    "trailing comma": b"x=(),",
    "leading comma": b",x=()",
    "empty member": b"x=(), , y=()",
    "no comma": b"x=() y=()",
    "label in capitals": b"X=()",
    "label twice": b"x=(), x=()",
    "parameter twice": b"x=();a;a=1",
    "component parameter twice": b'x=("a";b;b)',
    "token": b"x=yes",
    "label alone": b"x",
    "non-canonical base64": b"x=();o=:AB==:",
    "unpadded base64": b"x=();o=:AA:",
    "date": b"x=();d=@1",
    "date with a fraction": b"x=();d=@1.5",
    "display string": b'x=();d=%"a"',
    "display string that is not UTF-8": b'x=();d=%"%ff"',
    "integer of 15 digits": b"x=();i=999999999999999",
    "integer of 16 digits": b"x=();i=9999999999999999",
    "decimal of 12 digits": b"x=();d=999999999999.999",
    "decimal of 13 digits": b"x=();d=1234567890123.1",
    "decimal with 4 digits of fraction": b"x=();d=1.2345",
    "decimal without a fraction": b"x=();d=1.",
    "minus sign alone": b"x=();d=-",
    "tab in a list": b'x=("a"\t"b")',
    "tab before a parameter": b"x=();\ta",
    "control character": b'x=();s="\x01"',
    "NUL": b"x=();s\x00",
    "no ASCII": b'x=();s="\xc3\xbc"',
    "unknown escape": b'x=();s="\\n"',
    "number as boolean": b"x=();b=?2",
    "equals sign twice": b"x==()",
    "no dictionary at all": b"((((",
    "another label": b"y=()",
    "another label beside it": b"x=(), y=()",
    "empty": b"",
}
_SIGNATURES = {
    "non-canonical base64": b"x=:YQ1406==:",
    "an unused bit set": b"x=:AB==:",
    "no padding": b"x=:AA:",
    "too much padding": b"x=:AA===:",
    "padding in the middle": b"x=:AA==AA==:",
    "alphabet for URLs": b"x=:-_==:",
    "space in base64": b"x=:AA A:",
    "unfinished": b"x=:AA==",
    "string": b'x="AA=="',
    "integer": b"x=1",
    "list": b"x=(:AA==:)",
    "label alone": b"x",
    "parameter": b"x=:AA==:;a",
    "label twice": b"x=:AA==:, x=:AA==:",
    "another label": b"y=:AA==:",
    "gateway's label alone": b"akoya=:AA==:",
    "older form": b'keyId="k",algorithm="hs2019",headers="(request-target)",signature="AA=="',
}
REFUSED: list[tuple[str, Fields]] = [
    *((f"input: {name}", both(value, b"x=:AA==:")) for name, value in _INPUTS.items()),
    *((f"signature: {name}", both(b"x=()", value)) for name, value in _SIGNATURES.items()),
    ("no signature", [(INPUT, b"x=()")]),
    ("no input", [(SIGNATURE, b"x=:AA==:")]),
    ("empty fields", both(b"", b"")),
    ("spaces", both(b" ", b"\t")),
    ("gateway's label", both(b'akoya=("@path")', b"akoya=:AA==:")),
    ("gateway's label twice", both(b"akoya=(), akoya=(), x=()", b"x=::, akoya=:AA==:")),
    ("label twice, on two lines", [(INPUT, b"x=()"), (INPUT, b"x=()"), (SIGNATURE, b"x=::")]),
]
"""Name, and what the client sends. None of it reaches the app."""

_VALUES = [
    "1",
    "-0",
    "1.50",
    "00.1",
    "99999999999999",
    "999999999999999",
    "99999999999.999",
    "123456789012.3",
    "tok",
    "t/:!#$%&'*+.^_`|~-",
    '"q,;(="',
    '"\\"\\\\"',
    ":AAAA:",
    ":AB==:",
    "?0",
    "@1",
    '%"a"',
    "1.2345",
    '""',
    "*",
    "*a",
    "0",
    "-1.0",
]

_COMPONENTS = ['"@method"', '"x"', *_VALUES]


def random_signatures(count: int) -> list[tuple[str, Fields]]:
    """Return signatures as clients could send them, most of them valid, with names. They are the same in each run."""
    random = Random(9421)

    def parameters() -> str:
        chosen = random.sample(("created", "a", "*", "x-y", "sf"), random.choice((0, 0, 1, 2)))
        return "".join(f";{key}" + random.choice(("", f"={random.choice(_VALUES)}")) for key in chosen)

    def member(label: str) -> str:
        items = [random.choice(_COMPONENTS) + parameters() for _ in range(random.randrange(3))]
        return f"{label}=({' '.join(items)}){parameters()}"

    found = []
    for at in range(count):
        labels = random.sample(("x", "y", "*", "a-b.c_d*1", "akoya"), random.choice((1, 1, 2, 3)))
        inputs = ", ".join(member(label) for label in labels)
        signatures = ",".join(f"{label}={random.choice((':AAAA:', '::', ':AA==:'))}" for label in labels)
        found.append((f"random {at}", both(inputs.encode(), signatures.encode())))
    return found
