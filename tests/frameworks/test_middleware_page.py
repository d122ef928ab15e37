"""Runs the programs of docs/middleware.md as they are printed: their servers, their tests, and a faulty configuration."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.responses import JSONResponse, PlainTextResponse
from starlette.routing import Route

from akoya_gateway import Gateway
from akoya_gateway.config import ConfigurationError, load_config
from akoya_gateway.sandbox.server import SandboxServer
from tests.support.environment import HMAC_SECRET, STORE_KEY
from tests.support.ports import free_port
from tests.support.prefork import ForkedProcess
from tests.support.processes import AS_INSTALLED, wait_for_port

pytestmark = pytest.mark.timeout(300)

PAGE = (Path(__file__).parents[2] / "docs" / "middleware.md").read_text()
FILES = {name: f"# {name}\n{text}" for name, text in re.findall(r"(?ms)^```(?:python|yaml)\n# (\S+)\n(.*?)^```$", PAGE)}
DJANGO = {
    "settings.py": """
SECRET_KEY = "for-tests"
ALLOWED_HOSTS = ["127.0.0.1"]
ROOT_URLCONF = "urls"
""",
    "urls.py": """
from django.http import JsonResponse
from django.urls import path

urlpatterns = [
    path("", lambda request: JsonResponse({"hello": "world"})),
    path("accounts", lambda request: JsonResponse({"bank": request.headers["Akoya-Connector"]})),
]
""",
}
WAIT = 280.0
"""Seconds. On a busy machine, a process of its own may take a minute to import everything."""


def environ(akoya: SandboxServer | None = None) -> dict[str, str]:
    return {
        **os.environ,
        "AKOYA_CLIENT_ID": akoya.client_id if akoya else "an-id",
        "AKOYA_CLIENT_SECRET": akoya.client_secret if akoya else "a-secret",
        "AKOYA_GATEWAY_KEY": STORE_KEY,
        "AKOYA_SIGNING_SECRET": HMAC_SECRET,
    }


def configuration(**changes: Any) -> str:
    return yaml.safe_dump({**yaml.safe_load(FILES["gateway.yaml"]), **changes}, sort_keys=False)


@dataclass
class Site:
    """A program of the page under uvicorn, with the emulator instead of Akoya's sandbox."""

    akoya: SandboxServer
    url: str
    root_path: str

    def connect(self, client: httpx.Client) -> str:
        """Connect a bank like a browser, and return the path at which the browser arrives."""
        begun = client.get(f"{self.root_path}/akoya/connect/mikomo")
        assert begun.status_code == 302, begun.text
        done = client.get(self.akoya.consent(begun.headers["location"]))
        assert done.status_code == 302, done.text
        return str(done.headers["location"])


PROGRAMS = {"starlette_app:app": "", "fastapi_app:app": "", "asgi:application": "", "mounted_app:app": "/bank"}


@pytest.fixture(scope="module")
def sites(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Site]]:
    with ExitStack() as stack:
        akoya = stack.enter_context(SandboxServer())
        started: dict[str, tuple[Site, ForkedProcess, Path]] = {}
        for program, root_path in PROGRAMS.items():
            folder = tmp_path_factory.mktemp("site")
            port = free_port()
            site = Site(akoya, f"http://127.0.0.1:{port}", root_path)
            for name, text in {**FILES, **DJANGO}.items():
                (folder / name).write_text(text)
            redirect_uri = f"{site.url}{root_path}/akoya/callback"
            akoya.register_redirect_uri(redirect_uri)
            text = configuration(
                public_url=site.url,
                root_path=root_path,
                environments={"sandbox": akoya.environment()},
                redirects={"after_connect": f"{root_path}/accounts", "allow": [f"{root_path}/accounts"]},
            ).replace("https://app.example.com/akoya/callback", redirect_uri)
            (folder / ("mounted.yaml" if root_path else "gateway.yaml")).write_text(text)
            arguments = uvicorn(program, port)[3:]
            env = {**environ(akoya), "PYTHONPATH": AS_INSTALLED}
            with (folder / "log").open("wb") as log:
                process = ForkedProcess("uvicorn", arguments, cwd=folder, env=env, output=log.fileno())
            stack.callback(process.wait, WAIT)
            stack.callback(process.send_signal, signal.SIGTERM)
            started[program] = site, process, folder / "log"
        for site, process, path in started.values():
            wait_for_port(int(site.url.rpartition(":")[2]), process, path)
        yield {program: site for program, (site, _, _) in started.items()}


