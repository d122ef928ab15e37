"""The claims asserted to the upstream about a request, and the interfaces of the signers. Contains no signing."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

from akoya_gateway.secret import Secret

USER, BATCH = "user", "batch"
"""The values of `Akoya-Interaction-Type`: a live session or identity made the request, or a background job."""

Headers = list[tuple[bytes, bytes]]
"""Headers as in ASGI, with lower-case names."""


@dataclass(frozen=True, slots=True)
class ConnectionClaim:
    """One of the owner's grants, as listed in the `Akoya-Connections` dictionary. Contains no token."""

    connector: str
    state: str
    expires_at: int
    id: str


@dataclass(frozen=True, slots=True)
class UpstreamClaims:
    """The claims of docs/design.md section 5. Without a grant the fields from `connector` on keep their defaults.

    `interaction_type` is `user`, or `batch` for a request without a user. `last_access` is Unix seconds. `id_tokens`
    has a bearer for each connector that the rule requires, if the rule passes all of them; the first of them to expire
    does so at `id_tokens_end`.
    """

    owner: str
    connections: tuple[ConnectionClaim, ...]
    rule: str
    interaction_type: str = USER
    connector: str | None = None
    environment: str | None = None
    bearer: Secret | None = field(default=None, repr=False)
    expires_at: int | None = None
    scope: tuple[str, ...] = ()
    provider: str | None = None
    grant: str | None = None
    consent: str | None = None
    last_access: int | None = None
    id_tokens: tuple[tuple[str, Secret], ...] = field(default=(), repr=False)
    id_tokens_end: int | None = None


class PreparedHeaders(Protocol):
    """The parts of one `UpstreamClaims` that are the same for every request, encoded once.

    It may be reused as long as its `UpstreamClaims` are valid. It switches to a new signing key by itself.
    """

    @property
    def size(self) -> int:
        """Upper bound in bytes of what `headers` adds to a request head: names, values and four bytes per line."""
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
        """Return all `Akoya-*` headers and the signature over them and this request.

        Does no I/O and takes a few microseconds.

        Args:
            method: The request method.
            authority: The Host value that the upstream will receive, in lower case and without a default port
                (`message_signatures.authority`).
            path: The raw path.
            query: The raw query without `?`.
            now: Unix seconds.
            content_digest: The Content-Digest value of the body (`content_digest.sha256`), which is signed and sent.
                The caller must remove the client's own Content-Digest.
        """
        ...

    def lines(self, method: bytes, authority: bytes, path: bytes, query: bytes, now: float) -> bytes:
        """Return the same as `headers`, as lines of an HTTP/1.1 head that each end in CRLF."""
        ...


class Signer(Protocol):
    """One of the two signing schemes."""

    def prepare(self, claims: UpstreamClaims) -> PreparedHeaders:
        """Encode the claims once, for signing many requests.

        Raises:
            UnencodableHeaderValue: A value cannot be represented in a header.
        """
        ...
