"""Detects users who connect a bank on another host than the one that the bank sends them back to.

Browsers keep cookies by host, so the callback arrives without the cookie of the attempt and is refused: a user at
`http://127.0.0.1:8080` whose redirect URI is at `http://localhost:8080`, or at `www.example.com` instead of
`example.com`. The gateway does not redirect such a user, because a proxy may only have replaced the header.
"""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import urlsplit

from akoya_gateway.access.request import RequestInfo, host_of
from akoya_gateway.log import LoggedValues, logger
from akoya_gateway.trusted_proxies import TrustedPeer, TrustedProxies

log = logger("akoya_gateway.endpoints")

MAX_LOGGED_HOSTS = 10
"""Maximum number of hosts to log, once each. Clients choose them."""


class CallbackHost:
    """Logs hosts of connect requests that differ from the host of the redirect URI."""

    def __init__(self, trusted_proxies: Sequence[TrustedPeer]) -> None:
        self._trusts = TrustedProxies(trusted_proxies)
        self._logged = LoggedValues(MAX_LOGGED_HOSTS)

    def check(self, request: RequestInfo, redirect_uri: str) -> None:
        """Log the host of the request if cookies that are set there do not reach the redirect URI."""
        host, expected = self._host(request), urlsplit(redirect_uri).hostname
        if host and host != expected and self._logged.add(host):
            log.warning("callback host mismatch detected", host=host, redirect_uri=redirect_uri)

    def _host(self, request: RequestInfo) -> str | None:
        """Return the host that the browser used, without port: that of a trusted proxy's X-Forwarded-Host, or Host."""
        headers = request.headers
        if self._trusts(request.peer, is_forwarded=request.peer_is_forwarded):
            forwarded = [(b"host", value) for name, value in headers if name == b"x-forwarded-host"]
            headers = forwarded or headers
        try:
            return urlsplit(f"//{host_of(headers).decode('ascii')}").hostname
        except ValueError:
            return None
