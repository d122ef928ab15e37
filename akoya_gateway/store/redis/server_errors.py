"""Classifies and describes the errors of Redis servers and of the client library."""

from __future__ import annotations

import errno
import re
from collections.abc import Sequence
from socket import gaierror
from typing import Any

from redis.exceptions import (
    AuthenticationError,
    BusyLoadingError,
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
    ("SELECT is not allowed", "it is part of a cluster; use redis+cluster:// in sessions.store"),
    ("DB index is out of range", "it has no database of this number; look at the end of the URL in sessions.store"),
)
"""Parts of server errors without a code of their own, and what to do."""


def _connect_error(fault: BaseException | None) -> str | None:
    """Return the system's reason why no connection could be opened. None if a command may have been sent."""
    while fault is not None:
        if isinstance(fault, gaierror) or (isinstance(fault, OSError) and fault.errno in _NOT_CONNECTED):
            return fault.strerror
        fault = fault.__cause__ or fault.__context__
    return None


def error_text(fault: Exception) -> str:
    """Describe an error. Only the error code is taken from the server's text, which may repeat data that was sent."""
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
    if isinstance(fault, RedisTimeoutError | TimeoutError):
        return "no response in time; the command may or may not have been executed"
    if isinstance(fault, RedisConnectionError | OSError) and (reason := _connect_error(fault)):
        return f"no connection: {reason}"
    if isinstance(fault, RedisConnectionError | OSError | RuntimeError):
        return f"no connection ({type(fault).__name__}); the command may or may not have been executed"
    if isinstance(fault, IndexError):
        return _ADVICE["CLUSTERDOWN"]
    if isinstance(fault, ResponseError):
        return refused(fault)
    return type(fault).__name__


def is_refusal(fault: Exception) -> bool:
    """Return True if the server would reject the same command again.

    That is so if the user lacks a right or the server does not know the command.
    """
    return isinstance(fault, NoPermissionError) or _UNKNOWN.search(str(fault)) is not None


def refused(fault: Exception, command: Sequence[Any] = ()) -> str:
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


def error_code(fault: Exception) -> str:
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
