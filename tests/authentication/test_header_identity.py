"""`identity: {header: X-Forwarded-User}`: the user named by a trusted proxy, at every entry point."""

from __future__ import annotations

import json
import re
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.environment import Browser, GatewayEnv
from tests.support.forward_auth import ProxiedEnv, cookies, get


@contextmanager
def browser_of(env: GatewayEnv, user: str | None) -> Iterator[Browser]:
    with env.browser() as browser:
        become(browser, user)
        yield browser


def become(browser: Browser, user: str | None) -> None:
    browser.http.headers.pop("X-Forwarded-User", None)
    if user is not None:
        browser.http.headers["X-Forwarded-User"] = user


def new_user() -> str:
    return f"user-{uuid.uuid4()}"


def test_grants_are_found_by_their_user_only(by_header: GatewayEnv) -> None:
    alice, bob = new_user(), new_user()
    with (
        browser_of(by_header, alice) as first,
        browser_of(by_header, alice) as second,
        browser_of(by_header, bob) as other,
    ):
        assert first.connect().headers["location"] == "/accounts"
        owner = first.passed()["akoya-owner"]
        assert owner.startswith("usr_")
        assert alice not in owner
        assert second.passed()["akoya-owner"] == owner, "also in another browser, without a cookie"
        assert other.fetch("/accounts").status_code == 401
        assert other.connections()["connections"] == []
        other.connect(user="mikomo_4")
        assert other.passed()["akoya-owner"] != owner
        assert other.passed()["akoya-id-token"] != first.passed()["akoya-id-token"]


def test_anonymous_user_cannot_connect_a_bank(by_header: GatewayEnv) -> None:
    with browser_of(by_header, None) as browser:
        assert browser.fetch("/accounts").status_code == 401
        assert browser.go("/accounts").status_code == 302
        assert browser.fetch("/public/x").status_code == 200
        response = browser.fetch("/akoya/connect/mikomo")
        assert (response.status_code, response.json()["type"].rpartition(":")[2]) == (401, "no-identity")


