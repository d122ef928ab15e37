"""The pytest fixture in a project of its own, where only the installed plugin is available."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

PROJECT = """
import httpx, pytest
from akoya_gateway.sandbox import SandboxSettings


@pytest.fixture
def akoya_sandbox_settings():
    return SandboxSettings(id_token_lifetime=900)


def test_plugin_fixture_connects_a_bank(akoya_sandbox):
    query = httpx.QueryParams(
        connector="mikomo", client_id=akoya_sandbox.client_id, response_type="code",
        redirect_uri="http://127.0.0.1:8080/akoya/callback", scope="openid offline_access", state="12345678",
    )
    location = akoya_sandbox.consent(f"{akoya_sandbox.url}/auth?{query}")
    answer = httpx.post(
        f"{akoya_sandbox.url}/token", auth=(akoya_sandbox.client_id, akoya_sandbox.client_secret),
        data={"grant_type": "authorization_code", "code": httpx.URL(location).params["code"],
              "redirect_uri": "http://127.0.0.1:8080/akoya/callback"},
    )
    assert answer.json()["expires_in"] == 900


def test_plugin_fixture_is_reset_for_each_test(akoya_sandbox):
    assert akoya_sandbox.events() == []
"""


def test_another_project_gets_the_fixture_from_the_entry_point(tmp_path: Path) -> None:
    (tmp_path / "test_mine.py").write_text(PROJECT)
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(tmp_path)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    assert "2 passed" in run.stdout


def test_plugin_does_not_import_the_server() -> None:
    script = (
        "import sys, akoya_gateway.sandbox.fixtures\n"
        "print([m for m in ('starlette', 'uvicorn', 'httpx', 'joserfc', 'cryptography', 'jinja2') if m in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    assert run.stdout.strip() == "[]"
