"""The interface between the reverse proxy and a caller that cancels responses and edits cached heads itself."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from starlette.types import Message, Send

from akoya_gateway.upstream.http.response_head_cache import CachedResponseHead


class ClientSend:
    """ASGI `send` of one request, which can cancel the response and accepts heads that have been edited already.

    A stream can outlive the grant that it was admitted with, so it can be cancelled.
    """

    server_send: Send
    """The server's own `send`, for messages that need no edit."""
    cancelled = False
    on_cancel: Callable[[], None] | None = None
    """Aborts the response while it is being forwarded."""

    def __call__(self, message: Message) -> Awaitable[None]:
        """Return the awaitable that sends the message."""
        raise NotImplementedError

    def start_message(self, head: CachedResponseHead) -> Message:
        """Return the start message of a complete response as the client gets it, and record that it has started.

        The headers that `hides` of the pool selects are already removed from `head`.
        """
        raise NotImplementedError

    def cancel(self) -> None:
        """Abort the response. Only the first call has an effect."""
        if not self.cancelled:
            self.cancelled = True
            if self.on_cancel is not None:
                self.on_cancel()
