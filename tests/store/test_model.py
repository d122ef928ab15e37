"""Each store against a dictionary as the model: Hypothesis searches for sequences of calls that differ."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
import uuid
from collections.abc import Awaitable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from akoya_gateway.store import Record, Store, open_store
from tests.store.conftest import FakeClock
from tests.support.redis_servers import Cluster, RedisServer

T = TypeVar("T")

KINDS = st.sampled_from(["grant", "attempt"])
KEYS = st.sampled_from(["a", "b", "c"])
GROUPS = st.sampled_from(["", "g1", "g2"])
LIVES = st.sampled_from([None, 0.0, 5.0, 50.0])
VERSIONS = st.integers(1, 4)


class Machine(RuleBasedStateMachine):
    url = "memory://"

    def __init__(self) -> None:
        super().__init__()
        self.clock = FakeClock()
        self.model: dict[tuple[str, str], Record] = {}
        self.loop = asyncio.new_event_loop()
        self.directory = Path(tempfile.mkdtemp(prefix="akoya-model-"))
        self.store: Store = self.opened()

    def opened(self) -> Store:
        if self.url.startswith("sqlite"):
            url = f"sqlite://{self.directory}/grants.db"
        elif self.url.startswith("memory"):
            url = self.url
        else:
            url = f"{self.url}?timeout=10&prefix=m{uuid.uuid4().hex[:12]}"
        store = open_store(url, self.clock)
        self.do(store.open())
        return store

    def do(self, verb: Awaitable[T]) -> T:
        return self.loop.run_until_complete(verb)

    def teardown(self) -> None:
        self.do(self.store.close())
        self.loop.close()
        shutil.rmtree(self.directory)

    def live(self, kind: str, key: str) -> Record | None:
        record = self.model.get((kind, key))
        ended = record is None or (record.expires_at is not None and record.expires_at <= self.clock())
        return None if ended else record

    def all_live(self, kind: str) -> list[Record]:
        return [r for r in (self.live(kind, key) for key in "abc") if r is not None]

    @rule(kind=KINDS, key=KEYS, group=GROUPS, version=VERSIONS, life=LIVES, body=st.binary(max_size=20))
    def put(self, kind: str, key: str, group: str, version: int, life: float | None, body: bytes) -> None:
        record = Record(kind, key, body, version, group, None if life is None else self.clock() + life)
        present = self.live(kind, key)
        expected = version == (present.version + 1 if present else 1)
        assert self.do(self.store.put(record)) is expected
        if expected:
            self.model[kind, key] = record

    @rule(kind=KINDS, key=KEYS, version=VERSIONS, body=st.binary(max_size=20))
    def reseal(self, kind: str, key: str, version: int, body: bytes) -> None:
        present = self.live(kind, key)
        expected = present is not None and present.version == version
        assert self.do(self.store.reseal(Record(kind, key, body, version))) is expected
        if expected and present is not None:
            self.model[kind, key] = replace(present, body=body)

    @rule(kind=KINDS, key=KEYS, version=st.none() | VERSIONS)
    def delete(self, kind: str, key: str, version: int | None) -> None:
        present = self.live(kind, key)
        expected = present is not None and version in {None, present.version}
        assert self.do(self.store.delete(kind, key, version)) is expected
        if expected:
            del self.model[kind, key]

    @rule(kind=KINDS, key=KEYS)
    def take(self, kind: str, key: str) -> None:
        assert self.do(self.store.take(kind, key)) == self.live(kind, key)
        self.model.pop((kind, key), None)

    @rule(kind=KINDS, key=KEYS, version=VERSIONS)
    def changed(self, kind: str, key: str, version: int) -> None:
        assert self.do(self.store.changed(kind, key, version, 0)) == self.live(kind, key)

    @rule(seconds=st.sampled_from([1.0, 5.0, 60.0]))
    def time_passes(self, seconds: float) -> None:
        self.clock.now += seconds

    @rule(kind=KINDS, group=GROUPS)
    def find(self, kind: str, group: str) -> None:
        expected = tuple(r for r in self.all_live(kind) if group and r.group == group)
        assert self.do(self.store.find(kind, group)) == expected
        assert self.do(self.store.count(kind, group)) == len(expected)

    @rule(kind=KINDS)
    def scan(self, kind: str) -> None:
        async def scanned() -> list[Record]:
            return [record async for record in self.store.scan(kind)]

        assert sorted(self.do(scanned()), key=lambda r: r.key) == self.all_live(kind)
        assert self.do(self.store.count(kind)) == len(self.all_live(kind))

    @rule()
    def close_and_open(self) -> None:
        if self.url.startswith("sqlite"):
            self.do(self.store.close())
            self.store = self.opened()

    @invariant()
    def what_is_there_is_got(self) -> None:
        for kind in ("grant", "attempt"):
            for key in "abc":
                assert self.do(self.store.get(kind, key)) == self.live(kind, key)


@pytest.fixture(params=["memory", "sqlite", "redis_server", "redis_cluster"])
def model_url(request: pytest.FixtureRequest) -> Iterator[str]:
    if request.param in {"memory", "sqlite"}:
        yield f"{request.param}://"
        return
    server: RedisServer | Cluster = request.getfixturevalue(request.param)
    yield server.url


def test_every_order_of_verbs_agrees_with_a_dictionary(model_url: str) -> None:
    class Driven(Machine):
        url = model_url

    examples = 60 if model_url.startswith("memory") else 12
    run_state_machine_as_test(
        Driven,
        settings=settings(
            max_examples=examples, stateful_step_count=25, deadline=None, suppress_health_check=list(HealthCheck)
        ),
    )
