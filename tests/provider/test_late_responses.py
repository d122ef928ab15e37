"""A refresh whose response arrives after the timeout is unknown at first; its tokens can still be read afterwards."""

from __future__ import annotations

import asyncio
import json

import httpx
import pytest

from akoya_gateway.oauth.outcomes import OutcomeUnknown, ProviderDown, TokenOutcome, TokensIssued
from akoya_gateway.provider import Provider
from akoya_gateway.secret import Secret
from tests.provider.scripted_provider import SUB, provider, tokens
from tests.support.scripted_server import Received, Server

TIMEOUT = 0.5


async def timed_out(akoya: Provider) -> TokenOutcome:
    """Refresh until the request was sent within the timeout, however busy the machine is."""
    while True:
        outcome = await akoya.refresh(Secret("refresh-1"), SUB)
        if not isinstance(outcome, ProviderDown):
            return outcome


@pytest.mark.parametrize("early", [0, 1, 40, 200], ids=["nothing", "one byte", "a part of the head", "the head"])
@pytest.mark.parametrize("ends", ["whole", "cut"])
async def test_response_after_the_timeout_is_read(http: httpx.AsyncClient, early: int, ends: str) -> None:
    body = json.dumps({"padding": "x" * 200, **tokens()}).encode()
    response = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body) + body
    continues = asyncio.Event()

    async def stopped(_: Server, __: Received, writer: asyncio.StreamWriter) -> None:
        writer.write(response[:early])
        await continues.wait()
        writer.write(response[early:] if ends == "whole" else response[early:250])
        await writer.drain()

    async with provider(http, token=stopped, timeout=TIMEOUT) as (akoya, _):
        outcome = await timed_out(akoya)
        assert isinstance(outcome, OutcomeUnknown) and outcome.late is not None
        continues.set()
        async with asyncio.timeout(30):
            late = await outcome.late
        if ends == "cut":
            assert isinstance(late, OutcomeUnknown) and late.late is None
        else:
            assert isinstance(late, TokensIssued)
            assert late.tokens.refresh_token == Secret("refresh-2")


async def test_code_exchange_is_not_read_after_the_timeout(http: httpx.AsyncClient) -> None:
    """The user has been told that the bank was not connected, so late tokens must not connect it."""

    async def stopped(server: Server, _: Received, __: asyncio.StreamWriter) -> None:
        await server.gone.wait()

    async with provider(http, token=stopped, timeout=TIMEOUT) as (akoya, _):
        outcome: TokenOutcome = ProviderDown("not sent yet")
        while isinstance(outcome, ProviderDown):
            outcome = await akoya.exchange(Secret("code"))
        assert isinstance(outcome, OutcomeUnknown) and outcome.late is None
