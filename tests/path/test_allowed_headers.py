"""Tests that an operator can let single headers through, and learns which are dropped, at every entry point."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from websockets.sync.client import connect

from akoya_gateway.client_header_names import (
    FROM_PROXIES,
    IN_FAMILIES,
    MOVES_THE_REQUEST,
    SENT_BY_NGINX,
    TRACE_PREFIXES,
    TRACES,
)
from akoya_gateway.client_headers import ClientHeaders, Handling, setting_for
from tests.path.conftest import ALLOWED
from tests.support.config_documents import validated
from tests.support.environment import GatewayEnv
from tests.support.forward_auth import get
from tests.support.waiting import until

PASSED = ["X-Original-Filename", "traceparent", "x_legacy"]
DROPPED = {
    "X-Original-Name": "allow_client_headers", "Tracestate": "allow_client_headers", "x_other": "allow_underscore_headers",
    "X-Forwarded-User": "trusted_proxies", "X-Original-URL": None, "X_Original_Filename": None, "X.Original.Filename": None,
}  # fmt: skip
"""Names that are dropped, with the setting that lets them through."""


def logged(env: GatewayEnv) -> dict[str, Any]:
    entries = [json.loads(line) for line in env.log().splitlines() if "client header dropped" in line]
    found = {entry["header"]: (entry["setting"], entry["level"]) for entry in entries}
    assert len(found) == len(entries), "a name is logged once"
    return found


def test_allowed_header_reaches_the_app_and_each_dropped_one_is_logged_with_its_setting(env: GatewayEnv) -> None:
    for target in ("/public/received", "/public/received", "/public/received", "/public/received?new"):
        status, received = get(env.port, target, *(f"{name}: seen" for name in (*PASSED, *DROPPED)))
        assert status == 200
        assert sorted(name for name, value in received if value == "seen") == sorted(map(str.lower, PASSED))
    sent = dict.fromkeys((*PASSED, *DROPPED), "seen")
    with connect(f"ws://127.0.0.1:{env.port}/public/received", additional_headers=sent, proxy=None) as opened:
        received = json.loads(opened.recv(30))
    assert sorted(name for name, value in received if value == "seen") == sorted(map(str.lower, PASSED))
    if env.entrypoint == "sidecar":  # With the others, the host process decides where log entries go.
        expected = {
            name.lower(): (setting, "warning" if setting in ALLOWED else "info") for name, setting in DROPPED.items()
        }
        until(lambda: len(logged(env)) >= len(expected), "the dropped headers were not logged")
        assert logged(env) == expected


@pytest.mark.parametrize(("name", "setting"), DROPPED.items())
def test_setting_of_a_dropped_name_lets_it_through_or_is_none(name: str, setting: str | None) -> None:
    assert ClientHeaders().handling(name.encode()) is not Handling.PASS
    assert setting_for(name.encode()) == (setting if setting in ALLOWED else None)
    assert ClientHeaders([name.lower()]).handling(name.encode()) is Handling.PASS


def test_no_listed_name_can_be_allowed_except_those_of_traces() -> None:
    traces = TRACES | {name for name in IN_FAMILIES if name.startswith(TRACE_PREFIXES)}
    listed = MOVES_THE_REQUEST | FROM_PROXIES | IN_FAMILIES | SENT_BY_NGINX
    assert {name for name in listed if setting_for(name) is not None} == traces
    names = [
        b"akoya-owner",
        b"akoya",
        b"signature",
        b"oidc-claim-any",
        b"x-accel-any",
        b"x-envoy-any",
        b"cookie",
        b"x-own",
    ]
    assert {setting_for(name) for name in names} == {None}


@pytest.mark.parametrize(
    ("name", "message"),
    [("X-Original-URL", "servers take a path, method, user, address or host from X-Original-URL"), ("X-Forwarded-User", "servers take"),
     ("X-Forwarded-For", "servers take"), ("X-Original-Host", "servers take"), ("Oidc-Claim-Any", "servers take"), ("X-Accel-Any", "servers take"),
     ("X.Original.Filename", "a server can take X.Original.Filename for a header that the gateway decides about"), ("Akoya-Owner", "servers take"),
     ("x_legacy", "x_legacy belongs in allow_underscore_headers"), ("X_Original_Filename", "a server can take"),
     ("X-Own", "the gateway does not drop this header for its name"), ("Cookie", "the gateway does not drop this header for its name")],
)  # fmt: skip
def test_name_that_cannot_be_allowed_is_refused_with_the_reason(tmp_path: Path, name: str, message: str) -> None:
    (fault,) = validated(tmp_path, {"allow_client_headers": [name]}).diagnostics
    assert fault.message.startswith(message)
    assert fault.remedy


def test_allowed_names_are_read_in_lower_case(tmp_path: Path) -> None:
    result = validated(tmp_path, ALLOWED)
    assert result.config is not None
    assert result.config.allow_client_headers == ("x-original-filename", "traceparent")
    (fault,) = validated(tmp_path, {"allow_underscore_headers": ["Traceparent"]}).diagnostics
    assert fault.message == "Traceparent belongs in allow_client_headers"
