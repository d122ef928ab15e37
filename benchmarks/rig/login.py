"""Logs in as a browser does: follows redirects to the emulator and back, and keeps cookies."""

from __future__ import annotations

from urllib.parse import urljoin

import httpx

from akoya_gateway.sandbox.server import SandboxServer

_NAVIGATION = {"accept": "text/html", "sec-fetch-mode": "navigate", "sec-fetch-dest": "document"}


class LoginFailed(Exception):
    """Raised if a system refuses a logged-in request, or accepts one without a login."""


class Jar:
    """Cookies by name. `Secure` cookies are sent over plain http too, because all servers are on loopback."""

    def __init__(self) -> None:
        self._cookies: dict[str, str] = {}

    def take(self, response: httpx.Response) -> None:
        for line in response.headers.get_list("set-cookie"):
            pair, _, attributes = line.partition(";")
            name, _, value = pair.strip().partition("=")
            gone = "max-age=0" in attributes.lower() or "1970" in attributes or value in ("", "deleted")
            if gone:
                self._cookies.pop(name, None)
            else:
                self._cookies[name] = value

    def header(self) -> str:
        return "; ".join(f"{name}={value}" for name, value in self._cookies.items())


def log_in(url: str, akoya: SandboxServer, jar: Jar, user: str = "mikomo_1") -> str:
    """Follow redirects from `url` to a 200, with consent at the emulator. Returns the Cookie header to use.

    Raises:
        LoginFailed: the redirects do not lead to a 200.
    """
    with httpx.Client(trust_env=False, timeout=20) as http:
        seen = []
        place = url
        for _ in range(12):
            cookies = {"cookie": jar.header()} if jar.header() else {}
            response = http.get(place, headers={**_NAVIGATION, **cookies})
            jar.take(response)
            seen.append(f"{response.status_code} {place.partition('?')[0]}")
            if response.status_code == 200:
                return jar.header()
            location = response.headers.get("location")
            if response.status_code not in (301, 302, 303, 307) or location is None:
                break
            place = urljoin(place, location)
            if place.startswith(akoya.url):
                place = akoya.consent(place, user)
        raise LoginFailed(f"{' -> '.join(seen)}: {response.text[:300]}")


def status_of(url: str, headers: dict[str, str]) -> tuple[int, str]:
    with httpx.Client(trust_env=False, timeout=20) as http:
        response = http.get(url, headers=headers)
        return response.status_code, response.text
