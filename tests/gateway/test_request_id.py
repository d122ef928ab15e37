"""Tests of request IDs: generated ones, and those that a trusted proxy may set."""

from __future__ import annotations

import copy
from ipaddress import ip_network

import pytest

from akoya_gateway.gateway.request_id import RequestIds

TRUSTED = (ip_network("10.0.0.0/8"), ip_network("fd00::/8"))


def test_ids_are_16_hex_digits_and_all_different() -> None:
    ids = RequestIds()
    made = {ids.new() for _ in range(10_000)}  # more than two blocks
    assert len(made) == 10_000
    assert all(len(each) == 16 and int(each, 16) >= 0 for each in made)


def test_two_processes_do_not_make_the_same_ids() -> None:
    assert RequestIds().new()[:8] != RequestIds().new()[:8]


def test_processes_forked_before_the_first_id_do_not_make_the_same_ids() -> None:
    """gunicorn with `preload_app` imports the app, and creates the gateway, before it forks."""
    created = RequestIds()
    assert copy.copy(created).new()[:8] != copy.copy(created).new()[:8]


@pytest.mark.parametrize("peer", ["10.1.2.3", "::ffff:10.1.2.3", "fd00::1", "fd00::1%eth0"])
def test_trusted_proxy_may_name_the_request(peer: str) -> None:
    assert RequestIds(TRUSTED).for_request(peer, b"abc-1.2_3") == b"abc-1.2_3"


@pytest.mark.parametrize("peer", ["192.0.2.1", None, "", "testclient", "11.0.0.1"])
def test_anybody_else_may_not(peer: str | None) -> None:
    assert RequestIds(TRUSTED).for_request(peer, b"abc") != b"abc"


@pytest.mark.parametrize(
    "given", [b"", b"a" * 65, b"a b", b"a\n", b"a\r\nSet-Cookie: x", b"\xc3\xa9", b'a"b', b"a{b}", b"<a>", b"a\x00"]
)
def test_unencodable_characters_are_replaced(given: bytes) -> None:
    made = RequestIds(TRUSTED).for_request("10.0.0.1", given)
    assert made != given
    assert len(made) == 16


def test_counter_starts_over_under_a_new_prefix() -> None:
    prefixes = iter([b"\0\0\0\1", b"\0\0\0\2"])
    ids = RequestIds(random=lambda _: next(prefixes))
    ids.new()
    ids._block, ids._lines = 0xF_FFFF - 1, iter(())
    made = [ids.new() for _ in range(4096)]
    assert len(set(made)) == 4096
    assert all(each.startswith(b"00000001") for each in made)
    assert ids.new().startswith(b"00000002")
