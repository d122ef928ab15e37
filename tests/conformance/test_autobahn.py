"""Runs the Autobahn test-suite as client and as server through `akoya-gateway run`, and compares with direct runs.

The tests need the suite: `AKOYA_WSTEST` names its command, or `wstest` is on the PATH. It is written for Python 2.7
(which pyenv can install). To install the suite:

    python2.7 -m pip install --target autobahn autobahntestsuite autobahn==0.10.9 twisted==19.10.0 txaio==2.1.0 klein==19.6.0 werkzeug==0.16.1
    touch autobahn/zope/__init__.py
    printf '%s\\n' '#!/bin/sh' "PYTHONPATH=$PWD/autobahn exec python2.7 -c 'import sys; sys.argv[0] = \\"wstest\\"
    from autobahntestsuite.wstest import run; run()' \\"\\$@\\"" > wstest; chmod +x wstest
    AKOYA_WSTEST=$PWD/wstest pytest tests/conformance/test_autobahn.py

Groups 12 and 13 test compression, which the gateway does not offer (`server.uvicorn_server`). `AKOYA_SOAK=full` adds
group 9, with messages of up to 16 MB.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from websockets.exceptions import WebSocketException
from websockets.sync.client import connect

from tests.conformance.echo import echo_server
from tests.support.ports import free_port
from tests.support.processes import wait_for_port
from tests.support.shutdown import ending
from tests.support.sidecar import Running

WSTEST = os.environ.get("AKOYA_WSTEST") or shutil.which("wstest")
EXCLUDED = ["12.*", "13.*", *([] if os.environ.get("AKOYA_SOAK") == "full" else ["9.*"])]
REST = ("OK", "NON-STRICT", "INFORMATIONAL")

pytestmark = [
    pytest.mark.skipif(WSTEST is None, reason="the Autobahn test-suite is not installed (AKOYA_WSTEST)"),
    pytest.mark.timeout(900),
]


def wstest(folder: Path, mode: str, specification: dict[str, Any]) -> subprocess.Popen[bytes]:
    cases = {"outdir": str(folder / "reports"), "cases": ["*"], "exclude-cases": EXCLUDED, "exclude-agent-cases": {}}
    file = folder / f"{mode}.json"
    file.write_text(json.dumps(cases | specification))
    with (folder / f"{mode}.log").open("wb") as log:
        return subprocess.Popen([str(WSTEST), "-m", mode, "-u", "0", "-s", str(file)], stdout=log, stderr=log)


def check_report(folder: Path) -> None:
    """Fail if a case is worse through the gateway than without it.

    How strictly a close is rated depends on timing: a message before a broken frame may or may not have been echoed.
    """
    found = json.loads((folder / "reports" / "index.json").read_text())
    assert len(found["direct"]) == len(found["gateway"]) > 200
    worse = {
        case: (direct, gateway)
        for case, direct in found["direct"].items()
        if (gateway := found["gateway"][case])["behaviorClose"] != direct["behaviorClose"]
        or gateway["remoteCloseCode"] != direct["remoteCloseCode"]
        or (gateway["behavior"] not in REST and gateway["behavior"] != direct["behavior"])
    }
    assert worse == {}


def test_hostile_clients(tmp_path: Path) -> None:
    """Run the suite as the client, with a `websockets` echo server behind the gateway."""
    with echo_server() as port, Running(tmp_path, changes={"upstream": {"url": f"http://127.0.0.1:{port}"}}) as run:
        servers = [
            {"agent": "direct", "url": f"ws://127.0.0.1:{port}/public/", "options": {"version": 18}},
            {"agent": "gateway", "url": f"ws://127.0.0.1:{run.port}/public/", "options": {"version": 18}},
        ]
        with ending(wstest(tmp_path, "fuzzingclient", {"servers": servers})) as process:
            assert process.wait(850) == 0
    check_report(tmp_path)


@pytest.fixture
def hostile_upstream(tmp_path: Path) -> Iterator[int]:
    port = free_port()
    process = wstest(tmp_path, "fuzzingserver", {"url": f"ws://127.0.0.1:{port}"})
    with ending(process):
        wait_for_port(port)
        yield port


def test_hostile_upstreams(tmp_path: Path, hostile_upstream: int) -> None:
    """Run the suite as the app, with a `websockets` echo client in front of the gateway."""
    changes = {
        "upstream": {"url": f"http://127.0.0.1:{hostile_upstream}"},
        "access": [{"path": "/*", "require": "nothing"}],
    }
    with Running(tmp_path, changes=changes) as run:
        for agent, port in (("direct", hostile_upstream), ("gateway", run.port)):
            play_all(agent, hostile_upstream, port)
    check_report(tmp_path)


def play_all(agent: str, named: int, port: int) -> None:
    """Echo every case of the suite's server.

    `named` is the suite's own port: its server checks that `Host` contains it.
    """

    def dial(path: str) -> Any:
        url = f"ws://127.0.0.1:{named}{path}"
        return connect(url, compression=None, proxy=None, max_size=None, close_timeout=3, address=("127.0.0.1", port))

    with dial("/getCaseCount") as socket:
        count = int(socket.recv())
    for number in range(1, count + 1):
        try:
            with dial(f"/runCase?case={number}&agent={agent}") as socket:
                for message in socket:
                    socket.send(message)
        except WebSocketException:
            # Caused by the suite's server, which has recorded how the client behaved.
            pass
    with dial(f"/updateReports?agent={agent}"), contextlib.suppress(WebSocketException):
        pass
