"""Tests that the fast paths (`gateway.scope_fast_path`, `fast_lane.asgi`) and the general path treat all scopes alike.

The scopes are generated at random from values that servers send and values that they should not send. Each is sent
several times in a row.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any
from urllib.parse import unquote

import pytest
import yaml

from akoya_gateway import Gateway, load_config, sidecar
from akoya_gateway.authentication.user_identity import owner_of
from akoya_gateway.endpoints.observer import NullAuthorizationObserver
from akoya_gateway.fast_lane.asgi import AsgiFastLane
from akoya_gateway.gateway.runtime import Observers, Runtime
from akoya_gateway.grants.observer import NullGrantObserver
from akoya_gateway.upstream.errors import ClosedEarly
from tests.support.environment import Browser, GatewayEnv
from tests.support.raw_http import Caller, RawUpstream
from tests.support.request_recorder import RequestRecorder

SCOPES = 220
TURNS = 5
"""How often each scope is sent. The fifth one uses all caches."""
RULES = [
    {"path": "/open/*", "require": "nothing"},
    {"path": "/get/*", "methods": ["GET"], "require": "mikomo", "otherwise": "unauthorized"},
    {"path": "/get/*", "methods": ["DELETE"], "require": "other", "otherwise": "forbidden"},
    {"path": "/pass/*", "require": "other", "otherwise": "pass"},
    {"path": "/bank/{connector}/*", "require": "{connector}", "otherwise": "unauthorized"},
    {"path": "/any/*", "require": "any", "otherwise": "connect"},
]
IDENTITY = {"identity": {"header": "X-Forwarded-User"}, "trusted_proxies": ["10.0.0.0/8"]}


def echo(caller: Caller) -> None:
    """Respond with the received request head and body."""
    while True:
        head = caller.head()
        length = re.search(rb"\r\ncontent-length: (\d+)\r\n", head)
        body = caller.exactly(int(length[1])) if length else b""
        if b"\r\ntransfer-encoding:" in head:
            body = caller.until(b"0\r\n\r\n")
        messages = b"" if head.startswith(b"HEAD") else head + body
        caller.send(
            b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nX-Method: %b\r\n\r\n%b"
            % (len(messages), head.split(b" ")[0], messages)
        )


@pytest.fixture(scope="module")
def env(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayEnv]:
    with RawUpstream(echo) as raw:
        changes = {"upstream": {"url": f"http://127.0.0.1:{raw.origin.port}"}}
        with GatewayEnv(tmp_path_factory.mktemp("env"), changes=changes) as env:
            yield env


@pytest.fixture
def cookie(env: GatewayEnv) -> bytes:
    with Browser(env) as browser:
        browser.connect()
        return "; ".join(f"{name}={value}" for name, value in browser.http.cookies.items()).encode()


def configured(env: GatewayEnv, **changes: Any) -> Any:
    path: Path = env.folder / "app.yaml"
    document = {**env.config(), "admin": None, "access": RULES, "trusted_proxies": ["10.0.0.0/8"], **changes}
    path.write_text(yaml.safe_dump(document))
    return load_config(path, env.environ)


def drawn(random: Random, cookie: bytes) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Generate a scope and the messages that its server's `receive` returns."""
    path = random.choice(
        ["/any/a"] * 12
        + [
            "/open/a",
            "/get/a",
            "/get/a",
            "/pass/a",
            "/bank/mikomo/a",
            "/bank/other/a",
            "/bank/nobody/a",
            "/any/a",
            "/any/a",
        ]
        + [
            "/nowhere",
            "/akoya/jwks.json",
            "/any/%61",
            "/any/a%20b",
            "/any/../open/a",
            "/any//a",
            "/any/a;b",
            "/any/%2e%2e/a",
        ]
        + [
            "/any/a?b",
            "/any/a#b",
            "/any/" + "x" * 1100,
            "/open/" + "y" * 9000,
            "any/a",
            "*",
            "",
            "/any/\xe4",
            "/any/a b",
        ]
    )
    method = random.choice(
        ["GET"] * 8 + ["HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE", "get", "FOO", "CONNECT", "G T"]
    )
    headers: list[Any] = [(b"host", b"app.example.com")]
    body: list[dict[str, Any]] = [{"type": "http.request", "body": b"", "more_body": False}]
    if random.random() < 0.85:
        headers.append((b"cookie", cookie))
    pool = [
        (b"akoya-owner", b"me"), (b"Akoya-Owner", b"me"), (b"akoya_owner", b"me"), (b"AKOYA.id_token", b"me"), (b"akoya", b"x"),
        (b"akoyan", b"x"), (b"signature", b"akoya=:AAAA:"), (b"signature", b"mine=:AAAA:"), (b"signature", b"mine=:AAAA:, akoya=:BBBB:"),
        (b"Signature", b"akoya=:AAAA:"), (b"signature-input", b'akoya=("@path")'), (b"signature_input", b"x"), (b"signature-input", b'mine=("@path")'),
        (b"x-request-id", b"chosen"), (b"x-own", b"1"), (b"x-own", b""), (b"x-own", b" a"), (b"x-own", b"a "), (b"x-own", b"\xe4"),
        (b"x-own", b"a\tb"), (b"x-own", b"a\r\nakoya-owner: me"), (b"x-own", b"a\nb"), (b"x-own", b"\0"), (b"x own", b"1"), (b"x:own", b"1"),
        (b"x: own", b"1"), (b"akoya-owner: x", b"1"), (b"", b"1"), (b"X-Own", b"1"), (b"x_own", b"1"), (b"connection", b"keep-alive"),
        (b"connection", b"close"), (b"connection", b"x-own"), (b"connection", b"akoya-owner, signature"), (b"connection", b"Keep-Alive, x-own"),
        (b"Connection", b"x-own"), (b"keep-alive", b"timeout=5"), (b"proxy-connection", b"x-own"), (b"te", b"trailers"), (b"TE", b"trailers"),
        (b"upgrade", b"h2c"), (b"expect", b"100-continue"), (b"expect", b"x"), (b"content-digest", b"sha-256=:AAAA:"), (b"proxy", b"x"),
        (b"x-http-method-override", b"DELETE"), (b"x_http_method_override", b"DELETE"), (b"x-http-method", b"DELETE"), (b"x.method-override", b"GET"),
        (b"x-forwarded-for", b"1.2.3.4"), (b"x-forwarded-proto", b"https"), (b"x-forwarded-user", b"me"), (b"x_forwarded_for", b"1.2.3.4"),
        (b"forwarded", b"for=1.2.3.4"), (b"x-real-ip", b"1.2.3.4"), (b"x-original-url", b"/open"), (b"host", b"evil.example"), (b"host_", b"x"),
        (b"Host", b"evil.example"), (b"cookie", cookie), (b"Cookie", cookie), (b"cookie", b"theirs=1"), (b"cookie", b"a=b; " + cookie),
        (b"cookie", cookie + b"; " + cookie), (b"cookie", cookie.replace(b"=", b" = ", 1)), (b"cookie", b"$Version=1; " + cookie),
        (b"content-length", b"0"), (b"content-length", b"2"), (b"transfer-encoding", b"chunked"), (b"content_length", b"2"),
        (b"script_name", b"/any"), (b"daphne-root-path", b"/any"), (b"x-script-name", b"/any"), (b"remote-user", b"me"), (b"path-info", b"/open/a"),
        (b"true-client-ip", b"1.2.3.4"), (b"x-envoy-original-path", b"/open/a"), (b"x.forwarded.for", b"1.2.3.4"), (b"x-auth-request-user", b"me"),
        (b"accept", b"text/html"), (b"x-long", b"x" * 2000), (b"via", b"1.1 x"), (b"http2-settings", b"x"), (b"authorization", b"Bearer x"),
    ]  # fmt: skip
    extra = random.sample(pool, random.choice([0, 0, 0, 1, 1, 1, 2, 3]))
    headers += extra
    if (b"content-length", b"2") in extra:
        body = [{"type": "http.request", "body": b"hi", "more_body": False}]
    elif (b"transfer-encoding", b"chunked") in extra:
        body = [
            {"type": "http.request", "body": b"hi", "more_body": True},
            {"type": "http.request", "body": b"", "more_body": False},
        ]
    if headers and random.random() < 0.1:
        headers = headers[1:]
    if headers and random.random() < 0.1:
        headers[0] = (
            b"host",
            random.choice([b"APP.example.com", b"app.example.com:80", b"a b", b"", b"u@h", b"[::1]:80", b"x" * 300]),
        )
    if headers and random.random() < 0.1:
        random.shuffle(headers)
    if headers and random.random() < 0.1:
        headers = [list(pair) for pair in headers]
    elif random.random() < 0.03:
        headers = tuple(headers)  # type: ignore[assignment]
    raw = path.encode("latin-1")
    scope: dict[str, Any] = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": random.choice(["1.1"] * 8 + ["1.0", "2"]), "method": method,
        "path": unquote(path), "raw_path": raw, "query_string": random.choice([b"", b"", b"a=b", b"a=%zz", b"\xff", b"a b", b"?", b"#x"]),
        "headers": headers, "scheme": random.choice(["http", "http", "https"]), "root_path": random.choice(["", "", "/root"]),
        "client": random.choice([("127.0.0.1", 4000)] * 4 + [None, ["127.0.0.1", 4000], ("127.0.0.1", 0), ("10.0.0.1", 4000), ("10.0.0.1", 0), ("", 0), ("127.0.0.1", None), ("bogus", 1)]),
        "server": ("127.0.0.1", 80),
    }  # fmt: skip
    if headers and random.random() < 0.1:
        del scope["raw_path"]
    elif random.random() < 0.1:
        scope["raw_path"] = random.choice([None, b"", b"/open/b", b"/open/a?x", bytearray(raw)])
    if random.random() < 0.05:
        del scope["client"]
    return scope, body


