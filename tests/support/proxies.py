"""Real proxies, each started with the file in deploy/ that operators use.

Only addresses and paths are replaced, by exact text. The test fails if the file does not contain one of them.
"""

from __future__ import annotations

import shutil
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from tests.support.processes import wait_for_port

DEPLOY = Path(__file__).parents[2] / "deploy"


@dataclass(frozen=True)
class Addresses:
    """Ports on 127.0.0.1."""

    public: int
    gateway: int
    app: int
    changes: Mapping[str, str] = field(default_factory=dict)
    """Further replacements in the proxy's main file, by exact text."""
    certificate: tuple[Path, Path] = (Path(), Path())
    """Files of the certificate and its key, for the proxies that end TLS."""


def substituted(source: Path, changes: dict[str, str]) -> str:
    text = source.read_text()
    for old, new in changes.items():
        assert old in text, f"{source} does not contain {old!r}: update the replacements"
        text = text.replace(old, new)
    return text


def nginx(folder: Path, at: Addresses) -> list[str]:
    site = substituted(
        DEPLOY / "nginx" / "akoya-gateway.conf",
        {
            "listen 8080;": f"listen 127.0.0.1:{at.public};",
            "127.0.0.1:9000": f"127.0.0.1:{at.gateway}",
            "127.0.0.1:3000": f"127.0.0.1:{at.app}",
            "/etc/nginx/akoya-client-headers.conf": str(DEPLOY / "nginx" / "akoya-client-headers.conf"),
            **at.changes,
        },
    )
    return nginx_command(folder, site)


def nginx_command(folder: Path, site: str) -> list[str]:
    """Write nginx's files for one site, and return the command that runs it."""
    (folder / "akoya-gateway.conf").write_text(site)
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    scratch = "\n".join(f"  {kind}_temp_path {folder}/{kind};" for kind in kinds)
    (folder / "nginx.conf").write_text(
        f"daemon off; master_process off; pid {folder}/nginx.pid; error_log stderr;\n"
        "events { worker_connections 256; }\n"
        f"http {{\n{scratch}\n  access_log off;\n  include {folder}/akoya-gateway.conf;\n}}\n"
    )
    return [program("nginx"), "-p", str(folder), "-c", str(folder / "nginx.conf"), "-e", "stderr"]


def envoy(folder: Path, at: Addresses) -> list[str]:
    text = substituted(
        DEPLOY / "envoy" / "envoy.yaml",
        {
            "address: 0.0.0.0, port_value: 8080": f"address: 127.0.0.1, port_value: {at.public}",
            "127.0.0.1:9000": f"127.0.0.1:{at.gateway}",
            "address: 127.0.0.1, port_value: 9000": f"address: 127.0.0.1, port_value: {at.gateway}",
            "address: 127.0.0.1, port_value: 3000": f"address: 127.0.0.1, port_value: {at.app}",
            **at.changes,
        },
    )
    path = folder / "envoy.yaml"
    path.write_text(text)
    return [program("envoy"), "-c", str(path), "--disable-hot-restart", "--concurrency", "1", "--log-level", "warning"]


def haproxy(folder: Path, at: Addresses) -> list[str]:
    text = substituted(
        DEPLOY / "haproxy" / "haproxy.cfg",
        {
            "/etc/haproxy/akoya.lua": str(DEPLOY / "haproxy" / "akoya.lua"),
            "bind :8080": f"bind 127.0.0.1:{at.public}",
            "127.0.0.1:9000": f"127.0.0.1:{at.gateway}",
            "127.0.0.1:3000": f"127.0.0.1:{at.app}",
            **at.changes,
        },
    )
    path = folder / "haproxy.cfg"
    path.write_text(text)
    return [program("haproxy"), "-db", "-f", str(path)]


def caddy(folder: Path, at: Addresses) -> list[str]:
    text = substituted(
        DEPLOY / "caddy" / "Caddyfile",
        {
            "import client-headers.caddy": f"import {DEPLOY / 'caddy' / 'client-headers.caddy'}",
            "\n:8080 {": f"\nhttp://:{at.public} {{\n\tbind 127.0.0.1",
            "127.0.0.1:9000": f"127.0.0.1:{at.gateway}",
            "127.0.0.1:3000": f"127.0.0.1:{at.app}",
            **at.changes,
        },
    )
    return caddy_command(folder, text)


