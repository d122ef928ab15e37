"""Example values for every page in its different states. `check` renders templates with them to find faults."""

from __future__ import annotations

from collections.abc import Mapping

_ROW = {
    "name": "Example Bank",
    "login": None,
    "rename": "/akoya/rename/example",
    "state": "live",
    "words": "-",
    "facts": ["-", "-"],
    "remedy": False,
    "connect": "/akoya/connect/example",
    "disconnect": "/akoya/disconnect/example?grant=g_1",
    "grant": "g_1",
}
_EMPTY_ROW = {**_ROW, "state": "", "disconnect": None, "grant": None}
_CONNECTIONS: dict[str, object] = {
    "rows": [],
    "csrf": None,
    "notice": "",
    "again": None,
    "number": "",
    "keeps": False,
    "connected": False,
    "back": "/",
}
_DISCONNECT: dict[str, object] = {
    "bank": "Example Bank",
    "logins": [],
    "action": "/akoya/disconnect/example",
    "csrf": "c",
    "grant": None,
    "return_to": "",
    "keep": "/akoya/",
}
_WAYS = [{"href": "/akoya/", "text": "-"}, {"href": "/", "text": "-"}]

SAMPLES: tuple[tuple[str, Mapping[str, object]], ...] = (
    ("connections", _CONNECTIONS),
    ("connections", {**_CONNECTIONS, "rows": [_EMPTY_ROW], "csrf": "c"}),
    ("connections", {**_CONNECTIONS, "rows": [_ROW], "csrf": "c", "connected": True, "keeps": True}),
    (
        "connections",
        {
            **_CONNECTIONS,
            "rows": [
                {**_ROW, "login": "-"},
                {**_ROW, "login": "-", "grant": "g_2", "state": "needs_reconnect", "remedy": True},
            ],
            "csrf": "c",
            "connected": True,
            "notice": "-",
            "again": {"name": "Example Bank", "href": "/akoya/connect/example"},
            "number": "0123456789abcdef",
        },
    ),
    ("disconnect", _DISCONNECT),
    ("disconnect", {**_DISCONNECT, "logins": ["-", "-"], "grant": "g_1", "return_to": "/accounts"}),
    ("logout", {"banks": ["-", "-"], "action": "/akoya/logout", "csrf": "c", "return_to": "/", "keep": "/akoya/"}),
    (
        "other_login",
        {
            "bank": "Example Bank",
            "new": "-",
            "old": ["-", "-"],
            "action": "/akoya/other-login/example",
            "csrf": "c",
            "grant": "g_2",
            "ids": "g_1",
            "return_to": "/accounts",
        },
    ),
    ("continue", {"href": "/accounts"}),
    ("problem", {"title": "-", "detail": "", "ways": _WAYS, "request_id": "0123456789abcdef"}),
    ("problem", {"title": "-", "detail": "-", "ways": _WAYS, "request_id": "0123456789abcdef"}),
)
"""Name of the template, and its values. The last sample of each page has the most content."""
