"""Errors that can occur while a request is handled, grouped by whose fault they are.

The response, the log level and the metric follow from the root class (compare h11's Local/RemoteProtocolError):

=================  =========================  ===========  =========
root               whose fault                status from  log level
=================  =========================  ===========  =========
`UserError`        the browser or API client  400 to 431   info
`OperatorError`    configuration, keys, disk  500, 503     error
`ProviderError`    Akoya or the bank          502, 503     warning
`UpstreamError`    the app behind us          502, 504     warning
=================  =========================  ===========  =========

Errors in the configuration file are not here: see `config.diagnostics`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence


class GatewayError(Exception):
    """An error with an HTTP response. `code` is stable and is the last part of the RFC 9457 `type`.

    `title` describes the kind of error. `detail` may tell the user what to do. Neither ever contains a secret or
    unvalidated text.
    """

    status = 500
    code = "internal"
    title = "Something went wrong"
    retry_after: int | None = None
    """Seconds for the response's Retry-After header, or None to omit it."""
    reconnect: str | None = None
    """The connector that the user should be offered to connect again, or None."""
    headers: Sequence[tuple[bytes, bytes]] = ()
    """Further headers of the response."""
    is_private = False
    """True if `detail` names internals (files, hosts, keys). It is then only logged and shown by `/readyz`."""
    is_logged = False
    """True if the reason was logged where the error occurred, so that the response to it is not logged again."""

    def __init__(
        self,
        detail: str = "",
        *,
        status: int | None = None,
        code: str | None = None,
        title: str | None = None,
        retry_after: int | None = None,
        reconnect: str | None = None,
        facts: Mapping[str, int | str] | None = None,
    ) -> None:
        """Create the error; arguments that are given override the attributes of the class.

        Args:
            detail: what the user or operator can do about it.
            status: the HTTP status of the response.
            code: the last part of the RFC 9457 `type`.
            title: a short description of the error.
            retry_after: seconds for the Retry-After header.
            reconnect: the connector that the user should be offered to connect again.
            facts: fields for the log entry, validated and without secrets.
        """
        super().__init__(detail or title or self.title)
        self.facts = facts or {}
        self.detail = detail
        self.status = status or self.status
        self.code = code or self.code
        self.title = title or self.title
        self.retry_after = self.retry_after if retry_after is None else retry_after
        self.reconnect = self.reconnect if reconnect is None else reconnect

    @property
    def public_detail(self) -> str:
        """The detail that may be sent to the client; empty if it is private."""
        return "" if self.is_private else self.detail


class UserError(GatewayError):
    """The browser or API client sent a request that cannot be fulfilled."""

    status = 400
    code = "bad-request"
    title = "The request could not be understood"


class MethodNotAllowed(UserError):
    """The route does not support the method. `allow` is the value of the `Allow` header (RFC 9110 section 15.5.6)."""

    status = 405
    code = "method-not-allowed"
    title = "That cannot be done here"

    def __init__(self, allow: str) -> None:
        """Create the error with a detail that names the methods."""
        super().__init__(f"Use {allow}.")
        self.headers = ((b"allow", allow.encode("ascii")),)


class OperatorError(GatewayError):
    """The gateway cannot work because of its configuration, keys or storage."""

    status = 503
    code = "misconfigured"
    title = "The service is not available right now"


class StoreUnavailable(OperatorError):
    """The store cannot be read or written.

    This must never log users out: the response is a 503 that leaves the cookie untouched, and the gateway recovers
    without intervention.
    """

    code = "store-unavailable"
    retry_after = 2
    is_private = True


class UndecryptableRecord(OperatorError):
    """A record was encrypted with a key that is not in the key ring. `key_id` is the ID of the missing key."""

    code = "key-missing"
    is_private = True

    def __init__(self, key_id: str) -> None:
        super().__init__(f"no key {key_id!r} in sessions.keys")
        self.key_id = key_id


class ProviderError(GatewayError):
    """A request to Akoya or the bank failed."""

    status = 502
    code = "provider-failed"
    title = "The bank connection service did not respond"


class UpstreamError(GatewayError):
    """A request to the app behind the gateway failed."""

    status = 502
    code = "upstream-failed"
    title = "The application did not respond"
