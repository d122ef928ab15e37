"""The control API, `/_sandbox/`."""

from __future__ import annotations

import pytest

from akoya_gateway.sandbox import SandboxServer, SandboxSettings, create_app
from akoya_gateway.sandbox.server import ThreadedServer, listen, url_of
from tests.support.sandbox_client import HTTP, authorization_url, call, connect, redeem, refresh


def test_control_api_is_off_by_default() -> None:
    listener = listen()
    server = ThreadedServer(create_app(SandboxSettings()), listener)
    server.start()
    try:
        base = url_of(listener)
        assert HTTP.get(f"{base}/.well-known/openid-configuration").json()["issuer"] == f"{base}/"
        assert HTTP.get(f"{base}/_sandbox/events").status_code == 404
        assert HTTP.post(f"{base}/_sandbox/reset", json={}).status_code == 404
    finally:
        server.stop()


def test_events_list_the_steps_without_a_token(akoya_sandbox: SandboxServer) -> None:
    first = connect(akoya_sandbox)
    second = refresh(akoya_sandbox, first["refresh_token"]).json()
    refresh(akoya_sandbox, first["refresh_token"])
    events = akoya_sandbox.events("token")
    assert [event["grant_type"] for event in events] == ["authorization_code", "refresh_token", "refresh_token"]
    assert [event["outcome"] for event in events] == ["issued", "issued", "refused"]
    assert events[1]["presented"] == events[0]["issued"] == events[2]["presented"]
    assert events[2]["reason"] == "spent"
    assert {event["grant_id"] for event in events} == {first["grant_id"]}
    text = HTTP.get(f"{akoya_sandbox.url}/_sandbox/events").text
    for secret in (first["refresh_token"], second["refresh_token"], first["id_token"], akoya_sandbox.client_secret):
        assert secret not in text


def test_counters_and_reset(akoya_sandbox: SandboxServer) -> None:
    tokens = connect(akoya_sandbox)
    assert akoya_sandbox.counters()["token.issued"] == 1
    akoya_sandbox.reset()
    assert akoya_sandbox.counters() == {}
    assert akoya_sandbox.grants() == []
    assert call(akoya_sandbox, "/balances/v2/mikomo", tokens["id_token"]).json()["code"] == 602


def test_events_after_a_number(akoya_sandbox: SandboxServer) -> None:
    connect(akoya_sandbox)
    last = akoya_sandbox.events()[-1]["n"]
    connect(akoya_sandbox)
    url = f"{akoya_sandbox.url}/_sandbox/events"
    newer = HTTP.get(url, params={"after": last}).json()["events"]
    assert newer
    assert all(event["n"] > last for event in newer)


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("faults", {}),
        ("faults", {"kind": "boom"}),
        ("faults", {"kind": "slow", "seconds": "long"}),
        ("faults", {"kind": "slow", "times": True}),
        ("faults", {"kind": "slow", "surprise": 1}),
        ("consent", {}),
        ("consent", {"url": "http://x/auth?client_id=nope"}),
        ("revoke-consent", {}),
        ("revoke-consent", {"user": "mikomo_1", "code": 700}),
        ("clock", {"advance": "soon"}),
        ("client", {"client_id": "nope"}),
        ("reset", []),
    ],
)
def test_invalid_request_gets_the_reason(akoya_sandbox: SandboxServer, path: str, body: object) -> None:
    response = HTTP.post(f"{akoya_sandbox.url}/_sandbox/{path}", json=body)
    assert response.status_code == 400
    assert response.json()["error"]


def test_form_from_another_origin_is_refused(akoya_sandbox: SandboxServer) -> None:
    response = HTTP.post(f"{akoya_sandbox.url}/_sandbox/reset", content="{}")
    assert response.status_code == 415


def test_headless_consent_returns_the_error_that_a_browser_would_show(akoya_sandbox: SandboxServer) -> None:
    with pytest.raises(ValueError, match="Unregistered redirect_uri"):
        akoya_sandbox.consent(authorization_url(akoya_sandbox, redirect_uri="https://evil.example/"))
    with pytest.raises(ValueError, match="no test user"):
        akoya_sandbox.consent(authorization_url(akoya_sandbox), "nobody")
    with pytest.raises(ValueError, match="none of these accounts"):
        akoya_sandbox.consent(authorization_url(akoya_sandbox), accounts=["x"])


def test_two_servers_run_side_by_side(akoya_sandbox: SandboxServer) -> None:
    with SandboxServer() as second:
        assert second.url != akoya_sandbox.url
        tokens = connect(second)
        assert akoya_sandbox.grants() == []
        assert redeem(akoya_sandbox, "x").status_code == 400
        assert refresh(second, tokens["refresh_token"]).status_code == 200
