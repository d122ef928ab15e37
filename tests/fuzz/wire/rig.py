"""The emulator, the apps, and one gateway per entry point, all with one store."""

from __future__ import annotations

import contextlib
import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Self

from tests.fuzz.wire.invariants import RULES, Book
from tests.fuzz.wire.scripts import Person
from tests.fuzz.wire.upstream import Apps, Seen
from tests.support.environment import GatewayEnv
from tests.support.hypercorn_server import Hypercorn
from tests.support.logs import complete_lines
from tests.support.ports import free_port
from tests.support.processes import AnyServerProcess, GatewayProcess

ENTRYPOINTS = ("lane", "general", "uvicorn", *(["hypercorn"] if find_spec("hypercorn") else []))
OURS = ("lane", "general")
"""Entry points that run on the gateway's own server."""


class _Upstream:
    """Adapts the apps to the upstream interface of `GatewayEnv`."""

    def __init__(self, apps: Apps) -> None:
        self._apps = apps
        self.url = apps.url("lane")

    def __enter__(self) -> Self:
        self._apps.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        self._apps.__exit__()


class Rig:
    """Runs the apps and gateways and collects violations in `findings`. `book` is set once the users have signed in."""

    def __init__(self, folder: Path, entrypoints: tuple[str, ...] = ENTRYPOINTS) -> None:
        self.entrypoints = entrypoints
        self.findings: list[str] = []
        self.requests = dict.fromkeys(entrypoints, 0)
        self.book: Book | None = None
        self.apps = Apps(entrypoints, self._on_request, self._on_malformed)
        self._folder = folder
        self._stack = contextlib.ExitStack()
        self._reported: list[str] = []
        changes = {
            "access": RULES,
            "admin": None,
            "redirects": {"after_connect": "/", "allow": ["/", "/*"]},
            "logging": {"format": "json", "level": "info", "access": False},
            "upstreams": self._others("lane"),
        }
        settings = {"pool": 20, "timeout": {"connect": "2s", "read": "3s"}}
        self.env = GatewayEnv(
            folder, algorithm="hmac-sha256", upstream=_Upstream(self.apps), changes=changes, upstream_settings=settings
        )
        self.processes: dict[str, GatewayProcess] = {}

    def port(self, entrypoint: str) -> int:
        return self.processes[entrypoint].port

    def __enter__(self) -> Self:
        self._stack.enter_context(self.env)
        assert isinstance(self.env.gateway, GatewayProcess)
        self.processes["lane"] = self.env.gateway
        for entrypoint in self.entrypoints[1:]:
            self.processes[entrypoint] = self._stack.enter_context(self._gateway(entrypoint))
        self.book = self._sign_in()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def errors(self) -> list[str]:
        """Return new lines in the logs of the gateway's own server that indicate a bug.

        Other servers are not checked: their WebSocket protocols log a traceback for bytes sent before the handshake is
        answered.
        """
        found = [
            f"{entrypoint}: log: {line[:3000]}"
            for entrypoint in OURS
            for line in complete_lines(self.processes[entrypoint].log).splitlines()
            if any(mark in line for mark in ("Traceback", '"level":"error"', '"level":"critical"', "Exception"))
        ]
        fresh = [line for line in found if line not in self._reported]
        self._reported += fresh
        return fresh

    def _others(self, entrypoint: str) -> dict[str, Any]:
        return {
            "other": {"url": self.apps.url(entrypoint, "other"), "pool": 5, "timeout": {"connect": "2s", "read": "3s"}}
        }

    def _gateway(self, entrypoint: str) -> GatewayProcess:
        folder = self._folder / entrypoint
        folder.mkdir()
        config = self.env.config()
        config |= {"listen": f"127.0.0.1:{free_port()}", "upstreams": self._others(entrypoint)}
        config["upstream"] = {**config["upstream"], "url": self.apps.url(entrypoint)}
        environ = self.env.environ
        if entrypoint == "general":
            return GatewayProcess(folder, config, environ, "--no-fast-lane")
        return (Hypercorn if entrypoint == "hypercorn" else AnyServerProcess)(folder, config, environ)

    def _sign_in(self) -> Book:
        people, secrets, names = [], {}, []
        for name, user, connectors in (("A", "mikomo_1", ["mikomo"]), ("B", "mikomo_2", ["mikomo", "other"])):
            with self.env.browser() as browser:
                for connector in connectors:
                    assert browser.connect(connector, user).status_code == 302
                jar = {key: value for key, value in browser.http.cookies.items() if not key.endswith("browser")}
                [(key, value)] = jar.items()
                names += list(browser.http.cookies)
                people.append(Person(name, f"{key}={value}".encode(), value.encode()))
                for path in ("/any/a", *(f"/bank/{connector}/a" for connector in connectors)):
                    echo = browser.http.get(path)
                    assert echo.status_code == 200, echo.text
                    for line in echo.content.split(b"\r\n"):
                        field, _, content = line.partition(b": ")
                        if field in (b"akoya-id-token", b"akoya-owner"):
                            secrets[content] = name
        return Book(tuple(people), tuple({name.encode() for name in names}), secrets)

    def _on_request(self, seen: Seen) -> None:
        self.requests[seen.entrypoint] += 1
        if self.book is not None:
            for wrong in self.book.of_request(seen):
                self.findings.append(
                    json.dumps(
                        {
                            "entrypoint": seen.entrypoint,
                            "wrong": wrong,
                            "upstream got": seen.wire[:3000].decode("latin-1"),
                        }
                    )
                )

    def _on_malformed(self, entrypoint: str, wrong: str, wire: bytes) -> None:
        self.findings.append(
            json.dumps(
                {
                    "entrypoint": entrypoint,
                    "wrong": f"malformed: {wrong}",
                    "upstream got": wire[:3000].decode("latin-1"),
                }
            )
        )
