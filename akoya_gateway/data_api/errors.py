"""Errors of data API calls, as clients get them (docs/data-api.md)."""

from __future__ import annotations

from akoya_gateway.errors import ProviderError, UserError


class BankUnavailable(ProviderError):
    """The bank or Akoya did not process the call. The grant is kept: connecting the bank again would not help."""

    status = 503
    code = "bank-unavailable"
    title = "The bank is not responding right now"
    retry_after = 10


class BankTimeout(ProviderError):
    """No response arrived within `timeout`, or Akoya's own timeout passed (408)."""

    status = 504
    code = "bank-timeout"
    title = "The bank did not respond in time"


class BankRedirect(ProviderError):
    """Akoya returned a redirect, which is never followed: it could lead the token elsewhere."""

    status = 502
    code = "bank-redirect"
    title = "The bank's response cannot be used"


class ResponseTruncated(ProviderError):
    """Akoya's response was truncated. Its head had been sent, so the client sees a truncated response."""

    code = "bank-response-truncated"


class NotEntitled(UserError):
    """A freshly refreshed token was rejected as well: the consent does not include this data."""

    status = 403
    code = "not-entitled"
    title = "The bank connection does not include this data"


class TooManyCalls(UserError):
    """The rate limit was reached: `data_rate`, or Akoya's own limit."""

    status = 429
    code = "too-many-requests"
    title = "Too many requests to the banks"
    retry_after = 1


class TokenRefreshed(ProviderError):
    """The token was rejected and has been replaced. The request was not retried, because that may not be safe."""

    status = 503
    code = "token-refreshed"
    title = "The bank connection was renewed"
    retry_after = 1
