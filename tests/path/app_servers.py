"""App servers started the way operators start them, each as a process that runs `tests.path.target`."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Self

from tests.support.environment import HMAC_SECRET
from tests.support.ports import free_port
from tests.support.processes import wait_for_port

ROOT = Path(__file__).parents[2]
HERE = Path(__file__).parent
PYTHON = sys.executable
EXPRESS = ("express@5.1.0", "method-override@3.0.0")

Command = Callable[[int, str, Path], list[str]]


class ServerMissing(Exception):
    """The server is not installed. The test is skipped with this reason."""


def _module(*words: str) -> list[str]:
    return [PYTHON, "-m", *words]


def _uwsgi(port: int, app: str, folder: Path) -> list[str]:
    found = shutil.which("uwsgi", path=f"{Path(PYTHON).parent}:{os.environ['PATH']}")
    if found is None:
        raise ServerMissing("uwsgi is not installed: it builds from source (pip install uwsgi)")
    return [
        found,
        "--http-socket",
        f"127.0.0.1:{port}",
        "--module",
        app,
        "--need-app",
        "--master",
        "--die-on-term",
        "--buffer-size",
        "65535",
    ]


def _express(port: int, app: str, folder: Path) -> list[str]:
    npm, node = shutil.which("npm"), shutil.which("node")
    if npm is None or node is None:
        raise ServerMissing("node and npm are not installed")
    done = subprocess.run(
        [npm, "install", "--no-audit", "--no-fund", *EXPRESS], cwd=folder, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise ServerMissing(f"npm cannot install express: {done.stderr[-200:]}")
    shutil.copy(HERE / "express_app.mjs", folder / "app.mjs")
    return [node, str(folder / "app.mjs"), str(port)]


def _java(port: int, app: str, folder: Path) -> list[str]:
    java = shutil.which("java")
    if java is None or shutil.which("javac") is None:
        raise ServerMissing("no JDK is installed")
    return [java, str(HERE / "JavaApp.java"), str(port)]


WSGI: dict[str, Command] = {
    "gunicorn": lambda port, app, _: _module(
        "gunicorn", "-b", f"127.0.0.1:{port}", "--threads", "2", "--log-level", "error", app
    ),
    "waitress": lambda port, app, _: _module("waitress", f"--listen=127.0.0.1:{port}", app),
    "uwsgi": _uwsgi,
}
ASGI: dict[str, Command] = {
    "daphne": lambda port, app, _: _module("daphne", "-b", "127.0.0.1", "-p", str(port), "-v", "0", app),
    "hypercorn": lambda port, app, _: _module("hypercorn", "-b", f"127.0.0.1:{port}", app),
    "granian": lambda port, app, _: [
        str(Path(PYTHON).with_name("granian")),
        "--interface",
        "asgi",
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
        "--no-log",
        app,
    ],
    "uvicorn": lambda port, app, _: _module("uvicorn", "--port", str(port), "--log-level", "error", app),
}
OTHER: dict[str, Command] = {"express": _express, "java": _java}
QUICK = ("gunicorn", "waitress", *ASGI)
SLOW = ("uwsgi", *OTHER)


class AppProcess:
    """One app server process. With `inside`, the gateway runs as middleware in its app."""

    def __init__(self, name: str, folder: Path, environ: Mapping[str, str], *, inside: bool = False) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._log = folder / f"{name}.log"
        self._environ = {**os.environ, "PYTHONPATH": str(ROOT), "AKOYA_SIGNING_SECRET": HMAC_SECRET, **environ}
        if name in QUICK and find_spec(name) is None:
            raise ServerMissing(f"{name} is not installed (scripts/install test)")
        app = "tests.path.target:" + ("inside" if inside else "wsgi" if name in WSGI else "asgi")
        self._command = {**WSGI, **ASGI, **OTHER}[name](self.port, app, folder)
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        with self._log.open("ab") as out:
            self._process = subprocess.Popen(
                self._command,
                stdout=out,
                stderr=subprocess.STDOUT,
                env=self._environ,
                cwd=self._folder,
                start_new_session=True,
            )

    def __enter__(self) -> Self:
        if self._process is None:
            self.start()
        wait_for_port(self.port, self._process, self._log)
        return self

    def __exit__(self, *_: Any) -> None:
        if self._process is not None:
            # Kill its workers too, and do not wait for servers that are slow to shut down.
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait(60)
