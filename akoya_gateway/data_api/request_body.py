"""The client's side of a call: the request body, and whether the client is still connected."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine
from typing import Any

from starlette.types import Receive

from akoya_gateway.tasks import cancel_until_done


class ClientGone(Exception):
    """The client has disconnected."""


class ClientMessages:
    """Reads the ASGI messages of one request.

    Only one reader can wait for messages: first the reader of the request body, then a watcher for the disconnect. If
    the request has no body, the watcher starts at once and ignores what the client sends.
    """

    def __init__(self, receive: Receive, *, has_body: bool) -> None:
        self._receive = receive
        self._has_body = has_body
        self._body_is_read = asyncio.Event()
        if not has_body:
            self._body_is_read.set()

    async def first(self) -> tuple[bytes, bool]:
        """Return the first chunk of the body, and whether more follows. Raises ClientGone."""
        return await self._next() if self._has_body else (b"", False)

    async def rest(self, first: bytes) -> AsyncIterator[bytes]:
        """Yield the whole body, starting with the chunk already read. Raises ClientGone, or what `receive` raises."""
        yield first
        more = True
        while more:
            part, more = await self._next()
            if part:
                yield part

    async def _next(self) -> tuple[bytes, bool]:
        message = await self._receive()
        if message["type"] == "http.disconnect":
            raise ClientGone
        more = bool(message.get("more_body", False))
        if not more:
            self._body_is_read.set()
        return message.get("body", b""), more

    async def until_disconnected(self, work: Coroutine[Any, Any, None]) -> None:
        """Run `work`, and cancel it if the client disconnects. Raises what `work` raises."""
        task = asyncio.get_running_loop().create_task(work)
        watcher = asyncio.get_running_loop().create_task(self._disconnected())
        try:
            await asyncio.wait((task, watcher), return_when=asyncio.FIRST_COMPLETED)
        finally:
            if not task.done():
                await cancel_until_done(task)
            await cancel_until_done(watcher)
        if not task.cancelled():
            error = task.exception()
            if error is not None and not isinstance(error, ClientGone):
                raise error

    async def _disconnected(self) -> None:
        await self._body_is_read.wait()
        while (await self._receive())["type"] != "http.disconnect":
            pass
