"""Closes the client's connection in the middle of a response, so that the client sees that the response is truncated.

ASGI has no message for this. An app can only raise: the server then logs a traceback for each response and closes the
connection. Daphne does not close it, and its loop that removes closed connections ends with the first such exception.
The connection is therefore closed directly where the server allows it.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from starlette.types import Send

from akoya_gateway.connection_reset import reset


def abort_response(send: Send) -> bool:
    """Close the connection of the response that `send` belongs to. Return False if the caller has to raise instead.

    This is the case for unknown servers, for WebSockets of our own server, and if an outer app has wrapped the server's
    `send`: only an exception tells that app that the response is not complete.
    """
    # Daphne passes a partial whose first argument is the protocol; the others pass a method.
    owner = send.args[0] if isinstance(send, partial) and send.args else getattr(send, "__self__", None)
    module = type(owner).__module__
    abort = _ABORTS.get(module) or _ABORTS.get(module.partition(".")[0])
    if abort is None:
        return False
    abort(owner)
    return True


def _abort_own(response: Any) -> None:
    """Abort a response of `server.http_1_0` or `server.expect_continue`."""
    response.abort()


def _abort_uvicorn(cycle: Any) -> None:
    # Otherwise uvicorn logs that the app has returned without completing its response.
    cycle.disconnected = True
    if cycle.scope["http_version"] == "1.0":
        # With h11, such a response has no chunks: an orderly close would look like its end.
        reset(cycle.transport)
    cycle.transport.close()


def _abort_daphne(request: Any) -> None:
    channel = request.channel
    if channel is not None:
        # With HTTP/2, the channel is the stream.
        (channel if hasattr(channel, "abortConnection") else channel.transport).abortConnection()


def _abort_hypercorn(stream: Any) -> None:
    """Reset the connection of an HTTP/1.0 response; Hypercorn closes any other when the app returns early.

    Its close is an orderly one, which looks like the end of a response without chunks. The connection is found through
    the methods that Hypercorn's objects call on each other. Its worker for trio has none.
    """
    protocol = getattr(stream.send, "__self__", None)
    server = getattr(getattr(protocol, "send", None), "__self__", None)
    writer = getattr(server, "writer", None)
    if stream.scope["http_version"] == "1.0" and writer is not None:
        reset(writer.transport)


def _return_early(stream: Any) -> None:
    """Do nothing: the server closes the connection when the app returns before the end of its response."""


_ABORTS = {
    "akoya_gateway.server.http_1_0": _abort_own,
    "akoya_gateway.server.expect_continue": _abort_own,
    "uvicorn": _abort_uvicorn,
    "daphne": _abort_daphne,
    "hypercorn": _abort_hypercorn,
    "granian": _return_early,
}
"""How to abort a response, by the module or the package of the object that `send` belongs to.

Not by our own package: an outer `Gateway` and our WebSocket protocol cannot abort.
"""
