"""Describes bytes that are not an HTTP request, so that an operator can tell a wrong port or proxy from an attack."""

from __future__ import annotations

_OTHER_PROTOCOLS = (
    (b"\x16\x03", "TLS on a port for plain HTTP"),
    (b"PROXY ", "PROXY protocol, which is not supported"),
    (b"\r\n\r\n\x00\r\nQUIT\n", "PROXY protocol, which is not supported"),
    (b"PRI * HTTP/2", "HTTP/2 without TLS, which is not supported"),
)
"""The first bytes of a connection: a TLS record (RFC 8446 section 5.1), the PROXY protocol of HAProxy in versions 1 and
2, and HTTP/2 (RFC 9113 section 3.4)."""


def malformed_reason(first_bytes: bytes, error: Exception) -> str:
    """Return one of a few fixed texts, which contain nothing that the client sent.

    Args:
        first_bytes: the first bytes of the connection, or nothing if a request was read from it before.
        error: the parser's error. Its text is one of llhttp's constants.
    """
    for prefix, reason in _OTHER_PROTOCOLS:
        if first_bytes.startswith(prefix):
            return reason
    return f"not valid HTTP: {error}"
