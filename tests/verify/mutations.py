"""Every byte of a signed request changed, one at a time."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any


def every_byte_changed(case: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The request once for each byte of its target, of our headers' names and of their values, with one bit flipped."""
    request = case["request"]
    for part in ("method", "authority", "path", "query"):
        for name, text in flipped(part, request[part]):
            yield {"name": name, "now": case["now"], "request": {**request, part: text}}
    for at, (name, value) in enumerate(request["headers"]):
        if not name.startswith(("akoya-", "signature")):
            continue
        # The last character of base64 has bits that stand for nothing: the same signature in another spelling.
        end = len(value.rstrip("=:")) - 1 if name == "signature" else len(value)
        changed = [(title, [text, value]) for title, text in flipped(f"name of {name}", name)]
        changed += [(title, [name, text + value[end:]]) for title, text in flipped(name, value[:end])]
        for title, line in changed:
            headers = [*request["headers"][:at], line, *request["headers"][at + 1 :]]
            yield {"name": title, "now": case["now"], "request": {**request, "headers": headers}}


def flipped(what: str, text: str) -> Iterator[tuple[str, str]]:
    for at, character in enumerate(text):
        yield f"{what}, byte {at}", text[:at] + chr(ord(character) ^ 1) + text[at + 1 :]
