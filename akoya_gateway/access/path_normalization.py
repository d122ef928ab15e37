"""The only normalization of request paths. Rules match the decoded path; the raw bytes are forwarded unchanged.

A path that two programs can parse differently is rejected rather than repaired, so that the upstream sees the path that
the rules matched (docs/design.md section 7, invariant 4; RFC 3986 sections 3.3 and 6; docs/advisories.md).
"""

from __future__ import annotations

import re

from akoya_gateway.errors import UserError

MAX_PATH_BYTES = 8192

# RFC 3986 pchar without ";" and "%", plus "/". Most paths contain nothing else.
_PLAIN = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~!$&'()*+,=:@/"

_HEX = frozenset(b"0123456789abcdefABCDEF")
_ESCAPE = re.compile(rb"%[0-9A-Fa-f]{2}")

# Bytes that are rejected even when percent-encoded, because some servers interpret them after decoding.
_NEVER_ESCAPED = {
    0x2F: "an encoded slash",
    0x5C: "an encoded backslash",
    0x3B: "an encoded semicolon",
    0x3F: "an encoded question mark",
    0x23: "an encoded number sign",
}

_NEVER_PLAIN = {
    0x5C: "a backslash",
    0x3B: "a semicolon",
    0x3F: "a question mark",
    0x23: "a number sign",
}


class PathRefused(UserError):
    """Raised if the path is ambiguous. `detail` names the problem and never contains the path itself."""

    code = "ambiguous-path"
    title = "The address is not valid"


def normalize_path(raw: bytes) -> str:
    r"""Return the decoded path to match rules against. `raw` is forwarded to the upstream unchanged.

    Raises:
        PathRefused: The path has no leading slash, contains empty or dot segments, a backslash, a semicolon, control
            characters, bytes outside ASCII, broken or double percent-encoding, escapes that are not UTF-8 (including
            overlong sequences) or an encoded `/ \\ ; ? #`, or is longer than `MAX_PATH_BYTES`.
    """
    if len(raw) > MAX_PATH_BYTES:
        raise PathRefused(f"The path is longer than {MAX_PATH_BYTES} bytes.", status=414, code="path-too-long")
    text = _decode(raw) if raw.translate(None, _PLAIN) else raw.decode()
    if text[:1] != "/":
        raise PathRefused("The path does not start with a slash.")
    if "//" in text:
        raise PathRefused("The path contains an empty segment.")
    if "/." in text and not {".", ".."}.isdisjoint(text.split("/")):
        raise PathRefused("The path contains a dot segment.")
    return text


def _decode(raw: bytes) -> str:
    decoded = bytearray()
    position, end = 0, len(raw)
    while position < end:
        byte = raw[position]
        if byte == 0x25:
            byte = _escaped(raw, position)
            position += 2
        elif byte in _NEVER_PLAIN or not 0x20 < byte < 0x7F:
            raise PathRefused(f"The path contains {_NEVER_PLAIN.get(byte, 'a character that must be escaped')}.")
        decoded.append(byte)
        position += 1
    if b"%" in decoded and _ESCAPE.search(decoded):
        # Checked after decoding, so that encoded percent signs and digits are caught as well.
        raise PathRefused("The path is percent-encoded twice.")
    try:
        return decoded.decode("utf-8")
    except UnicodeDecodeError:
        raise PathRefused("The path contains escapes that are not UTF-8.") from None


def _escaped(raw: bytes, position: int) -> int:
    digits = raw[position + 1 : position + 3]
    if len(digits) < 2 or not _HEX.issuperset(digits):
        raise PathRefused("The path contains a broken percent-escape.")
    byte = int(digits, 16)
    if byte in _NEVER_ESCAPED:
        raise PathRefused(f"The path contains {_NEVER_ESCAPED[byte]}.")
    if byte < 0x20 or byte == 0x7F:
        raise PathRefused("The path contains an encoded control character.")
    return byte
