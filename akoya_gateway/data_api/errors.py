"""Errors of calls of the data APIs, as the client gets them (docs/data-api.md)."""

from __future__ import annotations

from akoya_gateway.errors import ProviderError, UserError


class BankUnavailable(ProviderError):
    """The bank or Akoya did not process the call. The grant is kept: connecting the bank again would not help."""

    status = 503
    code = "bank-unavailable"
    title = "The bank does not answer right now"
    retry_after = 10


class BankTimeout(ProviderError):
    """There was no response in time."""

    status = 504
    code = "bank-timeout"
    title = "The bank did not answer in time"


class BankRedirect(ProviderError):
    """Akoya returned a redirect, which is never followed: it could lead the token elsewhere."""

    status = 502
    code = "bank-redirect"
    title = "The bank's response cannot be used"


class ResponseTruncated(ProviderError):
    """The response ended before its end. The client sees a truncated response, because its head was sent."""

    code = "bank-response-truncated"


class NotEntitled(UserError):
    """A fresh token was rejected too: the consent does not include this data."""

    status = 403
    code = "not-entitled"
    title = "The bank connection does not include this data"


class TooManyCalls(UserError):
    """The budget of calls is used up (`data_rate`, or Akoya's own limit)."""

    status = 429
    code = "too-many-requests"
    title = "Too many requests to the banks"
    retry_after = 1


class TokenRefreshed(ProviderError):
    """The token was rejected and has been replaced. The request is not repeated, because it may change something."""

    status = 503
    code = "token-refreshed"
    title = "The bank connection was renewed"
    retry_after = 1
