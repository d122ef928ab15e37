"""Tests of `fast_lane.asgi` with an upstream that misbehaves in every way and clients that disconnect at any time.

No client gets another client's response, no connection is lost or used twice, and no request hangs.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator, MutableMapping
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random
from typing import Any

import pytest
import yaml

from akoya_gateway import load_config, sidecar
from akoya_gateway.fast_lane.asgi import AsgiFastLane
from akoya_gateway.upstream.errors import UpstreamTimeout
from akoya_gateway.upstream.http.connection import Connection
from akoya_gateway.upstream.reverse_proxy import ReverseProxy
from tests.support.environment import Browser, GatewayEnv
from tests.support.raw_http import Caller, RawUpstream
from tests.support.waiting import until_async

REQUESTS = 150
KINDS = [
    "plain", "plain", "plain", "pieces", "chunked", "until-close", "nothing", "reset", "half-head", "half-body", "garbage",
    "early-hints", "no-content", "not-modified", "rejected", "twice", "late", "later", "silent", "stream", "echo", "closing",
    "late-close", "head-body", "trickle", "large",
]  # fmt: skip


class Upstream:
    """An upstream that responds as the path says (`/accounts/KIND/NAME`). Every response names its request."""

    def __call__(self, caller: Caller) -> None:
        while True:
            head = caller.head()
            method, target, _ = head.split(b" ", 2)
            _, kind, name = target[1:].split(b"/")
            if self.respond(caller, kind.decode(), name, method == b"HEAD"):
                return

    def respond(self, caller: Caller, kind: str, name: bytes, headless: bool) -> bool:
        """Send the response. Return True if the connection must be closed."""
        head = b"HTTP/1.1 200 OK\r\nX-Name: %b\r\n" % name
        body = b"" if headless else name
        whole = head + b"Content-Length: %d\r\n\r\n" % len(name) + body
        match kind:
            case "pieces":
                for at in range(0, len(whole), 20):
                    caller.send(whole[at : at + 20])
                    time.sleep(0.001)
            case "chunked":
                caller.send(head + b"Transfer-Encoding: chunked\r\n\r\n")
                if not headless:
                    caller.send(b"%x\r\n%b\r\n0\r\n\r\n" % (len(name), name))
            case "until-close":
                caller.send(head + b"\r\n" + body)
                return True
            case "nothing":
                return True
            case "reset":
                caller.reset()
                return True
            case "half-head":
                caller.send(head)
                return True
            case "half-body":
                caller.send(head + b"Content-Length: 1000\r\n\r\n" + body)
                return True
            case "garbage":
                caller.send(b"garbage\r\n\r\n")
                return True
            case "early-hints":
                caller.send(b"HTTP/1.1 103 Early Hints\r\nLink: <a>\r\n\r\n" + whole)
            case "no-content":
                caller.send(b"HTTP/1.1 204 No Content\r\nX-Name: %b\r\n\r\n" % name)
            case "not-modified":
                caller.send(b"HTTP/1.1 304 Not Modified\r\nX-Name: %b\r\nContent-Length: 5\r\n\r\n" % name)
            case "rejected":
                caller.send(
                    b"HTTP/1.1 401 No\r\nX-Name: %b\r\nAkoya-Token-Rejected: 0\r\nContent-Length: %d\r\n\r\n%b"
                    % (name, len(name), body)
                )
            case "twice":
                caller.send(whole + whole)
            case "late":
                time.sleep(0.03)
                caller.send(whole)
            case "later":
                time.sleep(0.15)
                caller.send(whole)
            case "silent":
                return caller.closed_by_peer(2)
            case "stream":
                caller.send(head + b"Content-Type: text/event-stream\r\n\r\ndata: " + name)
                return caller.closed_by_peer(0.3) or True
            case "echo":
                caller.send(head + b"Akoya-Id-Token: x\r\nContent-Length: %d\r\n\r\n%b" % (len(name), body))
            case "closing":
                caller.send(whole.replace(b"X-Name", b"Connection: close\r\nX-Name"))
                return True
            case "late-close":
                caller.send(whole)
                time.sleep(0.001)
                return True
            case "head-body":
                caller.send(head + b"Content-Length: %d\r\n\r\n%b" % (len(name), name))
            case "trickle":
                for at in range(0, len(whole), 9):
                    caller.send(whole[at : at + 9])
                    time.sleep(0.02)
            case "large":
                caller.send(head + b"Content-Length: %d\r\n\r\n" % (len(name) * 50_000))
                caller.send(b"" if headless else name * 50_000)
            case _:
                caller.send(whole)
        return False


@pytest.fixture(scope="module")
def env(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayEnv]:
    with RawUpstream(Upstream()) as raw:
        changes = {
            "upstream": {"url": f"http://127.0.0.1:{raw.origin.port}", "timeout": {"connect": "10s", "read": "500ms"}}
        }
        with GatewayEnv(tmp_path_factory.mktemp("env"), changes=changes) as env:
            yield env


@pytest.fixture(scope="module")
def cookie(env: GatewayEnv) -> bytes:
    with Browser(env) as browser:
        browser.connect()
        return "; ".join(f"{name}={value}" for name, value in browser.http.cookies.items()).encode()


class Client:
    """One request with the messages it received. It disconnects after `after` seconds, or stays if that is None."""

    def __init__(
        self, app: AsgiFastLane, cookie: bytes, kind: str, name: str, method: str, after: float | None
    ) -> None:
        self.app = app
        self.name = name
        self.kind = kind
        self.sent: list[dict[str, Any]] = []
        self.after = after
        self.gone = asyncio.Event()
        path = f"/accounts/{kind}/{name}"
        self.scope = {
            "type": "http", "http_version": "1.1", "method": method, "path": path, "raw_path": path.encode(), "query_string": b"",
            "headers": [(b"host", b"app.example.com"), (b"cookie", cookie)], "scheme": "http", "client": ("127.0.0.1", 4000),
        }  # fmt: skip

    async def receive(self) -> dict[str, Any]:
        if "requested" not in self.__dict__:
            self.requested = True
            return {"type": "http.request", "body": b"", "more_body": False}
        await self.gone.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: MutableMapping[str, Any]) -> None:
        self.sent.append(dict(message))

    async def run(self) -> None:
        leaving = None if self.after is None else asyncio.get_running_loop().call_later(self.after, self.gone.set)
        try:
            await self.app(self.scope, self.receive, self.send)
        except Exception:
            # The response was truncated, so the server closes the connection.
            assert self.sent
        if leaving is not None:
            leaving.cancel()
        self.check()

    def check(self) -> None:
        starts = [message for message in self.sent if message["type"] == "http.response.start"]
        assert len(starts) <= 1
        if not starts:
            assert self.gone.is_set()
            assert not self.sent
            return
        assert self.sent[0] is starts[0]
        headers = dict(starts[0]["headers"])
        assert not any(name.startswith(b"akoya-") for name in headers)
        body = b"".join(message.get("body", b"") for message in self.sent[1:])
        if starts[0]["status"] >= 500:
            return
        assert headers[b"x-name"] == self.name.encode(), self.kind
        rest = body.replace(b"data: ", b"").replace(self.name.encode(), b"")
        # The client may have left, or the upstream have been too slow, in the middle of the name.
        complete = not self.sent[-1].get("more_body", self.sent[-1] is starts[0])
        assert not rest if complete else self.name.encode().startswith(rest), (self.kind, body[:100])


@asynccontextmanager
async def started(env: GatewayEnv, size: int) -> AsyncIterator[tuple[AsgiFastLane, ReverseProxy]]:
    """Start the app with an upstream pool of this size."""
    path: Path = env.folder / f"app-{size}.yaml"
    document = {**env.config(), "admin": None, "upstream": {**env.config()["upstream"], "pool": size}}
    path.write_text(yaml.safe_dump(document))
    app = sidecar(load_config(path, env.environ))
    assert isinstance(app, AsgiFastLane)
    await app.gateway.startup()
    (proxy,) = app.lane._current_proxies().values()  # type: ignore[union-attr]
    try:
        yield app, proxy
    finally:
        await app.gateway.shutdown()
        await proxy.pool.close()


@pytest.mark.parametrize("size", [1, 4])
@pytest.mark.parametrize("seed", [1, 2])
def test_no_connection_is_lost_or_shared(env: GatewayEnv, cookie: bytes, size: int, seed: int) -> None:
    random = Random(seed * 10 + size)

    async def main() -> None:
        async with started(env, size) as (app, proxy):
            await mixture(app, proxy)

    async def mixture(app: AsgiFastLane, proxy: ReverseProxy) -> None:
        straight = 0
        dispatch = app.lane.dispatch

        def counted(*args: Any) -> Any:
            nonlocal straight
            found = dispatch(*args)
            straight += found is not None
            return found

        app.lane.dispatch = counted  # type: ignore[assignment,method-assign]
        waiting: set[asyncio.Task[None]] = set()
        for number in range(REQUESTS):
            if not proxy.pool.idle:
                # The fast lane is only used when a connection is idle.
                await asyncio.wait_for(Client(app, cookie, "plain", "first", "GET", None).run(), 60)
            kind = random.choice(KINDS)
            after = random.choice([None, None, 0.0, 0.001, 0.02, 0.07, 0.2])
            if kind in ("silent", "stream"):
                after = random.choice([0.0, 0.02, 0.1])
            method = random.choice(["GET"] * 6 + ["HEAD", "POST"])
            client = Client(app, cookie, kind, f"{number:04}", method, after)
            task = asyncio.create_task(client.run())
            waiting.add(task)
            if random.random() < 0.2:
                asyncio.get_running_loop().call_later(random.choice([0.0, 0.0005, 0.002, 0.03, 0.08]), task.cancel)
            if len(waiting) > size:
                done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED, timeout=60)
                assert done
                raise_errors(done)
        if waiting:
            done, waiting = await asyncio.wait(waiting, timeout=60)
            raise_errors(done)
        assert not waiting
        assert straight > REQUESTS / 2
        await serves(app, cookie)
        async with asyncio.timeout(30):
            while proxy.pool.size != proxy.pool.idle:
                await asyncio.sleep(0.01)
        assert proxy.pool.size <= size
        assert proxy.pool.waiting == 0
        assert len(app.gateway.connections) == 0
        ours = ("akoya_gateway/upstream/", "akoya_gateway/fast_lane/")
        assert not [task for task in asyncio.all_tasks() if any(folder in repr(task) for folder in ours)]

    asyncio.run(main())


async def serves(app: AsgiFastLane, cookie: bytes) -> None:
    """Assert that the app still serves. A busy machine may exceed the short timeouts, so this retries.

    A lost connection would never come back.
    """
    for _ in range(20):
        client = Client(app, cookie, "plain", "last", "GET", None)
        await asyncio.wait_for(client.run(), 60)
        if client.sent[0]["status"] == 200:
            return
    raise AssertionError("no connection is left")


def raise_errors(done: set[asyncio.Task[None]]) -> None:
    for task in done:
        if not task.cancelled():
            task.result()


WHOLE = b"HTTP/1.1 200 OK\r\nX-Name: name\r\nContent-Length: 4\r\n\r\nname"
HAPPENINGS: dict[str, Callable[[Connection], None]] = {
    "answer": lambda connection: connection.data_received(WHOLE),
    "answer with a line of ours": lambda connection: connection.data_received(
        WHOLE.replace(b"X-Name", b"Akoya-A: 1\r\nX-Name")
    ),
    "head": lambda connection: connection.data_received(WHOLE[:-4]),
    "closing answer": lambda connection: connection.data_received(
        WHOLE.replace(b"X-Name", b"Connection: close\r\nX-Name")
    ),
    "tick": lambda connection: connection.tick(0.0, 50.0),
    "failure": lambda connection: connection.fail(UpstreamTimeout("the upstream took too long to respond")),
    "end": lambda connection: connection.connection_lost(None),
}


@pytest.mark.parametrize("first", HAPPENINGS)
def test_whatever_comes_in_one_turn_of_the_loop(env: GatewayEnv, cookie: bytes, first: str) -> None:
    """Two events occur before the request's task resumes. One of them may be its cancellation."""

    async def main() -> None:
        troubles: list[Any] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: troubles.append(context))
        async with started(env, 1) as (app, proxy):
            for second in ("cancelled before", "cancelled after", *HAPPENINGS):
                await in_one_turn(app, second)
                await serves(app, cookie)
                await until_async(lambda: proxy.pool.size == proxy.pool.idle == 1, f"the connection is idle: {second}")
                assert not troubles, second

    async def in_one_turn(app: AsgiFastLane, second: str) -> None:
        found: Any = None
        dispatch = app.lane.dispatch

        def noted(*args: Any) -> Any:
            nonlocal found
            found = dispatch(*args)
            return found

        while True:
            await serves(app, cookie)
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(app.lane, "dispatch", noted)
                hanging = Client(app, cookie, "silent", "name", "GET", None)
                task = asyncio.create_task(app(hanging.scope, hanging.receive, hanging.send))
                await asyncio.sleep(0)
            if found is not None:
                break
            # On a busy machine the session may leave its cache before the request, which then takes the general path.
            task.cancel()
            await asyncio.wait({task}, timeout=30)
        connection = found[2]
        stream = connection._handler
        if second == "cancelled before":
            task.cancel()
        HAPPENINGS[first](connection)
        if second == "cancelled after":
            task.cancel()
        elif second in HAPPENINGS and (stream.complete is not None or not stream.ended):
            HAPPENINGS[second](connection)
        next_one = asyncio.create_task(Client(app, cookie, "plain", "b", "GET", None).run())
        await asyncio.wait({task}, timeout=30)
        assert task.done(), second
        assert connection._handler is not stream, second
        await asyncio.wait_for(next_one, 60)
        if not task.cancelled() and task.exception() is None and first != "head":
            # Everything after a head is its body.
            hanging.check()

    asyncio.run(main())
