"""Scripted responses, and exchanges whose bytes can be compared between both paths."""

from __future__ import annotations

import re
import socket
from typing import Any

from tests.support.environment import ACCESS
from tests.support.scripted_upstream import Script, in_pieces, plain, silent, then_close

OK = b"HTTP/1.1 200 OK\r\n"
DATE = b"Date: Tue, 24 Nov 2026 04:00:00 GMT\r\n"
SCRIPTS: dict[str, Script] = {
    "length": plain(OK + DATE + b"Content-Length: 5\r\nX-A: 1\r\nX-A: 2\r\n\r\nhello"),
    "undated": plain(OK + b"Content-Length: 2\r\n\r\nok"),
    "empty": plain(OK + DATE + b"Content-Length: 0\r\n\r\n"),
    "chunked": plain(OK + DATE + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"),
    "trailers": plain(OK + DATE + b"Transfer-Encoding: chunked\r\nTrailer: X-T\r\n\r\n2\r\nhi\r\n0\r\nX-T: 1\r\n\r\n"),
    "until-close": then_close(OK + DATE + b"Connection: close\r\n\r\nto the end"),
    "no-content": plain(b"HTTP/1.1 204 No Content\r\n" + DATE + b"\r\n"),
    "no-content-with-a-body": plain(
        b"HTTP/1.1 204 No Content\r\nContent-Type: a/b\r\n" + DATE + b"\r\n" + OK + b"Content-Length: 4\r\n\r\nevil"
    ),
    "not-modified-with-a-body": plain(b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n" + DATE + b"\r\nevil!"),
    "longer-than-its-length": plain(OK + DATE + b"Content-Length: 5\r\n\r\nhello and more"),
    "not-modified": plain(b'HTTP/1.1 304 Not Modified\r\nETag: "x"\r\n' + DATE + b"\r\n"),
    "redirect": plain(b"HTTP/1.1 302 Found\r\nLocation: /accounts/length\r\n" + DATE + b"Content-Length: 0\r\n\r\n"),
    "cookies": plain(OK + DATE + b"Set-Cookie: a=1\r\nSet-Cookie: b=2; Path=/\r\nContent-Length: 0\r\n\r\n"),
    "early-hints": plain(b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n" + OK + DATE + b"Content-Length: 1\r\n\r\nx"),
    "echo": plain(OK + DATE + b"Akoya-Id-Token: leaked\r\nAkoya-Anything: x\r\nContent-Length: 0\r\n\r\n"),
    "hop-by-hop": plain(
        OK + DATE + b"Connection: X-Secret\r\nX-Secret: 1\r\nKeep-Alive: timeout=5\r\nContent-Length: 0\r\n\r\n"
    ),
    "unauthorized": plain(b"HTTP/1.1 401 Unauthorized\r\n" + DATE + b"Content-Length: 2\r\n\r\nno"),
    "server-error": plain(
        b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 3\r\n" + DATE + b"Content-Length: 0\r\n\r\n"
    ),
    "odd-status": plain(b"HTTP/1.1 299 Odd\r\n" + DATE + b"Content-Length: 0\r\n\r\n"),
    "pieces": in_pieces(OK + DATE, b"Content-Length: 10\r\n\r\n", b"hello", b"world"),
    "big": plain(OK + DATE + b"Content-Length: 400000\r\n\r\n" + b"0123456789" * 40000),
    "garbage": then_close(b"SSH-2.0-OpenSSH\r\n\r\n"),
    "two-lengths": then_close(OK + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\nab"),
    "both-framings": then_close(OK + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
    "control-character": then_close(OK + b"X-A: a\x01b\r\nContent-Length: 0\r\n\r\n"),
    "nothing": then_close(b""),
    "switching": then_close(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n"),
    "torso": then_close(OK + DATE + b"Content-Length: 10\r\n\r\nhalf"),
    "torso-chunked": then_close(OK + DATE + b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n"),
    "silent": silent,
}
HEADERS = (
    b"Host: app.example.com:8080\r\nAccept: */*\r\nUser-Agent: test\r\nX-Own: 1\r\nX_Own: 2\r\nAkoya_Owner: me\r\n"
)


def patient(url: str) -> dict[str, Any]:
    """Return the configuration of an upstream that may take its time, because a busy machine does.

    Only for the scripts that never complete a response is the read timeout short.
    """
    timeout = {"connect": "60s", "read": "60s"}
    rules = [
        {"path": f"/accounts/{name}", "require": "any", "otherwise": "connect", "upstream": "impatient"}
        for name in ("silent", "short")
    ]
    return {
        "upstream": {"url": url, "timeout": timeout},
        "upstreams": {"impatient": {"url": url, "timeout": {**timeout, "read": "1s"}}},
        "access": [*rules, *ACCESS],
    }


def exchange(port: int, request: bytes, head_only: bool = False) -> tuple[bytes, bytes, bool]:
    """Return the head and body of the response, and whether the server closed the connection."""
    with socket.create_connection(("127.0.0.1", port), 60) as raw:
        raw.sendall(request)
        data = b""
        while b"\r\n\r\n" not in data:
            more = raw.recv(65536)
            if not more:
                return data, b"", True
            data += more
        head, _, body = data.partition(b"\r\n\r\n")
        length = re.search(rb"\r\ncontent-length: (\d+)", head)
        bodiless = head_only or b" 204 " in head[:20] or b" 304 " in head[:20]
        chunked = b"\r\ntransfer-encoding: chunked" in head and not bodiless
        want = 0 if bodiless or length is None else int(length[1])
        while (chunked and not body.endswith(b"0\r\n\r\n")) or (not chunked and len(body) < want):
            more = raw.recv(65536)
            if not more:
                return head, body, True
            body += more
        try:
            if not closes(head):
                raw.sendall(b"GET /akoya/jwks.json HTTP/1.1\r\nHost: app.example.com\r\n\r\n")  # Is it still open?
            return head, body, raw.recv(1) == b""
        except ConnectionError:
            return head, body, True


def closes(head: bytes) -> bool:
    """Return whether the server announces that it closes the connection, which it may do a moment later."""
    return re.search(rb"(?i)\r\nconnection: *close\b", head) is not None


VOLATILE = [
    (rb"created=\d+", b"created="),
    (rb"expires=\d+", b"expires="),
    (rb"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", b"<last access>"),
    (rb'nonce="[^"]+"', b"nonce="),
    (rb"signature: akoya=:[^:]+:", b"signature: akoya="),
    (rb"\r\ndate: [^\r]+", b"\r\ndate: "),
    (rb'"request_id":"[0-9a-f]+"', b'"request_id":'),
    (rb"\r\nx-request-id: [0-9a-f]{16}\b", b"\r\nx-request-id: "),
]


def settled(data: bytes) -> bytes:
    """Remove what differs from one request to the next."""
    for pattern, replacement in VOLATILE:
        data = re.sub(pattern, replacement, data)
    return data


def dechunked(head: bytes, body: bytes) -> bytes:
    """Return the content, because chunk boundaries are not guaranteed."""
    if b"transfer-encoding: chunked" not in head:
        return body
    content = b""
    while body:
        size, _, rest = body.partition(b"\r\n")
        content += rest[: int(size, 16)]
        body = rest[int(size, 16) + 2 :]
    return content
