"""The one normalisation of request paths: judged once, matched decoded, passed on byte for byte.

A path that two programs can read differently is refused rather than repaired, so what the rules matched is what the
upstream sees (design.md section 9, invariant 4; RFC 3986 sections 3.3 and 6; the advisories of peers.md section D8).
"""

from __future__ import annotations

import re

from akoya_gateway.errors import UserError

MAX_PATH_BYTES = 8192

# RFC 3986 pchar without ";" and "%", plus "/". Most paths hold nothing else.
_PLAIN = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~!$&'()*+,=:@/"

_HEX = frozenset(b"0123456789abcdefABCDEF")
_ESCAPE = re.compile(rb"%[0-9A-Fa-f]{2}")

# Bytes that must not appear even escaped, because some servers act on them after decoding.
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
    """The path is ambiguous; `detail` names what is wrong with it, never the path itself."""

    code = "ambiguous-path"
    title = "The address is not valid"


def normalize_path(raw: bytes) -> str:
    """The decoded path to match rules against; `raw` goes to the upstream unchanged.

    Raises `PathRefused` for: no leading slash, empty or dot segments, backslash, semicolon, controls, bytes outside
    ASCII, bad or double percent-encoding, escapes that are not UTF-8 (overlong ones among them), encoded
    `/ \\ ; ? #`, and anything longer than `MAX_PATH_BYTES`.
    """
    if len(raw) > MAX_PATH_BYTES:
        raise PathRefused(f"The path is longer than {MAX_PATH_BYTES} bytes.", status=414, code="path-too-long")
    text = _decode(raw) if raw.translate(None, _PLAIN) else raw.decode("ascii")
    if not text.startswith("/"):
        raise PathRefused("The path does not start with a slash.")
    if "//" in text:
        raise PathRefused("The path holds an empty segment.")
    if "/." in text and not {".", ".."}.isdisjoint(text.split("/")):
        raise PathRefused("The path holds a dot segment.")
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
            raise PathRefused(f"The path holds {_NEVER_PLAIN.get(byte, 'a character that must be escaped')}.")
        decoded.append(byte)
        position += 1
    if b"%" in decoded and _ESCAPE.search(decoded):
        # Judged after decoding, so that it does not matter how the percent sign and the digits were written.
        raise PathRefused("The path is percent-encoded twice.")
    try:
        return decoded.decode("utf-8")
    except UnicodeDecodeError:
        raise PathRefused("The path holds escapes that are not UTF-8.") from None


def _escaped(raw: bytes, position: int) -> int:
    digits = raw[position + 1 : position + 3]
    if len(digits) < 2 or not _HEX.issuperset(digits):
        raise PathRefused("The path holds a broken percent-escape.")
    byte = int(digits, 16)
    if byte in _NEVER_ESCAPED:
        raise PathRefused(f"The path holds {_NEVER_ESCAPED[byte]}.")
    if byte < 0x20 or byte == 0x7F:
        raise PathRefused("The path holds an encoded control character.")
    return byte
