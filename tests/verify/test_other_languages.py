"""Verifiers in Node.js, Go and Java, where installed: all vectors, and requests signed by the gateway over sockets."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519

from akoya_gateway import verify as v
from akoya_gateway.config.model import Signing, SigningKey
from akoya_gateway.secret import Secret
from akoya_gateway.signing import jwks, signer
from tests.signing.conftest import FULL, KEYS, signing
from tests.stream_ending import ending, served
from tests.verify.mutations import every_byte_changed

ROOT = Path(__file__).parent.parent.parent
VERIFIERS = ROOT / "deploy" / "verifiers"
VECTORS = ROOT / "tests" / "vectors" / "messages.json"
INTEROP = Path(__file__).parent / "interop"


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


def test_node_passes_the_vectors(node: Path) -> None:
    done = run("node", "--test", "vectors.test.mjs", cwd=node, env={"AKOYA_VECTORS": str(VECTORS)})
    assert done.returncode == 0, done.stdout[-3000:]
    wanted = json.loads(VECTORS.read_text("utf-8"))
    assert f"pass {len(wanted['cases']) + len(wanted['attacks'])}" in done.stdout


def test_node_refuses_a_rewritten_url(node: Path) -> None:
    done = run("node", "--test", "rewritten.test.mjs", cwd=node)
    assert done.returncode == 0, done.stdout[-3000:]
    assert "pass 3" in done.stdout


def test_go_passes_the_vectors(go: Path) -> None:
    done = run(need("go"), "test", "-count=1", "-v", "./...", cwd=VERIFIERS / "go", env={"AKOYA_VECTORS": str(VECTORS)})
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]
    wanted = json.loads(VECTORS.read_text("utf-8"))
    assert done.stdout.count("    --- PASS") == len(wanted["cases"]) + len(wanted["attacks"])
    assert "--- PASS: TestMiddlewareRefusesRewrittenURL" in done.stdout


def test_java_passes_the_vectors(java: Path) -> None:
    done = run(need("java"), "-cp", str(java), "Vectors", str(VECTORS), cwd=java)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "0 failures" in done.stdout


def run_vectors(language: str, built: Path, vectors: Path) -> subprocess.CompletedProcess[str]:
    """Run the vectors of a file through the verifier of a language."""
    command, cwd = {
        "node": (["node", "--test", "vectors.test.mjs"], built),
        "go": ([need("go") if language == "go" else "", "test", "-count=1", "-v", "./..."], VERIFIERS / "go"),
        "java": (["java", "-cp", str(built), "Vectors", str(vectors)], built),
    }[language]
    return run(*command, cwd=cwd, env={"AKOYA_VECTORS": str(vectors)})


@pytest.mark.parametrize("language", ["node", "go", "java"])
def test_shared_secret_is_the_text_without_the_white_space_around_it(
    language: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    """A file may end in a line break. A byte order mark at its start is refused, as it is by the gateway."""
    built: Path = request.getfixturevalue(language)
    vectors = json.loads(VECTORS.read_text("utf-8"))
    whole = next(case for case in vectors["cases"] if case["name"] == "hmac-sha256: all headers")
    file = tmp_path / "vectors.json"
    for written, accepted in ((" {}\r\n", True), ("\ufeff{}", False)):
        keys = [{**key, "secret": written.format(key["secret"])} if "secret" in key else key for key in vectors["keys"]]
        file.write_text(
            json.dumps({**vectors, "keys": keys, "cases": [whole], "attacks": vectors["attacks"][:1]}), "utf-8"
        )
        done = run_vectors(language, built, file)
        assert (done.returncode == 0) is accepted, done.stdout[-2000:] + done.stderr[-2000:]
        assert ("byte order mark" in done.stdout + done.stderr) is not accepted


@pytest.mark.parametrize("language", ["node", "go", "java"])
def test_no_language_accepts_a_request_of_which_one_byte_was_changed(
    language: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    built: Path = request.getfixturevalue(language)
    vectors = json.loads(VECTORS.read_text("utf-8"))
    # The cheapest algorithm: which bytes are signed does not depend on it.
    whole = next(case for case in vectors["cases"] if case["name"] == "hmac-sha256: all headers")
    attacks = list(every_byte_changed(whole))
    changed = tmp_path / "changed.json"
    changed.write_text(json.dumps({**vectors, "cases": [whole], "attacks": attacks}), "utf-8")
    done = run_vectors(language, built, changed)
    assert done.returncode == 0, [line for line in done.stdout.splitlines() if "not ok" in line or "FAIL" in line][:20]
    assert len(attacks) > 600
    told = {"node": f"pass {len(attacks) + 1}", "go": "ok", "java": f"1 cases, {len(attacks)} attacks, 0 failures"}
    assert told[language] in done.stdout


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


def with_strangers(document: bytes) -> bytes:
    """A key set that begins with keys unusable for every verifier here: they are skipped (RFC 7517 section 5)."""
    strangers = [
        {"kty": "RSA", "kid": "rsa", "n": "AQAB", "e": "AQAB"},
        {"kty": "EC", "crv": "P-384", "kid": "p384", "x": "AA", "y": "AA"},
        {"kty": "AKP", "kid": "later"},
    ]
    return json.dumps({"keys": [*strangers, *json.loads(document)["keys"]]}).encode()


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


def app_command(language: str, built: Path) -> tuple[list[str], Path]:
    """Return the command and the working directory of the example app of a language."""
    return {
        "node": (["node", "server.mjs"], built),
        "go": ([str(built)], built.parent),
        "java": (["java", "-cp", str(built), "Server"], built),
    }[language]


def ask(port: int, signed_by: str | Signing, tamper: Callable[[list[tuple[str, str]]], None]) -> tuple[int, str]:
    """Send a request as the gateway would to an upstream on this port, changed by `tamper`. Return the response.

    `signed_by` is the configuration, or an algorithm to sign with the key of the vectors.
    """
    host = f"127.0.0.1:{port}"
    configuration = signed_by if isinstance(signed_by, Signing) else signing(signed_by)
    prepared = signer(configuration, "https://a", "http://b").prepare(FULL)
    made = prepared.headers(b"GET", host.encode(), b"/a%20b", b"x=%2F&y", time.time())
    headers = [("Host", host), *((name.decode(), value.decode()) for name, value in made)]
    tamper(headers)
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    try:
        connection.putrequest("GET", "/a%20b?x=%2F&y", skip_host=True, skip_accept_encoding=True)
        for name, value in headers:
            connection.putheader(name, value)
        connection.endheaders()
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()


def change_owner(headers: list[tuple[str, str]]) -> None:
    at = next(i for i, (name, _) in enumerate(headers) if name == "akoya-owner")
    headers[at] = ("akoya-owner", "evil")


def add_alias(headers: list[tuple[str, str]]) -> None:
    headers.append(("Akoya_Owner", "evil"))


def repeat_owner(headers: list[tuple[str, str]]) -> None:
    headers.append(("akoya-owner", "evil"))


def drop_signature(headers: list[tuple[str, str]]) -> None:
    headers[:] = [line for line in headers if line[0] != "signature"]


def nothing(headers: list[tuple[str, str]]) -> None: ...


@pytest.mark.parametrize("language", ["node", "go", "java"])
@pytest.mark.parametrize("algorithm", sorted(KEYS))
def test_an_app_in_another_language_verifies_over_a_socket(
    language: str, algorithm: str, request: pytest.FixtureRequest
) -> None:
    built: Path = request.getfixturevalue(language)
    command, cwd = app_command(language, built)
    secret = KEYS[algorithm].get("secret")
    with key_server(with_strangers(jwks(signing(algorithm)))) as url:
        env = {"AKOYA_SECRET": secret} if secret else {"AKOYA_JWKS": url}
        with app_server(command, cwd, env) as port:
            status, body = ask(port, algorithm, nothing)
            assert status == 200, body
            assert FULL.owner in body
            assert "mikomo" in body
            for tamper in (change_owner, add_alias, repeat_owner, drop_signature):
                assert ask(port, algorithm, tamper)[0] == 401, tamper.__name__


def with_another_key(configuration: Signing) -> Signing:
    """Return the configuration with a new Ed25519 key under the same ID."""
    pem = ed25519.Ed25519PrivateKey.generate().private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return replace(configuration, keys=(SigningKey(configuration.keys[0].id, Secret(pem.decode())),))


def test_key_replaced_under_the_same_id_is_fetched_and_forgeries_cause_no_other_fetch(
    request: pytest.FixtureRequest,
) -> None:
    """All installed languages share the wait for the ten seconds between two fetches."""
    old = signing("ed25519")
    new = with_another_key(old)
    published = old
    fetches: dict[str, int] = {}

    def fetched_by(language: str) -> bytes:
        fetches[language] = fetches.get(language, 0) + 1
        return with_strangers(jwks(published))

    def forge(port: int) -> None:
        with ThreadPoolExecutor(8) as pool:
            assert {status for status, _ in pool.map(lambda _: ask(port, new, change_owner), range(8))} == {401}

    with contextlib.ExitStack() as running:
        ports: dict[str, int] = {}
        for language in ("node", "go", "java"):
            try:
                command, cwd = app_command(language, request.getfixturevalue(language))
            except pytest.skip.Exception:
                continue
            url = running.enter_context(key_server(partial(fetched_by, language)))
            ports[language] = running.enter_context(app_server(command, cwd, {"AKOYA_JWKS": url}))
        if not ports:
            pytest.skip("no language is installed")

        for language, port in ports.items():
            assert ask(port, old, nothing)[0] == 200, language
        published = new
        for port in ports.values():
            forge(port)
        assert fetches == dict.fromkeys(ports, 1)

        time.sleep(11.1)  # The Java verifier compares whole seconds.
        for language, port in ports.items():
            assert ask(port, new, nothing)[0] == 200, language
            assert ask(port, old, nothing)[0] == 401, language
            forge(port)
        assert fetches == dict.fromkeys(ports, 2)


def test_we_accept_what_two_npm_libraries_sign(tmp_path: Path) -> None:
    folder = npm_install(INTEROP, tmp_path / "interop")
    now = int(time.time())
    env = {"AKOYA_NODE_MODULES": str(folder / "sign.mjs")}
    done = run("node", "sign.mjs", str(VECTORS), str(now), cwd=folder, env=env)
    assert done.returncode == 0, done.stderr
    requests = [json.loads(line) for line in done.stdout.splitlines()]
    assert {one["library"] for one in requests} == {"http-message-sig", "http-message-signatures"}
    assert {one["keyid"] for one in requests} == {key["kid"] for key in KEYS.values()}
    keys = v.keys_of(
        v.secret_key(key["kid"], key["secret"]) if "secret" in key else v.jwk_key(key["public_jwk"])
        for key in KEYS.values()
    )
    for one in requests:
        lines = [(name, value) for name, value in one["headers"]]
        said = v.verify(one["method"], one["authority"], one["path"], one["query"], lines, keys, now)
        assert (said.owner, said.connector, said.nonce) == ("o1", "mikomo", "n1")
        with pytest.raises(v.NotVerified):
            v.verify(one["method"], one["authority"], one["path"], one["query"] + "&z", lines, keys, now)