def test_address_that_the_server_has_from_a_header_is_no_proxys(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With `uvicorn --forwarded-allow-ips '*'`, as in many containers, any client can choose its peer address."""
    monkeypatch.setenv("FORWARDED_ALLOW_IPS", "*")
    changes = {"identity": {"header": "X-Forwarded-User"}, "trusted_proxies": ["10.0.0.0/8"], "forward_auth": True}
    with GatewayEnv(tmp_path, entrypoint="middleware", changes=changes) as env:
        header = "X-Forwarded-For: 10.1.2.3"
        status, body = get(env.port, "/public/x", header, "X-Forwarded-User: alice", "X-Request-Id: mine")
        assert (status, body["type"].rpartition(":")[2]) == (403, "untrusted-identity")
        assert body["request_id"] != "mine"
        status, body = get(
            env.port, "/akoya/forward-auth", header, "X-Original-Method: GET", "X-Original-URI: /public/x"
        )
        assert (status, body["type"].rpartition(":")[2]) == (403, "untrusted-proxy")


def test_empty_identity_header_is_no_user(by_header: GatewayEnv) -> None:
    with browser_of(by_header, "") as browser:
        assert browser.fetch("/accounts").status_code == 401
        assert browser.fetch("/akoya/connect/mikomo").status_code == 401


def test_cookie_of_one_user_gives_another_user_no_access(by_header: GatewayEnv) -> None:
    alice, mallory = new_user(), new_user()
    with browser_of(by_header, alice) as browser, browser_of(by_header, mallory) as thief:
        browser.connect()
        thief.http.cookies.update(browser.http.cookies)
        assert thief.fetch("/accounts").status_code == 401
        assert thief.connections()["connections"] == []


def test_session_ends_when_the_identity_changes(by_header: GatewayEnv) -> None:
    alice, bob = new_user(), new_user()
    with browser_of(by_header, alice) as browser:
        browser.connect()
        csrf = browser.connections()["csrf"]
        become(browser, bob)
        assert browser.fetch("/accounts").status_code == 401
        become(browser, alice)
        time.sleep(2)  # sessions are cached for a second
        response = browser.fetch("/akoya/disconnect/mikomo", "POST", data={"csrf": csrf})
        assert response.status_code == 401, "the form's session has ended"
        assert browser.passed()["akoya-connector"] == "mikomo", "the grant has not ended"


def test_user_on_a_new_browser_can_disconnect(by_header: GatewayEnv) -> None:
    alice = new_user()
    with browser_of(by_header, alice) as first, browser_of(by_header, alice) as second:
        first.connect()
        csrf = second.connections()["csrf"]
        assert second.fetch("/akoya/disconnect/mikomo", "POST", data={"csrf": "wrong"}).status_code == 403
        assert second.fetch("/akoya/disconnect/mikomo", "POST", data={"csrf": csrf}).status_code == 303
        assert second.connections()["connections"] == []


def test_question_before_disconnecting_works_for_a_known_user_without_a_session(by_header: GatewayEnv) -> None:
    alice = new_user()
    with browser_of(by_header, alice) as first, browser_of(by_header, alice) as second:
        first.connect()
        page = second.http.get("/akoya/disconnect/mikomo", headers={"accept": "text/html"})
        assert page.status_code == 200
        found = re.search(r'name="csrf" value="([^"]+)"', page.text)
        assert found is not None
        assert second.fetch("/akoya/disconnect/mikomo", "POST", data={"csrf": found[1]}).status_code == 303
        assert second.connections()["connections"] == []


def test_logout_leaves_the_grants_of_a_known_user(by_header: GatewayEnv) -> None:
    with browser_of(by_header, new_user()) as browser:
        browser.connect()
        csrf = browser.connections()["csrf"]
        assert browser.fetch("/akoya/logout", "POST", data={"csrf": csrf}).status_code == 303
        assert browser.passed()["akoya-connector"] == "mikomo"


def test_attempt_is_completed_only_by_the_user_who_started_it(by_header: GatewayEnv) -> None:
    alice, bob = new_user(), new_user()
    with browser_of(by_header, alice) as browser:
        callback = by_header.akoya.consent(browser.begin(), "mikomo_1")
        become(browser, bob)
        assert "error=other-owner" in browser.go(callback).headers["location"]
        assert browser.connections()["connections"] == []
        callback = by_header.akoya.consent(browser.begin(), "mikomo_1")
        become(browser, None)
        assert "error=no-identity" in browser.go(callback).headers["location"]
    with browser_of(by_header, alice) as browser:
        assert browser.connections()["connections"] == []


def test_identity_header_reaches_the_app_unchanged(by_header: GatewayEnv) -> None:
    alice = new_user()
    with browser_of(by_header, alice) as browser:
        browser.connect()
        for path in ("/accounts", "/public/x"):
            assert dict(browser.fetch(path).json()["headers"])["x-forwarded-user"] == alice


ALIASES = ["X_Forwarded_User", "x-forwarded_user", "X.Forwarded.User", "X_Forwarded-User", "X~Forwarded~User"]


@pytest.mark.parametrize("path", ["/accounts", "/public/x", "/akoya/"])
@pytest.mark.parametrize("alias", ALIASES)
def test_alias_of_the_identity_header_is_never_forwarded(by_header: GatewayEnv, alias: str, path: str) -> None:
    alice, mallory = new_user(), new_user()
    with browser_of(by_header, alice) as browser:
        browser.connect()
    for lines in (
        [f"{alias}: {alice}"],
        [f"X-Forwarded-User: {mallory}", f"{alias}: {alice}"],
        [f"{alias}: {alice}", f"X-Forwarded-User: {mallory}"],
    ):
        status, body = get(by_header.port, path, *lines, "Accept: application/json")
        assert alice not in json.dumps(body if isinstance(body, dict) else body.decode())
        assert status in (200, 400, 401, 403)
        if path == "/accounts":
            assert status != 200, body


def test_header_twice_is_refused(by_header: GatewayEnv) -> None:
    if isinstance(by_header, ProxiedEnv):
        return  # `$http_x_forwarded_user` is always one header, however many nginx received
    alice, mallory = new_user(), new_user()
    with browser_of(by_header, alice) as browser:
        browser.connect()
    for path in ("/accounts", "/public/x", "/akoya/"):
        status, _ = get(by_header.port, path, f"X-Forwarded-User: {alice}", f"X-Forwarded-User: {mallory}")
        assert status in (400, 403)


@pytest.mark.parametrize("entrypoint", ["sidecar", "middleware"])
def test_untrusted_peer_cannot_set_the_identity_header(tmp_path: Path, entrypoint: str) -> None:
    changes = {"identity": {"header": "X-Forwarded-User"}, "trusted_proxies": ["10.9.8.7/32"]}
    with GatewayEnv(tmp_path, entrypoint=entrypoint, changes=changes) as env:
        for path in ("/accounts", "/public/x", "/akoya/", "/akoya/connect/mikomo"):
            status, body = get(env.port, path, "X-Forwarded-User: alice")
            assert (status, body["type"]) == (403, "urn:akoya-gateway:problem:untrusted-identity")
        assert get(env.port, "/public/x")[0] == 200
        assert get(env.port, "/accounts")[0] == 401


def test_without_waiting_and_with_waiting_the_same_is_decided(by_header: GatewayEnv) -> None:
    """The fast path does not query the store, and must not accept another user's cookie."""
    alice, bob = new_user(), new_user()
    with browser_of(by_header, alice) as browser:
        browser.connect()
        for _ in range(5):
            assert browser.fetch("/accounts").status_code == 200
        mine = cookies(browser)
        for _ in range(3):
            assert get(by_header.port, "/accounts", f"X-Forwarded-User: {alice}", f"Cookie: {mine}")[0] == 200
            assert get(by_header.port, "/accounts", f"X-Forwarded-User: {alice}")[0] == 200
            assert get(by_header.port, "/accounts", f"Cookie: {mine}")[0] == 401
        assert get(by_header.port, "/accounts", f"X-Forwarded-User: {bob}", f"Cookie: {mine}")[0] == 401
