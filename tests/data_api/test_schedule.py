"""How many calls may be sent now: never more than the rate in any second, and interactive ones first."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from akoya_gateway.data_api.schedule import MAX_DELAY, MIN_DELAY, URGENT_SECONDS, Usage, reserve

NOW = 1_800_000_000.0

# Steps of time, and how many interactive and background calls wait then.
arrivals = st.lists(
    st.tuples(st.floats(0.0, 1.5), st.integers(0, 60), st.integers(0, 60)), min_size=1, max_size=40
)  # fmt: skip


@given(rate=st.floats(1.0, 60.0), steps=arrivals)
def test_no_second_has_more_calls_than_the_rate(rate: float, steps: list[tuple[float, int, int]]) -> None:
    usage, now = Usage(), NOW
    sent: list[tuple[float, int, int]] = []
    for step, interactive, background in steps:
        now += step
        made = reserve(usage, now, rate, interactive, background)
        usage = Usage.decoded(made.usage.encoded())
        assert 0 <= made.interactive <= interactive
        assert 0 <= made.background <= background
        assert made.wait > 0 or made.interactive + made.background == interactive + background
        sent.append((now, made.interactive + made.background, made.background))
        last = [one for one in sent if one[0] > now - 1.0]
        assert sum(one[1] for one in last) <= rate
        assert sum(one[2] for one in last) <= max(rate * 0.8, 1)


# Steps of time, how many calls wait then, the delay of the process, and which part of the allowed time it takes.
late_arrivals = st.lists(
    st.tuples(st.floats(0.0, 1.5), st.integers(0, 60), st.integers(MIN_DELAY, MAX_DELAY), st.floats(0.0, 1.0)),
    min_size=1,
    max_size=40,
)


@given(rate=st.floats(1.0, 60.0), steps=late_arrivals)
def test_no_second_has_more_calls_than_the_rate_when_calls_are_sent_as_late_as_allowed(
    rate: float, steps: list[tuple[float, int, int, float]]
) -> None:
    usage, now = Usage(), NOW
    sent: list[float] = []
    for step, interactive, delay, part in steps:
        now += step
        made = reserve(usage, now, rate, interactive, 0, delay)
        usage = Usage.decoded(made.usage.encoded())
        sent += [now + part * made.valid_seconds] * made.interactive
    sent.sort()
    busiest = max((sum(start <= other <= start + 1.0 for other in sent) for start in sent), default=0)
    assert busiest <= rate


@pytest.mark.parametrize(("rate", "at_once"), [(5.0, 5), (20.0, 5), (100.0, 20)])
def test_burst_of_one_second_is_spread_over_a_quarter_second(rate: float, at_once: int) -> None:
    usage, now, wait = Usage(), NOW, 0.0
    sent: list[int] = []
    while sum(sent) < rate:
        now += wait
        made = reserve(usage, now, rate, int(rate) - sum(sent), 0)
        usage, wait = made.usage, made.wait
        sent.append(made.interactive)
    assert max(sent) == at_once
    assert now - NOW < 0.3


def test_after_the_budget_is_used_up_the_wait_is_until_the_first_calls_are_a_second_old() -> None:
    made = reserve(Usage(), NOW, 5.0, 5, 0)
    made = reserve(made.usage, NOW + 0.01, 5.0, 3, 0)
    assert made.interactive == 0
    assert 1.15 < made.wait < 1.25
    assert reserve(made.usage, NOW + 0.01 + made.wait, 5.0, 3, 0).interactive == 3


def test_background_calls_take_at_most_four_fifths() -> None:
    made = reserve(Usage(), NOW, 5.0, 0, 5)
    assert made.background == 4
    assert reserve(made.usage, NOW + 0.01, 5.0, 1, 5).interactive == 1


def test_background_calls_of_one_process_wait_while_interactive_calls_of_another_do() -> None:
    made = reserve(Usage(), NOW, 100.0, 50, 50)
    assert (made.interactive, made.background) == (20, 0)
    other = reserve(made.usage, NOW + 0.05, 100.0, 0, 50)
    assert (other.background, round(other.wait, 3)) == (0, URGENT_SECONDS - 0.05)
    assert reserve(other.usage, NOW + URGENT_SECONDS + 0.01, 100.0, 0, 50).background == 20


def test_clock_that_was_set_back_does_not_stop_the_calls() -> None:
    made = reserve(Usage(), NOW, 5.0, 9, 0)
    assert reserve(made.usage, NOW - 3600, 5.0, 0, 3).background == 3


@pytest.mark.parametrize("body", [b"", b"{}", b"[1]", b'[[["a", 1, 2]], 0]', b"\xff"])
def test_unreadable_usage_is_none(body: bytes) -> None:
    assert Usage.decoded(body) == Usage()
