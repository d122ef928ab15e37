"""Errors raised if a grant's bearer cannot be passed on, by the party that can fix it (see `akoya_gateway.errors`)."""

from __future__ import annotations

from akoya_gateway.errors import OperatorError, ProviderError, UserError
from akoya_gateway.grants.grant import Grant


class NeedsReconnect(UserError):
    """The user must connect the same bank again. `grant` is the grant that ended, `grant.reason` the cause."""

    status = 401
    code = "reconnect"
    title = "The bank connection has ended and must be connected again"

    def __init__(self, grant: Grant) -> None:
        super().__init__()
        self.grant = grant
        self.reconnect = grant.connector


class UnknownGrant(UserError):
    """The owner has no grant of this ID at this bank.

    The error is the same for another owner's grant and for an ID that does not exist.
    """

    status = 404
    code = "unknown-grant"
    title = "Unknown login"

    def __init__(self, detail: str = "You have no such login at this bank.") -> None:
        super().__init__(detail)


class TemporarilyUnavailable(ProviderError):
    """The token has expired and the provider cannot refresh it now. The grant is kept; retry after `retry_after` s.

    `reconnect` is the connector that the user should be offered to connect again, after several failures in a row that
    may be those of this grant only; otherwise None. This holds for the classes below as well.
    """

    status = 503
    code = "provider-unavailable"
    title = "The bank connection service is not available right now"


class UntrustedResponses(OperatorError):
    """The token has expired and the response to its refresh cannot be trusted.

    The grant is kept and the refresh is retried.
    """

    status = 503
    code = "untrusted-response"
    title = "The bank connection cannot be verified right now"


class RegistrationFault(OperatorError):
    """The provider rejects the client registration, so the token cannot be refreshed. The grant is kept."""

    code = "registration-refused"
    title = "The bank connection service is not available right now"
