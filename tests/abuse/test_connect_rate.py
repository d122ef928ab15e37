"""Rate limit of login starts per client address (`limits.connects_per_minute`)."""

from __future__ import annotations

import ipaddress
from ipaddress import ip_network
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from akoya_gateway.access.request import RequestInfo
from akoya_gateway.endpoints.rate_limit import RateLimiter, TooManyRequests, client_key
from tests.support.environment import GatewayEnv

PROXIES = (ip_network("10.0.0.0/8"), ip_network("::1/128"))


def request_info(peer: str | None, *forwarded: str) -> RequestInfo:
    return RequestInfo(
        "GET", b"/", b"", [(b"x-forwarded-for", value.encode("latin-1")) for value in forwarded], peer, "r"
    )


class Hand:
    """A clock that the test sets."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


def allowed(pace: RateLimiter, key: str, times: int) -> int:
    count = 0
    for _ in range(times):
        try:
            pace.check(key)
        except TooManyRequests:
            continue
        count += 1
    return count


def test_minutes_worth_is_allowed_at_once_and_then_one_at_a_time() -> None:
    clock = Hand()
    pace = RateLimiter(30, clock)
    assert allowed(pace, "1.2.3.4", 100) == 30
    with pytest.raises(TooManyRequests) as refused:
        pace.check("1.2.3.4")
    assert (refused.value.status, refused.value.retry_after) == (429, 2)
    clock.now += 2
    assert allowed(pace, "1.2.3.4", 5) == 1
    assert allowed(pace, "1.2.3.5", 5) == 5, "another client is not affected"
    clock.now -= 3600
    assert allowed(pace, "1.2.3.4", 5) == 0, "setting the clock back does not permit more"


def test_waiting_for_the_returned_time_is_sufficient() -> None:
    for per_minute in (1, 7, 30, 6000):
        clock = Hand()
        pace = RateLimiter(per_minute, clock)
        allowed(pace, "a", per_minute)
        with pytest.raises(TooManyRequests) as refused:
            pace.check("a")
        assert refused.value.retry_after is not None
        clock.now += refused.value.retry_after
        pace.check("a")


def test_zero_is_no_limit_and_a_unix_socket_has_no_address() -> None:
    assert allowed(RateLimiter(0, Hand()), "a", 1000) == 1000
    pace = RateLimiter(1, Hand())
    for _ in range(5):
        pace.check(None)
    assert len(pace) == 0


def test_memory_is_bounded_however_many_addresses_come() -> None:
    pace = RateLimiter(1, Hand(), max_keys=100)
    for number in range(10_000):
        pace.check(f"10.0.{number >> 8}.{number & 255}")
    assert len(pace) == 100


@pytest.mark.parametrize(
    ("peer", "forwarded", "key"),
    [
        ("203.0.113.9", [], "203.0.113.9"),
        ("203.0.113.9", ["198.51.100.1"], "203.0.113.9"),  # the client's header is ignored
        ("::ffff:203.0.113.9", [], "203.0.113.9"),
        ("2001:db8:1:2:aaaa::1", [], "2001:db8:1:2::/64"),
        ("2001:DB8:1:2::ffff%eth0", [], "2001:db8:1:2::/64"),
        ("10.0.0.1", ["198.51.100.1"], "198.51.100.1"),
        ("10.0.0.1", ["6.6.6.6, 198.51.100.1"], "198.51.100.1"),  # the client sent the first entry
        ("10.0.0.1", ["6.6.6.6", "198.51.100.1"], "198.51.100.1"),
        ("10.0.0.1", ["198.51.100.1, 10.1.1.1"], "198.51.100.1"),  # two trusted proxies
        ("10.0.0.1", ["198.51.100.1, ::ffff:10.1.1.1"], "198.51.100.1"),
        ("10.0.0.1", ["198.51.100.1:4711"], "198.51.100.1"),
        ("10.0.0.1", ["[2001:db8::7]:443"], "2001:db8::/64"),
        ("10.0.0.1", ["6.6.6.6, unknown"], "10.0.0.1"),  # parsing stops at the first entry that is not an address
        ("10.0.0.1", ["6.6.6.6, unknown, 10.2.2.2"], "10.2.2.2"),
        ("10.0.0.1", [], "10.0.0.1"),
        ("::1", [" 198.51.100.1 "], "198.51.100.1"),
        (None, ["198.51.100.1"], "198.51.100.1"),
        (None, [], None),
    ],
)
def test_whose_address_counts(peer: str | None, forwarded: list[str], key: str | None) -> None:
    assert client_key(request_info(peer, *forwarded), PROXIES) == key


@given(st.ip_addresses(v=6))
def test_every_address_of_an_ipv6_network_is_one_key(address: ipaddress.IPv6Address) -> None:
    text = str(address)
    last = str(type(address)(int(address) | 0xFFFF_FFFF_FFFF_FFFF))
    if getattr(address, "ipv4_mapped", None) is None:
        assert client_key(request_info(text), ()) == client_key(request_info(last.upper()), ())


@given(st.text(alphabet=st.characters(max_codepoint=255), max_size=200))
def test_no_header_breaks_the_reading_and_what_comes_before_a_client_counts_for_nothing(value: str) -> None:
    client_key(request_info("10.0.0.1", value), PROXIES)
    assert client_key(request_info("10.0.0.1", value + ", 198.51.100.1"), PROXIES) == "198.51.100.1"


@pytest.mark.parametrize("entrypoint", ["sidecar", "middleware"])
def test_exceeded_rate_gets_429_and_other_addresses_are_served(tmp_path: Path, entrypoint: str) -> None:
    changes = {"limits": {"connects_per_minute": 5}, "trusted_proxies": ["127.0.0.1"]}
    with GatewayEnv(tmp_path, entrypoint=entrypoint, changes=changes) as env, env.browser() as browser:
        browser.http.headers["x-forwarded-for"] = "198.51.100.1"
        assert [browser.go("/akoya/connect/mikomo").status_code for _ in range(7)] == [302] * 5 + [429] * 2
        refused = browser.fetch("/akoya/connect/mikomo")
        assert int(refused.headers["retry-after"]) >= 1
        assert refused.json()["type"].endswith("too-many-connects")
        assert "set-cookie" not in refused.headers
        page = browser.go("/akoya/connect/mikomo")
        assert "text/html" in page.headers["content-type"]
        assert int(page.headers["retry-after"]) >= 1
        with env.browser() as other:
            other.http.headers["x-forwarded-for"] = "198.51.100.1, 203.0.113.7"
            assert other.connect().status_code == 302
            assert other.fetch("/accounts").status_code == 200
