"""Runs the emulator in the foreground, for `akoya-gateway sandbox`."""

from __future__ import annotations

import signal
import socket
import sys
from dataclasses import replace

import uvicorn

from akoya_gateway.sandbox.app import create_app
from akoya_gateway.sandbox.server import listen, url_of, uvicorn_config
from akoya_gateway.sandbox.settings import SandboxSettings


def open_sandbox(settings: SandboxSettings, host: str, port: int) -> tuple[SandboxSettings, socket.socket]:
    """Return a listening socket and the settings with its URL. Raises OSError if the port is not available."""
    listener = listen(host, port)
    return replace(settings, base_url=settings.base_url or url_of(listener)), listener


def serve(settings: SandboxSettings, listener: socket.socket) -> None:
    """Serve until SIGINT or SIGTERM, then exit with code 0.

    uvicorn raises these signals again after its shutdown, so handlers that exit with 0 are installed first.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _on_signal)
    try:
        uvicorn.Server(uvicorn_config(create_app(settings))).run(sockets=[listener])
    finally:
        listener.close()


def _on_signal(number: int, frame: object) -> None:
    sys.exit(0)
