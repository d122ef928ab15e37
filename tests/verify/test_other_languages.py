"""Verifiers in Node.js, Go and Java, where installed: all vectors, and requests signed by the gateway over sockets."""

from __future__ import annotations

import contextlib
import json
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import akoya_verify as v
from akoya_gateway.signing import jwks
from tests.support.client_signatures import PASSED, REFUSED, Fields, left_of, random_signatures
from tests.support.signing import FULL, KEYS, signing
from tests.verify.languages import (
    ROOT,
    VERIFIERS,
    app_server,
    change_owner,
    fetch,
    go,
    java,
    key_server,
    need,
    node,
    nothing,
    npm_install,
    run,
    with_another_key,
)
from tests.verify.mutations import every_byte_changed

__all__ = ["go", "java", "node"]

VECTORS = ROOT / "tests" / "vectors" / "messages.json"
INTEROP = Path(__file__).parent / "interop"


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
def test_every_language_accepts_signed_requests_and_none_with_one_byte_changed(
    language: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    """They accept the gateway's signature beside whatever it leaves of a client's signatures."""
    built: Path = request.getfixturevalue(language)
    vectors = json.loads(VECTORS.read_text("utf-8"))
    # The cheapest algorithm: which bytes are signed does not depend on it.
    whole = next(case for case in vectors["cases"] if case["name"] == "hmac-sha256: all headers")
    sent = [*((name, fields) for name, fields, _ in PASSED), *REFUSED, *random_signatures(300)]
    left = [(name, kept) for name, fields in sent if (kept := left_of(fields))]
    cases = [whole, *(beside(whole, f"{at}: {name}", fields) for at, (name, fields) in enumerate(left))]
    attacks = list(every_byte_changed(whole))
    changed = tmp_path / "changed.json"
    changed.write_text(json.dumps({**vectors, "cases": cases, "attacks": attacks}), "utf-8")
    done = run_vectors(language, built, changed)
    assert done.returncode == 0, [line for line in done.stdout.splitlines() if "not ok" in line or "FAIL" in line][:20]
    assert len(attacks) > 600
    assert len(cases) > 100
    expected = {
        "node": f"pass {len(attacks) + len(cases)}",
        "go": "ok",
        "java": f"{len(cases)} cases, {len(attacks)} attacks, 0 failures",
    }
    assert expected[language] in done.stdout


def beside(case: dict[str, Any], name: str, left: Fields) -> dict[str, Any]:
    """Return the vector of a signed request with more header lines."""
    request = case["request"]
    lines = [[name.decode(), value.decode("ascii")] for name, value in left]
    return {**case, "name": name, "request": {**request, "headers": [*lines, *request["headers"]]}}


def with_strangers(document: bytes) -> bytes:
    """A key set that begins with keys unusable for every verifier here: they are skipped (RFC 7517 section 5)."""
    strangers = [
        {"kty": "RSA", "kid": "rsa", "n": "AQAB", "e": "AQAB"},
        {"kty": "EC", "crv": "P-384", "kid": "p384", "x": "AA", "y": "AA"},
        {"kty": "AKP", "kid": "later"},
    ]
    return json.dumps({"keys": [*strangers, *json.loads(document)["keys"]]}).encode()


def app_command(language: str, built: Path) -> tuple[list[str], Path]:
    """Return the command and the working directory of the example app of a language."""
    return {
        "node": (["node", "server.mjs"], built),
        "go": ([str(built)], built.parent),
        "java": (["java", "-cp", str(built), "Server"], built),
    }[language]


def add_alias(headers: list[tuple[str, str]]) -> None:
    headers.append(("Akoya_Owner", "evil"))


def repeat_owner(headers: list[tuple[str, str]]) -> None:
    headers.append(("akoya-owner", "evil"))


def drop_signature(headers: list[tuple[str, str]]) -> None:
    headers[:] = [line for line in headers if line[0] != "signature"]


@pytest.mark.parametrize("language", ["node", "go", "java"])
@pytest.mark.parametrize("algorithm", sorted(KEYS))
def test_app_in_another_language_verifies_over_a_socket(
    language: str, algorithm: str, request: pytest.FixtureRequest
) -> None:
    built: Path = request.getfixturevalue(language)
    command, cwd = app_command(language, built)
    secret = KEYS[algorithm].get("secret")
    with key_server(with_strangers(jwks(signing(algorithm)))) as url:
        env = {"AKOYA_SECRET": secret} if secret else {"AKOYA_JWKS": url}
        with app_server(command, cwd, env) as port:
            status, body = fetch(port, algorithm, nothing)
            assert status == 200, body
            assert FULL.owner in body
            assert "mikomo" in body
            for tamper in (change_owner, add_alias, repeat_owner, drop_signature):
                assert fetch(port, algorithm, tamper)[0] == 401, tamper.__name__


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
            assert {status for status, _ in pool.map(lambda _: fetch(port, new, change_owner), range(8))} == {401}

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
            assert fetch(port, old, nothing)[0] == 200, language
        published = new
        for port in ports.values():
            forge(port)
        assert fetches == dict.fromkeys(ports, 1)

        time.sleep(11.1)  # The Java verifier compares whole seconds.
        for language, port in ports.items():
            assert fetch(port, new, nothing)[0] == 200, language
            assert fetch(port, old, nothing)[0] == 401, language
            forge(port)
        assert fetches == dict.fromkeys(ports, 2)


def test_signatures_of_two_npm_libraries_verify(tmp_path: Path) -> None:
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
        verified = v.verify(one["method"], one["authority"], one["path"], one["query"], lines, keys, now)
        assert (verified.owner, verified.connector, verified.nonce) == ("o1", "mikomo", "n1")
        with pytest.raises(v.NotVerified):
            v.verify(one["method"], one["authority"], one["path"], one["query"] + "&z", lines, keys, now)
