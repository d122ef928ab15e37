"""Ports for servers that tests start."""

from __future__ import annotations

import itertools
import os
import random
import socket
from collections.abc import Iterator

import pytest

_SHARES = 8
"""Maximum number of parallel test processes that get a port range of their own."""


def _in_turn() -> Iterator[int]:
    """Return an endless iterator over the ports of this xdist worker.

    Workers have disjoint ranges, and a port is repeated only after all the others: otherwise another test could choose
    it between the choice of the port and the start of its server. The range is below the ephemeral ports, because one
    of the thousands of outgoing connections that tests open could take the port.
    """
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % _SHARES
    first, share = 11_000, 10_000 // _SHARES
    ours = range(first + worker * share, first + (worker + 1) * share)
    at = random.randrange(share)
    return itertools.cycle([*ours[at:], *ours[:at]])


_PORTS = _in_turn()
_BUS = 10_000
"""Offset from the port of a Redis cluster node to the port of its cluster bus."""


def free_port(and_bus: bool = False) -> int:
    """Return a free port. With `and_bus`, the corresponding cluster bus port is free too."""
    for port in itertools.islice(_PORTS, 200):
        try:
            for number in (port, port + _BUS) if and_bus else (port,):
                with socket.socket() as probe:
                    probe.bind(("127.0.0.1", number))
        except OSError:
            continue
        return port
    pytest.fail("no free port")
