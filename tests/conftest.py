"""What holds for every test."""

from __future__ import annotations

import contextlib
import faulthandler
import os
import signal
import sys
from collections.abc import Generator, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

import pytest
from _pytest.faulthandler import fault_handler_stderr_fd_key

BEYOND = float(os.environ.get("AKOYA_TEST_BEYOND", "180"))
"""Seconds after a test's alarm (pytest-timeout) for it and its fixtures to end. The alarm rings once, in the main
thread: what waits without end afterwards, or swallows it, would wait for ever."""


class NoGreenletsUnderTrace(MetaPathFinder):
    """Refuses what runs greenlets in a process that is traced, as coverage does.

    greenlet frees the state of an ended thread in a pending call, which runs Python code. Under a trace CPython 3.11 never
    leaves that code when another pending call is queued: the process loops in C, in a later test that has nothing to do
    with it, and no Python signal handler runs any more. Playwright's asynchronous API starts no greenlets.
    """

    modules = frozenset({"playwright.sync_api", "gevent"})

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname in self.modules and sys.gettrace() is not None:
            raise ImportError(f"{fullname} runs greenlets, which loop for ever under coverage in CPython 3.11")
        return None


sys.meta_path.insert(0, NoGreenletsUnderTrace())


def pytest_configure() -> None:
    """Ctrl-C means something to the programs that tests start: a shell that ran us in the background had it ignored,
    and that would be handed on to them."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def end_in(seconds: float, config: pytest.Config) -> None:
    """The process says then where each of its threads stands, and ends, whatever it is at."""
    faulthandler.dump_traceback_later(seconds, exit=True, file=config.stash[fault_handler_stderr_fd_key])


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    marker = item.get_closest_marker("timeout")
    usual = item.config.getoption("timeout") or item.config.getini("timeout")
    end_in(float(marker.args[0] if marker is not None and marker.args else usual) + BEYOND, item.config)
    try:
        return (yield)
    finally:
        faulthandler.cancel_dump_traceback_later()


@pytest.hookimpl(trylast=True)
def pytest_exception_interact(node: pytest.Item | pytest.Collector) -> None:
    """A failure, the alarm's own among them: pytest has called it off, for somebody might want to look (that is why its
    `faulthandler_timeout` is of no use here). The fixtures are still to be ended."""
    if isinstance(node, pytest.Item):
        end_in(BEYOND, node.config)


@pytest.hookimpl(tryfirst=True)
def pytest_enter_pdb() -> None:
    faulthandler.cancel_dump_traceback_later()


@pytest.hookimpl(optionalhook=True, trylast=True)
def pytest_testnodedown(node: Any, error: object) -> None:
    """End the run when a worker has died, and report the test that it was running as failed.

    xdist would start another worker, or have the remaining ones run all that is assigned to them. It has been seen to wait
    for ever after a replacement, and a run that has lost a worker fails anyway.
    """
    if error is None:
        return
    distribution = node.config.pluginmanager.getplugin("dsession")
    test = None
    with contextlib.suppress(KeyError):  # it died before it had been given tests
        test = distribution.sched.remove_node(node)
    if test is not None:
        distribution.handle_crashitem(test, node)
    pytest.exit(f"worker {node.gateway.id} died while running {test or 'no test'}: {error}")
