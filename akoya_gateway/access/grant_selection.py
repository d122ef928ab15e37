"""Reads which login a request chooses, under an access rule with `grant` (docs/design.md section 5). No I/O.

The value is the client's. It is compared only with the owner's own grants (`access.policy`), is never a key of a cache,
and stays in the request that the app receives. The app trusts the signed `Akoya-Grant`.
"""

from __future__ import annotations

from urllib.parse import parse_qsl

from akoya_gateway.access.request import RequestInfo
from akoya_gateway.access.rule_table import RuleMatch
from akoya_gateway.config.model import GrantSource
from akoya_gateway.errors import UserError

MAX_LENGTH = 64
"""Maximum number of characters of a grant ID that a request names."""

MAX_PARAMETERS = 1000
"""Maximum number of query parameters that are searched."""


def chosen_grant(match: RuleMatch, request: RequestInfo) -> str | None:
    """Return the grant ID that the request names where the rule expects one, or None if it names none.

    Raises:
        UserError: The request names two, or the value is empty or too long (400).
    """
    selector = match.rule.grant
    if selector is None or selector.source is GrantSource.SINGLE:
        return None
    if selector.source is GrantSource.PATH:
        return validated([match.parameters[selector.name]])
    if selector.source is GrantSource.HEADER:
        name = selector.name.encode()
        return validated([value.decode("latin-1") for header, value in request.headers if header == name])
    return validated(query_values(request.query, selector.name))


def query_values(query: bytes, name: str) -> list[str]:
    """Return all values of a query parameter. Raises `UserError` (400) for too many parameters."""
    try:
        pairs = parse_qsl(query.decode("latin-1"), keep_blank_values=True, max_num_fields=MAX_PARAMETERS)
    except ValueError:
        raise UserError("The query has too many parameters.", code="bad-parameters") from None
    return [value for key, value in pairs if key == name]


def validated(values: list[str]) -> str | None:
    """Return the only value, or None if there is none.

    Raises:
        UserError: There are several values, or it is empty or too long (400).
    """
    if not values:
        return None
    if len(values) > 1 or not 0 < len(values[0]) <= MAX_LENGTH:
        raise UserError(
            f"Name one grant, by its ID of at most {MAX_LENGTH} characters.",
            code="bad-grant",
            title="The login is not named clearly",
        )
    return values[0]
