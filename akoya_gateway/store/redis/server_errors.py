"""Classifies and describes the errors of Redis servers and of the client library."""

from __future__ import annotations

import errno
import os
import re
import ssl
from collections.abc import Iterator, Sequence
from socket import gaierror
from typing import Any

from redis.asyncio.sentinel import MasterNotFoundError
from redis.exceptions import (
    AuthenticationError,
    BusyLoadingError,
    InvalidResponse,
    NoPermissionError,
    OutOfMemoryError,
    RedisClusterException,
    RedisError,
    ResponseError,
)
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

REDIS_ERRORS = (RedisError, RedisClusterException, OSError, TimeoutError, IndexError, RuntimeError)
"""Exceptions that the client library raises when Redis or the network fails.

It raises IndexError for a cluster without any slots. uvloop raises RuntimeError for a write to a transport that the
server has just closed.
"""

_NOT_CONNECTED = frozenset({errno.ECONNREFUSED, errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ENOENT, errno.EACCES})
"""Errors of `connect`, after which no command can have been sent."""

_RUN = re.compile(r"run the '([A-Za-z|]{2,30})' command")
_UNKNOWN = re.compile(r"unknown command ['`]?([A-Za-z]{2,20})\b")
"""Patterns for the command name in errors of the server.

`_RUN` matches if the user may not run the command, `_UNKNOWN` if it is renamed or does not exist.
"""

_ADVICE = {
    "OOM": "its memory is full; make room or raise maxmemory",
    "MISCONF": "it cannot save to its disk and refuses writes; look at its log",
    "READONLY": "it is a replica now; waiting for the new primary",
    "NOREPLICAS": "it has too few replicas and refuses writes (min-replicas-to-write)",
    "CLUSTERDOWN": "the cluster is down: some slots have no server",
    "MASTERDOWN": "the primary is down",
    "NOPERM": "the user may not run a command the store needs; see docs/stores.md for the ACL",
    "LOADING": "it is loading its data",
    "MOVED": "it is part of a cluster; use redis+cluster:// in sessions.store",
    "ASK": "it is part of a cluster; use redis+cluster:// in sessions.store",
    "TRYAGAIN": "the cluster is moving a slot; the next attempt may succeed",
    "BUSY": "a script of another program blocks it; look at SCRIPT KILL and busy-reply-threshold",
    "WRONGTYPE": "a key of the gateway belongs to another program; choose another prefix",
    "DENIED": "it runs in protected mode; set a password or its bind address",
    "NOPROTO": "it does not speak a protocol version that the client needs; it needs Redis 6.2 or newer",
}

_TEXTS = (
    (
        "max number of clients",
        "it has too many clients; raise its maxclients, or find the program that leaks them",
    ),
    (
        "without any password configured",
        "it has no password; remove the one in sessions.store",
    ),
    # Redis 7: a command with more than ten arguments before authentication.
    ("unauthenticated multibulk length", "the user or password was refused"),
    ("cluster support disabled", "it is not part of a cluster; use redis:// or rediss:// in sessions.store"),
    ("previous master is now a slave", _ADVICE["READONLY"]),
    ("SELECT is not allowed", "it is part of a cluster; use redis+cluster:// in sessions.store"),
    ("DB index is out of range", "it has no database of this number; look at the end of the URL in sessions.store"),
)
"""Parts of server errors without a code of their own, and what to do."""


def error_text(fault: Exception) -> str:
    """Describe an error, by its most telling cause.

    Only the error code is taken from the server's text, which may repeat data that was sent.
    """
    causes = tuple(_causes(fault))
    for describe in (_reason, _connect_error, _general):
        for each in causes:
            if text := describe(each):
                return text
    return type(fault).__name__


def _causes(fault: BaseException | None) -> Iterator[BaseException]:
    """Yield the exception and those that caused it."""
    for _ in range(10):
        if fault is None:
            return
        yield fault
        fault = fault.__cause__ or (None if fault.__suppress_context__ else fault.__context__)


