"""Names of the gateway headers, and the removal of every copy that a client sends.

WSGI, CGI and PHP servers fold `Akoya_Owner`, `akoya.owner` and `AKOYA-OWNER` into one variable (CVE-2025-64484,
GHSA-5m6w-wvh7-57vm), so client headers are matched by their folded name. `Connection: Akoya-Owner` must not make a
proxy drop an injected header (CVE-2024-45410), so gateway names are also removed from the `Connection` header.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import product

from akoya_gateway.client_headers import fold
from akoya_gateway.signing.claims import Headers
from akoya_gateway.signing.client_signatures import without_label

CONNECTOR = b"akoya-connector"
ID_TOKEN = b"akoya-id-token"
EXPIRES = b"akoya-expires"
SCOPE = b"akoya-scope"
ENVIRONMENT = b"akoya-environment"
OWNER = b"akoya-owner"
CONNECTIONS = b"akoya-connections"
PROVIDER = b"akoya-provider"
GRANT = b"akoya-grant"
CONSENT = b"akoya-consent"
INTERACTION_TYPE = b"akoya-interaction-type"
LAST_ACCESS = b"akoya-last-access"
ID_TOKENS = b"akoya-id-tokens"
ASSERTION = b"akoya-assertion"
SIGNATURE_INPUT = b"signature-input"
SIGNATURE = b"signature"
CONTENT_DIGEST = b"content-digest"
REQUEST_ID = b"x-request-id"

PASSED_NAMES = (
    CONNECTOR,
    ID_TOKEN,
    EXPIRES,
    SCOPE,
    ENVIRONMENT,
    OWNER,
    CONNECTIONS,
    PROVIDER,
    GRANT,
    CONSENT,
    INTERACTION_TYPE,
    LAST_ACCESS,
    ID_TOKENS,
)
"""The claim headers, in the order in which they are sent and signed (docs/design.md section 5)."""

LABEL = "akoya"
"""The gateway's label in `Signature-Input` and `Signature` (RFC 9421 section 4)."""

TAG = "akoya-gateway"
"""The gateway's `tag` parameter (RFC 9421 section 2.3)."""

CookieStripper = Callable[[bytes], bytes]
"""Removes the gateway cookies from a Cookie value. The result is empty if no other cookie is left."""


def is_gateway_header(name: bytes) -> bool:
    """Return True if the name, in any spelling, is one that must never come from a client.

    This includes `Signature` and `Signature-Input` with every label, which is right for trailers: the gateway signs
    nothing in a trailer. For request headers, use `strip`, which removes only the gateway's label from them.
    """
    if name[:5].lower() == _PREFIX:
        return len(name) == 5 or not name[5:6].isalnum()
    return name[:9].lower() == SIGNATURE and fold(name) in _SIGNATURE_FIELDS


def strip(headers: Headers, cookies: CookieStripper | None = None) -> Headers:
    """Return the client's headers without anything that only the gateway may set.

    - Every `Akoya-*` header is removed, in any case, and whether its words are joined by `-`, `_`, `.` or any other
      character that a server may fold.
    - The signature labelled `akoya` is removed from `Signature` and `Signature-Input`, with any alias of these names,
      such as `Signature_Input`. Other signatures are kept, at the end, if every verifier accepts them beside the
      gateway's (`client_signatures`).
    - `X-Request-Id` is removed: the gateway adds the ID that it has made, or that of a trusted proxy.
    - The gateway's names are removed from `Connection`.
    - `Cookie` is filtered with `cookies`, if given. Several Cookie headers are joined into one, as HTTP/1.1 requires
      (RFC 9113 section 8.2.3).

    Does no I/O and is linear in the number of headers. The order of the remaining headers is kept.
    """
    kept: Headers = []
    signed: dict[bytes, list[bytes]] = {}
    first_cookie: int | None = None
    for header in headers:
        if header[0][:3] not in _SUSPECT:
            kept.append(header)
            continue
        lower = header[0].lower()
        if lower in _SIGNATURE_FIELDS:
            signed.setdefault(lower, []).append(header[1])
            continue
        filtered = _filter_header(lower, header, cookies)
        if filtered is None:
            continue
        if lower != b"cookie" or cookies is None:
            kept.append(filtered)
        elif first_cookie is None:
            first_cookie = len(kept)
            kept.append(filtered)
        else:
            name, value = kept[first_cookie]
            kept[first_cookie] = name, b"%b; %b" % (value, filtered[1])
    return kept + _signatures(signed) if signed else kept


def _signatures(signed: dict[bytes, list[bytes]]) -> Headers:
    left = without_label(signed.get(SIGNATURE, ()), signed.get(SIGNATURE_INPUT, ()), LABEL)
    return [] if left is None else [(SIGNATURE, left[0]), (SIGNATURE_INPUT, left[1])]


_PREFIX = b"akoya"
_SIGNATURE_FIELDS = frozenset({SIGNATURE, SIGNATURE_INPUT})
_CONNECTION_NAMES = _SIGNATURE_FIELDS | {CONTENT_DIGEST, REQUEST_ID}
_CONNECTION_WORDS = (b"akoya", b"signature", b"content", b"request")


def _name_spellings(start: str) -> frozenset[bytes]:
    return frozenset("".join(letters).encode() for letters in product(*((c, c.upper()) for c in start)))


# Fast path: nearly every header is ruled out by its first three bytes.
_SUSPECT = frozenset().union(*(_name_spellings(start) for start in ("ako", "sig", "coo", "con", "x-r")))


def _filter_header(
    lower: bytes, header: tuple[bytes, bytes], cookies: CookieStripper | None
) -> tuple[bytes, bytes] | None:
    name, value = header
    if is_gateway_header(name) or lower == REQUEST_ID:
        return None
    if lower == b"cookie" and cookies is not None:
        left = cookies(value)
    elif lower == b"connection":
        left = _without_our_names(value)
    else:
        return header
    if not left:
        return None
    return header if left == value else (name, left)


def _without_our_names(connection: bytes) -> bytes:
    lower = connection.lower()
    if not any(word in lower for word in _CONNECTION_WORDS):
        return connection
    options = [option for option in (part.strip() for part in connection.split(b",")) if option]
    return b", ".join(o for o in options if not is_gateway_header(o) and fold(o) not in _CONNECTION_NAMES)
