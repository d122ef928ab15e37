"""A request to one of the gateway's own routes, and the parsing of its parameters and form."""

from __future__ import annotations

import re
from collections.abc import Mapping
from urllib.parse import parse_qsl

from starlette.requests import Request
from starlette.types import Receive, Scope

from akoya_gateway.access.request import RequestInfo
from akoya_gateway.authentication.principal import Principal
from akoya_gateway.endpoints.request_body import read_body
from akoya_gateway.errors import UserError

MAX_FORM_BYTES = 16_384


class EndpointRequest(Request):
    """A request to one of the gateway's own routes, with its authenticated caller.

    `info` is the request as the access gate sees it. Use its headers: unlike Starlette's `cookies` and `query_params`,
    the methods here and `sessions.gateway_cookies` refuse a value that occurs twice instead of choosing one.
    """

    @staticmethod
    def scope_of(scope: Scope, info: RequestInfo, principal: Principal) -> Scope:
        """Return the scope for `endpoints.router.Router`. Paths of routes are absolute, so it has no `root_path`."""
        return {**scope, "root_path": "", "akoya.request": info, "akoya.principal": principal}

    def __init__(self, scope: Scope, receive: Receive) -> None:
        super().__init__(scope, receive)
        self.info: RequestInfo = scope["akoya.request"]
        self.principal: Principal = scope["akoya.principal"]

    def parameters(self) -> Mapping[str, str]:
        """Return the query parameters. Raises `UserError` if one occurs twice, as RFC 6749 section 3.1 requires."""
        return _unique_parameters(self.info.query)

    async def fields(self) -> Mapping[str, str]:
        """Read the body and return the fields of the urlencoded form.

        Raises:
            UserError: The media type is another one (415), a field occurs twice, or the body is too long (413).
        """
        kind = (self.info.header(b"content-type") or b"").split(b";")[0].strip().lower()
        if kind != b"application/x-www-form-urlencoded":
            raise UserError("Send the form as application/x-www-form-urlencoded.", status=415, code="wrong-form")
        return _unique_parameters(await read_body(self.receive, MAX_FORM_BYTES))


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
