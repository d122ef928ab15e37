"""Metrics of a running gateway with two workers: what operators see of limits, upstreams, keys and workers."""

from __future__ import annotations

import os
import signal
import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.metrics import values
from tests.support.ports import free_port
from tests.support.sidecar import Running
from tests.support.waiting import until

NAME = "akoya_gateway_"


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    closed = f"http://127.0.0.1:{free_port()}"
    changes: dict[str, Any] = {
        "upstreams": {"reports": {"url": [closed]}},
        "access": [
            {"name": "pages", "path": "/public/*", "require": "nothing"},
            {"name": "reports", "path": "/reports/*", "require": "nothing", "upstream": "reports"},
            {"path": "/*", "require": "any", "otherwise": "unauthorized"},
        ],
        "identity": {"jwt": {"header": "X-Jwt", "jwks_uri": f"{closed}/keys", "issuer": closed, "audience": "app"}},
        "limits": {"body_bytes": 10, "header_bytes": "4KiB"},
    }
    folder = tmp_path_factory.mktemp("gateway")
    with Running(folder, "--workers", "2", changes=changes) as run:
        until(lambda: len(run.worker_pids()) == 2, "both workers are up")
        yield run


def read(gateway: Running) -> dict[str, float]:
    return values(gateway.fetch_admin("/metrics").content)


def refuse(gateway: Running, head: bytes) -> bytes:
    """Send bytes on a connection of their own, and return the first bytes of the response."""
    with socket.create_connection(("127.0.0.1", gateway.port), timeout=30) as connection:
        connection.sendall(head)
        return connection.recv(4096)


@pytest.fixture(scope="module", autouse=True)
def at_start(gateway: Running) -> dict[str, float]:
    """Return the metrics before the first test, whichever that is."""
    connections_max = NAME + "upstream_connections_max{upstream=upstream}"
    until(lambda: read(gateway).get(connections_max) == 200, "100 connections for each of the two workers")
    return read(gateway)


def test_series_of_known_labels_exist_before_anything_has_happened(at_start: dict[str, float]) -> None:
    found = at_start
    upstream_failures = [
        f"upstream_failures_total{{kind=upstream-{kind},upstream={name}}}"
        for name in ("upstream", "upstreams.reports")
        for kind in ("busy", "closed", "invalid-response", "timeout", "unreachable")
    ]
    at_zero = [
        *upstream_failures,
        *(f"limit_refusals_total{{limit={limit}}}" for limit in ("connects_per_minute", "body_bytes", "header_bytes", "pool")),
        *(f"identity_failures_total{{reason={one}}}" for one in ("identity-keys", "identity-rejected")),
        *(f"key_fetch_failures_total{{source={source}}}" for source in ("double", "identity")),
        *(f"worker_restarts_total{{reason={reason}}}" for reason in ("exited", "killed", "stuck")),
        *(f"upstream_connections{{state={state},upstream=upstream}}" for state in ("idle", "in_use")),
        "request_duration_seconds_count{rule=reports,upstream=upstreams.reports}",
        "upstream_requests_waiting{upstream=upstreams.reports}",
        "malformed_requests_total{}", "revocations_waiting{}", "draining{}", "requests_in_flight{}",
    ]  # fmt: skip
    assert {name: found.get(NAME + name) for name in at_zero} == dict.fromkeys(at_zero, 0)
    assert {name for name in found if name.startswith(NAME + "store_duration_seconds_count")} == {
        NAME + f"store_duration_seconds_count{{operation={one}}}"
        for one in ("count", "delete", "find", "get", "put", "take")
    }
    assert 0 < found[NAME + "file_descriptors_used_ratio{}"] < 1
    assert found[NAME + "signing_key_end_timestamp_seconds{key=k1}"] == float("inf")
    assert found[NAME + "signing_key_signs{key=k1}"] == 1


def test_refused_and_failed_requests_are_counted_under_their_cause(gateway: Running) -> None:
    assert gateway.get("/public/x").status_code == 200
    assert gateway.get("/reports/1").status_code == 502
    assert gateway.get("/private", headers={"x-jwt": "x"}).status_code == 503
    assert (
        refuse(gateway, b"POST /public/x HTTP/1.1\r\nHost: a\r\nContent-Length: 11\r\n\r\n12345678901")[9:12] == b"413"
    )
    assert refuse(gateway, b"GET /public/x HTTP/1.1\r\nHost: a\r\nX: " + b"x" * 5000 + b"\r\n\r\n")[9:12] == b"431"
    assert refuse(gateway, b"GE T /\r\n\r\n")[9:12] == b"400"
    expected = {
        "requests_total{outcome=passed,rule=pages,status=2xx}": 1,
        "request_duration_seconds_count{rule=pages,upstream=upstream}": 2,  # with the refused body
        "request_duration_seconds_count{rule=reports,upstream=upstreams.reports}": 1,
        "upstream_failures_total{kind=upstream-unreachable,upstream=upstreams.reports}": 1,
        "upstream_failures_total{kind=upstream-unreachable,upstream=upstream}": 0,
        "limit_refusals_total{limit=body_bytes}": 1,
        "limit_refusals_total{limit=header_bytes}": 1,
        "malformed_requests_total{}": 1,
    }
    until(lambda: all(read(gateway).get(NAME + name) == value for name, value in expected.items()), f"{expected}")
    # A scrape may be served by the other worker, which learns of these counts up to a second later.
    counted = ("identity_failures_total{reason=identity-keys}", "key_fetch_failures_total{source=identity}")
    until(lambda: all(read(gateway).get(NAME + name, 0.0) > 0 for name in counted), f"{counted}")


def test_address_rests_after_failures(gateway: Running) -> None:
    """It rests for one second at first, and longer after each further failure."""

    def is_resting() -> bool:
        assert gateway.get("/reports/1").status_code == 502
        gauges = {name: value for name, value in read(gateway).items() if "upstream_address_resting" in name}
        return {name.rpartition("upstream=")[2]: value for name, value in gauges.items()} == {
            "upstream}": 0,
            "upstreams.reports}": 1,
        }

    until(is_resting, "the address of `reports` rests, and that of the other upstream does not")


def test_request_in_progress_is_counted_and_occupies_a_connection(gateway: Running) -> None:
    in_flight = NAME + "requests_in_flight{}"
    in_use = NAME + "upstream_connections{state=in_use,upstream=upstream}"
    slow = threading.Thread(target=gateway.get, args=("/public/slow",))
    slow.start()
    until(lambda: (read(gateway)[in_flight], read(gateway)[in_use]) == (1, 1), "the request is in flight")
    gateway.app.go.set()
    slow.join(30)
    until(lambda: (read(gateway)[in_flight], read(gateway)[in_use]) == (0, 0), "the request is complete")


def test_killed_worker_is_counted_as_a_restart(gateway: Running) -> None:
    started = NAME + "start_timestamp_seconds{}"
    before = read(gateway)[started]
    victim = gateway.worker_pids()[0]
    os.kill(victim, signal.SIGKILL)
    until(lambda: victim not in gateway.worker_pids() and len(gateway.worker_pids()) == 2, "the worker is replaced")
    expected = {"worker_restarts_total{reason=killed}": 1, "worker_restarts_total{reason=exited}": 0, "draining{}": 0}
    until(lambda: all(read(gateway).get(NAME + name) == value for name, value in expected.items()), f"{expected}")
    assert read(gateway)[started] == before, "its counts are kept, so they began when the supervisor started"
