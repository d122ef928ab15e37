"""Run the differential fuzzer briefly. For longer runs: `python -m tests.fuzz.wire.run --minutes 20`."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.fuzz.wire.rig import OURS
from tests.fuzz.wire.run import fuzz
from tests.fuzz.wire.upstream import Malformed, parse_head


@pytest.mark.timeout(150)
def test_entry_points_hold_what_they_promise_whatever_is_sent(tmp_path: Path) -> None:
    # Only the entry points on the gateway's own server; the others start and stop slowly.
    rig, totals = fuzz(tmp_path, 5, 11, OURS)
    assert not rig.findings, "\n".join(rig.findings)
    assert totals.compared > 20
    assert all(count > 10 for count in rig.requests.values()), rig.requests


@pytest.mark.parametrize(
    "head",
    [
        b"GET  / HTTP/1.1\r\nhost: a\r\n\r\n",
        b"GET / HTTP/1.0\r\nhost: a\r\n\r\n",
        b"GET / HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n",
        b"GET / HTTP/1.1\r\nhost: a\r\nx : b\r\n\r\n",
        b"GET / HTTP/1.1\r\nhost: a\r\nx: b\0\r\n\r\n",
        b"GET / HTTP/1.1\r\nhost: a\nx: b\r\n\r\n",
    ],
)
def test_app_of_the_fuzz_takes_no_malformed_head(head: bytes) -> None:
    with pytest.raises(Malformed):
        parse_head(head)
