"""The `advisory` decorator: an advisory's IDs, the attack, and what the gateway does about it."""

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
    """Mark a test with the advisories that it covers.

    The test's arguments decide where it runs: with `target` at every entry point and at any gateway by URL, with
    `session` at every entry point of this gateway, with `env` at its own sidecar, and without any of them in the core.
    """

    def mark(test: T) -> T:
        test.advisory = Advisory(ids, attack, ours)  # type: ignore[attr-defined]
        return test

    return mark
