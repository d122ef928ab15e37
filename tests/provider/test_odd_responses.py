"""Responses of the token endpoint that proxies and careless servers send: every readable refresh token is kept."""

from __future__ import annotations

import gzip
import json

import httpx

from akoya_gateway.oauth.outcomes import OutcomeUnknown, TokensIssued, Untrusted
from akoya_gateway.secret import Secret
from tests.provider.scripted_provider import SUB, provider, tokens
from tests.support.scripted_server import raw

OK = b"HTTP/1.1 200 OK\r\n"
GOOD = json.dumps(tokens()).encode()
INSIDE = GOOD.index(b"refresh-2") + 4
REFUSED = b'{"error":"invalid_grant"}'


def chunks(*parts: bytes, end: bytes = b"0\r\n\r\n") -> bytes:
    return b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in parts) + end


def length(body: bytes, said: int | None = None) -> bytes:
    return b"Content-Length: %d\r\n\r\n" % (len(body) if said is None else said) + body


TRANSFER = OK + b"Transfer-Encoding: "
HALVES = chunks(GOOD[:INSIDE], GOOD[INSIDE:])
PACKED = gzip.compress(GOOD)

READ = {
    "chunked twice": TRANSFER + b"chunked\r\nTransfer-Encoding: chunked\r\n\r\n" + HALVES,
    "unknown transfer coding": TRANSFER + b"xchunked\r\n\r\n" + HALVES,
    "compressed transfer": TRANSFER + b"gzip, chunked\r\n\r\n" + chunks(PACKED[:60], PACKED[60:]),
    "identity transfer": TRANSFER + b"identity\r\n" + length(GOOD),
    "chunks with bare line feeds": TRANSFER + b"chunked\r\n\r\n" + HALVES.replace(b"\r\n", b"\n"),
    "chunks with extensions": TRANSFER + b"chunked\r\n\r\n" + b"%x ; a=b\r\n%s\r\n0\r\n\r\n" % (len(GOOD), GOOD),
    "chunks without an end": TRANSFER + b"chunked\r\n\r\n" + chunks(GOOD, end=b""),
    "two lengths, compressed": OK + b"Content-Encoding: x-gzip\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n" + PACKED,
    "length in characters": OK + length(GOOD, len(GOOD) - 2),
    "length that ends in the token": OK + length(GOOD, INSIDE),
    "length of zero": OK + length(GOOD, 0),
    "no content, with content": b"HTTP/1.1 204 No Content\r\n\r\n" + GOOD,
    "status line of HTTP/2": b"HTTP/2 200\r\n" + length(GOOD),
    "early hints and a broken head": b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" + OK + b"broken\r\n" + length(GOOD),
    "no status line": GOOD,
    "line break in the refresh token": OK + length(GOOD.replace(b'"refresh-2"', b'"refresh-2\n"')),
    "tab in the scope": OK + length(GOOD.replace(b"openid offline", b"openid\toffline")),
    "blanks around the id_token": OK + length(GOOD.replace(b'"eyJ', b'" \\teyJ').replace(b'", "refresh', b'\\r\\n", "refresh')),
    "octal lifetime": OK + length(GOOD.replace(b" 600", b" 0600")),
}  # fmt: skip
KEPT = {
    "server error, truncated": b"HTTP/1.1 500 No\r\n" + length(GOOD, 9000),
    "unavailable, compression broken": b"HTTP/1.1 503 No\r\nContent-Encoding: gzip\r\n" + length(PACKED[:-8]),
    "redirect, truncated": b"HTTP/1.1 302 No\r\nLocation: /\r\n" + length(GOOD, 9000),
    "server error, not HTTP": b"HTTP/1.1 500 No\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n" + GOOD,
    "not modified, with content": b"HTTP/1.1 304 No\r\n\r\n" + GOOD,
    "interim response with content": b"HTTP/1.1 102 Processing\r\nContent-Length: 3\r\n\r\nabc" + OK + length(GOOD),
    "interim response only": b"HTTP/1.1 100 Continue\r\n" + length(GOOD),
    "status line of another protocol": b"ICY 200 OK\r\n" + length(GOOD),
    "status of two digits": b"HTTP/1.1 20 OK\r\n" + length(GOOD),
    "text before the status line": b"warning\r\n" + OK + length(GOOD),
}
NOT_REFUSED = {
    "truncated": b"HTTP/1.1 400 No\r\n" + length(REFUSED, 99),
    "no last chunk": b"HTTP/1.1 400 No\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks(REFUSED, end=b""),
    "compression truncated": b"HTTP/1.1 400 No\r\nContent-Encoding: gzip\r\n" + length(gzip.compress(REFUSED)[:-8]),
    "two lengths": b"HTTP/1.1 400 No\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n" + REFUSED,
    "two lengths, 200": OK + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\n" + REFUSED,
    "length too small, 200": OK + length(REFUSED, 9),
    "unknown transfer coding": TRANSFER + b"xchunked\r\n\r\n" + chunks(REFUSED),
    "no status line": REFUSED,
    "status line of another protocol": b"ICY 400 No\r\n" + length(REFUSED),
}


async def test_tokens_are_read_out_of_broken_http(http: httpx.AsyncClient) -> None:
    async with provider(http) as (akoya, server):
        for name, answer in READ.items():
            server.responses["/token"] = raw(answer)
            issued = await akoya.refresh(Secret("refresh-1"), SUB)
            assert isinstance(issued, TokensIssued), (name, issued)
            assert issued.tokens.refresh_token == Secret("refresh-2"), name


async def test_new_refresh_token_next_to_a_bearer_is_kept_whatever_the_status(http: httpx.AsyncClient) -> None:
    async with provider(http) as (akoya, server):
        for name, answer in KEPT.items():
            server.responses["/token"] = raw(answer)
            kept = await akoya.refresh(Secret("refresh-1"), SUB)
            assert isinstance(kept, Untrusted), (name, kept)
            assert kept.refresh_token == Secret("refresh-2"), name


async def test_refusal_in_a_response_that_is_not_valid_http_ends_nothing(http: httpx.AsyncClient) -> None:
    async with provider(http) as (akoya, server):
        for name, answer in NOT_REFUSED.items():
            server.responses["/token"] = raw(answer)
            for outcome in (await akoya.refresh(Secret("refresh-1"), SUB), await akoya.exchange(Secret("code"))):
                assert isinstance(outcome, OutcomeUnknown), (name, outcome)
