"""The ASGI and WSGI middleware in real servers, over real sockets."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import io
import json
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, make_server

import pytest
import uvicorn

import akoya_verify as v
from akoya_gateway.config.model import Signing, SigningScheme
from akoya_gateway.signing import jwks, signer
from akoya_gateway.signing.content_digest import sha256
from tests.support.asgi import read_body
from tests.support.shutdown import served
from tests.support.signing import FULL, KEYS, signing
from tests.verify.languages import key_server, with_another_key

Lines = list[tuple[str, str]]


async def asgi_app(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "lifespan":
        return
    body = await read_body(receive)
    verified: v.Verified | None = scope["akoya"]
    names = sorted(name.decode() for name, _ in scope["headers"] if name.startswith(b"akoya"))
    text = json.dumps(
        {
            "owner": verified and verified.owner,
            "token": verified and verified.id_token,
            "got": len(body),
            "names": names,
        }
    )
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"application/json")]})
    await send({"type": "http.response.body", "body": text.encode()})


def wsgi_app(environ: Any, start_response: Any) -> list[bytes]:
    verified: v.Verified | None = environ["akoya"]
    body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
    names = sorted(name for name in environ if name.startswith("HTTP_AKOYA"))
    text = json.dumps(
        {
            "owner": verified and verified.owner,
            "token": verified and verified.id_token,
            "got": len(body),
            "names": names,
        }
    )
    start_response("200 OK", [("Content-Type", "application/json")])
    return [text.encode()]


@contextlib.contextmanager
def asgi(keys: v.KeySource, **options: Any) -> Iterator[int]:
    listener = socket.create_server(("127.0.0.1", 0))
    app = v.AsgiVerifier(asgi_app, keys, **options)
    server = uvicorn.Server(uvicorn.Config(app, log_level="error", lifespan="off", ws="websockets-sansio"))
    thread = threading.Thread(target=lambda: asyncio.run(server.serve(sockets=[listener])), daemon=True)
    thread.start()
    try:
        deadline = time.monotonic() + 60
        while not server.started:
            assert thread.is_alive() and time.monotonic() < deadline, "the server did not start"
            time.sleep(0.01)
        yield listener.getsockname()[1]
    finally:
        server.should_exit = True
        thread.join(60)
        listener.close()


class _Quiet(WSGIRequestHandler):
    timeout = 10  # This server handles one connection at a time, so that an idle client must not block it for ever.

    def log_message(self, *_: Any) -> None: ...


@contextlib.contextmanager
def wsgi(keys: v.KeySource, **options: Any) -> Iterator[int]:
    app = v.WsgiVerifier(wsgi_app, keys, **options)
    with make_server("127.0.0.1", 0, app, handler_class=_Quiet) as server, served(server, poll_interval=0.01):
        yield server.server_address[1]


ENTRYPOINTS = {"asgi": asgi, "wsgi": wsgi}


@pytest.fixture(params=sorted(ENTRYPOINTS))
def entrypoint(request: pytest.FixtureRequest) -> Any:
    return ENTRYPOINTS[request.param]


def known(algorithm: str = "ed25519") -> dict[str, v.Key]:
    key = KEYS[algorithm]
    one = v.secret_key(key["kid"], key["secret"]) if "secret" in key else v.jwk_key(key["public_jwk"])
    return {key["kid"]: one}


def signed(
    port: int,
    method: str = "GET",
    path: str = "/api",
    query: str = "",
    body: bytes | None = None,
    by: Signing | None = None,
) -> Lines:
    prepared = signer(by or signing("ed25519"), "https://a", "http://b").prepare(FULL)
    digest = None if body is None else sha256(body)
    host = f"127.0.0.1:{port}".encode()
    made = prepared.headers(method.encode(), host, path.encode(), query.encode(), time.time(), content_digest=digest)
    return [("Host", host.decode()), *((name.decode(), value.decode()) for name, value in made)]


def send_request(port: int, target: str, lines: Lines, method: str = "GET", body: bytes = b"") -> tuple[int, Any]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        connection.putrequest(method, target, skip_host=True, skip_accept_encoding=True)
        for name, value in lines:
            connection.putheader(name, value)
        if body:
            connection.putheader("Content-Length", str(len(body)))
        connection.endheaders(body or None)
        response = connection.getresponse()
        text = response.read()
        return response.status, json.loads(text)
    finally:
        connection.close()


def test_signed_request_reaches_the_app_with_its_claims(entrypoint: Any) -> None:
    with entrypoint(known()) as port:
        status, verified = send_request(port, "/api?a=1&a=%2F", signed(port, query="a=1&a=%2F"))
        assert status == 200
        assert verified["owner"] == FULL.owner
        assert verified["token"] == FULL.bearer.reveal()  # type: ignore[union-attr]


def test_encoded_path_verifies(entrypoint: Any) -> None:
    with entrypoint(known()) as port:
        assert send_request(port, "/a%20b/%C3%BC", signed(port, path="/a%20b/%C3%BC"))[0] == 200


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("Akoya-Owner", "evil"),
        ("akoya_owner", "evil"),
        ("AKOYA-Extra", "1"),
        ("Signature", "akoya=:AAAA:"),
        ("Signature-Input", 'akoya=("@method");created=1'),
    ],
)
def test_added_header_is_refused(entrypoint: Any, name: str, value: str) -> None:
    with entrypoint(known()) as port:
        status, problem = send_request(port, "/api", [*signed(port), (name, value)])
        assert (status, problem["status"]) == (401, 401)


def test_unsigned_request_does_not_reach_the_app(entrypoint: Any) -> None:
    with entrypoint(known()) as port:
        status, problem = send_request(port, "/api", [("Host", f"127.0.0.1:{port}"), ("Akoya-Owner", "evil")])
        assert status == 401
        assert problem["detail"] == "missing-signature"
        assert send_request(port, "/other", signed(port))[0] == 401
        assert send_request(port, "/api", signed(port), method="POST", body=b"x")[0] == 401


def test_exempt_path_passes_without_gateway_headers(entrypoint: Any) -> None:
    with entrypoint(known(), exempt={"/healthz"}) as port:
        lines = [("Host", "h"), ("Akoya-Owner", "evil"), ("akoya_id_token", "evil")]
        assert send_request(port, "/healthz", lines) == (200, {"owner": None, "token": None, "got": 0, "names": []})
        assert send_request(port, "/healthz/", lines)[0] == 401


@pytest.mark.parametrize(
    ("path", "free"),
    [
        ("/static/a.js", True),
        ("/static/", True),
        ("/static/a/b/", True),
        ("/static", False),
        ("/staticx", False),
        ("/static/../api", False),
        ("/static/%2e%2e/api", False),
        ("/static/%252e%252e/api", False),
        ("/static//api", False),
        ("/static/..%5capi", False),
        ("/static/./x", False),
    ],
)
def test_exempt_pattern_matches_only_normalized_paths_below_it(entrypoint: Any, path: str, free: bool) -> None:
    with entrypoint(known(), exempt={"/static/*"}) as port:
        assert send_request(port, path, [("Host", "h"), ("Akoya-Owner", "evil")])[0] == (200 if free else 401)


@pytest.mark.parametrize("pattern", ["healthz", "/a*", "/*/b", "*"])
def test_invalid_exempt_pattern_is_refused(pattern: str) -> None:
    with pytest.raises(ValueError, match="neither"):
        v.WsgiVerifier(wsgi_app, known(), exempt={pattern})


def test_covered_body_is_compared_with_its_digest(entrypoint: Any) -> None:
    with entrypoint(known(), largest_body=1000) as port:
        body = b"a" * 900
        assert send_request(port, "/api", signed(port, "POST", body=body), "POST", body)[1]["got"] == 900
        assert send_request(port, "/api", signed(port, "POST", body=body), "POST", b"b" * 900)[0] == 401
        long = b"a" * 1001
        assert send_request(port, "/api", signed(port, "POST", body=long), "POST", long)[0] == 401


def test_replayed_request_is_refused_when_replay_protection_is_on(entrypoint: Any) -> None:
    with entrypoint(known(), replay=v.ReplayCache()) as port:
        lines = signed(port)
        assert send_request(port, "/api", lines)[0] == 200
        assert send_request(port, "/api", lines)[1]["detail"] == "replayed"
        assert send_request(port, "/api", signed(port))[0] == 200


def test_keys_come_from_the_gateway(entrypoint: Any) -> None:
    with key_server(jwks(signing("ed25519"))) as url, entrypoint(v.RemoteKeys(url)) as port:
        for _ in range(3):
            assert send_request(port, "/api", signed(port))[0] == 200


def test_replaced_key_is_fetched_without_blocking_the_requests_of_other_clients() -> None:
    """The fetch runs in a thread: while it waits, the event loop serves a request without a signature."""
    old = signing("ed25519")
    new = with_another_key(old)
    published, now = [jwks(old)], [1000.0]
    fetches, reachable = threading.Semaphore(0), threading.Event()
    reachable.set()

    def fetch(_url: str) -> bytes:
        fetches.release()
        assert reachable.wait(60)
        return published[0]

    keys = v.RemoteKeys("https://app.example.com/akoya/jwks.json", fetch=fetch, clock=lambda: now[0])
    with asgi(keys) as port, ThreadPoolExecutor(1) as pool:
        assert send_request(port, "/api", signed(port))[0] == 200
        assert fetches.acquire(timeout=30)
        published[0] = jwks(new)
        now[0] += 10.0
        reachable.clear()
        try:
            waiting = pool.submit(send_request, port, "/api", signed(port, by=new))
            assert fetches.acquire(timeout=30)
            assert send_request(port, "/api", [("Host", f"127.0.0.1:{port}")])[0] == 401
            assert not waiting.done()
        finally:
            reachable.set()
        assert waiting.result(30)[0] == 200
        assert send_request(port, "/api", signed(port))[0] == 401, "the old key no longer verifies"
        assert not fetches.acquire(blocking=False), "a forged signature causes no fetch within ten seconds"


def test_request_without_fetched_keys_gets_503(entrypoint: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        url = f"http://127.0.0.1:{closed.getsockname()[1]}/jwks"
    with entrypoint(v.RemoteKeys(url, timeout=1)) as port:
        status, problem = send_request(port, "/api", signed(port))
        assert (status, problem["detail"]) == (503, "keys-unavailable")


def test_jwt_scheme_verifies_assertions(entrypoint: Any) -> None:
    made = signer(signing("ed25519", SigningScheme.JWT), "https://gateway", "http://app").prepare(
        replace(FULL, expires_at=int(time.time()) + 900)
    )
    ((name, token),) = made.headers(b"GET", b"h", b"/", b"", time.time())
    lines = [("Host", "h"), (name.decode(), token.decode())]
    with entrypoint(known(), issuer="https://gateway", audience="http://app") as port:
        assert send_request(port, "/any", lines)[1]["owner"] == FULL.owner
        assert send_request(port, "/any", [*lines, ("Akoya-Owner", "evil")])[0] == 401
        assert send_request(port, "/any", signed(port))[0] == 401
    with entrypoint(known(), issuer="https://gateway", audience="http://other") as port:
        assert send_request(port, "/any", lines)[1]["detail"] == "wrong-audience"


def test_incomplete_jwt_policy_is_refused() -> None:
    with pytest.raises(ValueError, match="together"):
        v.AsgiVerifier(asgi_app, known(), audience="x")


async def test_unsigned_websocket_is_closed_before_it_opens() -> None:
    from websockets.asyncio.client import connect
    from websockets.exceptions import InvalidStatus

    with asgi(known()) as port:
        with pytest.raises(InvalidStatus) as refused:
            await connect(f"ws://127.0.0.1:{port}/ws")
        assert refused.value.response.status_code == 403


@pytest.mark.parametrize("raw", ["RAW_URI", "REQUEST_URI", None])
def test_wsgi_takes_the_path_raw_where_the_server_gives_it(raw: str | None) -> None:
    lines = dict(signed(80, path="/a%2Fb", query="q=1"))
    environ = {
        "REQUEST_METHOD": "GET",
        "PATH_INFO": "/a/b",
        "QUERY_STRING": "q=1",
        "wsgi.url_scheme": "http",
        **{f"HTTP_{name.upper().replace('-', '_')}": value for name, value in lines.items()},
        "HTTP_HOST": "127.0.0.1:80",
    }
    signed_for = signer(signing("ed25519"), "https://a", "http://b").prepare(FULL)
    made = signed_for.headers(b"GET", b"127.0.0.1", b"/a%2Fb", b"q=1", time.time())
    environ.update({f"HTTP_{name.decode().upper().replace('-', '_')}": value.decode() for name, value in made})
    if raw:
        environ[raw] = "/a%2Fb?q=1"
    status: list[str] = []
    v.WsgiVerifier(wsgi_app, known())(
        {**environ, "wsgi.input": io.BytesIO()}, lambda line, headers: status.append(line)
    )
    assert status == (["200 OK"] if raw else ["401 Unauthorized"])
