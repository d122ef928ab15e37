"""Tests that late trailers are not forwarded as headers.

uvicorn adds trailer fields to the headers of the ASGI scope whenever they arrive. Only the headers that were authorized
may be forwarded.
"""

from __future__ import annotations

import asyncio
import socket
import time
from pathlib import Path
from typing import Any

import pytest

from akoya_gateway.sessions.session_store import SessionStore
from tests.support.environment import GatewayEnv

LATE = b"X-HTTP-Method-Override: DELETE\r\nX-Late: 1\r\n"


def test_trailer_that_arrives_during_a_store_read_is_no_header(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    resolve = SessionStore.resolve

    async def slowly(sessions: SessionStore, cookie_value: str) -> Any:
        await asyncio.sleep(0.3)
        return await resolve(sessions, cookie_value)

    with GatewayEnv(tmp_path, entrypoint="middleware") as env, env.browser() as browser:
        browser.connect()
        cookies = "; ".join(f"{name}={value}" for name, value in browser.http.cookies.items())
        time.sleep(1.2)  # Wait until the cached session has expired.
        monkeypatch.setattr(SessionStore, "resolve", slowly)
        with socket.create_connection(("127.0.0.1", env.port), 60) as raw:
            head = f"POST /accounts HTTP/1.1\r\nHost: 127.0.0.1\r\nCookie: {cookies}\r\nConnection: close\r\n"
            raw.sendall(head.encode() + b"Transfer-Encoding: chunked\r\n\r\n1\r\nx\r\n")
            time.sleep(0.1)
            raw.sendall(b"0\r\n" + LATE + b"\r\n")
            response = b""
            while data := raw.recv(65536):
                response += data
    assert response.startswith(b"HTTP/1.1 200")
    assert b"akoya-connector" in response
    assert b"late" not in response
    assert b"override" not in response
