"""Apps that send stray bytes after a response: a WSGI app for gunicorn and cheroot, and a server of raw bytes.

    python -m tests.upstream.sloppy cheroot|raw PORT

The path selects the misbehaviour (`/public/KIND/NAME`). Every valid response has the path in `X-Path`. The stray bytes
form a response of their own.
"""

from __future__ import annotations

import socket
import socketserver
import sys
from collections.abc import Iterable
from typing import Any

EVIL = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nX-Path: evil\r\nContent-Length: 4\r\n\r\nevil"
WSGI_KINDS = ("type204", "type304", "length204", "length304", "head")
RAW_KINDS = ("type204", "length304", "chunked204", "head", "same", "cork", "read", "short")
READ_SIZE = 256_000
"""Number of bytes that uvloop reads from a socket at once."""


def application(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    path: str = environ["PATH_INFO"]
    kind = path.split("/")[2]
    headers = [("X-Path", path)]
    if kind.startswith("type"):
        headers.append(("Content-Type", "text/html"))
    elif kind.startswith("length") or kind == "head":
        headers.append(("Content-Length", str(len(EVIL))))
    if kind == "ok":
        body = f"for {path}".encode()
        start_response("200 OK", [*headers, ("Content-Type", "text/plain"), ("Content-Length", str(len(body)))])
        return [body]
    start_response({"204": "204 No Content", "304": "304 Not Modified"}.get(kind[-3:], "200 OK"), headers)
    return [EVIL]


class Raw(socketserver.StreamRequestHandler):
    """Sends all stray bytes right behind the response, before the gateway's upstream socket has taken the response."""

    def handle(self) -> None:
        self.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        while line := self.rfile.readline():
            while self.rfile.readline().strip():
                pass
            path = line.split(b" ")[1]
            self._respond(path, path.split(b"/")[2].decode())

    def _respond(self, path: bytes, kind: str) -> None:
        path_line = b"X-Path: %b\r\n" % path
        match kind:
            case "ok":
                body = b"for " + path
                self.connection.sendall(
                    b"HTTP/1.1 200 OK\r\n%bContent-Length: %d\r\n\r\n%b" % (path_line, len(body), body)
                )
            case "type204":
                self.connection.sendall(b"HTTP/1.1 204 No\r\nContent-Type: a/b\r\n%b\r\n%b" % (path_line, EVIL))
            case "length304":
                self._two(b"HTTP/1.1 304 No\r\nContent-Length: %d\r\n%b\r\n" % (len(EVIL), path_line), EVIL)
            case "chunked204":
                self._two(b"HTTP/1.1 204 No\r\nTransfer-Encoding: chunked\r\n%b\r\n" % path_line, EVIL)
            case "head":
                self._two(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n%b\r\n" % (len(EVIL), path_line), EVIL)
            case "same":
                self.connection.sendall(b"HTTP/1.1 200 OK\r\n%bContent-Length: 2\r\n\r\nok%b" % (path_line, EVIL))
            case "cork":
                self.connection.send(b"HTTP/1.1 200 OK\r\n%bContent-Length: 2\r\n\r\nok" % path_line, socket.MSG_MORE)
                self.connection.sendall(EVIL)
            case "short":
                self.connection.sendall(
                    b"HTTP/1.1 200 OK\r\n%bContent-Length: 9\r\n\r\nZ\xc3\xbcrich \xc3\xb6\xc3\xa4%b"
                    % (path_line, EVIL)
                )
            case "read":
                # The response fills one read, so the stray bytes are still in the socket when it is complete.
                head = b"HTTP/1.1 200 OK\r\n%bContent-Length: %d\r\n\r\n"
                size = READ_SIZE - len(head % (path_line, READ_SIZE))
                self.connection.sendall(head % (path_line, size) + b"z" * size + EVIL)

    def _two(self, first: bytes, second: bytes) -> None:
        """Send two segments, as servers do for a head and a body."""
        self.connection.sendall(first)
        self.connection.sendall(second)


class RawServer(socketserver.ThreadingTCPServer):
    """The server of raw bytes."""

    allow_reuse_address = daemon_threads = True
    request_queue_size = 128

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignore errors: these tests are about peers that close."""


def main(server: str, port: int) -> None:
    if server == "raw":
        RawServer(("127.0.0.1", port), Raw).serve_forever()
    else:
        from cheroot.wsgi import Server

        Server(("127.0.0.1", port), application, numthreads=20).start()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
