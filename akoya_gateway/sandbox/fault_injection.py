"""Trouble on demand.

A fault waits at an endpoint and is drawn by the next requests there, `times` times and with `probability`.
All faults drawn by one request make its `DrawnFaults`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from enum import StrEnum
from random import Random
from typing import Any


class FaultKind(StrEnum):
    SLOW = "slow"
    """Wait `seconds` before the request is looked at."""
    SLOW_AFTER = "slow_after"
    """The request is processed at once; its answer waits `seconds`."""
    STATUS = "status"
    """Answer `status` and process nothing."""
    STATUS_AFTER = "status_after"
    """Process the request, then answer `status`: the state has changed, the answer says it failed."""
    CUT_BEFORE = "cut_before"
    """Drop the connection and process nothing."""
    CUT_AFTER = "cut_after"
    """Process the request, then drop the connection: the state has changed, the answer is lost."""
    CUT_DURING = "cut_during"
    """Process the request, send half of the answer, drop the connection."""
    HTML = "html"
    """Answer `status` (200 by default) with an HTML page, as a captive portal or a proxy does. Nothing processed."""
    GARBAGE = "garbage"
    """Answer 200, `application/json`, with a body that is not JSON. Nothing processed."""
    WRONG_SUB = "wrong_sub"
    """The id_token names another login."""
    CLAIMS = "claims"
    """The id_token carries these `claims`; null removes one."""
    LIFETIME = "lifetime"
    """The id_token lives `seconds` (negative: it has ended already)."""
    BAD_SIGNATURE = "bad_signature"
    """The id_token is signed with a key that is not published, under the published key's id."""
    ROTATE_KEYS = "rotate_keys"
    """The signing key is replaced first; the old one is no longer published."""
    SECRET_ROTATED = "secret_rotated"
    """No client secret is right."""
    DEAD_TOKEN = "dead_token"
    """The refresh token presented is dead, with all of its family."""
    CALLBACK_ERROR = "callback_error"
    """The browser is sent back with `error` and `description` in place of a code (at endpoint `consent`)."""


ENDPOINTS = (
    "authorization",
    "consent",
    "token",
    "token.authorization_code",
    "token.refresh_token",
    "revoke",
    "discovery",
    "jwks",
    "data",
    "*",
)


@dataclass(frozen=True, slots=True)
class Fault:
    """`endpoint` is one of `ENDPOINTS`; `token` is every grant type, `*` everything but the control API.

    `times` None: until cleared. Raises ValueError for what cannot be meant.
    """

    kind: FaultKind
    endpoint: str = "token"
    times: int | None = None
    probability: float = 1.0
    seconds: float = 5.0
    status: int | None = None
    error: str = "server_error"
    description: str = ""
    claims: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.endpoint not in ENDPOINTS:
            raise ValueError(f"endpoint is {self.endpoint!r}: use one of {', '.join(ENDPOINTS)}")
        if not 0.0 <= self.probability <= 1.0:
            raise ValueError(f"probability is {self.probability}: use 0 to 1")
        if self.times is not None and self.times < 1:
            raise ValueError(f"times is {self.times}: use 1 or more, or leave it out")
        if self.status is not None and not 200 <= self.status <= 599:
            raise ValueError(f"status is {self.status}: use 200 to 599")

    @staticmethod
    def parse(document: Mapping[str, Any]) -> Fault:
        """From JSON of the control API. Raises ValueError naming the property."""
        cached = {f.name for f in fields(Fault)}
        for name in document:
            if name not in cached:
                raise ValueError(f"unknown property {name!r}: use {', '.join(sorted(cached))}")
        if "kind" not in document:
            raise ValueError("kind is missing")
        types: dict[str, type | tuple[type, ...]] = {
            "endpoint": str,
            "times": int,
            "probability": (int, float),
            "seconds": (int, float),
            "status": int,
            "error": str,
            "description": str,
            "claims": dict,
        }
        given = {k: v for k, v in document.items() if v is not None}
        for name, value in given.items():
            wanted = types.get(name)
            if wanted is not None and (isinstance(value, bool) or not isinstance(value, wanted)):
                raise ValueError(f"{name} has the wrong type")
        return Fault(**(given | {"kind": _kind(str(given.get("kind")))}))

    @staticmethod
    def parse_option(text: str) -> Fault:
        """From the command line: `kind[@endpoint][,times=N][,probability=P][,seconds=S][,status=N]`.

        >>> Fault.parse_option("cut_after@token.refresh_token,times=1").times
        1
        """
        head, *options = [part.strip() for part in text.split(",")]
        kind, _, endpoint = head.partition("@")
        document: dict[str, Any] = {"kind": kind} | ({"endpoint": endpoint} if endpoint else {})
        for option in options:
            name, found, value = option.partition("=")
            if not found:
                raise ValueError(f"{option!r}: write name=value")
            try:
                numeric = {"times": int, "status": int, "probability": float, "seconds": float}.get(name)
                document[name] = numeric(value) if numeric else value
            except ValueError:
                raise ValueError(f"{name} is {value!r}: use a number") from None
        return Fault.parse(document)

    def document(self) -> dict[str, Any]:
        """As JSON of the control API."""
        return {f.name: getattr(self, f.name) for f in fields(self)} | {"kind": self.kind.value}


