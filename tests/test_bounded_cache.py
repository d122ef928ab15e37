"""`akoya_gateway.bounded_cache`: stays within its bounds for any input."""

from __future__ import annotations

from akoya_gateway.bounded_cache import BoundedCache


def test_cache_stores_and_is_cleared_when_full() -> None:
    memory: BoundedCache[bytes, int] = BoundedCache(3, 10)
    for number in range(3):
        assert memory.store(b"%d" % number, number, 1) == number
    assert memory == {b"0": 0, b"1": 1, b"2": 2}
    memory.store(b"3", 3, 1)
    assert memory == {b"3": 3}


def test_key_that_is_too_long_is_returned_and_not_cached() -> None:
    memory: BoundedCache[bytes, int] = BoundedCache(3, 10)
    assert memory.store(b"x" * 10, 1, 10) == 1
    assert memory == {}


def test_none_is_cached_as_well() -> None:
    memory: BoundedCache[bytes, int | None] = BoundedCache(3, 10)
    assert memory.store(b"x", None, 1) is None
    assert b"x" in memory


def test_value_is_kept_when_its_key_comes_a_second_time() -> None:
    memory: BoundedCache[bytes, int] = BoundedCache(3, 10, on_repeat=True)
    assert memory.store(b"a", 1) == 1
    assert memory == {}
    assert memory.store(b"a", 2) == 2
    assert memory == {b"a": 2}


def test_keys_that_never_repeat_evict_nothing_and_are_bounded() -> None:
    memory: BoundedCache[bytes, int] = BoundedCache(3, 10, on_repeat=True)
    for _ in range(2):
        memory.store(b"kept", 1)
    for number in range(100):
        memory.store(b"%d" % number, number)
    assert memory == {b"kept": 1}
    assert memory._seen is not None
    assert len(memory._seen) <= 3
