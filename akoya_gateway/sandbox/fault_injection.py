"""Fault injection.

A fault is armed at an endpoint and applies to the next requests there, `times` times and with `probability`.
The faults that apply to one request are its `DrawnFaults`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields
from enum import StrEnum
from random import Random
from typing import Any

from akoya_gateway.sandbox.data import PRODUCTS


class FaultKind(StrEnum):
    """What a fault does."""

    SLOW = "slow"
    """Wait `seconds` before processing the request."""
    SLOW_AFTER = "slow_after"
    """Process the request at once, then wait `seconds` before sending the response."""
    STATUS = "status"
    """Return `status` without processing the request."""
    STATUS_AFTER = "status_after"
    """Process the request, then return `status`: the state has changed, but the response reports a failure."""
    CUT_BEFORE = "cut_before"
    """Abort the connection without processing the request."""
    CUT_AFTER = "cut_after"
    """Process the request, then abort the connection: the state has changed, but the response is lost."""
    CUT_DURING = "cut_during"
    """Process the request, send half of the response, then abort the connection."""
    HTML = "html"
    """Return `status` (default 200) with an HTML page, as a captive portal or a proxy does. Nothing is processed."""
    GARBAGE = "garbage"
    """Return 200 and `application/json` with a body that is not JSON. Nothing is processed."""
    WRONG_SUB = "wrong_sub"
    """The id_token names another login."""
    CLAIMS = "claims"
    """The id_token has these `claims`. Null removes a claim."""
    LIFETIME = "lifetime"
    """The id_token expires after `seconds` (negative: it has expired already)."""
    BAD_SIGNATURE = "bad_signature"
    """The id_token is signed with an unpublished key but has the key ID of the published one."""
    ROTATE_KEYS = "rotate_keys"
    """Replace the signing key first. The old key is no longer published."""
    SECRET_ROTATED = "secret_rotated"
    """Reject every client secret."""
    DEAD_TOKEN = "dead_token"
    """Invalidate the presented refresh token and all others of its consent."""
    PARTIAL = "partial"
    """One account of a data response has failed: 206 (at accounts-info, balances and accounts)."""
    CALLBACK_ERROR = "callback_error"
    """Redirect the browser with `error` and `description` instead of a code (at endpoint `consent`)."""


_NUMBERS: dict[str, type[int] | type[float]] = {
    "times": int,
    "status": int,
    "code": int,
    "probability": float,
    "seconds": float,
}
"""Properties of a fault that are numbers on the command line."""
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
    *(f"data.{product}" for product in PRODUCTS),
    "*",
)


@dataclass(frozen=True, slots=True)
class Fault:
    """A fault at one endpoint.

    Attributes:
        endpoint: One of `ENDPOINTS`. `token` means all grant types, `data` all products, `*` everything except the
            control API.
        connector: The provider whose data requests fail. None: all.
        times: How many requests the fault applies to. None: until it is cleared.

    Raises:
        ValueError: A property has an invalid value.
    """

    kind: FaultKind
    endpoint: str = "token"
    times: int | None = None
    probability: float = 1.0
    seconds: float = 5.0
    status: int | None = None
    code: int | None = None
    """Akoya's code in the response of a data API. None: the documented one of the status. 0: none."""
    connector: str | None = None
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
        for name in ("code", "connector"):
            if getattr(self, name) is not None and self.endpoint.partition(".")[0] != "data":
                raise ValueError(f"{name} is for faults of the data APIs, and endpoint is {self.endpoint!r}")

    @staticmethod
    def parse(document: Mapping[str, Any]) -> Fault:
        """Parse a JSON object of the control API. Raises ValueError, which names the property."""
        properties = {f.name for f in fields(Fault)}
        for name in document:
            if name not in properties:
                raise ValueError(f"unknown property {name!r}: use {', '.join(sorted(properties))}")
        if "kind" not in document:
            raise ValueError("kind is missing")
        types: dict[str, type | tuple[type, ...]] = {
            "endpoint": str,
            "times": int,
            "probability": (int, float),
            "seconds": (int, float),
            "status": int,
            "code": int,
            "connector": str,
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
        """Parse a command line option: `kind[@endpoint][,name=value]...`, with the properties of `Fault`.

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
                numeric = _NUMBERS.get(name)
                document[name] = numeric(value) if numeric else value
            except ValueError:
                raise ValueError(f"{name} is {value!r}: use a number") from None
        return Fault.parse(document)

    def document(self) -> dict[str, Any]:
        """Return the fault as a JSON object of the control API."""
        return {f.name: getattr(self, f.name) for f in fields(self)} | {"kind": self.kind.value}


def _kind(text: str) -> FaultKind:
    try:
        return FaultKind(text)
    except ValueError:
        raise ValueError(f"kind is {text!r}: use one of {', '.join(FaultKind)}") from None


class DrawnFaults:
    """The faults that apply to one request."""

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
    """The faults that are enabled."""

    def __init__(self, faults: Iterable[Fault], random: Random) -> None:
        self._initial = tuple(faults)
        self._random = random
        self._armed: list[_Armed] = []
        self.reset()

    def reset(self) -> None:
        """Restore the faults of the settings."""
        self._armed = [_Armed(fault, fault.times) for fault in self._initial]

    def add(self, fault: Fault) -> None:
        self._armed.append(_Armed(fault, fault.times))

    def clear(self) -> None:
        self._armed.clear()

    def documents(self) -> list[dict[str, Any]]:
        return [armed.fault.document() | {"left": armed.left} for armed in self._armed]

    def draw(self, *endpoints: str, connector: str | None = None) -> DrawnFaults:
        """Return the faults for one request, and decrement their counts.

        Args:
            endpoints: The names of the endpoint.
            connector: The provider, of a data request.
        """
        return self._draw(endpoints, connector, approval=False)

    def at_approval(self) -> Fault | None:
        """Return the `callback_error` fault for an approval. Requests to earlier pages do not decrement its count."""
        return self._draw(("consent",), None, approval=True).get(FaultKind.CALLBACK_ERROR)

    def _draw(self, endpoints: tuple[str, ...], connector: str | None, *, approval: bool) -> DrawnFaults:
        drawn = []
        for armed in self._armed:
            fault = armed.fault
            if fault.endpoint != "*" and fault.endpoint not in endpoints:
                continue
            if fault.connector not in (None, connector):
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
