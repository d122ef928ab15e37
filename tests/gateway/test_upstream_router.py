"""The hop by itself: what happens between a decision and the proxy, which no client can time."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx

from akoya_gateway.config.model import Config, Upstream
from akoya_gateway.gateway.upstream_router import Hop
from akoya_gateway.observability.metrics import Metrics
from tests.config.documents import judged, said
from tests.fast_lane.raw_upstream import RawUpstream, plain

OK = plain(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")


def configured(folder: Path, url: str) -> Config:
    rule = {"path": "/*", "require": "any", "upstream": "two"}
    judgement = judged(folder, {"upstreams": {"one": {"url": "http://127.0.0.1:9"}, "two": {"url": url}}, "access": [rule]})
    assert judgement.config is not None, said(judgement)
    return judgement.config


async def asked(hop: Hop, upstream: Upstream) -> str:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await hop({**scope, "akoya.upstream": upstream}, receive, send)

    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://a") as client:
        return (await client.get("/x")).text


async def test_a_request_let_in_just_before_a_reload_reaches_an_upstream_that_is_gone(tmp_path: Path) -> None:
    with RawUpstream({"x": OK}) as raw:
        config = configured(tmp_path, raw.url)
        two = config.upstreams["two"]
        hop = Hop(config, Metrics("test"))
        without = replace(config, upstreams={"one": config.upstreams["one"]})
        hop.switch(without, hop.prepared(without))
        assert await asked(hop, two) == "ok"
        pool = hop.in_force()["two"].pool
        assert (pool.size, pool.idle) == (0, 0), "nothing of it is kept"
        # It is there again, as it was before: its connections are kept as ever.
        hop.switch(config, hop.prepared(config))
        assert await asked(hop, two) == "ok"
        assert hop.in_force()["two"].pool.idle == 1
        await hop.close()


async def test_a_reload_that_changes_nothing_replaces_no_proxy(tmp_path: Path) -> None:
    config = configured(tmp_path, "http://127.0.0.1:9")
    hop = Hop(config, Metrics("test"))
    before = hop.in_force()
    hop.switch(config, hop.prepared(config))
    assert hop.in_force() == before
    assert hop.in_force() is not before, "the lane goes by this"
