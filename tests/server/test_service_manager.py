"""Reports to systemd (sd_notify(3)), received on a real socket from a real process."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from akoya_gateway.server.service_manager import ServiceManager
from tests.support.sidecar import Running


class SystemdSocket:
    """The socket on which systemd receives notifications."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(path))
        self._socket.settimeout(60)

    def next(self) -> dict[str, str]:
        """Wait for the next notification and return its variables."""
        return dict(line.split("=", 1) for line in self._socket.recv(4096).decode().splitlines())

    def next_with(self, variable: str) -> dict[str, str]:
        while variable not in (message := self.next()):
            pass
        return message

    def close(self) -> None:
        self._socket.close()


@pytest.fixture
def systemd(tmp_path: Path) -> Iterator[SystemdSocket]:
    received = SystemdSocket(tmp_path / "notify")
    yield received
    received.close()


@pytest.mark.parametrize("workers", ["1", "2"])
def test_process_reports_that_it_is_ready_alive_and_stopping(
    workers: str, systemd: SystemdSocket, tmp_path: Path
) -> None:
    environ = {"NOTIFY_SOCKET": str(systemd.path), "WATCHDOG_USEC": "1000000"}
    folder = tmp_path / "run"
    folder.mkdir()
    with Running(folder, "--workers", workers, environ=environ) as running:
        assert systemd.next_with("READY")["READY"] == "1"
        assert systemd.next_with("WATCHDOG") == {"WATCHDOG": "1"}
        assert systemd.next_with("WATCHDOG") == {"WATCHDOG": "1"}
        assert running.gateway.stop() == 0
        assert systemd.next_with("STOPPING")["STATUS"].startswith("Draining")


def test_liveness_is_reported_at_half_of_the_limit_and_no_more_often(systemd: SystemdSocket) -> None:
    now = [100.0]
    environ = {"NOTIFY_SOCKET": str(systemd.path), "WATCHDOG_USEC": "20000000"}
    manager = ServiceManager(environ, lambda: now[0])
    assert manager.interval == 10.0
    for _ in range(21):
        manager.alive()
        now[0] += 1.0
    manager.stopping()
    messages = [systemd.next() for _ in range(4)]
    assert [list(message) for message in messages] == [["WATCHDOG"]] * 3 + [["STOPPING", "STATUS"]]


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {"WATCHDOG_USEC": "1000000"},
        {"NOTIFY_SOCKET": "/nowhere"},
        {"NOTIFY_SOCKET": "@nowhere", "WATCHDOG_USEC": "x"},
        {"NOTIFY_SOCKET": "@nowhere", "WATCHDOG_USEC": "0"},
    ],
)
def test_without_systemd_nothing_fails(environ: dict[str, str]) -> None:
    manager = ServiceManager(environ)
    assert manager.interval is None
    manager.ready()
    manager.alive()
    manager.stopping()


def test_address_in_the_abstract_namespace_is_used() -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as received:
        name = f"akoya-gateway-test-{os.getpid()}"
        received.bind(f"\0{name}")
        received.settimeout(60)
        ServiceManager({"NOTIFY_SOCKET": f"@{name}"}).ready()
        assert received.recv(4096).startswith(b"READY=1")
