"""Finds the bank connection of a request. Shared by the integrations of all frameworks."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any
from urllib.parse import quote

from akoya_verify.policy import NO_GATEWAY
from akoya_verify.result import NotVerified, Verified

ENDED = frozenset({"needs_reconnect", "revoked"})


class ConnectionMissing(Exception):
    """The view needs a bank connection that the request does not have.

    `status` and `code` are 401 `not-connected` (the user never connected the bank), 401 `reconnect` (the connection has
    ended), or 409 `other-connection` (the bank is connected, but the access rule passes the token of another one).
    `connect_url` is the gateway's path at which the user connects the bank.
    """

    def __init__(self, status: int, code: str, connector: str | None, prefix: str) -> None:
        super().__init__(f"{code}: {connector or 'any bank'}")
        self.status = status
        self.code = code
        self.connector = connector
        self.connect_url = f"{prefix}/connect/{quote(connector, safe='')}" if connector else f"{prefix}/"

    def problem(self) -> dict[str, object]:
        """Return the problem document (RFC 9457), with the same members as the gateway's own."""
        title = "Conflict" if self.status == 409 else "Unauthorized"
        return {
            "type": f"urn:akoya-gateway:problem:{self.code}",
            "title": title,
            "status": self.status,
            "connect_url": self.connect_url,
            "connectors": [] if self.connector is None else [self.connector],
        }

    def body(self) -> bytes:
        """Return the problem document as JSON."""
        return json.dumps(self.problem()).encode()


def current(holder: Mapping[str, Any]) -> Verified | None:
    """Return the verified claims of a request, or None if it has no owner.

    Args:
        holder: The ASGI scope or the WSGI environ.

    Raises:
        NotVerified: Nothing has verified the request (`no-gateway`): neither a gateway nor a verifier wraps the app.
    """
    verified = holder.get("akoya", ...)
    if verified is None or isinstance(verified, Verified):
        return verified
    raise NotVerified("no-gateway", NO_GATEWAY)


def connection_of(verified: Verified | None, connector: str | None = None, *, prefix: str = "/akoya") -> Verified:
    """Return the connection of a request to one bank, or to any bank.

    Args:
        verified: The verified claims of the request, from `current`.
        connector: The bank's name in gateway.yaml. None selects the bank whose token the request has.
        prefix: The gateway's `prefix`, for `connect_url`.

    Returns:
        `verified`. If the access rule passes the tokens of several banks, a copy with the token of `connector`, where
            only `connector`, `id_token`, `expires` and `grant` of that bank are known.

    Raises:
        ConnectionMissing: The request has no such connection.
    """
    if verified is None or (connector is None and verified.connector is None):
        raise ConnectionMissing(401, "not-connected", connector, prefix)
    if connector is None or verified.connector == connector:
        return verified
    logins = [one for one in verified.connections if one.connector == connector]
    alive = [one for one in logins if one.state not in ENDED]
    if connector in verified.id_tokens:
        only = alive[0] if len(alive) == 1 else None
        return replace(
            verified,
            connector=connector,
            id_token=verified.id_tokens[connector],
            expires=only.expires if only else None,
            grant=only.id if only else None,
            scope=(),
            provider=None,
            consent=None,
        )
    if alive:
        raise ConnectionMissing(409, "other-connection", connector, prefix)
    raise ConnectionMissing(401, "reconnect" if logins else "not-connected", connector, prefix)
