"""Runs the verifiers of the other languages as app servers."""

from __future__ import annotations

import contextlib
import http.client
import os
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519

from akoya_gateway.config.model import Signing, SigningKey
from akoya_gateway.secret import Secret
from akoya_gateway.signing import signer
from tests.support.shutdown import ending, served
from tests.support.signing import FULL, signing

ROOT = Path(__file__).parent.parent.parent
VERIFIERS = ROOT / "deploy" / "verifiers"


def need(tool: str) -> str:
    found = shutil.which(tool) or shutil.which(tool, path="/usr/local/go/bin")
    if found is None:
        pytest.skip(f"no {tool} is installed")
    return found


def run(*command: str, cwd: Path, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    everything = {**os.environ, **(env or {})}
    return subprocess.run(command, cwd=cwd, env=everything, capture_output=True, text=True, timeout=110, check=False)


def npm_install(source: Path, target: Path) -> Path:
    need("node")
    shutil.copytree(source, target, ignore=shutil.ignore_patterns("node_modules"))
    command = "ci" if (target / "package-lock.json").exists() else "install"
    installed = run(need("npm"), command, "--no-audit", "--no-fund", "--prefer-offline", cwd=target)
    if installed.returncode != 0:
        pytest.skip(f"npm cannot install: {installed.stderr[-300:]}")
    return target


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return npm_install(VERIFIERS / "node", tmp_path_factory.mktemp("node") / "verifier")


@pytest.fixture(scope="module")
def go(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = VERIFIERS / "go"
    downloaded = run(need("go"), "mod", "download", cwd=folder)
    if downloaded.returncode != 0:
        pytest.skip(f"go cannot download: {downloaded.stderr[-300:]}")
    binary = tmp_path_factory.mktemp("go") / "server"
    built = run(need("go"), "build", "-o", str(binary), "./server", cwd=folder)
    assert built.returncode == 0, built.stderr
    return binary


@pytest.fixture(scope="module")
def java(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("java")
    sources = [str(one) for one in sorted((VERIFIERS / "java").glob("*.java"))]
    built = run(need("javac"), "-Xlint:all", "-Werror", "-d", str(out), *sources, cwd=out)
    assert built.returncode == 0, built.stderr
    return out


@contextlib.contextmanager
def key_server(document: bytes | Callable[[], bytes]) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        timeout = 10  # This server handles one connection at a time, so that an idle client must not block it for ever.

        def do_GET(self) -> None:
            body = document if isinstance(document, bytes) else document()
            self.send_response(200)
            self.send_header("Content-Type", "application/jwk-set+json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None: ...

    with HTTPServer(("127.0.0.1", 0), Handler) as server, served(server, poll_interval=0.01):
        yield f"http://127.0.0.1:{server.server_address[1]}/akoya/jwks.json"


@contextlib.contextmanager
def app_server(command: list[str], cwd: Path, env: dict[str, str]) -> Iterator[int]:
    everything = {**os.environ, "PORT": "0", **env}
    process = subprocess.Popen(command, cwd=cwd, env=everything, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    with process.stdout, ending(process):
        line = process.stdout.readline()
        listening = re.search(r"listening on (\d+)", line)
        assert listening, line
        yield int(listening[1])


def fetch(port: int, signed_by: str | Signing, tamper: Callable[[list[tuple[str, str]]], None]) -> tuple[int, str]:
    """Send a request as the gateway would to an upstream on this port, changed by `tamper`. Return the response.

    `signed_by` is the configuration, or an algorithm to sign with the key of the vectors.
    """
    host = f"127.0.0.1:{port}"
    configuration = signed_by if isinstance(signed_by, Signing) else signing(signed_by)
    prepared = signer(configuration, "https://a", "http://b").prepare(FULL)
    made = prepared.headers(b"GET", host.encode(), b"/a%20b", b"x=%2F&y", time.time())
    headers = [("Host", host), *((name.decode(), value.decode()) for name, value in made)]
    tamper(headers)
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        connection.putrequest("GET", "/a%20b?x=%2F&y", skip_host=True, skip_accept_encoding=True)
        for name, value in headers:
            connection.putheader(name, value)
        connection.endheaders()
        response = connection.getresponse()
        return response.status, response.read().decode()
    finally:
        connection.close()


def change_owner(headers: list[tuple[str, str]]) -> None:
    at = next(i for i, (name, _) in enumerate(headers) if name == "akoya-owner")
    headers[at] = ("akoya-owner", "evil")


def nothing(headers: list[tuple[str, str]]) -> None: ...


def with_another_key(configuration: Signing) -> Signing:
    """Return the configuration with a new Ed25519 key under the same ID."""
    pem = ed25519.Ed25519PrivateKey.generate().private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return replace(configuration, keys=(SigningKey(configuration.keys[0].id, Secret(pem.decode())),))
