"""A data recipient's requests to the emulator, over plain HTTP."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import httpx

from akoya_gateway.sandbox import SandboxServer
from akoya_gateway.sandbox.server import no_tls

REDIRECT = "http://127.0.0.1:8080/akoya/callback"
HTTP = httpx.Client(trust_env=False, timeout=60, verify=no_tls(), limits=httpx.Limits(max_keepalive_connections=0))
"""The default client; opens a new connection for each request."""
STATE = "a-state-of-many-characters"


def authorization_url(server: SandboxServer, **changes: str | None) -> str:
    """Return the documented authorization URL. A change to None omits the parameter."""
    parameters: dict[str, str | None] = {
        "connector": "mikomo",
        "client_id": server.client_id,
        "redirect_uri": REDIRECT,
        "response_type": "code",
        "scope": "openid profile offline_access",
        "state": STATE,
    }
    parameters |= changes
    return f"{server.url}/auth?" + urlencode({k: v for k, v in parameters.items() if v is not None})


def query_of(location: str) -> dict[str, str]:
    parsed = parse_qs(urlsplit(location).query, keep_blank_values=True)
    assert all(len(values) == 1 for values in parsed.values())
    return {name: values[0] for name, values in parsed.items()}


def code_for(server: SandboxServer, user: str = "mikomo_1", **changes: str | None) -> str:
    return query_of(server.consent(authorization_url(server, **changes), user))["code"]


def redeem(server: SandboxServer, code: str | None, **changes: Any) -> httpx.Response:
    """Exchange a code as Akoya documents it.

    `auth` and form fields can be changed; None omits a field.
    """
    auth = changes.pop("auth", (server.client_id, server.client_secret))
    form = {"grant_type": "authorization_code", "code": code, "redirect_uri": REDIRECT} | changes
    return HTTP.post(f"{server.url}/token", auth=auth, data={k: v for k, v in form.items() if v is not None})


def refresh(server: SandboxServer, token: str | None, **changes: Any) -> httpx.Response:
    auth = changes.pop("auth", None)
    form = {
        "grant_type": "refresh_token",
        "refresh_token": token,
        "client_id": server.client_id,
        "client_secret": server.client_secret,
    } | changes
    return HTTP.post(f"{server.url}/token", auth=auth, data={k: v for k, v in form.items() if v is not None})


def revoke(
    server: SandboxServer, token: str | None, auth: tuple[str, str] | None = None, **changes: str | None
) -> httpx.Response:
    form = {
        "token": token,
        "token_type_hint": "refresh_token",
        "client_id": server.client_id,
        "client_secret": server.client_secret,
    } | changes
    data = {k: v for k, v in form.items() if v is not None}
    return HTTP.request("POST", f"{server.url}/revoke", data=data, auth=auth)


def connect(server: SandboxServer, user: str = "mikomo_1", **changes: str | None) -> dict[str, Any]:
    """Consent, exchange the code and return the token response."""
    response = redeem(server, code_for(server, user, **changes))
    assert response.status_code == 200, response.text
    return dict(response.json())


def call(server: SandboxServer, path: str, id_token: str, **headers: str) -> httpx.Response:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return HTTP.get(server.url + path, headers={"Authorization": f"Bearer {id_token}"} | named)


class _Forms(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.action = ""
        self.fields: list[dict[str, str | None]] = []
        self.buttons: list[dict[str, str | None]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "form":
            self.action = dict(attrs)["action"] or ""
        elif tag == "input":
            self.fields.append(dict(attrs))
        elif tag == "button":
            self.buttons.append(dict(attrs))


class Person:
    """A user at a browser: reads the page, fills in its form and presses its buttons."""

    def __init__(self, server: SandboxServer) -> None:
        self._http = httpx.Client(base_url=server.url, trust_env=False, timeout=60, verify=no_tls())
        self.page: httpx.Response

    def __enter__(self) -> Person:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def open(self, url: str) -> Person:
        self.page = self._http.get(url)
        return self._follow()

    def _follow(self) -> Person:
        """Follow redirects within the emulator and stop at one to the app."""
        while self.page.is_redirect and self.page.headers["location"].startswith("/"):
            self.page = self._http.get(self.page.headers["location"])
        return self

    @property
    def title(self) -> str:
        found = re.search(r"<h1>(.*?)</h1>", self.page.text)
        assert found, self.page.text
        return found[1]

    @property
    def forms(self) -> _Forms:
        forms = _Forms()
        forms.feed(self.page.text)
        return forms

    def press(self, action: str, typed: dict[str, str | list[str]] | None = None) -> Person:
        forms = self.forms
        assert action in [button.get("value") for button in forms.buttons]
        for name in typed or {}:
            assert name in [field.get("name") for field in forms.fields]
        self.page = self._http.post(forms.action, data=(typed or {}) | {"action": action})
        return self._follow()

    def sign_in(self, user: str = "mikomo_1", password: str | None = None) -> Person:
        return self.press("continue", {"username": user, "password": user if password is None else password})

    def account_ids(self) -> list[str]:
        return [str(f["value"]) for f in self.forms.fields if f.get("name") == "account"]

    @property
    def sent_to(self) -> str:
        """The URL of the app that the browser was redirected to."""
        assert self.page.is_redirect, self.page.text
        return str(self.page.headers["location"])
