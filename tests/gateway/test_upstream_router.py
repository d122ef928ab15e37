"""Unit tests of the upstream router: reloads between a decision and the proxied request, which no client can time."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx

from akoya_gateway.config.model import Config, Upstream
from akoya_gateway.gateway.upstream_router import UpstreamRouter
from akoya_gateway.observability.metrics import Metrics
from tests.support.config_documents import error_lines, validated
from tests.support.scripted_upstream import ScriptedUpstream, plain

OK = plain(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")


def configured(folder: Path, url: str) -> Config:
    rule = {"path": "/*", "require": "any", "upstream": "two"}
    result = validated(
        folder, {"upstreams": {"one": {"url": "http://127.0.0.1:9"}, "two": {"url": url}}, "access": [rule]}
    )
    assert result.config is not None, error_lines(result)
    return result.config


async def fetch(router: UpstreamRouter, upstream: Upstream) -> str:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await router({**scope, "akoya.upstream": upstream}, receive, send)

    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://a") as client:
        return (await client.get("/x")).text


async def test_request_admitted_before_a_reload_reaches_an_upstream_that_was_removed(tmp_path: Path) -> None:
    with ScriptedUpstream({"x": OK}) as raw:
        config = configured(tmp_path, raw.url)
        two = config.upstreams["two"]
        router = UpstreamRouter(config, Metrics("test"))
        without = replace(config, upstreams={"one": config.upstreams["one"]})
        router.switch(without, router.build_proxies(without))
        assert await fetch(router, two) == "ok"
        pool = router.current_proxies()["two"].pool
        assert (pool.size, pool.idle) == (0, 0), "no connection of a removed upstream may be kept"
        # The upstream is configured again with the same settings, so its connections are pooled again.
        router.switch(config, router.build_proxies(config))
        assert await fetch(router, two) == "ok"
        assert router.current_proxies()["two"].pool.idle == 1
        await router.close()


async def test_reload_that_changes_nothing_replaces_no_proxy(tmp_path: Path) -> None:
    config = configured(tmp_path, "http://127.0.0.1:9")
    router = UpstreamRouter(config, Metrics("test"))
    before = router.current_proxies()
    router.switch(config, router.build_proxies(config))
    assert router.current_proxies() == before
    assert router.current_proxies() is not before, "the fast lane detects a reload by object identity"