def uvicorn(program: str, port: int) -> list[str]:
    options = ("--no-access-log", "--no-proxy-headers", "--log-level", "error")
    return [sys.executable, "-m", "uvicorn", program, "--port", str(port), *options]


@pytest.mark.parametrize("program", PROGRAMS)
def test_example_app_gets_the_connected_bank_and_no_forged_header(sites: dict[str, Site], program: str) -> None:
    site = sites[program]
    accounts = f"{site.root_path}/accounts"
    with httpx.Client(base_url=site.url, trust_env=False, timeout=WAIT) as client:
        made_up = client.get(accounts, headers={"akoya-connector": "mikomo", "accept": "application/json"})
        assert (made_up.status_code, made_up.json()["connect_url"]) == (
            401,
            f"{site.url}{site.root_path}/akoya/connect/mikomo?return_to={accounts}",
        )
        assert site.connect(client) == accounts
        assert client.get(accounts).json() == {"bank": "mikomo"}
        if site.root_path:
            assert client.get("/").text == "outside"
        else:
            assert client.get("/").json() == {"hello": "world"}


def test_example_tests_pass(tmp_path: Path) -> None:
    for name in ("gateway.yaml", "starlette_app.py", "test_app.py"):
        (tmp_path / name).write_text(FILES[name])
    done = run(tmp_path, sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_app.py")
    assert done.returncode == 0, done.stdout
    assert "3 passed" in done.stdout


def test_server_with_a_faulty_configuration_exits_and_names_the_fault(tmp_path: Path) -> None:
    (tmp_path / "fastapi_app.py").write_text(FILES["fastapi_app.py"])
    (tmp_path / "gateway.yaml").write_text(configuration(access=[{"path": "/", "requires": "any"}]))
    done = run(tmp_path, *uvicorn("fastapi_app:app", free_port()))
    assert done.returncode == 3, "uvicorn's code for an app that does not start"
    assert 'access[0].requires: unknown key "requires" (did you mean "require"?)' in done.stdout
    with pytest.raises(ConfigurationError, match="unknown key"):
        Gateway(PlainTextResponse("app"), tmp_path / "gateway.yaml")


def run(folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        cwd=folder,
        env=environ(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=WAIT,
        check=False,
    )


@pytest.mark.filterwarnings("ignore:Using `httpx` with `starlette.testclient` is deprecated")
def test_client_without_lifespan_opens_the_gateway_with_its_first_request(tmp_path: Path) -> None:
    """Each request has an event loop of its own."""
    from starlette.testclient import TestClient

    with SandboxServer() as akoya:
        akoya.register_redirect_uri("https://app.example.com/akoya/callback")
        path = tmp_path / "gateway.yaml"
        path.write_text(
            configuration(
                environments={"sandbox": akoya.environment()},
                sessions={"store": "memory://", "keys": [{"env": "AKOYA_GATEWAY_KEY"}]},
            )
        )
        app = Starlette(
            routes=[Route("/accounts", lambda request: JSONResponse({"bank": request.headers["akoya-connector"]}))],
            middleware=[Middleware(Gateway, config=load_config(path, environ(akoya)))],
        )
        for _ in range(2):
            client = TestClient(app, base_url="https://app.example.com", follow_redirects=False)
            assert Site(akoya, "", "").connect(client) == "/accounts"
            assert client.get("/accounts").json() == {"bank": "mikomo"}
        with client:
            assert client.get("/accounts").json() == {"bank": "mikomo"}
        assert client.get("/accounts").status_code == 503


async def test_requests_to_a_gateway_with_a_faulty_configuration_fail(tmp_path: Path) -> None:
    """Without lifespan, Starlette creates its middleware for the first request."""
    app = Starlette(middleware=[Middleware(Gateway, config=tmp_path / "missing.yaml")])
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="https://app.example.com") as client:
        for _ in range(2):
            with pytest.raises(ConfigurationError, match=r"there is no such file .* in Python with config="):
                await client.get("/")
