"""Decodes response bodies that cannot be requested again, as tolerantly as is safe.

A rotated refresh token exists in one response only, so a byte order mark or an unrequested compression must not lose
it. Everything is bounded: each layer of compression yields at most `limit` + 1 bytes, and there are at most
`MAX_LAYERS` layers. `oauth.response_members` reads the result.
"""

from __future__ import annotations

import base64
import binascii
import codecs
import contextlib
import json
import re
import zlib

MAX_LAYERS = 4
MAX_GZIP_MEMBERS = 16
_STEP = 4096
"""Number of bytes that are decompressed at once where an error must not lose what precedes it."""
_MAX_ZSTD_WINDOW = 8 * 1024 * 1024
"""The window that every decoder of the content coding supports (RFC 9659 section 3)."""

_BLANK_BYTES = b"\xef\xbb\xbf\xff\xfe\0 \t\r\n"
"""The bytes of blanks and byte order marks in all Unicode encodings."""
_BASE64_OBJECT = b"eyJ"
"""How a JSON object begins in base64. Gateways that take a response for binary data send it so."""
_GZIP = b"\x1f\x8b\x08"
_ZSTD = b"\x28\xb5\x2f\xfd"
_PLAIN_LABELS = frozenset({"", "identity", "none"})
_BROTLI = "br"
_MISSING = "the response's Content-Encoding is %s, which needs akoya-gateway[codings]"
_PACKED_LABELS = frozenset({"gzip", "x-gzip", "deflate", "x-deflate", "zlib", _BROTLI, "zstd"})
_CHARSET = re.compile(r";\s*charset\s*=\s*\"?([A-Za-z0-9._:-]{1,40})\"?", re.IGNORECASE)
BLANK = "\ufeff\0 \t\r\n\f\v"
"""Characters that are removed around a text: a byte order mark and blanks."""


class UnreadableBody(ValueError):
    """The body has a Content-Encoding that cannot be decoded. The text quotes nothing of the body.

    `part` is what could be decoded of a truncated body.
    """

    def __init__(self, reason: str, part: bytes = b"") -> None:
        super().__init__(reason)
        self.part = part


def plain_body(raw: bytes, content_encoding: str, content_type: str, limit: int) -> bytes:
    """Return the body as UTF-8 without byte order mark and surrounding blanks, at most `limit` + 1 bytes of it.

    The bytes decide, and the headers help only where the bytes are ambiguous. gzip, zlib and zstd begin with a magic
    number that no JSON text begins with (RFC 1952 section 2.3.1, RFC 1950 section 2.2, RFC 8878 section 3.1.1). JSON is
    UTF-8 whatever the charset parameter says (RFC 8259 sections 8.1 and 11).

    br and zstd need the modules `brotli` and `zstandard`, which `akoya-gateway[codings]` installs.

    Raises:
        UnreadableBody: The encoding is unknown, or the content is corrupt or truncated.
    """
    body, cut = _unpacked(raw, content_encoding, limit)
    text = body[: limit + 1] if len(body) > limit else _text(body, content_type)[: limit + 1]
    if cut and len(text) <= limit:
        raise UnreadableBody("the response's Content-Encoding is cut off", text)
    return text


def _unpacked(body: bytes, content_encoding: str, limit: int) -> tuple[bytes, bool]:
    """Return the content, and whether a layer of compression was cut off."""
    labels = [label.strip().lower() for label in content_encoding.split(",")]
    labels = [label for label in labels if label not in _PLAIN_LABELS]
    packed = _PACKED_LABELS.issuperset(labels)
    cut = False
    for _ in range(MAX_LAYERS):
        if _is_json(body):
            return body, cut
        inner = _unpacked_once(body, labels if packed else [], limit)
        if inner is None:
            break
        body, ended = inner
        cut = cut or not ended
    if _is_json(body) or not (labels or body.startswith(_GZIP)):
        return body, cut
    raise UnreadableBody(
        "the response's Content-Encoding is broken" if packed else "the response has an unknown Content-Encoding"
    )


def _unpacked_once(body: bytes, labels: list[str], limit: int) -> tuple[bytes, bool] | None:
    start = body[:64].lstrip(_BLANK_BYTES)
    if start.startswith((_GZIP, _ZSTD)):  # Possibly after a line break or a byte order mark that a script has printed.
        body = body.lstrip(_BLANK_BYTES)
        return _gunzip(body, limit) if start.startswith(_GZIP) else _unzstd(body, limit)
    if start.startswith(_BASE64_OBJECT):
        return _unbase64(body)
    # Brotli and raw deflate have no magic number, so only a header can announce them (RFC 7932 section 9.1,
    # RFC 9110 section 8.4.1.2, the note).
    if _BROTLI in labels and (inner := _unbrotli(body, limit)) is not None:
        return inner
    inner = _inflated(body, zlib.MAX_WBITS, limit) if _has_zlib_header(body) else None
    if inner is None and labels:
        inner = _inflated(body, -zlib.MAX_WBITS, limit)
    return inner


