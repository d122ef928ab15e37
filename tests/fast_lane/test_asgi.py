"""Tests that an ASGI server's requests use `fast_lane.asgi` and `gateway.scope_fast_path`, and attacks on both."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, MutableMapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from akoya_gateway import Gateway, load_config, sidecar
from akoya_gateway.fast_lane.asgi import AsgiFastLane
from akoya_gateway.upstream.errors import ClosedEarly
from akoya_gateway.upstream.http.connection import Connection
from tests.support.cancellation import cut, ended
from tests.support.environment import Browser, GatewayEnv
from tests.support.raw_http import Caller, RawUpstream
from tests.support.waiting import until_async

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
Ask = Callable[..., Awaitable[list[dict[str, Any]]]]

VARYING = (b"signature", b"x-request-id")
"""Beginnings of the names of headers that differ from one request to the next."""


class Upstream:
    """An upstream that responds as the last segment of the path says."""

    def __init__(self) -> None:
        self.heads: list[bytes] = []
        self.left = 0

    def __call__(self, caller: Caller) -> None:
        served = 0
        while True:
            head = caller.head()
            self.heads.append(head)
            name = head.split(b" ")[1].rpartition(b"/")[2]
            if name == b"stale" and served:
                return
            if name == b"killer" or (name == b"cut" and served):
                return
            if name == b"cut":
                caller.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf")
                return
            if name == b"hang":
                self.left += caller.closed_by_peer()
                return
            if name.startswith(b"own-"):
                caller.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(name) + name)
            elif name.startswith(b"slow-"):
                caller.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(name))
                time.sleep(0.005)
                caller.send(name)
            elif name == b"rejected":
                caller.send(b"HTTP/1.1 401 No\r\nAkoya-Token-Rejected: 1\r\nContent-Length: 0\r\n\r\n")
            elif name == b"chunked":
                caller.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n")
            else:
                caller.send(OK)
            served += 1


@pytest.fixture(scope="module")
def upstream() -> Iterator[tuple[RawUpstream, Upstream]]:
    app = Upstream()
    with RawUpstream(app) as raw:
        yield raw, app


@pytest.fixture(scope="module")
def env(upstream: tuple[RawUpstream, Upstream], tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayEnv]:
    """Provide a login. Its store is shared with the apps that the tests create."""
    url = f"http://127.0.0.1:{upstream[0].origin.port}"
    with GatewayEnv(tmp_path_factory.mktemp("env"), changes={"upstream": {"url": url}}) as env:
        yield env


@pytest.fixture(scope="module")
def cookie(env: GatewayEnv) -> Iterator[bytes]:
    with Browser(env) as browser:
        browser.connect()
        yield "; ".join(f"{name}={value}" for name, value in browser.http.cookies.items()).encode()


def configured(env: GatewayEnv, **changes: Any) -> Any:
    path: Path = env.folder / "app.yaml"
    path.write_text(yaml.safe_dump({**env.config(), "admin": None, **changes}))
    return load_config(path, env.environ)


def scope_of(path: str, cookie: bytes, method: str = "GET", **more: Any) -> dict[str, Any]:
    headers = [(b"host", b"app.example.com"), (b"cookie", cookie), (b"akoya-owner", b"me"), (b"x-own", b"1")]
    return {
        "type": "http", "http_version": "1.1", "method": method, "path": path, "raw_path": path.encode(),
        "query_string": b"", "headers": headers, "scheme": "http", "client": ("127.0.0.1", 4000), **more,
    }  # fmt: skip


async def answer_of(
    app: Any, scope: dict[str, Any], messages: list[dict[str, Any]] | None = None
) -> list[dict[str, Any]]:
    """Return the messages that the app sends, in `messages` if that is given."""
    messages = [] if messages is None else messages

    async def send(message: dict[str, Any]) -> None:
        messages.append(message)

    gone = asyncio.Event()

    async def receive() -> dict[str, Any]:
        await gone.wait()
        return {"type": "http.disconnect"}

    await app(scope, receive, send)
    return messages


async def warm(app: AsgiFastLane, cookie: bytes) -> None:
    """Cache the session and leave an idle connection to the upstream."""
    for _ in range(2):
        await answer_of(app, scope_of("/accounts/a", cookie))


def status_of(messages: list[dict[str, Any]]) -> int:
    return int(messages[0]["status"])


@asynccontextmanager
async def started(env: GatewayEnv, **changes: Any) -> AsyncIterator[tuple[AsgiFastLane, list[str]]]:
    """Start the app. Yield it and the paths of the requests that took the general path."""
    app = sidecar(configured(env, **changes))
    assert isinstance(app, AsgiFastLane)
    general: list[str] = []
    inner = app._app

    async def counted(scope: Any, receive: Any, send: Any) -> None:
        general.append(scope["path"])
        await inner(scope, receive, send)

    app._app = counted
    await app.gateway.startup()
    try:
        yield app, general
    finally:
        await app.gateway.shutdown()


def test_request_with_a_cached_session_takes_the_fast_lane_and_one_without_does_not(
    env: GatewayEnv, cookie: bytes, upstream: tuple[RawUpstream, Upstream]
) -> None:
    async def main() -> None:
        async with started(env) as (app, general):
            for _ in range(2):
                assert status_of(await answer_of(app, scope_of("/accounts/a", cookie))) == 200
            general.clear()
            upstream[1].heads.clear()
            for _ in range(3):
                messages = await answer_of(app, scope_of("/accounts/a", cookie))
                assert messages[-1]["body"] == b"ok"
            assert general == []
            assert status_of(await answer_of(app, scope_of("/accounts/a", b"akoya=" + b"A" * 43))) == 401
            assert general == ["/accounts/a"]

    asyncio.run(main())
    assert len(upstream[1].heads) == 3
    for head in upstream[1].heads:
        assert head.lower().count(b"\r\nakoya-owner:") == 1
        assert b"akoya-owner: me" not in head.lower()
        assert b"\r\nsignature:" in head.lower()


@pytest.mark.parametrize(
    "change",
    [
        {"http_version": "1.0"},
        {"http_version": "2"},
        {"raw_path": b"/accounts/b"},
        {"raw_path": b"/accounts/../accounts/a"},
        {"client": ("127.0.0.1", 0)},
        {"method": "TRACE"},
    ],
    ids=str,
)
def test_request_that_is_not_simple_takes_the_general_path_each_time(
    env: GatewayEnv, cookie: bytes, change: dict[str, Any]
) -> None:
    async def main() -> None:
        async with started(env) as (app, general):
            await warm(app, cookie)
            general.clear()
            for _ in range(2):
                with pytest.MonkeyPatch.context() as patch:
                    patch.setattr(app, "_app", _nothing(general))
                    await app(scope_of("/accounts/a", cookie, **change), _never, _ignore)
            assert len(general) == 2

    asyncio.run(main())


@pytest.mark.parametrize(
    "header",
    [
        (b"content-length", b"5"), (b"transfer-encoding", b"chunked"), (b"te", b"trailers"), (b"upgrade", b"x"),
        (b"x-http-method-override", b"DELETE"), (b"x-a", b"line\r\nbreak: 1"), (b"x-a", b"\xff"), (b"expect", b"100-continue"),
    ],
)  # fmt: skip
def test_header_that_is_not_simple_takes_the_general_path_each_time(
    env: GatewayEnv, cookie: bytes, header: tuple[bytes, bytes]
) -> None:
    async def main() -> None:
        async with started(env) as (app, general):
            await warm(app, cookie)
            general.clear()
            for _ in range(2):
                scope = scope_of("/accounts/a", cookie)
                scope["headers"].append(header)
                with pytest.MonkeyPatch.context() as patch:
                    patch.setattr(app, "_app", _nothing(general))
                    await app(scope, _never, _ignore)
            assert general == ["/accounts/a"] * 2

    asyncio.run(main())


def _nothing(general: list[str]) -> Any:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        general.append(scope["path"])

    return app


async def _never() -> dict[str, Any]:
    never: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
    return await never


async def _ignore(message: MutableMapping[str, Any]) -> None:
    return


def test_server_that_gives_lists_for_pairs_is_served(env: GatewayEnv, cookie: bytes) -> None:
    async def main() -> None:
        async with started(env) as (app, _):
            for _ in range(3):
                scope = scope_of("/accounts/a", cookie)
                scope["headers"] = [list(pair) for pair in scope["headers"]]
                assert status_of(await answer_of(app, scope)) == 200

    asyncio.run(main())


def test_connection_that_closed_as_the_request_went_out_is_tried_again(env: GatewayEnv, cookie: bytes) -> None:
    async def main() -> None:
        async with started(env) as (app, general):
            await warm(app, cookie)
            general.clear()
            assert status_of(await answer_of(app, scope_of("/accounts/stale", cookie))) == 200
            assert general == []
            # A request that changes something is not sent twice.
            await answer_of(app, scope_of("/accounts/a", cookie))
            general.clear()
            assert status_of(await answer_of(app, scope_of("/accounts/stale", cookie, "POST"))) == 502
            assert general == []

    asyncio.run(main())


def test_request_sent_again_whose_response_is_cut_off_gets_no_second_head(env: GatewayEnv, cookie: bytes) -> None:
    async def main() -> None:
        async with started(env) as (app, general):
            await warm(app, cookie)
            general.clear()
            messages: list[dict[str, Any]] = []
            with pytest.raises(ClosedEarly):
                await answer_of(app, scope_of("/accounts/cut", cookie), messages)
            assert general == []
            assert [message.get("status") for message in messages if message["type"] == "http.response.start"] == [200]

    asyncio.run(main())


def test_request_that_kills_connections_is_sent_twice_and_no_more(
    env: GatewayEnv, cookie: bytes, upstream: tuple[RawUpstream, Upstream]
) -> None:
    async def main() -> None:
        async with started(env) as (app, _):
            await warm(app, cookie)
            upstream[1].heads.clear()
            assert status_of(await answer_of(app, scope_of("/accounts/killer", cookie))) == 502
            assert len(upstream[1].heads) == 2

    asyncio.run(main())


def test_cancelled_request_frees_its_connection_and_affects_no_other_request(
    env: GatewayEnv, cookie: bytes, upstream: tuple[RawUpstream, Upstream]
) -> None:
    async def main() -> None:
        async with started(env, upstream={"url": env.config()["upstream"]["url"], "pool": 1}) as (app, general):
            await warm(app, cookie)
            general.clear()
            before = upstream[1].left
            hanging = asyncio.create_task(answer_of(app, scope_of("/accounts/hang", cookie)))
            await until_async(lambda: any(b"/hang" in head for head in upstream[1].heads), "the request has arrived")
            hanging.cancel()
            with pytest.raises(asyncio.CancelledError):
                await hanging
            # The only connection of the pool is free again.
            assert status_of(await answer_of(app, scope_of("/accounts/a", cookie))) == 200
            await until_async(lambda: upstream[1].left == before + 1, "the upstream has noticed it")

    asyncio.run(main())


def test_response_that_arrives_with_the_cancellation_leaves_its_connection_reusable(
    env: GatewayEnv, cookie: bytes
) -> None:
    """The connection is back in the pool, and already used by the next request, when the first task is cancelled."""

    async def main() -> None:
        async with started(env, upstream={"url": env.config()["upstream"]["url"], "pool": 1}) as (app, general):
            await warm(app, cookie)
            general.clear()
            connections: list[Connection] = []
            dispatch = app.lane.dispatch

            def noted(*args: Any) -> Any:
                found = dispatch(*args)
                if found is not None:
                    connections.append(found[2])
                return found

            app.lane.dispatch = noted  # type: ignore[assignment,method-assign]
            first = asyncio.create_task(answer_of(app, scope_of("/accounts/hang", cookie)))
            await asyncio.sleep(0)
            connection = connections[-1]
            second = asyncio.create_task(answer_of(app, scope_of("/accounts/b", cookie)))
            # The future is cancelled now, but its task only resumes after the second request has started. The response
            # arrives in between. It is injected to control the timing. The upstream itself sends nothing, because stray bytes
            # would close the connection.
            first.cancel()
            connection.data_received(OK)
            with pytest.raises(asyncio.CancelledError):
                await first
            assert connections[-2:] == [connection, connection]
            connection.data_received(OK)
            assert status_of(await asyncio.wait_for(second, 60)) == 200

    asyncio.run(main())


@pytest.mark.parametrize("name", ["own-{}", "slow-{}", "chunked", "rejected", "stale"])
@pytest.mark.parametrize("pool", [1, 2])
def test_request_cancelled_at_any_point_never_leaks_its_response(
    env: GatewayEnv, cookie: bytes, name: str, pool: int
) -> None:
    async def main() -> None:
        upstream = {"url": env.config()["upstream"]["url"], "pool": pool}
        async with started(env, upstream=upstream) as (app, _):
            await warm(app, cookie)
            before = asyncio.all_tasks()
            for turns in (None, 0, 1, 2, 3, 5):
                for at in range(40):
                    done, _ = await cut(answer_of(app, scope_of(f"/accounts/{name.format(at)}", cookie)), at, turns)
                    for n in range(pool + 1):
                        messages = await answer_of(app, scope_of(f"/accounts/own-after-{at}-{n}", cookie))
                        body = b"".join(message.get("body", b"") for message in messages)
                        assert body == f"own-after-{at}-{n}".encode(), (turns, at)
                    if done:
                        break
                else:
                    pytest.fail("the work was cancelled at every suspension")
            await ended(lambda: asyncio.all_tasks() - before)

    asyncio.run(main())


def test_response_with_a_gateway_header_and_chunked_response_are_complete(env: GatewayEnv, cookie: bytes) -> None:
    async def main() -> None:
        async with started(env) as (app, general):
            await warm(app, cookie)
            general.clear()
            messages = await answer_of(app, scope_of("/accounts/chunked", cookie))
            assert b"".join(message.get("body", b"") for message in messages) == b"ok"
            messages = await answer_of(app, scope_of("/accounts/rejected", cookie))
            assert status_of(messages) == 401
            assert not any(name.startswith(b"akoya-") for name, _ in messages[0]["headers"])
            assert general == []

    asyncio.run(main())


def test_changes_of_an_app_to_its_scope_are_not_cached(env: GatewayEnv, cookie: bytes) -> None:
    """With `Gateway(app)`, changes to the headers, path and state of one request must not affect the next."""
    seen: list[list[tuple[bytes, bytes]]] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(list(scope["headers"]))
        scope["headers"].clear()
        scope["headers"].append((b"akoya-owner", b"poison"))
        scope["path"] = "/poison"
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    async def main() -> None:
        gateway = Gateway(app, configured(env, access=[
            {"path": "/open/*", "require": "nothing"}, {"path": "/*", "require": "any", "otherwise": "unauthorized"},
        ]))  # fmt: skip
        await gateway.startup()
        try:
            for path in ("/open/a", "/accounts/a"):
                seen.clear()
                for _ in range(4):
                    scope = scope_of(path, cookie)
                    assert status_of(await answer_of(gateway, scope)) == 200
                    assert scope["path"] == path
                own = [[pair for pair in headers if not pair[0].startswith(VARYING)] for headers in seen]
                assert own[0] == own[1] == own[2] == own[3]
                assert (b"akoya-owner", b"poison") not in own[0]
                assert (b"akoya-owner", b"me") not in own[0]
        finally:
            await gateway.shutdown()

    asyncio.run(main())


def test_session_that_ends_is_let_in_no_more(env: GatewayEnv) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    async def main() -> None:
        gateway = Gateway(app, configured(env))
        await gateway.startup()
        try:
            with Browser(env) as browser:
                await asyncio.to_thread(browser.connect)
                mine = "; ".join(f"{name}={value}" for name, value in browser.http.cookies.items()).encode()
                for _ in range(3):
                    assert status_of(await answer_of(gateway, scope_of("/accounts/a", mine))) == 200
                page = await asyncio.to_thread(browser.connections)
                csrf = page["csrf"].encode()
                logout = scope_of("/akoya/logout", mine, "POST")
                body = b"csrf=" + csrf
                logout["headers"] += [
                    (b"content-type", b"application/x-www-form-urlencoded"),
                    (b"content-length", str(len(body)).encode()),
                    (b"origin", env.url.encode()),
                ]

                async def receive() -> dict[str, Any]:
                    return {"type": "http.request", "body": body, "more_body": False}

                await gateway(logout, receive, _ignore)
                assert status_of(await answer_of(gateway, scope_of("/accounts/a", mine))) == 401
        finally:
            await gateway.shutdown()

    asyncio.run(main())
