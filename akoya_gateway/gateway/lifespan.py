"""ASGI lifespan for middleware, around the inner app's lifespan. The inner app need not support lifespan."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable

from starlette.types import ASGIApp, Message, Receive, Scope, Send

Step = Callable[[], Awaitable[object]]


async def lifespan(app: ASGIApp, scope: Scope, receive: Receive, send: Send, startup: Step, shutdown: Step) -> None:
    """Run `startup`, then the app's startup; on shutdown, the app's shutdown, then `shutdown`.

    An app without lifespan support is skipped. An exception of `startup` is sent as `lifespan.startup.failed` with its
    message.
    """
    await receive()
    try:
        await startup()
    except Exception as error:
        await send({"type": "lifespan.startup.failed", "message": str(error)})
        return
    inner = _InnerLifespan(app, scope)
    failure = await inner.run("startup")
    if failure is not None:
        await shutdown()
        await send({"type": "lifespan.startup.failed", "message": failure})
        return
    await send({"type": "lifespan.startup.complete"})
    await receive()
    failure = await inner.run("shutdown")
    await shutdown()
    if failure is None:
        await send({"type": "lifespan.shutdown.complete"})
    else:
        await send({"type": "lifespan.shutdown.failed", "message": failure})


class _InnerLifespan:
    """The inner app's lifespan, one phase at a time."""

    def __init__(self, app: ASGIApp, scope: Scope) -> None:
        self._to_app: asyncio.Queue[Message] = asyncio.Queue()
        self._from_app: asyncio.Queue[Message] = asyncio.Queue()
        self._task = asyncio.ensure_future(app(scope, self._to_app.get, self._from_app.put))

    async def run(self, phase: str) -> str | None:
        """Run one phase ("startup" or "shutdown").

        Returns None if the phase completed or the app has no lifespan support. Returns the app's message if the phase
        failed.
        """
        if self._task.done():
            return None
        await self._to_app.put({"type": f"lifespan.{phase}"})
        reply = asyncio.ensure_future(self._from_app.get())
        await asyncio.wait({reply, self._task}, return_when=asyncio.FIRST_COMPLETED)
        if not reply.done():
            reply.cancel()
            if not self._task.cancelled():
                # An app without lifespan support raises. Retrieve the exception so that asyncio does not log it.
                self._task.exception()
            return None
        message = reply.result()
        if message["type"].endswith(".failed"):
            return str(message.get("message", ""))
        return None


def is_built_by_starlette() -> bool:
    """Return True while a Starlette app creates its middleware.

    It does so when the first event arrives. An exception then looks to a server as if the app did not support lifespan,
    and the server starts nevertheless.
    """
    frame = inspect.currentframe()
    while frame is not None and frame.f_code.co_name != "build_middleware_stack":
        frame = frame.f_back
    return frame is not None