async def call(app: Any, scope: dict[str, Any], body: list[dict[str, Any]]) -> Any:
    """Return the exception's name, or the response without times and signatures."""
    left = list(body)
    messages: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        if left:
            return left.pop(0)
        return await asyncio.get_running_loop().create_future()  # type: ignore[no-any-return]

    async def send(message: dict[str, Any]) -> None:
        messages.append(message)

    own = {**scope, "headers": type(scope["headers"])(scope["headers"])}
    try:
        await asyncio.wait_for(app(own, receive, send), 60)
    except Exception as error:
        return type(error).__name__
    head = {name.lower(): value for name, value in messages[0]["headers"] if name != b"date"}
    return (
        messages[0]["status"],
        timeless(repr(sorted(head.items()))),
        timeless(repr(b"".join(m.get("body", b"") for m in messages[1:]))),
    )


def timeless(text: str) -> str:
    text = re.sub(r";(created|expires|nonce)=(\"[^\"]*\"|\d+)", "", text)
    text = re.sub(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", "<last access>", text)
    text = re.sub(r"akoya=:[A-Za-z0-9+/=]{20,}:", "akoya=::", text)
    # Replace request IDs, states of attempts and CSRF tokens.
    return re.sub(
        r"(?<!akoya-owner: )(?<![\w-])[A-Za-z0-9_-]{16,64}(?![\w-])",
        lambda found: "-" if re.search(r"\d", found[0]) else found[0],
        text,
    )


@pytest.mark.parametrize(
    "changes",
    [{}, {"limits": {"body_bytes": 100}}, {"signing": "digest"}, IDENTITY],
    ids=["as-it-is", "limit", "digest", "identity"],
)
@pytest.mark.parametrize("entrypoint", ["middleware", "sidecar"])
def test_plain_way_and_the_general_one_are_alike(
    env: GatewayEnv, cookie: bytes, entrypoint: str, changes: dict[str, Any]
) -> None:
    if changes.get("signing") == "digest":
        changes = {"signing": {**env.config()["signing"], "content_digest": 1000}}
    seen: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(timeless(repr({key: value for key, value in scope.items() if key not in ("akoya.ending",)})))
        message = await receive()
        headers = [tuple(pair) for pair in scope["headers"]]
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": repr((headers, message)).encode()})

    random = Random(20261125)
    statuses: list[Any] = []

    async def main() -> None:
        config = configured(env, **changes)
        plain: Any
        general: Any
        if entrypoint == "middleware":
            plain, general = Gateway(app, config), Gateway(app, config)
            gateways = [plain, general]
        else:
            straight = sidecar(config)
            assert isinstance(straight, AsgiFastLane)
            other = sidecar(config)
            assert isinstance(other, AsgiFastLane)
            plain, general = straight, other._app
            gateways = [straight.gateway, other.gateway]
        for gateway in gateways:
            await gateway.startup()
        gateways[1].runtime.scope_fast_path.admit = lambda scope: None  # Disable the fast path of this gateway.
        try:
            if changes is IDENTITY:
                await give(gateways[0].runtime, cookie, owner_of("me"))
            for number in range(SCOPES):
                scope, body = drawn(random, cookie)
                if changes is IDENTITY and random.random() < 0.7:
                    others = [pair for pair in scope["headers"] if pair[1] != cookie or random.random() < 0.1]
                    scope["headers"] = [*others, (b"x-forwarded-user", b"me")]
                    scope["client"] = random.choice(
                        [("10.0.0.1", 4000)] * 4 + [("10.0.0.1", 0), ("127.0.0.1", 4000), None]
                    )
                for turn in range(TURNS):
                    seen.clear()
                    was = await call(general, scope, body)
                    by_general = list(seen)
                    seen.clear()
                    now = await call(plain, scope, body)
                    assert now == was, (number, turn, scope)
                    assert seen == by_general, (number, turn, scope)
                    statuses.append(now[0])
        finally:
            for gateway in gateways:
                await gateway.shutdown()

    asyncio.run(main())
    # The comparison would be worthless if nearly every request were denied.
    assert statuses.count(200) > len(statuses) / 20


async def give(runtime: Runtime, cookie: bytes, owner: str) -> None:
    """Connect the bank of the session's owner for another owner, too."""
    value = runtime.cookies.session([(b"cookie", cookie)])
    assert value is not None
    session = await runtime.sessions.resolve(value)
    assert session is not None
    (grant,) = (await runtime.grants.for_owner(session.owner)).grants
    await runtime.grants.connect(owner, runtime.config.clients["test-app"], "mikomo", grant.tokens)


async def _nothing(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b""})


