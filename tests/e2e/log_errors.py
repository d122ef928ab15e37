"""Reads the error code of a redirect."""

from __future__ import annotations

from urllib.parse import parse_qs, urlsplit

import httpx


def errors(answer: httpx.Response) -> str:
    """Return the error code that the user's browser is redirected with."""
    assert answer.status_code == 302, answer.text
    return parse_qs(urlsplit(answer.headers["location"]).query)["error"][0]
