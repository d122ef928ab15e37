"""Users who connect a bank on another host than that of the redirect URI come back without their cookie."""

from __future__ import annotations

import ipaddress

import pytest

from akoya_gateway.access.request import RequestInfo
from akoya_gateway.endpoints.callback_host import MAX_LOGGED_HOSTS, CallbackHost
from akoya_gateway.log import FIELDS

URI = "http://localhost:8080/akoya/callback"


def checked(
    check: CallbackHost, caplog: pytest.LogCaptureFixture, peer: str | None, **headers: bytes
) -> list[tuple[str, str]]:
    """Check a request with these headers, and return the events and hosts that were logged."""
    caplog.clear()
    pairs = [(name.replace("_", "-").encode(), value) for name, value in headers.items()]
    check.check(RequestInfo("GET", b"/akoya/connect/mikomo", b"", pairs, peer, "r-1"), URI)
    found = [getattr(record, FIELDS) for record in caplog.records]
    return [(event, fields["host"]) for event, fields in found]


def test_connect_on_another_host_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    check = CallbackHost(())
    mismatch = "callback host mismatch detected"
    for host in (b"localhost:8080", b"LOCALHOST", b"localhost:9", b"", b"[", b"a b"):
        assert checked(check, caplog, "192.0.2.1", host=host) == []
    assert checked(check, caplog, "192.0.2.1", host=b"127.0.0.1:8080") == [(mismatch, "127.0.0.1")]
    assert checked(check, caplog, "192.0.2.1", host=b"127.0.0.1:9") == []
    assert checked(check, caplog, None, host=b"[::1]:8080") == [(mismatch, "::1")]
    for number in range(2 * MAX_LOGGED_HOSTS):
        checked(check, caplog, None, host=b"host-%d" % number)
    assert len(caplog.records) == 0, "the limit is reached"


def test_forwarded_host_of_a_trusted_proxy_is_the_browsers_host(caplog: pytest.LogCaptureFixture) -> None:
    proxies = (ipaddress.ip_network("10.0.0.0/8"),)
    rewritten = {"host": b"10.9.9.9:8080", "x_forwarded_host": b"localhost:8080"}
    assert checked(CallbackHost(proxies), caplog, "10.1.1.1", **rewritten) == []
    assert len(checked(CallbackHost(proxies), caplog, "192.0.2.1", **rewritten)) == 1
