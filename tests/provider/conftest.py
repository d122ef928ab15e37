from __future__ import annotations

import ssl
from collections.abc import AsyncIterator

import httpx
import pytest

from akoya_gateway.provider import http_client

NO_TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
"""An SSL context without trusted certificates, so that the tests do not load those of the system."""


@pytest.fixture
async def http() -> AsyncIterator[httpx.AsyncClient]:
    async with http_client(NO_TLS) as client:
        yield client
