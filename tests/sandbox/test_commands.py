"""`akoya-gateway sandbox` as a process."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path

import pytest
import yaml

from akoya_gateway.sandbox import FaultKind, SandboxSettings
from akoya_gateway.sandbox.fault_injection import ENDPOINTS
from tests.support.sandbox_client import HTTP

COMMAND = [sys.executable, "-c", "from akoya_gateway.cli import main; main()"]
DOCS = Path(__file__).parents[2] / "docs" / "sandbox.md"


@contextmanager
def running(*options: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    process = subprocess.Popen(
        [*COMMAND, "sandbox", "--port", "0", *options], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stderr is not None
    try:
        text = ""
        while "Ctrl-C" not in text:
            line = process.stdout.readline()
            assert line, text + process.stderr.read()
            text += line
        yield process, text
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
        process.stderr.close()


@pytest.mark.parametrize("dialect", ["dex", "hydra"])
def test_emulator_prints_its_environment_and_stops_on_ctrl_c(dialect: str) -> None:
    with running("--dialect", dialect, "--control") as (process, text):
        pasted = yaml.safe_load(text.partition("For gateway.yaml:")[2].replace("Ctrl-C stops it.", ""))
        environment = pasted["environments"]["emulator"]
        base = environment["products_url"]
        discovery = HTTP.get(f"{base}/.well-known/openid-configuration").json()
        for name in ("issuer", "authorization_endpoint", "token_endpoint", "revocation_endpoint", "jwks_uri"):
            assert discovery[name] == environment[name]
        assert HTTP.get(environment["jwks_uri"]).json()["keys"]
        assert HTTP.get(f"{base}/_sandbox/counters").json() == {"counters": {}}
        process.send_signal(signal.SIGINT if dialect == "dex" else signal.SIGTERM)
        assert process.wait(60) == 0
        assert process.stderr is not None
        assert process.stderr.read() == ""


def test_client_that_disconnects_while_its_form_is_read_is_not_logged() -> None:
    with running("--control", "--fault", "status@token,status=418,times=1") as (process, text):
        found = re.search(r"at http://([\d.]+):(\d+)", text)
        assert found
        base = found[0].removeprefix("at ")
        for path, media in (
            ("/token", "application/x-www-form-urlencoded"), ("/revoke", "application/x-www-form-urlencoded"),
            ("/consent/x/login", "application/x-www-form-urlencoded"), ("/_sandbox/reset", "application/json"),
        ):  # fmt: skip
            for left in (b"", b"grant_type=refresh_tok"):
                with socket.create_connection((found[1], int(found[2]))) as client:
                    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: {media}\r\nContent-Length: 100\r\n\r\n"
                    client.sendall(head.encode() + left)
                    HTTP.get(f"{base}/keys")  # By now it is reading the form.
        assert HTTP.post(f"{base}/token").status_code == 418, "the aborted request did not use up the injected fault"
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
        assert process.stderr is not None
        assert process.stderr.read() == ""


def test_command_options_configure_the_emulator() -> None:
    options = ["--client-id", "mine", "--connector", "second=Second Bank", "--fault", "status@jwks,status=418,times=1"]
    with running(*options, "--redirect-uri", "http://127.0.0.1:1/cb", "--id-token-lifetime", "60") as (_, text):
        found = re.search(r"at (http://\S+)", text)
        assert found
        base = found[1]
        assert "mine" in text
        assert HTTP.get(f"{base}/keys").status_code == 418
        assert HTTP.get(f"{base}/_sandbox/counters").status_code == 404
        query = "connector=second&client_id=mine&redirect_uri=http://127.0.0.1:1/cb&response_type=code&scope=openid"
        response = HTTP.get(f"{base}/auth?{query}")
        assert response.status_code == 303
        assert "Second Bank" in HTTP.get(base + response.headers["location"]).text


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--fault", "boom"], "kind is 'boom'"),
        (["--connector", "=x"], "write ID or ID=NAME"),
        (["--base-url", "http://x/"], "leave out the trailing slash"),
        (["--dialect", "latin"], "latin"),
    ],
)
def test_wrong_usage_exits_with_2(options: list[str], words: str) -> None:
    run = subprocess.run([*COMMAND, "sandbox", *options], capture_output=True, text=True, timeout=60, check=False)
    assert run.returncode == 2
    assert words in run.stderr
    assert "Traceback" not in run.stderr


def test_given_secret_is_not_printed() -> None:
    with running("--client-secret", "tell~nobody~about~this") as (_, text):
        assert "tell~nobody" not in text


def test_port_in_use_exits_with_1() -> None:
    with running() as (_, text):
        found = re.search(r"at http://127\.0\.0\.1:(\d+)", text)
        assert found
        run = subprocess.run(
            [*COMMAND, "sandbox", "--port", found[1]], capture_output=True, text=True, timeout=60, check=False
        )
    assert run.returncode == 1
    assert "cannot listen" in run.stderr


def test_docs_name_every_setting_fault_and_endpoint() -> None:
    text = DOCS.read_text()
    names = [field.name for field in fields(SandboxSettings)] + [str(kind) for kind in FaultKind] + list(ENDPOINTS)
    assert [name for name in names if f"`{name}`" not in text] == []