def plain_scope(cookie: bytes, **changes: Any) -> dict[str, Any]:
    return {
        "type": "http", "http_version": "1.1", "method": "GET", "path": "/any/a", "raw_path": b"/any/a", "query_string": b"",
        "headers": [(b"host", b"app.example.com"), (b"cookie", cookie)], "scheme": "http", "client": ("127.0.0.1", 4000), **changes,
    }  # fmt: skip


@pytest.mark.parametrize(
    "changes",
    [{"raw_path": None}, {"raw_path": b""}, {"raw_path": bytearray(b"/any/a")}, {"raw_path": ...}, {"scheme": ...}],
    ids=str,
)
@pytest.mark.parametrize("entrypoint", ["middleware", "sidecar"])
def test_what_asgi_lets_a_server_leave_out_is_not_missed(
    env: GatewayEnv, cookie: bytes, entrypoint: str, changes: dict[str, Any]
) -> None:
    async def main() -> None:
        app: Any = sidecar(configured(env)) if entrypoint == "sidecar" else Gateway(_nothing, configured(env))
        gateway = app.gateway if entrypoint == "sidecar" else app
        await gateway.startup()
        try:
            for _ in range(3):
                scope = {key: value for key, value in plain_scope(cookie, **changes).items() if value is not ...}
                assert (await call(app, scope, []))[0] == 200
        finally:
            await gateway.shutdown()

    asyncio.run(main())


