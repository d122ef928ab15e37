"""Small gateways to be killed: `python -m tests.chaos.process_pool` forks one for each line of its input.

A child has every part of a gateway between the request and the disk (store, providers, grant manager). It is forked
from a process that has imported everything, so that hundreds of children fit into seconds. An order is a JSON line:

    {"config": PATH, "do": "refresh" | "disconnect", "grant": ID, "lines": N | null, "seconds": S | null}

With `lines`, the child kills itself (SIGKILL) after that many lines of the gateway's own code, on any thread. With
`seconds`, it is killed from outside after that time. With neither, it survives. The result is a JSON line: `killed`
and, for survivors, the `count` of lines.
"""

from __future__ import annotations

import asyncio
import functools
import json
import os
import select
import signal
import sys
import threading
import time
from pathlib import Path
from types import FrameType
from typing import Any

import akoya_gateway
from akoya_gateway.config import load_config
from akoya_gateway.config.model import Config
from akoya_gateway.errors import GatewayError
from akoya_gateway.grants import GrantManager
from akoya_gateway.provider import open_providers
from akoya_gateway.store import EncryptedStore, Keyring, open_store

ENDLESS = 10**9
OURS = str(Path(akoya_gateway.__file__).parent)


class Steps:
    """Count the executed lines of the gateway's code, and kill the process before the fatal one."""

    def __init__(self, fatal: int | None) -> None:
        self._fatal = fatal
        self.count = -ENDLESS

    def begin(self) -> None:
        threading.settrace(self._called)
        sys.settrace(self._called)

    def _called(self, frame: FrameType, event: str, arg: Any) -> Any:
        return self._line if frame.f_code.co_filename.startswith(OURS) else None

    def _line(self, frame: FrameType, event: str, arg: Any) -> Any:
        if event == "line":
            self.count += 1
            if self._fatal is not None and self.count >= self._fatal:
                os.kill(os.getpid(), signal.SIGKILL)
        return self._line


async def live(config: Config, order: dict[str, Any], steps: Steps) -> None:
    """Do what a gateway does with one request. Tracing starts where a request would meet the running gateway."""
    store = EncryptedStore(open_store(config.sessions.store), Keyring(config.sessions.keys))
    steps.begin()
    await store.open()
    providers = open_providers(config, clock=time.time)
    grants = GrantManager(store, providers, config.tokens)
    grant = await grants.repository.get(order["grant"])
    assert grant is not None
    steps.count = 0
    try:
        if order["do"] == "disconnect":
            await grants.disconnect(grant)
        else:
            await grants.get_fresh(grant)
    except GatewayError:
        pass
    count, steps.count = steps.count, -ENDLESS
    os.write(int(order["report"]), f"{count}".encode())
    await grants.stop()
    await store.close()


def raise_one(config: Config, order: dict[str, Any]) -> dict[str, Any]:
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reading)
        try:
            asyncio.run(live(config, order | {"report": writing}, Steps(order.get("lines"))))
        finally:
            os._exit(0)
    os.close(writing)
    if order.get("seconds") is not None:
        select.select([reading], [], [], order["seconds"])
        os.kill(pid, signal.SIGKILL)
    _, status = os.waitpid(pid, 0)
    with os.fdopen(reading) as report:
        count = report.read()
    return {"killed": os.WIFSIGNALED(status), "count": int(count) if count else None}


def main() -> None:
    load = functools.cache(load_config)
    responses = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # the gateway's log
    for line in sys.stdin:
        order = json.loads(line)
        responses.write(json.dumps(raise_one(load(Path(order["config"])), order)) + "\n")


if __name__ == "__main__":
    main()
