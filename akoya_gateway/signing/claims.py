"""What is said to the upstream about one request, before it is signed."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from akoya_gateway.secret import Secret

Headers = list[tuple[bytes, bytes]]
"""Lower-case names, as ASGI has them."""


@dataclass(frozen=True, slots=True)
class ConnectionClaim:
    """One of the owner's grants for the `Akoya-Connections` dictionary: no token."""

    connector: str
    state: str
    expires_at: int


@dataclass(frozen=True, slots=True)
class UpstreamClaims:
    """The facts of design.md section 5. `bearer`, `connector` and the rest of the token are None without a grant."""

    owner: str
    connections: tuple[ConnectionClaim, ...]
    rule: str
    connector: str | None = None
    environment: str | None = None
    bearer: Secret | None = field(default=None, repr=False)
    expires_at: int | None = None
    scope: tuple[str, ...] = ()


class PreparedHeaders(Protocol):
    """Everything about one `UpstreamClaims` that does not change from request to request, encoded once.

    Keep it as long as the `UpstreamClaims` it was made from holds; it notices by itself when another key begins to
    sign.
    """

    @property
    def size(self) -> int:
        """Bytes that `headers` adds to a request head, at most: names, values and four bytes a line."""
        ...

    def headers(
        self,
        method: bytes,
        authority: bytes,
        path: bytes,
        query: bytes,
        now: float,
        *,
        content_digest: bytes | None = None,
    ) -> Headers:
        """All `Akoya-*` headers and the signature over them and this request.

        `authority` is what the upstream will see in Host, lower case and without a default port
        (`message_signatures.authority`); `path` the raw path bytes; `query` the raw query without `?`; `now` Unix
        seconds. `content_digest` is the value of the body's Content-Digest (`content_digest.sha256`): it is sent and
        signed, and the caller drops the client's own. Pure CPU, a few microseconds.
        """
        ...

    def lines(self, method: bytes, authority: bytes, path: bytes, query: bytes, now: float) -> bytes:
        """The same as `headers`, as lines of an HTTP/1.1 head, each with its CRLF."""
        ...


class Signer(Protocol):
    def prepare(self, claims: UpstreamClaims) -> PreparedHeaders:
        """Raises `header_values.UnencodableHeaderValue` for a value that no header can carry."""
        ...
