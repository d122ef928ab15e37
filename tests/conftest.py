"""Hooks for every test: run timeouts, crashed workers, signals, forbidden imports and settings of Hypothesis."""

from __future__ import annotations

import contextlib
import faulthandler
import functools
import gc
import importlib
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
from hypothesis import HealthCheck, settings

# An example may take any time, because the machine may be busy. With CI=true, Hypothesis always makes the same examples.
settings.register_profile("gateway", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("gateway")

BEYOND = float(os.environ.get("AKOYA_TEST_BEYOND", "180"))
"""Seconds that a test and its fixtures may take to end after the test's timeout (pytest-timeout).

pytest-timeout fires once, in the main thread. Code that blocks afterwards, or that swallows the exception, would block
the run forever.
"""


class NoGreenletsUnderTrace(MetaPathFinder):
    """Refuse to import modules that run greenlets in a traced process (under coverage).

    greenlet frees the state of a finished thread in a pending call, which runs Python code. Under a trace function,
    CPython 3.11 never leaves that code if another pending call is queued. The process then loops in C, during a later,
    unrelated test, and Python signal handlers no longer run. Playwright's asynchronous API starts no greenlets.
    """

    modules = frozenset({"playwright.sync_api", "gevent"})

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname in self.modules and sys.gettrace() is not None:
            raise ImportError(f"{fullname} runs greenlets, which loop for ever under coverage in CPython 3.11")
        return None


sys.meta_path.insert(0, NoGreenletsUnderTrace())


def share_tls_contexts() -> None:
    """Let httpx clients with default settings share one TLS context.

    httpx loads all CA certificates for each client, which takes 10 to 20 ms of CPU time, although nearly all clients of
    the tests speak plain http. Clients with a context, a certificate or `trust_env` get their own as before.
    """
    module = importlib.import_module("httpx._transports.default")
    create = module.create_ssl_context
    default = functools.cache(lambda: create(trust_env=False))

    def create_or_share(verify: Any = True, cert: Any = None, trust_env: bool = True) -> Any:
        if verify is True and cert is None and not trust_env:
            return default()
        return create(verify=verify, cert=cert, trust_env=trust_env)

    module.create_ssl_context = create_or_share  # type: ignore[attr-defined]


share_tls_contexts()


def pytest_configure() -> None:
    """Restore the SIGINT handler, so that Ctrl-C reaches the programs that tests start.

    A shell that runs pytest in the background has SIGINT ignored, and child processes would inherit that.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Collect the tests without garbage collection, which takes half the CPU time of it, and exempt them afterwards.

    Modules and tests live until the process ends. `gc.freeze` keeps later collections from visiting them each time.
    """
    gc.disable()
    try:
        return (yield)
    finally:
        gc.freeze()
        gc.enable()


def end_in(seconds: float, config: pytest.Config) -> None:
    """Dump the stack of every thread and exit the process after `seconds`, whatever it is doing."""
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
    """Restart the countdown after a failure, because the fixtures still have to be torn down.

    pytest cancels the pending dump on any failure, including a timeout, so that a debugger can be used. That is also
    why its `faulthandler_timeout` option is not enough here.
    """
    if isinstance(node, pytest.Item):
        end_in(BEYOND, node.config)


@pytest.hookimpl(tryfirst=True)
def pytest_enter_pdb() -> None:
    faulthandler.cancel_dump_traceback_later()


@pytest.hookimpl(optionalhook=True, trylast=True)
def pytest_testnodedown(node: Any, error: object) -> None:
    """End the run when a worker has crashed, and report the test that it was running as failed.

    xdist would start another worker, or let the remaining ones run all their tests. It has been seen to wait forever
    for a replacement, and a run that has lost a worker fails anyway.
    """
    if error is None:
        return
    distribution = node.config.pluginmanager.getplugin("dsession")
    test = None
    with contextlib.suppress(KeyError):  # the worker crashed before it was assigned tests
        test = distribution.sched.remove_node(node)
    if test is not None:
        distribution.handle_crashitem(test, node)
    pytest.exit(f"worker {node.gateway.id} died while running {test or 'no test'}: {error}")
