"""Runs the programs of the framework pages as they are printed, and the lines of the README."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from django.conf import settings
from django.test import Client, override_settings
from django.urls import path

from akoya_verify.testing import connected, django_client, starlette_client
from tests.frameworks import apps
from tests.support.ports import free_port

assert settings.configured, f"{apps.__name__} configures Django"

pytestmark = [
    pytest.mark.timeout(300),
    pytest.mark.filterwarnings("ignore:Using `httpx` with `starlette.testclient` is deprecated"),
]

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
OLDEST = dict(re.findall(r"(?m)^(\S+)==(\S+)$", (Path(__file__).parent / "oldest.txt").read_text()))
PAGES = ("starlette", "fastapi", "django", "flask")
WAIT = 280.0


def files_of(page: str) -> dict[str, str]:
    text = (DOCS / f"{page}.md").read_text("utf-8")
    return dict(re.findall(r"(?ms)^```python\n# (\S+)\n(.*?)^```$", text))


def run(folder: Path, *command: str, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        cwd=folder,
        env={**os.environ, **environ},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=WAIT,
        check=False,
    )


def test_example_tests_of_all_pages_pass(tmp_path: Path) -> None:
    """All pages run in one process, which is faster."""
    count = 0
    for page in PAGES:
        folder = tmp_path / page
        folder.mkdir()
        files = files_of(page)
        for name, text in files.items():
            (folder / name).write_text(text)
        tests = sum(text.count("def test_") for text in files.values())
        assert tests >= 4, page
        count += tests
        compile(files["asgi.py"], "asgi.py", "exec")
    done = run(tmp_path, sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider")
    assert done.returncode == 0, done.stdout
    assert f"{count} passed" in done.stdout


def test_runserver_does_not_start_inside_the_gateway(tmp_path: Path) -> None:
    for name, text in files_of("django").items():
        (tmp_path / name).write_text(text)
    settings = files_of("django")["settings.py"]
    (tmp_path / "settings.py").write_text(settings + '\nAKOYA = {"IN_PROCESS": True}\n')
    command = [sys.executable, "-m", "django", "runserver", "--noreload", str(free_port())]
    done = run(tmp_path, *command, DJANGO_SETTINGS_MODULE="settings")
    assert done.returncode == 1, done.stdout
    assert "akoya.E003" in done.stdout
    assert "runserver serves WSGI" in done.stdout


def test_page_names_the_oldest_releases_that_are_tested() -> None:
    rows = re.findall(
        r"(?m)^\| \[(\w+)\]\(\w+\.md\) \|.*\| (\S+) and the newest \|$", (DOCS / "frameworks.md").read_text()
    )
    lower = {name.lower(): version for name, version in OLDEST.items()}
    assert {name.lower(): version for name, version in rows} == {name: lower[name] for name in PAGES}


def test_readme_examples_work() -> None:
    text = (ROOT / "README.md").read_text("utf-8")
    blocks = re.findall(r"(?ms)^```python\n(.*?)^```$", text)
    [fastapi] = [block for block in blocks if "add_akoya(app" in block]
    [django] = [block for block in blocks if "AkoyaMiddleware" in block]
    for block in (fastapi, django):
        assert len([line for line in block.splitlines() if line and " import " not in line]) == 5
    names: dict[str, Any] = {"__name__": "readme", "call_akoya": lambda provider, token: f"{provider} {token}"}
    exec(fastapi, names)
    assert starlette_client(names["app"], connected()).get("/balances").json() == "mikomo test-id-token"
    assert starlette_client(names["app"], None).get("/balances").status_code == 401
    exec(django, names)
    paths = ModuleType("urls")
    vars(paths)["urlpatterns"] = [path("balances", names["balances"])]
    with override_settings(MIDDLEWARE=names["MIDDLEWARE"], AKOYA=names["AKOYA"], ROOT_URLCONF=paths):
        assert django_client(connected()).get("/balances").content == b"mikomo test-id-token"
        assert django_client(connected("other")).get("/balances").status_code == 401
        assert Client(headers={"Akoya-Owner": "mallory"}).get("/balances").status_code == 401
