"""Advisories that cannot apply to a gateway like this one, each with the reason."""

from __future__ import annotations

NOT_APPLICABLE: dict[str, tuple[str, str]] = {
    "CVE-2026-40574": (
        "An e-mail address with two at signs passes a domain check.",
        "There are no rules on e-mail addresses or domains. A rule requires connections, and an identity is compared as a whole.",
    ),
    "GHSA-c5c4": ("The same as CVE-2026-40574.", "See there."),
    "CVE-2021-39162": (
        "HTTP/2 resets crash the proxy or exhaust it.",
        "The gateway speaks HTTP/1.1 on both sides; HTTP/2 ends at the proxy in front.",
    ),
    "CVE-2021-39204": ("HTTP/2 resets burn CPU.", "The gateway speaks HTTP/1.1 on both sides."),
}
