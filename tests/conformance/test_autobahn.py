"""The Autobahn test-suite through `akoya-gateway run`, from both ends, beside the same without a gateway.

It runs where the suite is: `AKOYA_WSTEST` names its command, or `wstest` is on the PATH. The suite is written in
Python 2.7. With one of those (pyenv has it):

    python2.7 -m pip install --target autobahn autobahntestsuite autobahn==0.10.9 twisted==19.10.0 txaio==2.1.0 klein==19.6.0 werkzeug==0.16.1
    touch autobahn/zope/__init__.py
    printf '%s\\n' '#!/bin/sh' "PYTHONPATH=$PWD/autobahn exec python2.7 -c 'import sys; sys.argv[0] = \\"wstest\\"
    from autobahntestsuite.wstest import run; run()' \\"\\$@\\"" > wstest; chmod +x wstest
    AKOYA_WSTEST=$PWD/wstest pytest tests/conformance/test_autobahn.py

Groups 12 and 13 are about compression, which the gateway does not offer (`server.uvicorn_server`). `AKOYA_SOAK=full` adds
group 9, sizes up to 16 MB.
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

from tests.conformance.test_websockets import echo_server
from tests.e2e.processes import free_port, wait_for_port
from tests.server.processes import Running
from tests.stream_ending import ending

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


def judge(folder: Path) -> None:
    """Nothing is worse with the gateway in between. How strict an end is seen to be depends on the moment: a message
    before a broken frame may or may not have come back.
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
    """The suite is the client, `websockets` echoes behind the gateway."""
    with echo_server() as port, Running(tmp_path, changes={"upstream": {"url": f"http://127.0.0.1:{port}"}}) as run:
        servers = [
            {"agent": "direct", "url": f"ws://127.0.0.1:{port}/public/", "options": {"version": 18}},
            {"agent": "gateway", "url": f"ws://127.0.0.1:{run.port}/public/", "options": {"version": 18}},
        ]
        with ending(wstest(tmp_path, "fuzzingclient", {"servers": servers})) as process:
            assert process.wait(850) == 0
    judge(tmp_path)


@pytest.fixture
def hostile_upstream(tmp_path: Path) -> Iterator[int]:
    port = free_port()
    process = wstest(tmp_path, "fuzzingserver", {"url": f"ws://127.0.0.1:{port}"})
    with ending(process):
        wait_for_port(port)
        yield port


def test_hostile_upstreams(tmp_path: Path, hostile_upstream: int) -> None:
    """The suite is the app, `websockets` echoes in front of the gateway."""
    changes = {
        "upstream": {"url": f"http://127.0.0.1:{hostile_upstream}"},
        "access": [{"path": "/*", "require": "nothing"}],
    }
    with Running(tmp_path, changes=changes) as run:
        for agent, port in (("direct", hostile_upstream), ("gateway", run.port)):
            play_all(agent, hostile_upstream, port)
    judge(tmp_path)


def play_all(agent: str, named: int, port: int) -> None:
    """`named`: the suite's server wants to read its own port in `Host`."""

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
            # What the suite's server did; it has written down what it saw of us.
            pass
    with dial(f"/updateReports?agent={agent}"), contextlib.suppress(WebSocketException):
        pass
