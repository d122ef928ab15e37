"""A request to one of the gateway's own routes, and the parsing of its parameters and form."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from urllib.parse import parse_qsl

from akoya_gateway.access.request import RequestInfo
from akoya_gateway.authentication.principal import Principal
from akoya_gateway.errors import UserError

MAX_FORM_BYTES = 16_384

ReadBody = Callable[[int], Awaitable[bytes]]
"""Reads the request body. Takes the maximum number of bytes and raises `UserError` (413) for a longer body."""


@dataclass(frozen=True, slots=True)
class EndpointRequest:
    """A request with its normalized path and its authenticated caller."""

    request: RequestInfo
    path: str
    principal: Principal
    read_body: ReadBody

    def parameters(self) -> Mapping[str, str]:
        """Return the query parameters. Raises `UserError` if one occurs twice, as RFC 6749 section 3.1 requires."""
        return _unique_parameters(self.request.query)

    async def form(self) -> Mapping[str, str]:
        """Read the body and return the fields of the urlencoded form.

        Raises:
            UserError: The media type is another one (415), a field occurs twice, or the body is too long (413).
        """
        kind = (self.request.header(b"content-type") or b"").split(b";")[0].strip().lower()
        if kind != b"application/x-www-form-urlencoded":
            raise UserError("Send the form as application/x-www-form-urlencoded.", status=415, code="wrong-form")
        return _unique_parameters(await self.read_body(MAX_FORM_BYTES))


_TRACKING = re.compile(
    r"utm_\w+|(?:fb|g|d|tt|tw|y)clid|msclkid|gclsrc|[gw]braid|mc_[ce]id|igshid|srsltid|li_fat_id|_g[al]|_hs(?:enc|mi)"
)
"""Tracking parameters that mail and advertising services add to links."""
_NAMEABLE = re.compile(r"[\w.\[\]-]{1,64}", re.ASCII)


def refuse_unknown(parameters: Mapping[str, str], *known: str) -> None:
    """Raise `UserError` for an unknown parameter, which is probably an unescaped part of `return_to`.

    In `?return_to=/accounts?year=2026&month=7` the month is a separate parameter, so `return_to` would lose it.
    Tracking parameters are ignored.
    """
    for name in parameters:
        if name in known or _TRACKING.fullmatch(name):
            continue
        quoted_name = f'"{name}"' if _NAMEABLE.fullmatch(name) else "one of them"
        raise UserError(
            f"{quoted_name} is not a parameter of this address. "
            "If it belongs to the address to return to, write & as %26 there.",
            code="unknown-parameter",
            title="The link is not complete",
        )


def _unique_parameters(encoded: bytes) -> Mapping[str, str]:
    try:
        pairs = parse_qsl(encoded.decode(), keep_blank_values=True, max_num_fields=64, errors="strict")
    except ValueError:
        raise UserError("The parameters could not be read.", code="bad-parameters") from None
    found = dict(pairs)
    if len(found) != len(pairs):
        raise UserError("A parameter occurs twice.", code="duplicate-parameter")
    return found
