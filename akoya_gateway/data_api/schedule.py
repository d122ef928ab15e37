"""Decides how many data API calls may be sent now, given those of the last second. No I/O and no clock.

Akoya limits the calls in any one second (code 1207). A token bucket, which refills while a burst is under way, could
send up to twice the rate within a second. So the calls in a sliding window are counted. Time is divided into ticks, and
the window is a little longer than a second, because two calls sent a second apart can arrive closer together.

A busy process sends a call later than it reserved it. So each reservation is valid for a number of ticks, its delay,
and counts for that much longer. A process that is slow chooses a longer delay, which costs throughput.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import NamedTuple

TICK = 0.05
"""Seconds. All calls of a tick are counted together."""
WINDOW = 24
"""Length of the window in ticks, between 1.15 and 1.2 seconds. It contains at most `rate` calls."""
MIN_DELAY = 1
"""Number of ticks after the reserved one in which a call may still be sent, in a process that is not slow."""
MAX_DELAY = 40
"""The longest delay in ticks, 2 seconds. It reduces the rate to about a third."""
URGENT_SECONDS = 0.5
"""Seconds for which background calls wait in every process after interactive calls had to wait in one."""
_MAX_UNTIL = 2 * WINDOW + MAX_DELAY
_MIN_SPREAD = 5
_SPREAD_OVER = 5


class TickCalls(NamedTuple):
    """The calls that were reserved in one tick. From the tick with the number `until` on, they no longer count."""

    tick: int
    until: int
    total: int
    background: int


@dataclass(frozen=True, slots=True)
class Usage:
    """The calls of all processes in the last window.

    `ticks` are in the order in which they leave the window. Background calls wait until `urgent_until` (Unix seconds).
    """

    ticks: tuple[TickCalls, ...] = ()
    urgent_until: float = 0.0

    def encoded(self) -> bytes:
        """Return the usage as bytes for the store."""
        return json.dumps([self.ticks, round(self.urgent_until, 3)], separators=(",", ":")).encode()

    @classmethod
    def decoded(cls, body: bytes) -> Usage:
        """Return the usage that `encoded` returned. Invalid bytes count as no usage."""
        try:
            ticks, urgent_until = json.loads(body)
            calls = (TickCalls(int(tick), int(until), int(total), int(part)) for tick, until, total, part in ticks)
            return cls(tuple(calls), float(urgent_until))
        except (ValueError, TypeError):
            return cls()


@dataclass(frozen=True, slots=True)
class Reservation:
    """The result of `reserve`.

    `interactive` and `background` are the numbers of calls that may be sent within `valid_seconds`. `wait` is the
    seconds after which another attempt may succeed, if some calls must wait. `usage` is the usage with these calls.
    """

    interactive: int
    background: int
    wait: float
    usage: Usage
    valid_seconds: float


def reserve(
    usage: Usage, now: float, rate: float, interactive: int, background: int, delay: int = MIN_DELAY
) -> Reservation:
    """Reserve calls to be sent now.

    Interactive calls come first. Background calls get at most four fifths of the rate, and nothing while interactive
    calls of any process wait. Large bursts are spread over a few ticks, so that Akoya sees them at the counted rate.

    Args:
        usage: The calls so far.
        now: Unix seconds.
        rate: Calls per second, at least 1.
        interactive: The number of interactive calls that wait in this process.
        background: The number of background calls that wait in this process.
        delay: The number of ticks by which this process may send the calls later.
    """
    tick = int(now / TICK)
    # Ticks far in the future are from before the clock was set back.
    recent = tuple(one for one in usage.ticks if one.tick <= tick + WINDOW and tick < one.until <= tick + _MAX_UNTIL)
    limit = int(rate)
    spread = max(_MIN_SPREAD, -(-limit // _SPREAD_OVER))
    in_tick = sum(one.total for one in recent if one.tick == tick)
    free = max(min(limit - sum(one.total for one in recent), spread - in_tick), 0)
    first = min(interactive, free)
    urgent_until = usage.urgent_until if usage.urgent_until <= now + URGENT_SECONDS else 0.0
    if first < interactive:
        urgent_until = now + URGENT_SECONDS
    free_for_jobs = max(_background_limit(limit) - sum(one.background for one in recent), 0)
    second = 0 if urgent_until > now else min(background, free - first, free_for_jobs)
    if first or second:
        recent = _with(recent, TickCalls(tick, tick + WINDOW + delay, first + second, second))
    made = replace(usage, ticks=recent, urgent_until=urgent_until)
    wait = _wait(made, now, tick, limit, is_urgent=first < interactive)
    return Reservation(first, second, wait, made, (tick + 1 + delay) * TICK - now)


def _with(ticks: tuple[TickCalls, ...], new: TickCalls) -> tuple[TickCalls, ...]:
    same = next((one for one in ticks if one.tick == new.tick), TickCalls(new.tick, new.until, 0, 0))
    others = [one for one in ticks if one is not same]
    calls = TickCalls(
        new.tick, max(same.until, new.until), same.total + new.total, same.background + new.background
    )  # fmt: skip
    return tuple(sorted([*others, calls], key=lambda one: one.until))


def _wait(usage: Usage, now: float, tick: int, limit: int, *, is_urgent: bool) -> float:
    """Return the seconds until more calls may be possible.

    That is when the first tick leaves the window if the limit is reached, and otherwise the next tick. Background
    calls also wait for the interactive calls of other processes.
    """
    is_reached = sum(one.total for one in usage.ticks) >= limit or (
        not is_urgent and sum(one.background for one in usage.ticks) >= _background_limit(limit)
    )
    wait = (usage.ticks[0].until if is_reached else tick + 1) * TICK - now
    return wait if is_urgent else max(wait, usage.urgent_until - now)


def _background_limit(limit: int) -> int:
    return max(limit * 4 // 5, 1)
