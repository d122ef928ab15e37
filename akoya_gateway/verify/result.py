"""What verification ends in."""

from __future__ import annotations

from dataclasses import dataclass, field
from urllib.parse import unquote


class NotVerified(Exception):
    """The request is not what the gateway signed: answer 401 and use nothing of it.

    `reason` is a stable word for logs and metrics (`expired`, `bad-signature`, ...; all are listed in
    docs/signed-headers.md); the text says more. Neither holds a token.
    """

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


@dataclass(frozen=True, slots=True)
class Connection:
    """One bank login of the owner. `state` is `live`, `refreshing`, `uncertain`, `needs_reconnect` or `revoked`;
    `expires` is the end of its token, Unix seconds."""

    connector: str
    state: str
    expires: int | None


@dataclass(frozen=True, slots=True)
class Verified:
    """What the gateway says of this request. Without a grant `connector`, `id_token`, `expires` are None."""

    owner: str
    connector: str | None = None
    id_token: str | None = field(default=None, repr=False)
    expires: int | None = None
    scope: tuple[str, ...] = ()
    environment: str | None = None
    connections: tuple[Connection, ...] = ()
    rule: str | None = None
    """The access rule that let the request through; said by the JWT scheme only."""
    key_id: str = ""
    signed_at: int = 0
    signed_until: int = 0
    nonce: str | None = None
    """The signature's `nonce`, or the assertion's `jti`."""
    content_digest: str | None = None
    """The covered Content-Digest: the body is the signed one only if `body_matches(content_digest, body)`."""


def decode_owner(text: str) -> str:
    """`Akoya-Owner` percent-encodes what is not visible ASCII."""
    return unquote(text)