def test_untrusted_input_takes_bounded_memory(env: GatewayEnv, cookie: bytes) -> None:
    """Long methods (h11 accepts any token) and requests with many tiny headers are processed but not cached."""

    async def main() -> None:
        gateway = Gateway(_nothing, configured(env))
        await gateway.startup()
        try:
            engine: Any = gateway.runtime
            kept = len(engine.targets._targets), len(engine.injector.read.__self__._entries)
            for number in range(3):
                scope = plain_scope(cookie, method="A" * 50_000 + str(number))
                assert (await call(gateway, scope, []))[0] == 200
                fields = [(b"a%d" % each, b"") for each in range(101)]
                assert (await call(gateway, {**scope, "headers": scope["headers"] + fields}, []))[0] == 200
            assert len(engine.targets._targets) == kept[0]
            assert len(engine.injector.read.__self__._entries) <= kept[1] + 1
        finally:
            await gateway.shutdown()

    asyncio.run(main())


@pytest.mark.parametrize("turn", [0, 1], ids=["general", "plain"])
def test_truncated_response_gets_no_second_head(env: GatewayEnv, cookie: bytes, turn: int) -> None:
    async def torn(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        if scope["query_string"]:
            raise ClosedEarly("the upstream closed the connection in the middle of its response")
        await send({"type": "http.response.body", "body": b""})

    async def main() -> None:
        recorder = RequestRecorder()
        gateway = Gateway(
            torn, configured(env), observers=Observers(NullGrantObserver(), NullAuthorizationObserver(), recorder)
        )
        await gateway.startup()
        messages: list[Any] = []

        async def send(message: Any) -> None:
            messages.append(message["type"])

        try:
            for _ in range(2 * turn):
                await call(gateway, plain_scope(cookie), [])
            recorder.reported.clear()
            with pytest.raises(ClosedEarly):
                await gateway(plain_scope(cookie, query_string=b"torn"), _ignored, send)
            assert messages == ["http.response.start"]
            assert [request.status for request in recorder.reported] == [200]
        finally:
            await gateway.shutdown()

    asyncio.run(main())


OTHER_PARTS: dict[str, dict[str, Any]] = {
    "path": {"path": "/open/a"},
    "raw-path": {"raw_path": b"/open/a"},
    "raw-path-with-another-rule": {"path": "/get/b", "raw_path": b"/get/b"},
    "root-path": {"root_path": "/any"},
    "http-1.0": {"http_version": "1.0"},
    "method": {"method": "DELETE"},
    "override": {"query_string": b"_method=DELETE"},
    "no-cookie": {"headers": [(b"host", b"app.example.com")]},
    "body": {"headers": [(b"host", b"app.example.com"), (b"content-length", b"2")]},
}


def test_request_that_differs_from_a_cached_one_in_one_part_gets_its_own_decision(
    env: GatewayEnv, cookie: bytes
) -> None:
    async def main() -> None:
        gateway, general = (Gateway(_nothing, configured(env, limits={"body_bytes": 100})) for _ in range(2))
        for each in (gateway, general):
            await each.startup()
        (general.runtime.scope_fast_path).admit = lambda scope: None  # type: ignore[method-assign]
        base = plain_scope(cookie, path="/get/a", raw_path=b"/get/a", root_path="")
        try:
            for _ in range(TURNS):
                assert (await call(gateway, base, []))[0] == 200
            assert gateway.runtime.scope_fast_path.admit({**base}) is not None
            refused = 0
            for name, changes in OTHER_PARTS.items():
                wanted = await call(general, {**base, **changes}, [])
                for _ in range(TURNS):
                    assert await call(gateway, {**base, **changes}, []) == wanted, name
                refused += wanted[0] != 200
            assert refused >= 6
            value = gateway.runtime.cookies.session([(b"cookie", cookie)])
            assert value is not None
            session = await gateway.runtime.sessions.resolve(value)
            assert session is not None
            await gateway.runtime.sessions.end(session)
            assert (await call(gateway, base, []))[0] == 401
        finally:
            for each in (gateway, general):
                await each.shutdown()

    asyncio.run(main())


async def _ignored() -> Any:
    return {"type": "http.request", "body": b"", "more_body": False}


def test_headers_of_any_kind_and_trailers_are_looked_through(env: GatewayEnv, cookie: bytes) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        ours = [(b"akoya-id-token", b"x"), (b"x-own", b"1")]
        await send({"type": "http.response.start", "status": 200, "headers": (pair for pair in ours), "trailers": True})
        await send({"type": "http.response.body", "body": b""})
        await send({"type": "http.response.trailers", "headers": tuple(ours)})

    async def main() -> None:
        gateway = Gateway(app, configured(env))
        await gateway.startup()
        messages: list[Any] = []

        async def send(message: Any) -> None:
            messages.append(message)

        try:
            for _ in range(2):
                messages.clear()
                await gateway(plain_scope(cookie), _ignored, send)
                assert [[h for h in message.get("headers", ()) if h[0] != b"x-request-id"] for message in messages] == [
                    [(b"x-own", b"1")],
                    [],
                    [(b"x-own", b"1")],
                ]
        finally:
            await gateway.shutdown()

    asyncio.run(main())
