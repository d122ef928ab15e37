from __future__ import annotations

from collections.abc import AsyncIterator

import httpx
import pytest

from akoya_gateway.provider import http_client


@pytest.fixture
async def http() -> AsyncIterator[httpx.AsyncClient]:
    async with http_client() as client:
        yield client
