"""Property tests of refreshes against the provider's true state, driven by Hypothesis.

Replicas crash between any two steps, the store goes down and comes back, and the provider loses responses.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable, Coroutine
from typing import Any
from unittest import mock

import hypothesis.strategies as st
from hypothesis import HealthCheck, settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from akoya_gateway.errors import GatewayError
from akoya_gateway.grants import Grant, GrantManager, GrantState, remedy
from akoya_gateway.grants.pauses import MAX_UNKNOWN_OUTCOMES
from akoya_gateway.grants.repository import KIND
from akoya_gateway.grants.serialization import decode
from akoya_gateway.oauth.outcomes import (
    ClientRejected,
    OutcomeUnknown,
    ProviderDown,
    Reply,
    TokenOutcome,
    TokensIssued,
    Untrusted,
)
from akoya_gateway.secret import Secret
from tests.support.grants import OWNER, RING, Family, GrantEnv, Provider, Reuse, bearer, client, down
from tests.support.virtual_time import EPOCH, VirtualLoop

process: contextvars.ContextVar[str] = contextvars.ContextVar("process", default="")

RETRY = ProviderDown("try again", reply=Reply(400, "invalid_grant", "Try again later"))
FAULTS = st.sampled_from(
    [
        "lost",
        "never arrived",
        "unjudged",
        down(),
        down(20.0),
        RETRY,
        ClientRejected("invalid_client"),
        ClientRejected("access_denied"),
    ]
)


class Truth(Provider):
    """Tracks which refresh tokens may legitimately be used twice, because the outcome of the first use was unknown."""

    doubtful: set[str]
    spent: dict[str, list[str]]
    """By process: tokens whose successor the process received, whether or not it stored it."""

    async def refresh(
        self, refresh_token: Secret, sub: str, nonce: str | None = None, may_send: Callable[[], bool] | None = None
    ) -> TokenOutcome:
        token = refresh_token.reveal()
        family = self.family_of(token)
        if family is None or (token != family.living and token not in self.doubtful):
            self.crimes.append(f"{token} was spent, and its asker knew")
        try:
            response = await super().refresh(refresh_token, sub)
        except asyncio.CancelledError:
            self.doubtful.add(token)
            raise
        if isinstance(response, OutcomeUnknown):
            self.doubtful.add(token)
        if isinstance(response, TokensIssued | Untrusted):
            self.spent.setdefault(process.get(), []).append(token)
        return response


class NeverLost(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.loop = VirtualLoop()
        self.loop.set_task_factory(self._task)
        self.monotonic = mock.patch("akoya_gateway.store.change_notifier.time.monotonic", self.loop.time)
        self.monotonic.start()
        self.tasks: dict[str, set[asyncio.Task[Any]]] = {}
        self.processes = 0
        self.passed: list[Grant] = []
        self.families: dict[str, list[Family]] = {}
        self.disconnected = False

    def _task(self, loop: asyncio.AbstractEventLoop, coro: Any, **how: Any) -> asyncio.Task[Any]:
        task: asyncio.Task[Any] = asyncio.Task(coro, loop=loop, **how)
        self.tasks.setdefault(process.get(), set()).add(task)
        task.add_done_callback(self.tasks[process.get()].discard)
        return task

    def clock(self) -> float:
        return EPOCH + self.loop.now

    def spawn(self, name: str, coro: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        context = contextvars.copy_context()
        context.run(process.set, name)
        return context.run(self.loop.create_task, coro, context=context)

    def go(self, seconds: float) -> None:
        self.loop.run_until_complete(asyncio.sleep(seconds))

    def do(self, coro: Coroutine[Any, Any, Any]) -> Any:
        return self.loop.run_until_complete(self.spawn("browser", coro))

    @initialize(
        reuse=st.sampled_from(Reuse),
        seed=st.integers(0, 999),
        latency=st.sampled_from([0.0, 0.02]),
        grace=st.sampled_from([0.0, 0.0, 10.0, 60.0]),
    )
    def begin(self, reuse: Reuse, seed: int, latency: float, grace: float) -> None:
        self.env = GrantEnv(managers=0, clock=self.clock, seed=seed)
        self.truth = self.env.provider = Truth(self.clock, life=300.0, delay=1.0, reuse=reuse, grace=grace)
        self.truth.doubtful, self.truth.spent = set(), {}
        self.env.store.latency = latency
        self.managers: list[tuple[str, GrantManager]] = [self.boot(), self.boot()]
        self.grant: Grant = self.do(self.managers[0][1].connect(OWNER, client, "mikomo", self.truth.consent()))

    def boot(self) -> tuple[str, GrantManager]:
        self.processes += 1
        name = f"process-{self.processes}"
        return name, self.env.new_manager(name)

    @rule(
        who=st.integers(0, 1),
        rest=st.sampled_from([None, 0.0, 0.5, 250.0, 320.0]),
        wait=st.sampled_from([0.0, 0.01, 0.03, 0.3, 0.6, 1.2]),
    )
    def start_request(self, who: int, rest: float | None, wait: float) -> None:
        """Start a request at a replica, now or `rest` seconds after the last tokens, and do not wait for its end."""
        name, grants = self.managers[who]
        if rest is not None and self.truth.issued_at:
            self.go(max(self.truth.issued_at[-1] + rest - self.clock(), 0.0))
        self.spawn(name, self._request(grants))
        self.go(wait)

    async def _request(self, grants: GrantManager) -> None:
        try:
            for grant in (await grants.for_owner(OWNER)).grants:
                passed = await grants.get_fresh(grant)
                if passed.tokens.expires_at <= self.clock():
                    self.truth.crimes.append("a bearer was passed that had ended")
                self.passed.append(passed)
        except GatewayError:
            return

    @rule(seconds=st.sampled_from([0.005, 0.03, 0.5, 1.0, 11.0, 35.0, 70.0]))
    def time_passes(self, seconds: float) -> None:
        self.go(seconds)

    @rule(who=st.integers(0, 1))
    def crash(self, who: int) -> None:
        """Simulate kill -9, and start a new process in its place."""
        name, _ = self.managers[who]
        for task in list(self.tasks.get(name, ())):
            task.cancel()
        self.go(0)
        stored = self.stored()
        for used in self.truth.spent.pop(name, ()):
            # Successors that the process had not written are lost with it, and no other process has them.
            if stored is None or stored.tokens.refresh_token == Secret(used):
                self.truth.doubtful.add(used)
        self.managers[who] = self.boot()

    @rule(seconds=st.sampled_from([0.1, 1.5, 15.0, 60.0]))
    def the_store_is_away(self, seconds: float) -> None:
        self.env.store.down = True
        self.loop.call_later(seconds, setattr, self.env.store, "down", False)

    @rule(how=st.sampled_from(["before", "after"]), which=st.integers(0, 3))
    def one_write_fails(self, how: str, which: int) -> None:
        left = which

        def fail(verb: str, record: object) -> str | None:
            nonlocal left
            if verb != "put":
                return None
            left -= 1
            return how if left == -1 else None

        self.env.store.failing = fail

    @rule(fault=FAULTS)
    def provider_fails_next(self, fault: TokenOutcome | str) -> None:
        self.truth.faults.append(fault)

    @rule(who=st.integers(0, 1), dice=st.integers(0, 4))
    def reconnect(self, who: int, dice: int) -> None:
        if self.env.store.down or (dice and not self.disconnected):
            return
        self.env.store.failing = lambda verb, record: None
        tokens = self.truth.consent()
        self.grant = self.do(self.managers[who][1].connect(OWNER, client, "mikomo", tokens))
        self.disconnected = False

    @rule(who=st.integers(0, 1), dice=st.integers(0, 4))
    def disconnect(self, who: int, dice: int) -> None:
        if self.env.store.down or dice:
            return
        self.env.store.failing = lambda verb, record: None
        self.do(self.managers[who][1].disconnect(self.grant))
        self.disconnected = True

    def stored(self) -> Grant | None:
        record = self.env.store.store._records.get(KIND, {}).get(self.grant.id)  # type: ignore[attr-defined]
        if record is None:
            return None
        parts = (record.kind.encode(), record.key.encode(), record.group.encode())
        context = b"".join(len(part).to_bytes(4, "big") + part for part in parts)
        return decode(RING.decrypt(record.body, context), record.version)

    @invariant()
    def the_store_and_the_provider_agree(self) -> None:
        if not hasattr(self, "grant") or (stored := self.stored()) is None:
            return
        token = stored.tokens.refresh_token.reveal() if stored.tokens.refresh_token is not None else ""
        family = self.truth.families[-1]
        if self.disconnected:
            assert stored.state is GrantState.REVOKED
            assert not token
            return
        # The tokens of the newest consent are stored, even if a refresh of an older consent was in flight.
        assert token == family.living or token in family.spent
        if stored.state is GrantState.LIVE and not self._held(token):
            assert token == family.living, "a live grant with a spent token is lost without notice"
        if stored.state is GrantState.NEEDS_RECONNECT:
            dead = family.ended or token != family.living
            assert dead or stored.unknowns >= MAX_UNKNOWN_OUTCOMES, "the user was sent to the bank without need"
        assert remedy(stored.state, stored.reason).what

    def _held(self, token: str) -> bool:
        """Return whether a running process still has the successor of this token."""
        return any(token in tokens for tokens in self.truth.spent.values())

    @invariant()
    def no_crime_was_seen(self) -> None:
        assert not Provider.crimes

    @invariant()
    def what_was_passed_was_durable(self) -> None:
        if not hasattr(self, "env"):
            return
        written = {
            bearer(decode(record_body, 1))
            for record_body in (self._open(record) for record in self.env.store.writes if record.kind == KIND)
        }
        assert {bearer(grant) for grant in self.passed} <= written

    def _open(self, record: Any) -> bytes:
        parts = (record.kind.encode(), record.key.encode(), record.group.encode())
        return RING.decrypt(record.body, b"".join(len(part).to_bytes(4, "big") + part for part in parts))

    def teardown(self) -> None:
        """End all faults: the grant must become live again, or say what the user must do."""
        Provider.crimes.clear()
        try:
            if hasattr(self, "grant"):
                self.env.store.down = False
                self.env.store.failing = lambda verb, record: None
                self.truth.faults.clear()
                for _ in range(6):
                    self.go(1200)
                    for name, grants in self.managers:
                        self.spawn(name, self._request(grants))
                    self.go(30)
                stored = self.stored()
                if self.disconnected:
                    assert stored is None or stored.state is GrantState.REVOKED
                    assert self.truth.families[-1].ended or self.env.store.store._records.get("revocation")  # type: ignore[attr-defined]
                else:
                    assert stored is not None
                    assert stored.state in {GrantState.LIVE, GrantState.NEEDS_RECONNECT}
        finally:
            self.monotonic.stop()
            for tasks in self.tasks.values():
                for task in list(tasks):
                    task.cancel()
            self.loop.run_until_complete(asyncio.sleep(0))
            self.loop.close()


NeverLost.TestCase.settings = settings(
    max_examples=60, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck)
)
test_a_grant_is_never_lost = NeverLost.TestCase
