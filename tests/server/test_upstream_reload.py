"""Tests of reloads that change one of several upstreams: connections to the others stay open and no request is lost."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
import websockets.sync.client
import yaml

from tests.support.processes import AppServer
from tests.support.sidecar import App, Running
from tests.support.waiting import until


class Telling(App):
    """A test app that also reports which connection a request came on."""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http" and scope["path"].endswith("/connection"):
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"%d" % scope["client"][1]})
        else:
            await super().__call__(scope, receive, send)


class Several:
    """A gateway with the default upstream `run.upstream` and two named ones. `change` reloads its configuration."""

    def __init__(self, folder: Path, *options: str) -> None:
        self.apps = {name: Telling() for name in ("one", "two")}
        # With proxy headers, uvicorn would lose the connection's port when X-Forwarded-For names the client.
        self.servers = {name: AppServer(app, proxy_headers=False) for name, app in self.apps.items()}
        self.settings: dict[str, Any] = {name: {"url": server.url} for name, server in self.servers.items()}
        self.run = Running(folder, *options, changes={"upstreams": self.settings, "access": rules("one", "two")})

    def __enter__(self) -> Several:
        for server in self.servers.values():
            server.__enter__()
        self.run.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        for app in self.apps.values():
            app.go.set()
        self.run.__exit__()
        for server in self.servers.values():
            server.__exit__()

    def change(self, **changes: Any) -> None:
        """Set keys of the configuration and wait until every worker has applied them."""
        path = self.run.gateway.config_path
        path.write_text(yaml.safe_dump({**yaml.safe_load(path.read_text()), **changes}, sort_keys=False))
        before = self.run.events().count("configuration reloaded")
        workers = len(self.run.worker_pids())
        self.run.signal(signal.SIGHUP)
        until(lambda: self.run.events().count("configuration reloaded") == before + workers, "it is reloaded")


def rules(*names: str) -> list[dict[str, Any]]:
    # The small app serves below `/public/`.
    named = [{"path": f"/public/{name}/*", "require": "nothing", "upstream": name} for name in names]
    return [*named, {"path": "/public/*", "require": "nothing"}]


@pytest.fixture(params=["lane", "asgi"])
def several(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Several]:
    options = () if request.param == "lane" else ("--no-fast-lane",)
    with Several(tmp_path, *options) as several:
        yield several


def connections(several: Several) -> tuple[str, str]:
    one, two = (several.run.get(f"/public/{name}/connection").text for name in ("one", "two"))
    return one, two


def test_start_logs_the_upstream_of_each_rule(several: Several) -> None:
    start = next(line for line in several.run.log() if line["event"] == "gateway started")
    assert start["upstream"] == [several.run.upstream.url]
    for name, server in several.servers.items():
        assert start[f"upstreams.{name}"] == [server.url]


def test_only_changed_upstreams_get_new_connections(several: Several) -> None:
    first = connections(several)
    assert connections(several) == first
    several.change(upstreams={**several.settings, "two": {**several.settings["two"], "pool": 7}})
    second = connections(several)
    assert second[0] == first[0]
    assert second[1] != first[1]
    assert connections(several) == second


@pytest.mark.parametrize("what", ["changed", "gone"])
def test_idle_connections_of_a_changed_or_removed_upstream_are_closed(several: Several, what: str) -> None:
    connections(several)
    one, two = several.servers["one"], several.servers["two"]
    assert (one.open_connections, two.open_connections) == (1, 1)
    if what == "changed":
        several.change(upstreams={**several.settings, "two": {**several.settings["two"], "pool": 7}})
    else:
        several.change(upstreams={"one": several.settings["one"]}, access=rules("one"))
    until(lambda: two.open_connections == 0, "the app sees the connections closed")
    assert one.open_connections == 1


def test_what_every_proxy_is_made_from_replaces_them_all(several: Several) -> None:
    first = connections(several)
    several.change(trusted_proxies=["10.0.0.0/8"])
    second = connections(several)
    assert not {*first} & {*second}


def test_rule_may_lead_elsewhere_from_one_request_to_the_next(several: Several) -> None:
    with httpx.Client(base_url=several.run.url, trust_env=False, timeout=60) as client:
        ports = [client.get("/public/one/connection").text for _ in range(3)]
        swapped = [
            {**rule, "upstream": {"one": "two", "two": "one"}[rule["upstream"]]} for rule in rules("one", "two")[:2]
        ]
        swapped.append(rules()[0])
        two = client.get("/public/two/connection").text
        several.change(access=swapped)
        assert {client.get("/public/one/connection").text for _ in range(3)} == {two}
        assert {client.get("/public/two/connection").text for _ in range(3)} == {*ports}


def test_removed_upstream_completes_requests_in_progress(several: Several) -> None:
    with (
        ThreadPoolExecutor(1) as aside,
        websockets.sync.client.connect(f"ws://127.0.0.1:{several.run.port}/public/two/ws", proxy=None) as ws,
        httpx.stream("GET", f"{several.run.url}/public/two/stream", trust_env=False, timeout=60) as stream,
    ):
        lines = stream.iter_lines()
        assert next(lines) == "tick"
        slow = aside.submit(several.run.get, "/public/two/slow")
        until(several.apps["two"].requested.is_set, "the app has the request")
        several.change(upstreams={"one": several.settings["one"]}, access=rules("one"))
        assert several.run.get("/public/two/x").text == "done"
        assert several.run.upstream.url != several.servers["two"].url
        for _ in range(10):
            assert next(lines) == "tick"
        ws.send("still there")
        assert ws.recv(30) == "still there"
        several.apps["two"].go.set()
        assert slow.result(20).text == "done"
        assert list(lines)[-1] == "done"
    several.change(upstreams=several.settings, access=rules("one", "two"))
    assert several.run.get("/public/two/connection").text.isdigit()


def test_one_that_cannot_be_used_leaves_all_as_they_were(several: Several, tmp_path: Path) -> None:
    first = connections(several)
    nonsense = tmp_path / "ca.pem"
    nonsense.write_text("no certificate")
    path = several.run.gateway.config_path
    config = yaml.safe_load(path.read_text())
    config["upstreams"]["one"]["pool"] = 7
    config["upstreams"]["two"] = {"url": "https://127.0.0.1:9", "tls": {"ca": str(nonsense)}}
    path.write_text(yaml.safe_dump(config, sort_keys=False))
    several.run.signal(signal.SIGHUP)
    refused = "new configuration rejected"
    until(lambda: refused in several.run.events(), "the reload is refused")
    assert connections(several) == first
