"""Real servers and raw sockets for the upstream tests. Each server runs in a thread and is stopped by its fixture."""

from __future__ import annotations

import contextlib
import http.client
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Self

from akoya_gateway.config.model import Origin, Seconds, Upstream, UpstreamTLS, WebSocketBounds
from akoya_gateway.server.websocket_protocol import DetachableWebSocketProtocol
from akoya_gateway.upstream.http.connection_pool import ConnectionPool
from akoya_gateway.upstream.reverse_proxy import ReverseProxy
from tests.support.processes import AppServer
from tests.support.standalone_proxy import StandaloneProxy

TIMEOUT = 30.0


BARE: dict[str, Any] = {
    "log_level": "critical",
    "proxy_headers": False,
    "server_header": False,
    "date_header": False,
    "lifespan": "on",
    "timeout_graceful_shutdown": 1,
}
"""Options of an `AppServer` that adds no headers and trusts none."""


Handler = Callable[["Caller"], None]


class Caller:
    """A connection that a test upstream has accepted."""

    def __init__(self, sock: socket.socket, number: int) -> None:
        self.sock = sock
        self.number = number
        self.buffer = b""
        sock.settimeout(TIMEOUT)

    def until(self, mark: bytes) -> bytes:
        while mark not in self.buffer:
            data = self.sock.recv(65536)
            if not data:
                raise EOFError
            self.buffer += data
        before, _, self.buffer = self.buffer.partition(mark)
        return before + mark

    def exactly(self, size: int) -> bytes:
        while len(self.buffer) < size:
            data = self.sock.recv(65536)
            if not data:
                raise EOFError
            self.buffer += data
        data, self.buffer = self.buffer[:size], self.buffer[size:]
        return data

    def head(self) -> bytes:
        return self.until(b"\r\n\r\n")

    def send(self, data: bytes) -> None:
        self.sock.sendall(data)

    def respond(self, body: bytes = b"ok", extra: bytes = b"") -> None:
        self.send(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n%b\r\n%b" % (len(body), extra, body))

    def reset(self) -> None:
        """Close the connection with RST."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")
        self.sock.close()

    def closed_by_peer(self, timeout: float = TIMEOUT) -> bool:
        """Return whether the peer closes the connection within the timeout."""
        self.sock.settimeout(timeout)
        try:
            while self.sock.recv(65536):
                pass
        except TimeoutError:
            return False
        except OSError:
            return True
        return True


class RawUpstream:
    """A server whose handler controls each connection. `heads` holds the request heads it has read."""

    def __init__(self, handler: Handler, *, path: str | None = None, tls: ssl.SSLContext | None = None) -> None:
        self.handler = handler
        self.path = path
        self.tls = tls
        if path is None:
            self.listener = socket.create_server(("127.0.0.1", 0))
        else:
            self.listener = socket.socket(socket.AF_UNIX)
            self.listener.bind(path)
            self.listener.listen(128)
        self.connections = 0
        self.heads: list[bytes] = []
        self.errors: list[BaseException] = []
        self._acceptor = threading.Thread(target=self._accept, daemon=True)
        self._threads: list[threading.Thread] = []
        self._sockets: list[socket.socket] = []

    @property
    def origin(self) -> Origin:
        scheme = "https" if self.tls else "http"
        if self.path is not None:
            return Origin(scheme, "localhost", 80, self.path)
        return Origin(scheme, "127.0.0.1", self.listener.getsockname()[1])

    def __enter__(self) -> Self:
        self._acceptor.start()
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):
            self.listener.shutdown(socket.SHUT_RDWR)
        # Wait for the acceptor, which may be about to start a thread. After it, the lists below are complete.
        self._acceptor.join(TIMEOUT)
        self.listener.close()
        for sock in self._sockets:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
            sock.close()
        for thread in self._threads:
            thread.join(TIMEOUT)

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self.listener.accept()
            except OSError:
                return
            self.connections += 1
            self._sockets.append(sock)
            thread = threading.Thread(target=self._serve, args=(sock, self.connections), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _serve(self, sock: socket.socket, number: int) -> None:
        try:
            if self.tls is not None:
                sock = self.tls.wrap_socket(sock, server_side=True)
                self._sockets.append(sock)
            caller = Caller(sock, number)
            read_head = caller.head

            def head() -> bytes:
                found = read_head()
                self.heads.append(found)
                return found

            caller.head = head  # type: ignore[method-assign]
            self.handler(caller)
        except (OSError, EOFError):
            pass
        except BaseException as error:
            self.errors.append(error)
        finally:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
            sock.close()


def forever(responder: Handler) -> Handler:
    """Return a keep-alive handler that reads a head and responds, repeatedly."""

    def handler(caller: Caller) -> None:
        while True:
            caller.head()
            responder(caller)

    return handler


def fixed(response: bytes, *, hold: bool = True) -> Handler:
    """Return a handler that sends these bytes as the response to the first request.

    With `hold`, the connection then stays open until the peer closes it.
    """

    def handler(caller: Caller) -> None:
        caller.head()
        caller.send(response)
        if hold:
            caller.closed_by_peer()

    return handler


def silent_for(seconds: float) -> Handler:
    """Return a handler that sends nothing, and closes the connection after this time if the peer has not."""

    def handler(caller: Caller) -> None:
        caller.closed_by_peer(seconds)

    return handler


@dataclass
class Proxied:
    """A proxy under uvicorn in front of one or more origins."""

    server: AppServer
    pool: ConnectionPool
    proxy: ReverseProxy

    @property
    def port(self) -> int:
        return self.server.port


@contextlib.contextmanager
def proxied(
    *origins: Origin,
    connect: float = 30.0,
    read: float = 30.0,
    pool: int = 100,
    keep_alive: bool = True,
    tls: UpstreamTLS | None = None,
    websocket: WebSocketBounds | None = None,
    timeouts: dict[str, float] | None = None,
    server_options: dict[str, Any] | None = None,
    tunnel: bool = False,
    wrap: Callable[[StandaloneProxy], Any] | None = None,
    **options: Any,
) -> Iterator[Proxied]:
    """Run a proxy in front of the origins. With `tunnel`, WebSocket connections are tunnelled byte for byte.

    `timeouts` are attributes of the `ConnectionPool` to set.
    """
    upstream = Upstream(
        tuple(origins),
        Seconds(connect),
        Seconds(read),
        pool,
        tls=tls or UpstreamTLS(),
        websocket=websocket or WebSocketBounds(),
        keep_alive=keep_alive,
    )
    made = ConnectionPool(upstream)
    for name, seconds in (timeouts or {}).items():
        setattr(made, name, seconds)
    proxy = ReverseProxy(made, **options)
    app = StandaloneProxy(proxy)
    served: dict[str, Any] = {"ws": DetachableWebSocketProtocol, "ws_per_message_deflate": False} if tunnel else {}
    served |= server_options or {}
    with AppServer(wrap(app) if wrap else app, **(BARE | served)) as server:
        yield Proxied(server, made, proxy)


class Client:
    """A raw client socket."""

    def __init__(self, port: int, timeout: float = TIMEOUT) -> None:
        self.sock = socket.create_connection(("127.0.0.1", port), timeout)
        self.buffer = b""

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.sock.close()

    def send(self, data: bytes) -> None:
        self.sock.sendall(data)

    def rest(self) -> bytes:
        """Return everything up to the server's close. Fail if it does not close."""
        data = self.buffer
        with contextlib.suppress(ConnectionResetError):
            while chunk := self.sock.recv(65536):
                data += chunk
        return data

    def until(self, mark: bytes) -> bytes:
        while mark not in self.buffer:
            data = self.sock.recv(65536)
            if not data:
                raise EOFError(self.buffer)
            self.buffer += data
        before, _, self.buffer = self.buffer.partition(mark)
        return before + mark

    def request(self, data: bytes) -> Response:
        """Send a request and read its response, after any `100 Continue`. Not for HEAD."""
        self.send(data)
        while (response := self.response()).status == 100:
            pass
        if not response.names() & {b"content-length", b"transfer-encoding"} and response.status not in (101, 204, 304):
            response.body = self.rest()
        return response

    def head(self) -> bytes:
        """Read one response head, and return it without the empty line at its end."""
        return self.until(b"\r\n\r\n").removesuffix(b"\r\n\r\n")

    def response(self) -> Response:
        """Read one response, framed by Content-Length or chunks."""
        head = self.head()
        lines = head.split(b"\r\n")
        status = int(lines[0].split()[1])
        headers = [(n.lower(), v.strip()) for n, _, v in (line.partition(b":") for line in lines[1:])]
        reply = Response(status, headers, head)
        length = reply.get(b"content-length")
        if length is not None and status != 304:
            while len(self.buffer) < int(length):
                data = self.sock.recv(65536)
                if not data:
                    raise EOFError(self.buffer)
                self.buffer += data
            reply.body, self.buffer = self.buffer[: int(length)], self.buffer[int(length) :]
        elif reply.get(b"transfer-encoding") == b"chunked":
            while size := int(self.until(b"\r\n").strip(), 16):
                while len(self.buffer) < size + 2:
                    data = self.sock.recv(65536)
                    if not data:
                        raise EOFError(self.buffer)
                    self.buffer += data
                reply.body += self.buffer[:size]
                self.buffer = self.buffer[size + 2 :]
            self.until(b"\r\n")
        return reply

    def closed(self, timeout: float = TIMEOUT) -> bool:
        self.sock.settimeout(timeout)
        try:
            return not self.sock.recv(65536)
        except TimeoutError:
            return False
        except OSError:
            return True


@dataclass
class Response:
    """A response that a client received."""

    status: int
    headers: list[tuple[bytes, bytes]]
    head: bytes = field(default=b"", repr=False, compare=False)
    body: bytes = field(default=b"", repr=False)

    def get(self, name: bytes) -> bytes | None:
        return next((value for header, value in self.headers if header == name), None)

    def names(self) -> set[bytes]:
        return {name for name, _ in self.headers}


def fetch(
    port: int,
    path: str = "/",
    *,
    method: str = "GET",
    headers: dict[str, str] | None = None,
    body: Any = None,
    timeout: float = TIMEOUT,
) -> tuple[int, dict[str, str], bytes]:
    """Send one request with the standard library's client on a new connection."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)
    try:
        connection.request(method, path, body=body, headers=headers or {})
        response = connection.getresponse()
        return response.status, {k.lower(): v for k, v in response.getheaders()}, response.read()
    finally:
        connection.close()


def raw(port: int, data: bytes) -> bytes:
    """Send the bytes and return everything up to the server's close."""
    with Client(port) as client:
        client.send(data)
        return client.rest()


def standstill(count: Callable[[], int], timeout: float = TIMEOUT) -> int:
    """Return the result of `count` once it has not changed for half a second."""
    deadline = time.monotonic() + timeout
    seen, since = count(), time.monotonic()
    while time.monotonic() < since + 0.5:
        assert time.monotonic() < deadline, "the count keeps changing"
        time.sleep(0.02)
        if (now := count()) != seen:
            seen, since = now, time.monotonic()
    return seen
