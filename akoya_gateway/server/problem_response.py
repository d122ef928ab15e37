"""Responses of the HTTP server itself, for requests that never reach the gateway."""

from __future__ import annotations

import json

from uvicorn.protocols.http.httptools_impl import STATUS_LINE

_TITLES = {
    400: ("bad-request", "The request could not be understood"),
    408: ("head-timeout", "The request took too long to arrive"),
    431: ("head-too-large", "The request's headers are too large"),
    505: ("http-version", "Only HTTP/1.1 is supported"),
}


def problem_response(status: int, reason: str) -> bytes:
    """Return a complete response that closes the connection (RFC 9457). `reason` becomes its `detail`."""
    code, title = _TITLES[status]
    kind = f"urn:akoya-gateway:problem:{code}"
    detail = f"{reason[0].upper()}{reason[1:]}."
    problem = {"type": kind, "title": title, "status": status, "detail": detail}
    body = json.dumps(problem, separators=(",", ":")).encode()
    return (
        STATUS_LINE[status] + b"content-type: application/problem+json\r\n"
        b"cache-control: no-store\r\nconnection: close\r\ncontent-length: %d\r\n\r\n" % len(body) + body
    )
