"""Run each case of `websocket_cases` directly and through `akoya-gateway run`, and compare the results.

The Autobahn test-suite itself runs in `test_autobahn.py`, where it is installed.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator

import pytest

from tests.conformance.echo import echo_server
from tests.support.raw_http import Client
from tests.support.sidecar import Running
from tests.support.websocket_cases import NORMAL, Case, cases
from tests.support.websocket_frames import CLOSE, frame, read_all, request

GROUPS: dict[str, dict[str, Case]] = {}
"""The cases by their group, the number that their names begin with."""
for _name, _case in cases().items():
    GROUPS.setdefault(re.split(r"[. ,]", _name)[0], {})[_name] = _case


@pytest.fixture(scope="module")
def echo() -> Iterator[int]:
    with echo_server() as port:
        yield port


@pytest.fixture(scope="module", params=[True, False], ids=["tunnel", "messages"])
def tunnel(request: pytest.FixtureRequest) -> bool:
    """Select one of the two implementations: the byte-level tunnel or whole messages."""
    return bool(request.param)


@pytest.fixture(scope="module")
def gateway(echo: int, tunnel: bool, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    changes = {"upstream": {"url": f"http://127.0.0.1:{echo}"}}
    options = () if tunnel else ("--no-fast-lane",)
    with Running(tmp_path_factory.mktemp("gateway"), *options, changes=changes) as running:
        yield running


def played(case: Case, port: int) -> tuple[list[tuple[int, bytes]], list[bytes], int | None]:
    with Client(port) as client:
        client.send(request(b"/public/echo"))
        assert client.until(b"\r\n\r\n").startswith(b"HTTP/1.1 101 ")
        data = case.data
        # TCP_NODELAY: send each piece as its own packet. Pieces sent at once may be read at once.
        client.sock.setsockopt(6, 1, 1)
        try:
            for at in range(0, len(data), case.chop or len(data)):
                client.send(data[at : at + (case.chop or len(data))])
        except (BrokenPipeError, ConnectionResetError):
            # The peer has already closed the connection because of earlier data.
            pass
        messages, pongs, code = read_all(client, len(case.echoed), len(case.pongs)) if case.in_order else ([], [], None)
        if case.in_order and code is None:
            client.send(frame(CLOSE, struct.pack("!H", NORMAL), mask=True))
        more, more_pongs, code = read_all(client)
        return messages + more, pongs + more_pongs, code


def check_case(name: str, case: Case, found: tuple[list[tuple[int, bytes]], list[bytes], int | None]) -> None:
    messages, pongs, code = found
    assert code == case.code, name
    if case.in_order:
        assert (tuple(messages), tuple(pongs)) == (case.echoed, case.pongs), name
    else:
        assert tuple(messages) == case.echoed[: len(messages)], name
        assert tuple(pongs) == case.pongs[: len(pongs)], name


@pytest.mark.parametrize("group", GROUPS)
def test_gateway_behaves_like_the_upstream_in_every_case(group: str, echo: int, gateway: Running, tunnel: bool) -> None:
    for name, case in GROUPS[group].items():
        check_case(name, case, played(case, echo))
        expected = case.strictly if tunnel and case.strictly is not None else case
        check_case(name, expected, played(expected, gateway.port))


def test_no_case_has_taken_the_gateway_down_or_filled_its_log(gateway: Running) -> None:
    assert gateway.get("/elsewhere").status_code == 403
    assert [line for line in gateway.log() if line["level"] == "error"] == []