def _is_json(body: bytes) -> bool:
    """Return True if the body starts like a JSON object or array, in any Unicode encoding, or is blank."""
    start = body[:64].lstrip(_BLANK_BYTES)
    return start[:1] in (b"{", b"[") or not start


def _has_zlib_header(body: bytes) -> bool:
    return len(body) > 2 and body[0] & 0x8F == 0x08 and int.from_bytes(body[:2]) % 31 == 0


def _gunzip(body: bytes, limit: int) -> tuple[bytes, bool] | None:
    """Decompress all members of a gzip file (RFC 1952 section 2.2) and ignore trailing padding."""
    out = b""
    for _ in range(MAX_GZIP_MEMBERS):
        member = zlib.decompressobj(wbits=zlib.MAX_WBITS | 16)
        try:
            out += member.decompress(body, limit + 1 - len(out))
        except zlib.error:
            out += _before_error(body, zlib.MAX_WBITS | 16, limit + 1 - len(out))
            return (out, False) if out else None
        body = member.unused_data
        if not member.eof or not body.startswith(_GZIP) or len(out) > limit:
            return out, member.eof
    return out, False


def _inflated(body: bytes, wbits: int, limit: int) -> tuple[bytes, bool] | None:
    inflate = zlib.decompressobj(wbits=wbits)
    try:
        return inflate.decompress(body, limit + 1), inflate.eof
    except zlib.error:
        out = _before_error(body, wbits, limit + 1)
        return (out, False) if out else None


def _before_error(body: bytes, wbits: int, max_bytes: int) -> bytes:
    """Return what precedes an error in the compressed data. After a wrong checksum at the end that is everything."""
    inflate, out = zlib.decompressobj(wbits=wbits), bytearray()
    with contextlib.suppress(zlib.error):
        for start in range(0, len(body), _STEP):
            before = inflate.copy()
            try:
                out += inflate.decompress(body[start : start + _STEP], max_bytes - len(out))
            except zlib.error:
                for at in range(start, min(start + _STEP, len(body))):
                    out += before.decompress(body[at : at + 1], max_bytes - len(out))
                    if len(out) >= max_bytes:
                        break
                break
            if len(out) >= max_bytes:
                break
    return bytes(out)


def _unbrotli(body: bytes, limit: int) -> tuple[bytes, bool] | None:
    try:
        import brotli  # noqa: PLC0415 - an optional dependency
    except ImportError:
        raise UnreadableBody(_MISSING % _BROTLI) from None
    inflate, out = brotli.Decompressor(), b""
    with contextlib.suppress(brotli.error):
        out = inflate.process(body, output_buffer_limit=limit + 1)
    return (out, inflate.is_finished()) if out else None


def _unbase64(body: bytes) -> tuple[bytes, bool] | None:
    text = b"".join(body.split())
    try:
        return base64.b64decode(text + b"=" * (-len(text) % 4), validate=True), True
    except binascii.Error:
        return None


def _unzstd(body: bytes, limit: int) -> tuple[bytes, bool] | None:
    try:
        import zstandard  # noqa: PLC0415 - an optional dependency
    except ImportError:
        raise UnreadableBody(_MISSING % "zstd") from None
    with zstandard.ZstdDecompressor(max_window_size=_MAX_ZSTD_WINDOW).stream_reader(
        body, read_across_frames=True
    ) as reader:
        out = bytearray()
        with contextlib.suppress(zstandard.ZstdError):
            while len(out) <= limit and (chunk := reader.read(min(_STEP, limit + 1 - len(out)))):
                out += chunk
            # The reader does not report a frame that is cut off. The JSON text inside shows it.
            return bytes(out), True
    return (bytes(out), False) if out else None


def _text(body: bytes, content_type: str) -> bytes:
    if not body.isascii() or b"\0" in body:
        text = _decoded(body, content_type)
        return text.strip(BLANK).encode("utf-8", "replace")
    return body.strip(b"\0 \t\r\n\f\v")


def _decoded(body: bytes, content_type: str) -> str:
    """Decode by the byte order mark or the NULs of UTF-16 and UTF-32, else as UTF-8, else by the declared charset.

    As a last resort undecodable bytes are replaced. Tokens are ASCII, so at most a letter of an unused member is lost.
    """
    detected = json.detect_encoding(body)
    try:
        return body.decode(detected)
    except UnicodeDecodeError:
        pass
    declared = _CHARSET.search(";" + content_type.partition(";")[2])
    if declared is not None:
        try:
            codec = codecs.lookup(declared[1])
            if codec.name.replace("_", "-").startswith(_CHARSETS):
                return body.decode(codec.name)
        except (LookupError, UnicodeDecodeError, ValueError):
            pass
    return body.decode(detected, "replace")


_CHARSETS = ("iso8859", "latin", "cp125", "koi8", "gb", "big5", "shift-jis", "euc", "utf-16", "utf-32", "mac-roman")
"""Prefixes of the Python codec names that a `charset` parameter may select: character sets only."""
