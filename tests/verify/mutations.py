"""Changes every byte of a signed request, one at a time."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any


def every_byte_changed(case: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the request with one bit flipped, once per byte of its target and of the gateway headers."""
    request = case["request"]
    for part in ("method", "authority", "path", "query"):
        for name, text in flipped(part, request[part]):
            yield {"name": name, "now": case["now"], "request": {**request, part: text}}
    for at, (name, value) in enumerate(request["headers"]):
        if not name.startswith(("akoya-", "signature")):
            continue
        changed = [(title, [text, value]) for title, text in flipped(f"name of {name}", name)]
        changed += [(title, [name, text]) for title, text in flipped(name, value)]
        for title, line in changed:
            headers = [*request["headers"][:at], line, *request["headers"][at + 1 :]]
            yield {"name": title, "now": case["now"], "request": {**request, "headers": headers}}


def flipped(what: str, text: str) -> Iterator[tuple[str, str]]:
    for at, character in enumerate(text):
        yield f"{what}, byte {at}", text[:at] + chr(ord(character) ^ 1) + text[at + 1 :]
