"""scripts/fetch_pip.py, which a Debian without python3-venv needs: it runs nothing whose hash is not the expected one."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "scripts" / "fetch_pip.py"
WHEEL = next(line.split('"')[1] for line in SCRIPT.read_text().splitlines() if line.startswith("WHEEL = "))


class Index(BaseHTTPRequestHandler):
    """A package index (PEP 503) whose wheel is a program that leaves a trace when it is run."""

    listed = WHEEL

    def do_GET(self) -> None:
        body = f'<a href="/files/{self.listed}#sha256=00">{self.listed}</a>'.encode()
        if self.path != "/simple/pip/":
            body = b"not the wheel that is expected"
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def index() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Index)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/simple"
    server.shutdown()
    server.server_close()
    thread.join(60)


@pytest.mark.parametrize(
    ("listed", "message"), [(WHEEL, "has another hash than expected"), ("pip-1.0.tar.gz", "cannot be fetched from")]
)
def test_wheel_other_than_the_expected_one_is_not_run(
    index: str, monkeypatch: pytest.MonkeyPatch, listed: str, message: str
) -> None:
    monkeypatch.setattr(Index, "listed", listed)
    done = subprocess.run(
        [sys.executable, SCRIPT], env={"PATH": os.environ["PATH"], "PIP_INDEX_URL": index, "no_proxy": "127.0.0.1"},
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert message in done.stderr