def _reason(fault: BaseException) -> str | None:
    """Describe what the server has responded, or what the sentinels have. None for any other error."""
    if isinstance(fault, MasterNotFoundError):
        return str(fault)
    if isinstance(fault, ResponseError | RedisConnectionError):
        for part, advice in _TEXTS:
            if part in str(fault):
                return advice
    if isinstance(fault, AuthenticationError):
        return "the user or password was refused"
    code = error_code(fault)
    if code == "NOPERM":
        return f"{refused(fault)}; see docs/stores.md for the ACL"
    if code:
        return _ADVICE[code]
    if isinstance(fault, IndexError):
        return _ADVICE["CLUSTERDOWN"]
    if isinstance(fault, InvalidResponse):
        return "it does not speak the protocol of Redis; look at the host and port in sessions.store"
    return refused(fault) if isinstance(fault, ResponseError) else None


def _connect_error(fault: BaseException) -> str | None:
    """Describe why no connection could be opened. None if a command may have been sent."""
    if isinstance(fault, ssl.SSLCertVerificationError):
        return f"no connection: the server's certificate is not accepted: {fault.verify_message}"
    if isinstance(fault, ssl.SSLError):
        return f"no connection: TLS failed ({fault.reason or type(fault).__name__})"
    if isinstance(fault, gaierror):
        return f"no connection: {fault.strerror}"
    if isinstance(fault, OSError) and fault.errno in _NOT_CONNECTED:
        return f"no connection: {os.strerror(fault.errno)}"
    return None


def _general(fault: BaseException) -> str | None:
    if isinstance(fault, RedisTimeoutError | TimeoutError):
        return "no response in time; the command may or may not have been executed"
    if isinstance(fault, RedisConnectionError | OSError | RuntimeError):
        return "the connection was closed; the command may or may not have been executed"
    return None


def is_refusal(fault: Exception) -> bool:
    """Return True if the server would reject the same command again.

    That is so if the user lacks a right or the server does not know the command.
    """
    return isinstance(fault, NoPermissionError) or _UNKNOWN.search(str(fault)) is not None


def refused(fault: BaseException, command: Sequence[Any] = ()) -> str:
    """Describe what the server rejected, as far as its error shows.

    Only the name of a command is taken from the server's text.

    Args:
        fault: The error of the server.
        command: The command that was sent, if it was sent by itself.
    """
    text, sent = str(fault), f"`{command[0]}`" if command else "a command"
    if named := _UNKNOWN.search(text):
        return f"the server does not know the command `{named[1].upper()}`, which the store needs"
    if named := _RUN.search(text):
        return f"the user may not run `{named[1].upper()}`"
    if isinstance(fault, NoPermissionError) or "ACL failure" in text or "executing the script can't" in text:
        kind = next((kind for kind in ("channel", "key") if f"{kind}s" in text or f"{kind} " in f"{text} "), "")
        if not kind:
            # Inside a script, Redis 6.2 does not say which. The check in `rights` sends each command by itself and
            # finds it.
            return "the user may not run a command that a script needs"
        names = [part for part in command[1:] if isinstance(part, str) and ":" in part and "\n" not in part]
        return f"the user may not use the {kind} {names[0]} ({sent})" if names else f"the user may not use a {kind}"
    return f"{sent} was refused ({type(fault).__name__})"


def error_code(fault: BaseException) -> str:
    """Return the server's error code, or an empty string.

    The library strips the codes that it knows. In the error of a script the code appears later in the text.
    """
    if isinstance(fault, OutOfMemoryError):
        return "OOM"
    if isinstance(fault, BusyLoadingError):
        return "LOADING"
    name = type(fault).__name__.upper()
    codes = set(re.findall(r"[A-Z]{3,}", str(fault))) if isinstance(fault, ResponseError) else set()
    return next((code for code in _ADVICE if code in codes or name.startswith(code)), "")
