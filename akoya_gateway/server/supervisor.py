"""The supervisor process: starts workers, restarts those that exit, and forwards signals.

It serves no requests and holds no secret beyond the configuration. It runs no event loop and no thread, so it can fork
at any time.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from akoya_gateway.observability.logs import Log
from akoya_gateway.observability.shared_memory import SharedSlots
from akoya_gateway.observability.worker_stats import count_restart, last_published, retain_counters
from akoya_gateway.server.service_manager import ServiceManager
from akoya_gateway.server.worker import START_FAILED, WorkerSlot

STUCK_AFTER = 30.0
"""Seconds without a heartbeat after which a worker is killed."""
SETTLED_AFTER = 10.0
"""Seconds a worker must have run to be restarted without delay."""
MAX_PAUSE = 30.0
"""Maximum seconds before a crashing worker is restarted."""
CLOSE_TIMEOUT = 45.0
"""Seconds beyond the stop timeout for token refreshes in flight to finish. After that, workers are killed."""
_STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT)
_HANDLED_SIGNALS = (*_STOP_SIGNALS, signal.SIGHUP, signal.SIGCHLD)


@dataclass(slots=True)
class _WorkerRecord:
    """State of one worker slot: pid (0 if no worker runs), its start time, and when the next worker may start."""

    number: int
    pid: int = 0
    since: float = 0.0
    crashes: int = 0
    start_at: float = 0.0
    is_stuck: bool = False
    """True once it was killed because its event loop did not respond."""


@dataclass(frozen=True, slots=True)
class SupervisorHooks:
    """Callbacks of the supervisor."""

    serve: Callable[[WorkerSlot], int]
    """Runs in a worker process and returns its exit code."""
    reload: Callable[[], None] = lambda: None
    """Loads the configuration and logs its errors."""
    fall_back: Callable[[], None] = lambda: None
    """Called when a worker could not start with the current configuration."""
    changed: Callable[[], bool] = lambda: False
    """Returns True if the watched files have changed."""
    on_draining: Callable[[], None] = lambda: None
    """Called once when shutdown begins."""


class Supervisor:
    """Run `workers` worker processes until a SIGTERM, SIGINT or SIGQUIT."""

    def __init__(
        self,
        hooks: SupervisorHooks,
        workers: int,
        log: Log,
        *,
        stop_timeout: float,
        manager: ServiceManager,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Create the supervisor. `stop_timeout` is how many seconds draining may take."""
        self._manager = manager
        self._hooks = hooks
        self._log = log
        self._clock = clock
        self._stop_timeout = stop_timeout
        self._workers = [_WorkerRecord(number) for number in range(workers)]
        self._slots = SharedSlots(workers + 1)
        self._lifeline = os.pipe()
        self._wakeup = socket.socketpair()
        self._pending_signals: list[int] = []
        self._kill_at: float | None = None
        self._started = False
        self._had_failures = False

    def run(self) -> int:
        """Run until every worker has exited after a stop signal, and return the exit code.

        Returns:
            0 after an orderly stop. 1 if the first worker could not start, or if a worker had to be killed or failed
            during shutdown.
        """
        before = self._catch_signals()
        try:
            # Start the first worker alone. It sets up the store, and an error that prevents the start is logged once.
            self._start(self._workers[0])
            while (code := self._supervise()) is None:
                self._wait()
            return code
        finally:
            signal.set_wakeup_fd(-1)
            for number, handler in before.items():
                signal.signal(number, handler)
            for each in self._wakeup:
                each.close()
            for end in self._lifeline:
                os.close(end)

    def _supervise(self) -> int | None:
        """Handle signals and exited, stuck and due workers once. Return the exit code when all is done, else None."""
        self._manager.alive()
        for number in self._signals():
            self._on_signal(number)
        failed = self._reap()
        if self._kill_at is not None:
            return self._stop_workers()
        if not self._started:
            if not self._workers[0].pid:
                return 1
            self._started = 0 in last_published(self._slots)
            if self._started:
                self._manager.ready()
            return None
        if failed:
            self._hooks.fall_back()
        if self._hooks.changed():
            self._on_signal(signal.SIGHUP)
        self._kill_stuck()
        for worker in self._workers:
            if not worker.pid and self._clock() >= worker.start_at:
                self._start(worker)
        return None

    def _stop_workers(self) -> int | None:
        alive = [worker for worker in self._workers if worker.pid]
        if not alive:
            return 1 if self._had_failures else 0
        assert self._kill_at is not None
        if self._clock() >= self._kill_at:
            for record in alive:
                self._log.error("worker killed after stop timeout", pid=record.pid)
                self._send(record, signal.SIGKILL)
        return None

    # -- workers

    def _start(self, worker: _WorkerRecord) -> None:
        # Block signals until the child has reset its handlers, so that none is lost in between.
        signal.pthread_sigmask(signal.SIG_BLOCK, _HANDLED_SIGNALS)
        pid = os.fork()
        if pid == 0:
            self._run_worker(worker.number)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _HANDLED_SIGNALS)
        worker.pid, worker.since = pid, self._clock()
        self._log.info("worker started", worker=worker.number, pid=pid)

    def _run_worker(self, number: int) -> None:
        """Run the worker in the forked child. Never returns."""
        code = 70
        try:
            signal.set_wakeup_fd(-1)
            for each in _HANDLED_SIGNALS:
                signal.signal(each, signal.SIG_DFL)
            # SIGHUP stays blocked until the worker handles it, because its configuration may be outdated by then.
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {*_HANDLED_SIGNALS} - {signal.SIGHUP})
            for end in self._wakeup:
                end.close()
            os.close(self._lifeline[1])
            code = self._hooks.serve(WorkerSlot(self._slots, number, self._lifeline[0]))
        except BaseException:
            self._log.exception("worker failed", pid=os.getpid())
        finally:
            os._exit(code)

    def _reap(self) -> bool:
        """Collect exited workers. Return True if one of them could not start."""
        failed = False
        for worker in self._workers:
            if not worker.pid:
                continue
            with suppress(ChildProcessError):
                pid, status = os.waitpid(worker.pid, os.WNOHANG)
                if pid == 0:
                    continue
                code = os.waitstatus_to_exitcode(status)
                failed = failed or code == START_FAILED
                self._on_exit(worker, code)
        return failed

    def _on_exit(self, worker: _WorkerRecord, code: int) -> None:
        now = self._clock()
        retain_counters(self._slots, worker.number)
        if self._kill_at is not None:
            # A worker that was still starting has no handler yet and is terminated by the signal itself.
            self._had_failures = self._had_failures or code not in (0, -signal.SIGTERM)
        else:
            worker.crashes = 1 if now - worker.since >= SETTLED_AFTER else worker.crashes + 1
            pause = 0.0 if worker.crashes == 1 else min(0.5 * 2.0 ** (worker.crashes - 2), MAX_PAUSE)
            worker.start_at = now + pause
            count_restart(self._slots, "stuck" if worker.is_stuck else "killed" if code < 0 else "exited")
            worker.is_stuck = False
            reason = f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
            self._log.error("worker exited", worker=worker.number, pid=worker.pid, reason=reason, restart_in=pause)
        worker.pid = 0

    def _kill_stuck(self) -> None:
        posts = last_published(self._slots)
        for worker in self._workers:
            pid, at = posts.get(worker.number, (0, 0.0))
            if pid and pid == worker.pid and self._clock() - at > STUCK_AFTER:
                worker.is_stuck = True
                self._log.error("stuck worker killed", worker=worker.number, pid=pid)
                self._send(worker, signal.SIGKILL)

    # -- signals

    def _on_signal(self, number: int) -> None:
        if number == signal.SIGHUP:
            self._hooks.reload()
            self._send_all(signal.SIGHUP)
        elif number in _STOP_SIGNALS:
            if self._kill_at is None:
                self._kill_at = self._clock() + self._stop_timeout + CLOSE_TIMEOUT
                self._manager.stopping()
                self._hooks.on_draining()
            self._send_all(signal.SIGTERM)

    def _send_all(self, number: int) -> None:
        for worker in self._workers:
            if worker.pid:
                self._send(worker, number)

    def _send(self, worker: _WorkerRecord, number: int) -> None:
        with suppress(ProcessLookupError):
            os.kill(worker.pid, number)

    def _catch_signals(self) -> dict[int, Any]:
        for end in self._wakeup:
            end.setblocking(False)
        signal.set_wakeup_fd(self._wakeup[1].fileno(), warn_on_full_buffer=False)
        before: dict[int, Any] = {}
        for number in _HANDLED_SIGNALS:
            before[number] = signal.signal(number, lambda caught, _: self._pending_signals.append(caught))
        # A SIGHUP may be pending since the start of the process (`cli.run` blocks it).
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGHUP})
        return before

    def _signals(self) -> list[int]:
        caught, self._pending_signals = self._pending_signals, []
        return caught

    def _wait(self) -> None:
        select.select([self._wakeup[0]], [], [], self._pause())
        with suppress(BlockingIOError):
            self._wakeup[0].recv(4096)

    def _pause(self) -> float:
        """Return the seconds until the next round: at most 1, for the heartbeats, or less if a start is due earlier."""
        if not self._started:
            return 0.02
        due = min((worker.start_at for worker in self._workers if not worker.pid), default=float("inf"))
        return max(0.01, min(1.0, due - self._clock()))
