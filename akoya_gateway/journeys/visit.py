"""One request to a route of ours, with everything a journey needs to judge it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from urllib.parse import parse_qsl

from akoya_gateway.access.ask import Ask
from akoya_gateway.errors import UserError
from akoya_gateway.journeys.visitor import Visitor

LARGEST_FORM = 16_384

ReadBody = Callable[[int], Awaitable[bytes]]
"""Reads the request body, at most so many bytes; raises `UserError` (413) beyond."""


@dataclass(frozen=True, slots=True)
class Visit:
    ask: Ask
    path: str
    visitor: Visitor
    read_body: ReadBody

    def parameters(self) -> Mapping[str, str]:
        """The query's parameters. Raises `UserError` for one that occurs twice (RFC 6749 section 3.1 has it so)."""
        return _once(self.ask.query)

    async def form(self) -> Mapping[str, str]:
        """The fields of an urlencoded form."""
        kind = (self.ask.header(b"content-type") or b"").split(b";")[0].strip().lower()
        if kind != b"application/x-www-form-urlencoded":
            raise UserError("Send the form as application/x-www-form-urlencoded.", status=415, code="wrong-form")
        return _once(await self.read_body(LARGEST_FORM))


def _once(encoded: bytes) -> Mapping[str, str]:
    try:
        pairs = parse_qsl(encoded.decode("ascii"), keep_blank_values=True, max_num_fields=64, errors="strict")
    except ValueError:
        raise UserError("The parameters could not be read.", code="bad-parameters") from None
    found = dict(pairs)
    if len(found) != len(pairs):
        raise UserError("A parameter occurs twice.", code="duplicate-parameter")
    return found
