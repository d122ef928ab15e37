"""What is said to the upstream about one request, before it is signed."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from akoya_gateway.secret import Secret

Headers = list[tuple[bytes, bytes]]
"""Lower-case names, as ASGI has them."""


@dataclass(frozen=True, slots=True)
class PassedConnection:
    """One of the owner's grants for the `Akoya-Connections` dictionary: no token."""

    connector: str
    state: str
    expires_at: int


@dataclass(frozen=True, slots=True)
class Passed:
    """The facts of design.md section 5. `bearer`, `connector` and the rest of the token are None without a grant."""

    owner: str
    connections: tuple[PassedConnection, ...]
    rule: str
    connector: str | None = None
    environment: str | None = None
    bearer: Secret | None = field(default=None, repr=False)
    expires_at: int | None = None
    scope: tuple[str, ...] = ()


class Prepared(Protocol):
    """Everything about one `Passed` that does not change from request to request, encoded once."""

    def headers(self, method: bytes, authority: bytes, path: bytes, query: bytes, now: float) -> Headers:
        """All `Akoya-*` headers and the signature over them and this request.

        `authority` is what the upstream will see in Host, lower case; `path` the raw path bytes; `query` the raw
        query without `?`. Pure CPU, a few microseconds.
        """
        ...


class Signer(Protocol):
    def prepare(self, passed: Passed) -> Prepared: ...
