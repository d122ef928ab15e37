"""Sends the same request through each entry point and records the outcome.

The three kinds of forward-auth are simulated the way their proxies work (tests/forward_auth runs the real ones): strip
headers, check with the gateway, copy headers, forward. So the app receives a request through each of them.
"""

from __future__ import annotations

import asyncio
import json
import re
import socket
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self

from akoya_gateway import Gateway, load_config
from akoya_gateway.client_header_names import MOVES_THE_REQUEST
from akoya_gateway.config.model import Config
from akoya_gateway.endpoints.observer import NullAuthorizationObserver
from akoya_gateway.fast_lane.asgi import AsgiFastLane
from akoya_gateway.fast_lane.lane import FastLane
from akoya_gateway.gateway.date_header import DateHeader
from akoya_gateway.gateway.runtime import Observers
from akoya_gateway.gateway.upstream_router import UpstreamRouter
from akoya_gateway.grants import GrantRepository, GrantState
from akoya_gateway.grants.events import Reason
from akoya_gateway.grants.grant import to_record_id
from akoya_gateway.grants.observer import NullGrantObserver
from akoya_gateway.store import EncryptedStore, Keyring, open_store
from tests.differential.cases import HOST, RULES, Row
from tests.support.client_header_lists import listed
from tests.support.environment import GatewayEnv
from tests.support.forward_auth import cookies, unchunked
from tests.support.processes import AppServer
from tests.support.request_recorder import RequestRecorder
from tests.support.upstream_apps import asgi_app
from tests.support.waiting import until

import yaml  # isort: skip
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

BEARER = "a-bearer-for-background-jobs-in-tests"

OURS = re.compile(r"(?i)^(akoya[-_.].*|signature([-_.]input)?)$")
DESCRIBING = re.compile(r"(?i)^x-(original|forwarded)-(method|uri|host)$")
FROM_PROXIES = frozenset(listed()) - {name.decode() for name in MOVES_THE_REQUEST}
"""Names that nginx's file removes, except those that move the request: every entry point must handle these."""


@dataclass(frozen=True)
class Outcome:
    """What happened to a request.

    `rule` and `word` are as in the access log. `seen`: path, query and host that the app received, or None.
    """

    status: int
    rule: str
    word: str
    location: str | None = None
    seen: tuple[str, str, str] | None = None
    injected: dict[str, str] = field(default_factory=dict)
    signature: str | None = None

    @property
    def passed(self) -> bool:
        return self.seen is not None


