"""The emulator in the foreground, as `akoya-gateway sandbox` runs it."""

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
    """A listening socket, and the settings with its address. Raises OSError for a port that cannot be had."""
    listener = listen(host, port)
    return replace(settings, base_url=settings.base_url or url_of(listener)), listener


def serve(settings: SandboxSettings, listener: socket.socket) -> None:
    """Until SIGINT or SIGTERM, which end the process with 0: uvicorn raises them again when all is shut."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _on_signal)
    try:
        uvicorn.Server(uvicorn_config(create_app(settings))).run(sockets=[listener])
    finally:
        listener.close()


def _on_signal(number: int, frame: object) -> None:
    sys.exit(0)
