"""Reads the error code of a redirect."""

from __future__ import annotations

from urllib.parse import parse_qs, urlsplit

import httpx


def errors(response: httpx.Response) -> str:
    """Return the error code that the user's browser is redirected with."""
    assert response.status_code == 302, response.text
    return parse_qs(urlsplit(response.headers["location"]).query)["error"][0]