def _kind(text: str) -> FaultKind:
    try:
        return FaultKind(text)
    except ValueError:
        raise ValueError(f"kind is {text!r}: use one of {', '.join(FaultKind)}") from None


class DrawnFaults:
    """The faults that one request drew."""

    __slots__ = ("faults",)

    def __init__(self, faults: Iterable[Fault] = ()) -> None:
        self.faults = tuple(faults)

    def get(self, kind: FaultKind) -> Fault | None:
        return next((fault for fault in self.faults if fault.kind is kind), None)

    def has(self, kind: FaultKind) -> bool:
        return self.get(kind) is not None

    def kinds(self) -> list[str]:
        return [fault.kind.value for fault in self.faults]


@dataclass(slots=True)
class _Armed:
    fault: Fault
    left: int | None


class ArmedFaults:
    """The faults that are switched on."""

    def __init__(self, faults: Iterable[Fault], random: Random) -> None:
        self._initial = tuple(faults)
        self._random = random
        self._armed: list[_Armed] = []
        self.reset()

    def reset(self) -> None:
        """Back to the faults of the settings."""
        self._armed = [_Armed(fault, fault.times) for fault in self._initial]

    def add(self, fault: Fault) -> None:
        self._armed.append(_Armed(fault, fault.times))

    def clear(self) -> None:
        self._armed.clear()

    def documents(self) -> list[dict[str, Any]]:
        return [armed.fault.document() | {"left": armed.left} for armed in self._armed]

    def draw(self, *endpoints: str) -> DrawnFaults:
        """The faults for one request at an endpoint of these names; counts them down."""
        return self._draw(endpoints, approval=False)

    def at_approval(self) -> Fault | None:
        """The `callback_error` for a consent that is being approved: the pages before the last one do not use it up."""
        return self._draw(("consent",), approval=True).get(FaultKind.CALLBACK_ERROR)

    def _draw(self, endpoints: tuple[str, ...], *, approval: bool) -> DrawnFaults:
        drawn = []
        for armed in self._armed:
            fault = armed.fault
            if fault.endpoint != "*" and fault.endpoint not in endpoints:
                continue
            if approval is not (fault.kind is FaultKind.CALLBACK_ERROR):
                continue
            if fault.probability < 1.0 and self._random.random() >= fault.probability:
                continue
            drawn.append(fault)
            if armed.left is not None:
                armed.left -= 1
        self._armed = [armed for armed in self._armed if armed.left is None or armed.left > 0]
        return DrawnFaults(drawn)
