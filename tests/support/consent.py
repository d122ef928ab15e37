"""Goes through the emulator's consent pages as a browser without scripts does: fills in the forms and submits them."""

from __future__ import annotations

from urllib.parse import urljoin

import httpx

from tests.support.sandbox_client import _Forms


def consent(browser: httpx.Client, page: httpx.Response) -> httpx.Response:
    """Sign in as mikomo_1, select all accounts, and return the page at which the browser ends."""
    for typed in ({"username": "mikomo_1", "password": "mikomo_1"}, {}, {"account": "all"}):
        forms = _Forms()
        forms.feed(page.text)
        accounts = [str(field["value"]) for field in forms.fields if field.get("name") == "account"]
        form = {**typed, **({"account": accounts} if accounts else {}), "action": "continue"}
        page = browser.post(urljoin(str(page.url), forms.action), data=form)
    return page
