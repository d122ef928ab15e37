"""Tests of `akoya-gateway run`, with and without the fast lane, with a Unix socket and an upstream that uses mTLS."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.fast_lane.requests import send_request
from tests.support.certificates import Authority, server_context
from tests.support.raw_http import Caller, Client, RawUpstream
from tests.support.sidecar import Running

OPTIONS = pytest.mark.parametrize("options", [(), ("--no-fast-lane",)], ids=["lane", "asgi"])


def says_what_it_is_asked(caller: Caller) -> None:
    while True:
        name = caller.head().split(b" ")[1].rpartition(b"/")[2]
        caller.respond(name)


def served(folder: Path, upstream: dict[str, Any], *options: str) -> list[bytes]:
    """Return the bodies of four responses on one connection. The last two use the fast lane if it is enabled."""
    with Running(folder, *options, changes={"upstream": upstream}) as run, Client(run.port) as client:
        responses = []
        for name in ("a", "b", "c", "d"):
            send_request(client, name)
            responses.append(client.response().body)
        return responses


@OPTIONS
def test_unix_socket(tmp_path: Path, options: tuple[str, ...]) -> None:
    path = str(tmp_path / "app.sock")
    with RawUpstream(says_what_it_is_asked, path=path) as upstream:
        assert served(tmp_path, {"url": f"unix:{path}"}, *options) == [b"a", b"b", b"c", b"d"]
        assert upstream.connections == 1


@OPTIONS
def test_upstream_that_requires_a_client_certificate_gets_it(tmp_path: Path, options: tuple[str, ...]) -> None:
    authority = Authority(tmp_path)
    certificate, key = authority.issue("client")
    tls = {"ca": str(authority.file), "certificate": str(certificate), "key": str(key)}
    with RawUpstream(says_what_it_is_asked, tls=server_context(authority, mutual=True)) as upstream:
        url = f"https://127.0.0.1:{upstream.origin.port}"
        assert served(tmp_path, {"url": url, "tls": tls}, *options) == [b"a", b"b", b"c", b"d"]
        assert upstream.connections == 1
        without = served(tmp_path, {"url": url, "tls": {"ca": str(authority.file)}}, *options)
    assert all(b"upstream-" in response for response in without)
