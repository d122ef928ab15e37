"""Listening sockets, opened once and shared by all workers."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import stat
from pathlib import Path

from akoya_gateway.config.model import Listen
from akoya_gateway.errors import OperatorError

BACKLOG = 2048
_KEEPALIVE = {"TCP_KEEPIDLE": 30, "TCP_KEEPINTVL": 15, "TCP_KEEPCNT": 4}
KEEPALIVE = {getattr(socket, name): value for name, value in _KEEPALIVE.items() if hasattr(socket, name)}
"""Probe a connection that was idle for 30 s every 15 s, and close it after 4 probes without a reply.

Systems without one of the options (macOS) keep their own value.
"""
UNIX_MODE = 0o660
"""Mode of a unix socket: its owner and its group (that of the proxy in front) may connect."""


def describe(listen: Listen) -> str:
    """Return the address as it is written in gateway.yaml."""
    if listen.path is not None:
        return f"unix:{listen.path}"
    host = f"[{listen.host}]" if ":" in listen.host else listen.host
    return f"{host}:{listen.port}"


def bound(listener: socket.socket) -> str:
    """Return the address that a socket listens on, with the real port if port 0 was configured."""
    name = listener.getsockname()
    if listener.family == socket.AF_UNIX:
        return f"unix:{name}"
    return describe(Listen(name[0], name[1]))


def bind(key: str, listen: Listen) -> socket.socket:
    """Return a listening, non-blocking socket.

    Args:
        key: the setting, for error texts (`listen`, `admin.listen`).
        listen: the address.

    Raises:
        OperatorError: the address is in use, does not belong to this machine, is not permitted or cannot be resolved.
    """
    try:
        return _bind_unix(listen.path) if listen.path is not None else _bind_tcp(listen)
    except OSError as error:
        raise OperatorError(f"{key}: cannot listen on {describe(listen)}: {_error_text(error)}") from None


def release(listener: socket.socket, listen: Listen) -> None:
    """Close the socket and remove the file of a unix socket."""
    listener.close()
    if listen.path is not None:
        with contextlib.suppress(OSError):
            Path(listen.path).unlink()


def _bind_tcp(listen: Listen) -> socket.socket:
    family, kind, protocol, _, address = socket.getaddrinfo(
        listen.host, listen.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        _detect_vanished_clients(listener)
        listener.bind(address)
        return _listening(listener)
    except OSError:
        listener.close()
        raise


def _detect_vanished_clients(listener: socket.socket) -> None:
    """Have the kernel probe idle connections. Accepted sockets inherit the options of the listener.

    A client that loses its network sends nothing, so an event stream to it would stay open for as long as it is silent.
    """
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in KEEPALIVE.items():
        listener.setsockopt(socket.IPPROTO_TCP, option, value)


def _bind_unix(path: str) -> socket.socket:
    _remove_stale(path)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    # The umask keeps other users from connecting between bind and chmod.
    before = os.umask(0o777 & ~UNIX_MODE)
    try:
        listener.bind(path)
        Path(path).chmod(UNIX_MODE)
        return _listening(listener)
    except OSError:
        listener.close()
        raise
    finally:
        os.umask(before)


def _listening(listener: socket.socket) -> socket.socket:
    listener.listen(BACKLOG)
    listener.setblocking(False)
    return listener


def _remove_stale(path: str) -> None:
    """Remove a socket file without a listener, which a crash left behind. Raises OSError for any other file."""
    try:
        if not stat.S_ISSOCK(Path(path).lstat().st_mode):
            raise FileExistsError(errno.EEXIST, "the file exists and is not a socket")
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            Path(path).unlink()
            return
    raise OSError(errno.EADDRINUSE, "in use")


def _error_text(error: OSError) -> str:
    if error.errno == errno.EADDRINUSE:
        return "another process listens there; stop it or choose another port"
    if error.errno == errno.EACCES:
        return "not allowed; ports below 1024 and other users' folders need privileges"
    if error.errno == errno.EADDRNOTAVAIL:
        return "this machine has no such address"
    if isinstance(error, socket.gaierror):
        return f"the host name cannot be resolved ({error.strerror})"
    return error.strerror or str(error)
