"""The test command: how a run ends."""

from __future__ import annotations

import importlib
import os
import re
import shlex
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.support.shutdown import unless_done
from tests.support.waiting import until

PLANTED = "tests/planted"
WITHIN = Path(__file__).parents[1] / "scripts/within.py"


def test_traced_process_importing_playwrights_greenlet_api_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "gettrace", lambda: print)
    with pytest.raises(ImportError, match="greenlets"):
        importlib.import_module("playwright.sync_api")


PLANTED_FAULTS = ["worker_exits.py::test_process_exits", "worker_spins.py::test_process_spins_in_c"]


@pytest.mark.timeout(180)
def test_worker_that_dies_ends_the_run_within_a_minute_and_its_test_is_named(tmp_path: Path) -> None:
    """The run ends although the other worker has tests for four minutes. The two runs are parallel."""
    runs = [start_run(tmp_path, test.partition("::")[0], "long_file.py") for test in PLANTED_FAULTS]
    with ThreadPoolExecutor() as pool:
        ends = pool.map(end_of, runs)
    for test, run, output in zip(PLANTED_FAULTS, runs, ends, strict=True):
        assert run.returncode == 2, output
        assert f"crashed while running '{PLANTED}/{test}'" in output
        assert f"died while running {PLANTED}/{test}" in output


def end_of(run: subprocess.Popen[str]) -> str:
    """Return what the run printed. Kill it if it waits for the tests of the other worker, which take four minutes."""
    with unless_done(run.kill, 150):
        return run.communicate()[0]


def start_run(folder: Path, *files: str) -> subprocess.Popen[str]:
    command = ["-m", "pytest", "-p", "no:cacheprovider", "--numprocesses", "2", "--dist", "loadfile"]
    environ = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", "COV_"))}
    return subprocess.Popen(
        [sys.executable, *command, *(f"{PLANTED}/{file}" for file in files)],
        env=environ | {"AKOYA_TEST_BEYOND": "1", "PYTEST_DEBUG_TEMPROOT": str(folder)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


FAILS_ONCE = """
from pathlib import Path
def test_fails_once():
    ran = Path(__file__).with_suffix(".ran")
    try:
        assert ran.exists()
    finally:
        ran.touch()
"""


@pytest.mark.parametrize(
    ("tests", "status", "message"),
    [
        (FAILS_ONCE, 0, "passed when they ran again:\ntest_it.py::test_fails_once"),
        ("def test_fails(): assert False", 1, "1 failed"),
        ("\n".join(f"def test_{n}(): assert False" for n in range(4)), 1, "more than three tests failed"),
    ],
    ids=["once", "twice", "many"],
)
def test_rerun_of_failed_tests_passes_only_if_few_failed_and_pass_now(
    tmp_path: Path, tests: str, status: int, message: str
) -> None:
    (tmp_path / "test_it.py").write_text(tests)
    python = Path(sys.executable)
    # Runs that share the folder for temporary files remove each other's.
    environ = {**os.environ, "PYTEST_DEBUG_TEMPROOT": str(tmp_path)}
    first = subprocess.run(
        [python, "-m", "pytest", "-n", "1"], cwd=tmp_path, env=environ, capture_output=True, timeout=120
    )
    assert first.returncode == 1
    script = WITHIN.with_name("rerun_failed")
    again = subprocess.run(
        [script, python.parents[1]], cwd=tmp_path, env=environ, capture_output=True, text=True, timeout=120
    )
    assert again.returncode == status, again
    assert message in again.stdout + again.stderr


class TestWithin:
    """scripts/within.py, the wrapper that scripts/test runs under."""

    ORPHAN = "setsid sleep 1000 & echo $! >pid; "

    @pytest.fixture(autouse=True)
    def folder(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)

    def run(self, seconds: float, command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(self.command(seconds, command), capture_output=True, text=True, timeout=60)

    def command(self, seconds: float, command: str) -> list[str]:
        return [sys.executable, str(WITHIN), str(seconds), "bash", "-c", command]

    def orphan_runs(self) -> bool:
        return Path("/proc", Path("pid").read_text().strip()).exists()

    def test_exit_status_of_the_command_is_returned(self) -> None:
        assert self.run(60, "exit 3").returncode == 3
        assert self.run(60, "kill -TERM $$").returncode == 128 + signal.SIGTERM

    def test_orphan_of_the_command_is_named_and_killed(self) -> None:
        run = self.run(60, self.ORPHAN)
        assert run.returncode == 0
        assert re.search(r"still running after the command, and ended:\n.*\n.* sleep 1000", run.stderr)
        assert not self.orphan_runs()

    def test_limit_reached_prints_where_processes_stand_and_kills_them(self) -> None:
        spin = "import itertools; print(flush=True); all(itertools.repeat(True))"
        command = self.command(1000, f"{self.ORPHAN} {sys.executable} -X faulthandler -c '{spin}'; true")
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as run:
            assert run.stdout is not None
            assert run.stdout.readline() == "\n", "it spins"
            run.send_signal(signal.SIGALRM)  # What the timer sends.
            printed = run.communicate(timeout=60)[1]
        assert run.returncode == 124
        assert re.search(r"\d+ +\d+ +S +1 +[\d.]+ +\w+ +sleep 1000", printed)
        assert spin in printed
        assert "Current thread" in printed
        assert not self.orphan_runs()

    def test_killed_parent_takes_the_processes_along(self) -> None:
        parent = subprocess.Popen(["bash", "-c", f"{shlex.join(self.command(100, f'{self.ORPHAN} sleep 1000'))}; true"])
        until(lambda: Path("pid").exists() and Path("pid").read_text(), "the processes run")
        parent.kill()
        parent.wait()
        until(lambda: not self.orphan_runs(), "they have been killed")
