"""A redirect policy, and where browsers end after a redirect."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

from akoya_gateway.access.redirect_policy import RedirectPolicy
from akoya_gateway.config.model import Origin

POLICY = RedirectPolicy(
    Origin("https", "app.example.com", 443),
    ("/accounts", "/accounts/*", "https://pages.example.com/*", "https://one.example.com/done"),
)


def as_a_browser_reads(location: str, base: str) -> str:
    """Return the host a browser ends at.

    As in the WHATWG URL standard, controls and blanks are removed and a backslash is a slash.
    """
    text = re.sub(r"[\t\r\n]", "", location).strip("\x00\x01\x0b\x1f ").replace("\\", "/")
    lowered = re.match(r"(?i)^(https?):/*", text)
    if lowered:
        text = f"{lowered[1].lower()}://{text[lowered.end() :]}"
    elif text.startswith("//"):
        text = "https://" + text.lstrip("/")
    elif re.match(r"(?i)^[a-z][a-z0-9+.-]*:", text):
        return f"(scheme {text.split(':')[0]})"
    else:
        return urlsplit(base).hostname or ""
    return (urlsplit(text).hostname or "").lower()