class Entrypoints:
    """A sidecar process, the sidecar as an ASGI app, and a middleware, each with an app behind it.

    They share one store, so that one cookie is valid at all of them.
    """

    def __init__(self, folder: Path) -> None:
        changes = {
            "access": RULES,
            "trusted_proxies": ["127.0.0.1/32"],
            "forward_auth": True,
            "redirects": {
                "after_connect": "/accounts",
                "allow": ["/accounts", "/accounts/*", "/mikomo", "/mikomo/*", "/both"],
            },
        }
        self.env = GatewayEnv(folder, changes=changes, token_bearer=BEARER)
        self.recorder = RequestRecorder()
        self._folder = folder
        self._member = self._ended = self._several = self._half = ""
        self._log_position = 0
        self._log_records: dict[str, tuple[str, str]] = {}
        self.grants: dict[str, str] = {}
        """Grant IDs: `first`, `second` and `other` of the user with several logins, `foreign` of the member, `live` and
        `ended` of the user one of whose logins has ended.
        """
        self.owners: dict[str, str] = {}
        """`Akoya-Owner` of the users with several logins: `several` and `half`."""
        self.by_name: dict[str, Callable[[Row], Outcome]] = {
            "sidecar": self.sidecar,
            "app": lambda row: self.within(row, self._beside.port),
            "middleware": lambda row: self.within(row, self._inside.port),
            "nginx": lambda row: self.through_proxy(row, "nginx"),
            "traefik": lambda row: self.through_proxy(row, "traefik"),
            "envoy": lambda row: self.through_proxy(row, "envoy"),
        }

    def __enter__(self) -> Self:
        self.env.__enter__()
        observers = Observers(NullGrantObserver(), NullAuthorizationObserver(), self.recorder)
        app = asgi_app(self.env.verification_key)
        self._inside = AppServer(
            Gateway(app, self._config("middleware", "upstream"), observers=observers), lifespan="on"
        )
        self._inside.__enter__()
        router = UpstreamRouter(config := self._config("app"))
        date_header = DateHeader()
        gateway = Gateway(router, config, observers=observers, date_header=date_header)
        straight = AsgiFastLane(FastLane(gateway, router.current_proxies, date_header), gateway)
        self._beside = AppServer(straight, lifespan="on")
        self._beside.__enter__()
        with self.env.browser() as browser:
            browser.connect()
            self._member = cookies(browser)
            self.grants["foreign"] = browser.passed()["akoya-grant"]
        with self.env.browser() as browser:
            for name, connector, user in (
                ("first", "mikomo", "mikomo_1"),
                ("second", "mikomo", "mikomo_4"),
                ("other", "other", "mikomo_7"),
            ):
                browser.connect(connector, user)
                self.grants[name] = browser.passed()["akoya-grant"]
            self._several = cookies(browser)
            self.owners["several"] = browser.passed()["akoya-owner"]
        with self.env.browser() as browser:
            for name, user in (("ended", "mikomo_1"), ("live", "mikomo_4")):
                browser.connect("mikomo", user)
                self.grants[name] = browser.passed()["akoya-grant"]
            self._half = cookies(browser)
            self.owners["half"] = browser.passed()["akoya-owner"]
        with self.env.browser() as browser:
            browser.connect()
            self._ended = cookies(browser)
            asyncio.run(self._end(browser.connections()["connections"][0]["id"], self.grants["ended"]))
        return self

    async def _end(self, *grant_ids: str) -> None:
        """End the grants as a rejected refresh does."""
        config = self._config("ending")
        store = EncryptedStore(open_store(config.sessions.store), Keyring(config.sessions.keys))
        await store.open()
        repository = GrantRepository(store)
        for grant_id in grant_ids:
            grant = await repository.get(to_record_id(grant_id))
            assert grant is not None
            ended = replace(grant, state=GrantState.NEEDS_RECONNECT, reason=Reason.DEAD_TOKEN)
            assert await repository.write(ended, after=grant.version)
        await store.close()
        await asyncio.sleep(1.1)  # until the gateways' caches have expired

    def __exit__(self, *_: object) -> None:
        self._beside.__exit__()
        self._inside.__exit__()
        self.env.__exit__()

    def sidecar(self, row: Row) -> Outcome:
        name = new_id()
        response = exchange(
            self.env.port, row.method, row.target, [*row.hosts, *self._lines(row), f"X-Request-Id: {name}"]
        )
        return self._outcome(response, *self._logged(name, response.status))

    def handshake(self, row: Row, name: str) -> Outcome:
        """Open a WebSocket at an entry point and return what the app received, or how it was refused."""
        ports = {"sidecar": self.env.port, "app": self._beside.port, "middleware": self._inside.port}
        request_id = new_id()
        lines = [line.split(":", 1) for line in (*self._lines(row), f"X-Request-Id: {request_id}")]
        headers = [(key, value.strip()) for key, value in lines]
        try:
            with connect(f"ws://127.0.0.1:{ports[name]}{row.target}", additional_headers=headers, proxy=None) as opened:
                injected = json.loads(opened.recv(30))
            status = 101
        except InvalidStatus as refused:
            status, injected = refused.response.status_code, {}
        logged = self._logged(request_id, status) if name == "sidecar" else self.recorder.outcome_of(request_id)
        return Outcome(status, *logged, injected=injected)

    def token(self, connector: str, query: str) -> Response:
        """Ask the token endpoint."""
        target = f"/akoya/token/{connector}?{query}"
        return exchange(self.env.admin_port, "GET", target, ["Host: admin", f"Authorization: Bearer {BEARER}"])

    def _config(self, name: str, *without: str) -> Config:
        path = self._folder / f"{name}.yaml"
        config = {key: value for key, value in self.env.config().items() if key not in ("admin", *without)}
        path.write_text(yaml.safe_dump(config, sort_keys=False))
        return load_config(path, self.env.environ)

    def within(self, row: Row, port: int) -> Outcome:
        """Send a request to an app server in this process."""
        name = new_id()
        lines = [*row.hosts, *self._lines(row), f"X-Request-Id: {name}"]
        response = exchange(port, row.method, row.target, lines)
        return self._outcome(response, *self.recorder.outcome_of(name))

    def through_proxy(self, row: Row, way: str) -> Outcome:
        name = new_id()
        kept = [
            line
            for line in self._lines(row)
            if not DESCRIBING.match(name_of(line)) and name_of(line).lower() != "connection"
        ]
        if way == "nginx":
            kept = [
                line
                for line in kept
                if "_" not in name_of(line) and "." not in name_of(line) and name_of(line).lower() not in FROM_PROXIES
            ]
        route, method = "/akoya/forward-auth", "GET"
        describing = list(row.hosts)
        if way == "nginx":
            describing += [f"X-Original-Method: {row.method}", f"X-Original-URI: {row.target}"]
        elif way == "traefik":
            describing = ["Host: gateway", f"X-Forwarded-Method: {row.method}", f"X-Forwarded-Uri: {row.target}"]
            describing += [f"X-Forwarded-{line}" for line in row.hosts] or ["X-Forwarded-Host: "]
        else:
            route, method = route + row.target, row.method
        response = exchange(self.env.port, method, route, [*describing, *kept, f"X-Request-Id: {name}"])
        rule, word = self._logged(name, response.status)
        if response.status != 200:
            return self._outcome(response, rule, word)
        onward = [line for line in kept if not OURS.match(name_of(line)) and name_of(line).lower() != "cookie"]
        onward += [f"{key}: {value}" for key, value in response.headers if OURS.match(key) or key == "cookie"]
        return self._outcome(
            exchange(self.env.upstream.port, row.method, row.target, [*row.hosts, *onward]), rule, word
        )

    def _lines(self, row: Row) -> list[str]:
        kinds = ((row.ended, self._ended), (row.several, self._several), (row.half, self._half))
        cookie = next((cookie for applies, cookie in kinds if applies), self._member)
        return [*row.lines, *([f"Cookie: theirs=kept; {cookie}"] if row.member else ["Cookie: theirs=kept"])]

    def _logged(self, name: str, status: int) -> tuple[str, str]:
        """Return rule and outcome from the sidecar's access log.

        Requests that the server itself rejects (400, 431, 505) are not logged. The line of a later request shows that
        they will not be.
        """
        awaited = name
        if status in (0, 400, 431, 505):
            awaited = new_id()
            exchange(self.env.port, "GET", "/akoya/jwks.json", [f"Host: {HOST}", f"X-Request-Id: {awaited}"])
        until(lambda: awaited in self._read_log(), "the request is logged")  # The line is written after the response.
        return self._log_records.get(name, ("-", "-"))

    def _read_log(self) -> dict[str, tuple[str, str]]:
        """Read what was added to the sidecar's log, and return rule and outcome of all requests by their IDs."""
        with self.env.gateway.log.open("rb") as log:
            log.seek(self._log_position)
            added = log.read().rpartition(b"\n")[0]
        self._log_position += len(added) + 1 if added else 0
        for line in added.splitlines():
            if b'"event":"request"' in line:
                record = json.loads(line)
                self._log_records[record["request_id"]] = (record["rule"], record["outcome"])
        return self._log_records

    def _outcome(self, response: Response, rule: str, word: str) -> Outcome:
        body = response.body if isinstance(response.body, dict) else {}
        location = next((value for key, value in response.headers if key == "location"), None)
        if "headers" not in body:
            return Outcome(response.status, rule, word, location)
        headers = [(key, value) for key, value in body["headers"]]
        host = next((value for key, value in headers if key == "host"), "")
        injected = {key: timeless(key, value) for key, value in headers if key.startswith(("akoya", "signature"))}
        assert len(injected) == len([1 for key, _ in headers if key.startswith(("akoya", "signature"))]), "one of each"
        assert [value for key, value in headers if key == "cookie"] == ["theirs=kept"]
        verdict = body.get("signature")
        return Outcome(response.status, rule, word, location, (body["path"], body["query"], host), injected, verdict)


