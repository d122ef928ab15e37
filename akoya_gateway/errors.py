"""What can go wrong on the way of a request, sorted by whose fault it is.

The answer, the log level and the metric follow from the root class (compare h11's Local/RemoteProtocolError):

=================  =========================  ===========  =========
root               whose fault                status from  log level
=================  =========================  ===========  =========
`UserError`        the browser or API client  400 to 431   info
`OperatorError`    configuration, keys, disk  500, 503     error
`ProviderError`    Akoya or the bank          502, 503     warning
`UpstreamError`    the app behind us          502, 504     warning
=================  =========================  ===========  =========

Faults of the configuration file itself are not here: see `config.diagnostics`.
"""

from __future__ import annotations

from collections.abc import Mapping


class GatewayError(Exception):
    """A fault with an answer. `code` is stable and is the last part of the RFC 9457 `type`.

    `title` is for everyone; `detail` may tell a person what to do; neither ever holds a secret or unjudged text.
    """

    status = 500
    code = "internal"
    title = "Something went wrong"
    retry_after: int | None = None
    """Seconds, for the answer's Retry-After."""
    is_private = False
    """`detail` names what is inside (files, hosts, keys): it is for logs and `/readyz`, and stays out of answers."""

    def __init__(
        self,
        detail: str = "",
        *,
        status: int | None = None,
        code: str | None = None,
        title: str | None = None,
        retry_after: int | None = None,
        facts: Mapping[str, int | str] | None = None,
    ) -> None:
        """`facts`: fields of the log line about it, validated and without secrets."""
        super().__init__(detail or title or self.title)
        self.facts = facts or {}
        self.detail = detail
        self.status = status or self.status
        self.code = code or self.code
        self.title = title or self.title
        self.retry_after = self.retry_after if retry_after is None else retry_after

    @property
    def public_detail(self) -> str:
        """The detail that its sender may see."""
        return "" if self.is_private else self.detail


class UserError(GatewayError):
    status = 400
    code = "bad-request"
    title = "The request could not be understood"


class OperatorError(GatewayError):
    status = 503
    code = "misconfigured"
    title = "The service is not available right now"


class StoreUnavailable(OperatorError):
    """The store cannot be read or written. Never a logout: 503, cookie untouched, recovery by itself."""

    code = "store-unavailable"
    retry_after = 2
    is_private = True


class UndecryptableRecord(OperatorError):
    """A record was sealed with a key that is not in the ring; `key_id` says which key is missing."""

    code = "key-missing"
    is_private = True

    def __init__(self, key_id: str) -> None:
        super().__init__(f"no key {key_id!r} in sessions.keys")
        self.key_id = key_id


class ProviderError(GatewayError):
    status = 502
    code = "provider-failed"
    title = "The bank connection service did not answer"


class UpstreamError(GatewayError):
    status = 502
    code = "upstream-failed"
    title = "The application did not answer"
