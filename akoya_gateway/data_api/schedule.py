"""Decides how many data API calls may be sent now, given those of the last second. No I/O and no clock.

Akoya limits the calls in any one second (code 1207). A token bucket, which refills while a burst is under way, could
send up to twice the rate within a second. So the calls in a sliding window are counted. Time is divided into ticks, and
the window is a little longer than a second, because two calls sent a second apart can arrive closer together.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace

TICK = 0.05
"""Seconds. All calls of a tick are counted together."""
WINDOW = 22
"""Length of the window in ticks, between 1.05 and 1.1 seconds. It contains at most `rate` calls."""
URGENT_SECONDS = 0.5
"""Seconds for which background calls wait in every process after interactive calls had to wait in one."""
_MIN_SPREAD = 5
_SPREAD_OVER = 5


@dataclass(frozen=True, slots=True)
class Usage:
    """The calls of all processes in the last window.

    `ticks` are (number of the tick, all calls, background calls). Background calls wait until `urgent_until` (Unix
    seconds).
    """

    ticks: tuple[tuple[int, int, int], ...] = ()
    urgent_until: float = 0.0

    def encoded(self) -> bytes:
        """Return the usage as bytes for the store."""
        return json.dumps([self.ticks, round(self.urgent_until, 3)], separators=(",", ":")).encode()

    @classmethod
    def decoded(cls, body: bytes) -> Usage:
        """Return the usage that `encoded` returned. Invalid bytes count as no usage."""
        try:
            ticks, urgent_until = json.loads(body)
            return cls(tuple((int(tick), int(total), int(background)) for tick, total, background in ticks),
                       float(urgent_until))  # fmt: skip
        except (ValueError, TypeError):
            return cls()


@dataclass(frozen=True, slots=True)
class Reservation:
    """The result of `reserve`.

    `interactive` and `background` are the numbers of calls that may be sent now. `wait` is the seconds after which
    another attempt may succeed, if some calls must wait. `usage` is the usage with these calls.
    """

    interactive: int
    background: int
    wait: float
    usage: Usage


def reserve(usage: Usage, now: float, rate: float, interactive: int, background: int) -> Reservation:
    """Reserve calls to be sent now.

    Interactive calls come first. Background calls get at most four fifths of the rate, and nothing while interactive
    calls of any process wait. Large bursts are spread over a few ticks, so that Akoya sees them at the counted rate.

    Args:
        usage: The calls so far.
        now: Unix seconds.
        rate: Calls per second, at least 1.
        interactive: The number of interactive calls that wait in this process.
        background: The number of background calls that wait in this process.
    """
    tick = int(now / TICK)
    # Ticks far in the future are from before the clock was set back.
    recent = tuple(one for one in usage.ticks if tick - WINDOW < one[0] <= tick + WINDOW)
    limit = int(rate)
    spread = max(_MIN_SPREAD, -(-limit // _SPREAD_OVER))
    free = max(min(limit - sum(one[1] for one in recent), spread - sum(one[1] for one in recent if one[0] == tick)), 0)
    first = min(interactive, free)
    urgent_until = usage.urgent_until if usage.urgent_until <= now + URGENT_SECONDS else 0.0
    if first < interactive:
        urgent_until = now + URGENT_SECONDS
    free_for_jobs = max(_background_limit(limit) - sum(one[2] for one in recent), 0)
    second = 0 if urgent_until > now else min(background, free - first, free_for_jobs)
    if first or second:
        recent = _with(recent, tick, first + second, second)
    made = replace(usage, ticks=recent, urgent_until=urgent_until)
    return Reservation(first, second, _wait(made, now, tick, limit, is_urgent=first < interactive), made)


def _with(
    ticks: tuple[tuple[int, int, int], ...], tick: int, total: int, background: int
) -> tuple[tuple[int, int, int], ...]:
    before = next((one for one in ticks if one[0] == tick), (tick, 0, 0))
    others = [one for one in ticks if one[0] != tick]
    return tuple(sorted([*others, (tick, before[1] + total, before[2] + background)]))


def _wait(usage: Usage, now: float, tick: int, limit: int, *, is_urgent: bool) -> float:
    """Return the seconds until more calls may be possible.

    That is when the oldest tick leaves the window if the limit is reached, and otherwise the next tick. Background
    calls also wait for the interactive calls of other processes.
    """
    is_reached = sum(one[1] for one in usage.ticks) >= limit or (
        not is_urgent and sum(one[2] for one in usage.ticks) >= _background_limit(limit)
    )
    wait = (usage.ticks[0][0] + WINDOW if is_reached else tick + 1) * TICK - now
    return wait if is_urgent else max(wait, usage.urgent_until - now)


def _background_limit(limit: int) -> int:
    return max(limit * 4 // 5, 1)
