"""An upstream connection whose transport records what is written."""

from __future__ import annotations

from typing import Any

from akoya_gateway.config.model import Origin, Seconds, Upstream
from akoya_gateway.errors import GatewayError
from akoya_gateway.upstream.http.connection import Connection
from akoya_gateway.upstream.http.interfaces import ResponseHandler
from akoya_gateway.upstream.http.response_head import Headers, ResponseHead
from akoya_gateway.upstream.http.response_head_cache import CachedResponseHead, ResponseHeadCache


class RecordingTransport:
    """A transport that records what is written."""

    def __init__(self) -> None:
        self.written = b""
        self.closed = False
        self.paused = False
        self.unsent = 0

    def write(self, data: bytes) -> None:
        self.written += data

    def is_closing(self) -> bool:
        return self.closed

    def get_write_buffer_size(self) -> int:
        return self.unsent

    def get_extra_info(self, name: str) -> None:
        """Return None, because there is no socket."""

    def close(self) -> None:
        self.closed = True

    abort = close

    def pause_reading(self) -> None:
        self.paused = True

    def resume_reading(self) -> None:
        self.paused = False


class Holder(ResponseHandler):
    """A connection owner and response handler that records its calls in `diary`."""

    def __init__(self) -> None:
        self.now = 0.0
        self.write_timeout = 3.0
        self.diary: list[Any] = []
        self.idle = 0

    def on_idle(self, connection: Connection) -> None:
        self.idle += 1

    def on_gone(self, connection: Connection) -> None:
        pass

    def on_read_timeout_disabled(self, connection: Connection) -> None:
        pass

    def on_connection_response(self, connection: Connection) -> None:
        pass

    def on_connection_failure(self, connection: Connection) -> None:
        pass

    def on_stray(self, connection: Connection) -> None:
        pass

    def on_head(self, status: int, head: ResponseHead) -> None:
        self.diary.append((status, head))

    def on_body(self, chunk: bytes) -> None:
        if self.diary and isinstance(self.diary[-1], bytes):
            self.diary[-1] += chunk
        else:
            self.diary.append(chunk)

    def on_complete_response(self, head: CachedResponseHead, body: bytes) -> None:
        self.on_head(head.status, head.head)
        if body:
            self.on_body(body)
        self.on_end()

    def on_trailers(self, headers: Headers) -> None:
        self.diary.append(headers)

    def on_end(self) -> None:
        self.diary.append("end")

    def on_failure(self, error: GatewayError) -> None:
        self.diary.append(type(error))

    def on_writable(self) -> None:
        self.diary.append("writable")

    def on_tick(self) -> None:
        self.diary.append("tick")


def new_connection() -> tuple[Connection, Holder, RecordingTransport]:
    holder, transport = Holder(), RecordingTransport()
    upstream = Upstream((Origin("http", "127.0.0.1", 1),), read_timeout=Seconds(5))
    connection = Connection(holder, 0, upstream, ResponseHeadCache())
    connection.connection_made(transport)  # type: ignore[arg-type]
    return connection, holder, transport
