"""`akoya_gateway.bounded_cache`: stays within its bounds for any input."""

from __future__ import annotations

from akoya_gateway.bounded_cache import BoundedCache


def test_it_keeps_and_begins_anew_when_it_is_full() -> None:
    memory: BoundedCache[bytes, int] = BoundedCache(3, 10)
    for number in range(3):
        assert memory.store(b"%d" % number, number, 1) == number
    assert memory == {b"0": 0, b"1": 1, b"2": 2}
    memory.store(b"3", 3, 1)
    assert memory == {b"3": 3}


def test_what_is_too_long_is_given_back_and_not_kept() -> None:
    memory: BoundedCache[bytes, int] = BoundedCache(3, 10)
    assert memory.store(b"x" * 10, 1, 10) == 1
    assert memory == {}


def test_what_came_to_nothing_is_kept_as_well() -> None:
    memory: BoundedCache[bytes, int | None] = BoundedCache(3, 10)
    assert memory.store(b"x", None, 1) is None
    assert b"x" in memory