@dataclass(frozen=True)
class Response:
    status: int
    headers: list[tuple[str, str]]
    body: Any


def exchange(port: int, method: str, target: str, lines: list[str]) -> Response:
    """Send exactly these bytes and return the response. Status 0: the connection was closed without one."""
    head = "\r\n".join([f"{method} {target} HTTP/1.1", *lines, "", ""])
    received = b""
    with socket.create_connection(("127.0.0.1", port), 60) as connection:
        connection.sendall(head.encode("latin-1"))
        try:
            while not whole(received) and (chunk := connection.recv(65536)):
                received += chunk
        except ConnectionResetError:
            pass
    start, _, body = received.partition(b"\r\n\r\n")
    first, *rest = start.decode("latin-1").split("\r\n")
    headers = [(name.lower(), value.strip()) for name, _, value in (line.partition(":") for line in rest)]
    if ("transfer-encoding", "chunked") in headers:
        body = unchunked(body)
    try:
        content = json.loads(body)
    except ValueError:
        content = body
    return Response(int(first.split(" ")[1]) if first.startswith("HTTP/") else 0, headers, content)


def whole(received: bytes) -> bool:
    """Return True if the response is complete.

    The connection stays open, because a request with `Connection: close` would not take the fast path.
    """
    head, end, body = received.partition(b"\r\n\r\n")
    length = re.search(rb"(?i)\r\ncontent-length: *(\d+)", head)
    if not end or length is None:
        return bool(end) and b"chunked" in head.lower() and body.endswith(b"0\r\n\r\n")
    return len(body) >= int(length[1])


def timeless(name: str, value: str) -> str:
    if name in ("signature", "akoya-last-access"):
        return name
    return re.sub(r';(created|expires|nonce)=("[^"]*"|\d+)', "", value) if name == "signature-input" else value


def name_of(line: str) -> str:
    return line.partition(":")[0]


def new_id() -> str:
    return f"d-{uuid.uuid4().hex}"


__all__ = ["HOST", "Entrypoints", "Outcome"]
