"""What marks a test as an advisory's: its ids, the attack, what ours does."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

T = TypeVar("T", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class Advisory:
    ids: tuple[str, ...]
    attack: str
    ours: str


def advisory(*ids: str, attack: str, ours: str) -> Callable[[T], T]:
    """Marks a test. Its arguments tell where it runs: `target` at every face and at any gateway by URL, `session`
    at every face of ours, `world` at a sidecar of its own, none of them in the core."""

    def mark(test: T) -> T:
        test.advisory = Advisory(ids, attack, ours)  # type: ignore[attr-defined]
        return test

    return mark