def caddy_command(folder: Path, text: str) -> list[str]:
    """Write the Caddyfile, and return the command that runs it."""
    path = folder / "Caddyfile"
    path.write_text("{\n\tadmin off\n\tauto_https off\n}\n" + text)
    return [program("caddy"), "run", "--config", str(path), "--adapter", "caddyfile"]


def caddy_tls(folder: Path, at: Addresses) -> list[str]:
    certificate, key = at.certificate
    text = substituted(
        DEPLOY / "tls" / "Caddyfile",
        {
            "import client-headers.caddy": f"import {DEPLOY / 'caddy' / 'client-headers.caddy'}",
            "app.example.com {": f"https://127.0.0.1:{at.public} {{\n\tbind 127.0.0.1\n\ttls {certificate} {key}",
            "127.0.0.1:8080": f"127.0.0.1:{at.gateway}",
        },
    )
    return caddy_command(folder, text)


def nginx_tls(folder: Path, at: Addresses) -> list[str]:
    certificate, key = at.certificate
    site = substituted(
        DEPLOY / "tls" / "nginx.conf",
        {
            "listen 443 ssl;": f"listen 127.0.0.1:{at.public} ssl;",
            "/etc/ssl/certs/app.example.com.pem": str(certificate),
            "/etc/ssl/private/app.example.com.key": str(key),
            "http://127.0.0.1:8080": f"http://127.0.0.1:{at.gateway}",
            "/etc/nginx/akoya-client-headers.conf": str(DEPLOY / "nginx" / "akoya-client-headers.conf"),
        },
    )
    return nginx_command(folder, site)


def traefik(folder: Path, at: Addresses) -> list[str]:
    dynamic = substituted(
        DEPLOY / "traefik" / "dynamic.yaml",
        {"127.0.0.1:9000": f"127.0.0.1:{at.gateway}", "127.0.0.1:3000": f"127.0.0.1:{at.app}"},
    )
    (folder / "dynamic.yaml").write_text(dynamic)
    static = substituted(
        DEPLOY / "traefik" / "traefik.yaml",
        {'":8080"': f'"127.0.0.1:{at.public}"', "/etc/traefik/dynamic.yaml": str(folder / "dynamic.yaml")},
    )
    path = folder / "traefik.yaml"
    path.write_text(static)
    return [program("traefik"), f"--configfile={path}"]


PROXIES: dict[str, Callable[[Path, Addresses], list[str]]] = {
    "nginx": nginx,
    "envoy": envoy,
    "haproxy": haproxy,
    "caddy": caddy,
    "traefik": traefik,
}


TLS_PROXIES: dict[str, Callable[[Path, Addresses], list[str]]] = {"nginx": nginx_tls, "caddy": caddy_tls}
"""Proxies that end TLS in front of the sidecar."""


def program(name: str) -> str:
    beside = Path(__import__("sys").executable).parent
    found = shutil.which(name, path=f"{beside}:/usr/sbin:/usr/bin:/usr/local/bin")
    if found is None:
        raise ProxyMissing(f"{name} is not installed (scripts/install test)")
    return found


class ProxyMissing(Exception):
    """Raised if the proxy is not installed; the test is skipped with this message."""


class ProxyProcess:
    def __init__(self, name: str, folder: Path, at: Addresses, *, tls: bool = False) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.name = name
        self.log = folder / "proxy.log"
        self._port = at.public
        self._command = (TLS_PROXIES if tls else PROXIES)[name](folder, at)
        self._tls = tls
        self._home = folder
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> ProxyProcess:
        with self.log.open("ab") as out:
            self._process = subprocess.Popen(
                self._command, stdout=out, stderr=subprocess.STDOUT, cwd=self._home,
                env={"HOME": str(self._home), "PATH": "/usr/bin:/bin"},
            )  # fmt: skip
        wait_for_port(self._port, self._process, self.log)
        if not self._tls:
            self._wait_for_routes()
        return self

    def _wait_for_routes(self) -> None:
        """Wait until Traefik has loaded its routes: it listens earlier and returns 404 until then."""
        deadline = time.monotonic() + 60
        while httpx.get(f"http://127.0.0.1:{self._port}/akoya/", trust_env=False, timeout=60).status_code == 404:
            assert time.monotonic() < deadline, self.log.read_text(errors="replace")
            time.sleep(0.05)

    def stop(self) -> None:
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(60)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait(60)
