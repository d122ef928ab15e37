"""Why a grant's bearer cannot be passed, sorted by who can do something about it (see `akoya_gateway.errors`)."""

from __future__ import annotations

from akoya_gateway.errors import OperatorError, ProviderError, UserError
from akoya_gateway.grants.grant import Grant


class NeedsReconnect(UserError):
    """Only the user can help: by connecting the same bank again. `grant` says which, `grant.reason` why."""

    status = 401
    code = "reconnect"
    title = "The bank connection has ended and must be connected again"

    def __init__(self, grant: Grant) -> None:
        super().__init__()
        self.grant = grant


class TemporarilyUnavailable(ProviderError):
    """The token has ended and the provider cannot renew it at the moment. The grant is kept; `retry_after` seconds."""

    status = 503
    code = "provider-unavailable"
    title = "The bank connection service is not available right now"


class UntrustedResponses(OperatorError):
    """The token has ended, and the response to its refresh cannot be trusted. The grant is kept, the refresh repeated.
    `reconnect`: the connector to offer to the user after several such responses in a row, else None."""

    status = 503
    code = "untrusted-response"
    title = "The bank connection cannot be verified right now"

    def __init__(self, *, retry_after: int, reconnect: str | None) -> None:
        super().__init__(retry_after=retry_after)
        self.reconnect = reconnect


class RegistrationFault(OperatorError):
    """The provider does not accept our client registration, so the token cannot be renewed. The grant is kept."""

    code = "registration-refused"
    title = "The bank connection service is not available right now"
