"""Results of verification."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import unquote


class NotVerified(Exception):
    """The request is not the one that the gateway signed. Respond with 401 and do not use any of its headers.

    `reason` is a stable code for logs and metrics (`expired`, `bad-signature`, ...). docs/signed-headers.md lists all
    of them. `detail` explains it. Neither contains a token.
    """

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


@dataclass(frozen=True, slots=True)
class Connection:
    """One bank login of the owner."""

    connector: str
    state: str
    """`live`, `refreshing`, `uncertain`, `needs_reconnect` or `revoked`."""
    expires: int | None
    """Expiry of its token, in Unix seconds."""
    id: str | None = None
    """The grant ID, stable for this login at this bank."""


@dataclass(frozen=True, slots=True)
class Verified:
    """What the gateway signed for this request. Without a grant, `connector`, `id_token` and `expires` are None."""

    owner: str
    connector: str | None = None
    id_token: str | None = field(default=None, repr=False)
    expires: int | None = None
    scope: tuple[str, ...] = ()
    environment: str | None = None
    connections: tuple[Connection, ...] = ()
    provider: str | None = None
    """Akoya's ID of the bank, for the paths of its data APIs. `connector` is the name in gateway.yaml."""
    grant: str | None = None
    """The ID of the grant whose token is passed: one login at one bank."""
    consent: str | None = None
    """Akoya's ID of the consent, if its id_token contains one."""
    interaction_type: str | None = None
    """`user` or `batch`, the value of Akoya's `x-akoya-interaction-type`."""
    last_access: str | None = None
    """When the owner was last active (RFC 3339, UTC), the value of Akoya's `x-akoya-last-access`."""
    id_tokens: dict[str, str] = field(default_factory=dict, repr=False)
    """The id_token of each required connector, if the access rule has `pass_tokens: all`."""
    rule: str | None = None
    """The access rule that allowed the request. Only the JWT scheme sends it."""
    key_id: str = ""
    signed_at: int = 0
    signed_until: int = 0
    nonce: str | None = None
    """The signature's `nonce`, or the assertion's `jti`."""
    content_digest: str | None = None
    """The signed Content-Digest. The body itself is verified only by `body_matches(content_digest, body)`."""

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> dict[str, str]:
            """Return a new, empty dictionary for `id_tokens` if the instance has none.

            The gateway removes an empty one from claims that several requests share. An app that changes the dictionary
            of its request then changes no other.
            """
            if name == "id_tokens":
                return {}
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")


def decode_owner(text: str) -> str:
    """Decode the value of `Akoya-Owner`, in which characters other than visible ASCII are percent-encoded."""
    return unquote(text)
