"""The flow of docs/design.md section 1, over sockets."""

from __future__ import annotations

import time
from datetime import datetime
from urllib.parse import parse_qsl, urlsplit

import httpx
import pytest

from tests.support.environment import CLIENT_ID, Browser, GatewayEnv
from tests.support.waiting import until


def test_authorization_url_is_the_one_akoya_documents(env: GatewayEnv, browser: Browser) -> None:
    url = urlsplit(browser.begin())
    assert f"{url.scheme}://{url.netloc}{url.path}" == f"{env.akoya.url}/auth"
    parameters = dict(parse_qsl(url.query, strict_parsing=True))
    assert len(parameters.pop("state")) >= 22
    assert parameters == {
        "connector": "mikomo",
        "client_id": CLIENT_ID,
        "redirect_uri": env.redirect_uri,
        "response_type": "code",
        "scope": "openid profile offline_access",
    }


def test_user_connects_a_bank_and_the_upstream_gets_a_signed_token(env: GatewayEnv, browser: Browser) -> None:
    landed = browser.connect(return_to="/accounts?tab=2")
    assert (landed.status_code, landed.headers["location"]) == (302, "/accounts?tab=2")
    seen = browser.go("/accounts?tab=2").json()
    headers = dict(seen["headers"])
    assert headers["akoya-connector"] == "mikomo"
    assert headers["akoya-environment"] == "double"
    assert headers["akoya-scope"].split() == ["openid", "profile", "offline_access"]
    assert int(headers["akoya-expires"]) > time.time()
    assert headers["akoya-connections"].startswith("mikomo=live")
    assert headers["akoya-provider"] == "mikomo"
    assert headers["akoya-interaction-type"] == "user"
    assert headers["akoya-consent"]
    assert -5 < time.time() - datetime.fromisoformat(headers["akoya-last-access"]).timestamp() < 120
    assert headers["akoya-grant"] == browser.connections()["connections"][0]["id"]
    assert f'id="{headers["akoya-grant"]}"' in headers["akoya-connections"]
    assert seen["signature"] == (
        "valid: @authority @method @path @query @signature-params akoya-connections akoya-connector akoya-consent akoya-environment "
        "akoya-expires akoya-grant akoya-id-token akoya-interaction-type akoya-last-access akoya-owner akoya-provider akoya-scope"
    )
    data = httpx.get(
        f"{env.akoya.url}/accounts-info/v2/mikomo",
        headers={"authorization": f"Bearer {headers['akoya-id-token']}"},
        trust_env=False,
    )
    assert data.status_code == 200


def test_cookie_names_a_session_and_never_reaches_the_upstream(browser: Browser) -> None:
    landed = browser.connect()
    cookie = next(v for k, v in landed.headers.multi_items() if k == "set-cookie")
    assert "HttpOnly" in cookie
    assert "SameSite=Lax" in cookie
    assert "Path=/" in cookie
    browser.http.cookies.set("theirs", "kept", domain="127.0.0.1")
    headers = dict(browser.fetch("/accounts").json()["headers"])
    assert headers["cookie"] == "theirs=kept"


def test_token_is_not_in_anything_the_browser_gets(env: GatewayEnv, browser: Browser) -> None:
    landed = browser.connect()
    token = browser.passed()["akoya-id-token"]
    page = browser.go("/akoya/")
    for response in (landed, page, browser.fetch("/akoya/")):
        assert token not in response.text
        assert token not in str(response.headers)
    assert browser.fetch("/accounts/echo").headers.get("akoya-id-token") is None


def test_several_banks_live_side_by_side(browser: Browser) -> None:
    browser.connect("mikomo", "mikomo_1")
    browser.connect("other", "mikomo_4")
    assert browser.passed("/mikomo")["akoya-connector"] == "mikomo"
    assert browser.passed("/api/banks/other/x")["akoya-connector"] == "other"
    assert browser.passed("/both")["akoya-connector"] == "mikomo"
    assert browser.passed("/accounts")["akoya-connector"] == "other", "the most recent one"
    states = {c["connector"]: c["state"] for c in browser.connections()["connections"]}
    assert states == {"mikomo": "live", "other": "live"}


def test_two_logins_at_one_bank_live_side_by_side(browser: Browser) -> None:
    browser.connect("mikomo", "mikomo_1")
    first = browser.passed("/mikomo")["akoya-id-token"]
    browser.connect("mikomo", "mikomo_4")
    assert browser.passed("/mikomo")["akoya-id-token"] != first
    assert len(browser.connections()["connections"]) == 2


def test_reconnecting_the_same_login_replaces_its_grant(browser: Browser) -> None:
    browser.connect("mikomo", "mikomo_1")
    first = browser.passed("/mikomo")["akoya-id-token"]
    browser.connect("mikomo", "mikomo_1")
    assert browser.passed("/mikomo")["akoya-id-token"] != first
    assert len(browser.connections()["connections"]) == 1


def test_owner_is_stable_and_the_session_id_changes_with_each_grant(browser: Browser) -> None:
    browser.connect("mikomo")
    owner, cookies = browser.passed()["akoya-owner"], dict(browser.http.cookies)
    browser.connect("other")
    assert browser.passed()["akoya-owner"] == owner
    changed = {name for name, value in browser.http.cookies.items() if cookies.get(name) != value}
    assert len(changed) == 1


def test_old_session_id_is_invalid_after_a_new_grant(env: GatewayEnv, browser: Browser) -> None:
    browser.connect("mikomo")
    with env.browser() as thief:
        thief.http.cookies.update(browser.http.cookies)
        assert thief.fetch("/accounts").status_code == 200
        browser.connect("other")
        until(lambda: thief.fetch("/accounts").status_code == 401, "the cached session, valid for a second, has ended")


def ends_at_akoya(env: GatewayEnv, id_token: str) -> bool:
    """Return whether Akoya rejects the token within 30 seconds: revocations are processed in the background."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        data = httpx.get(
            f"{env.akoya.url}/accounts-info/v2/mikomo",
            headers={"authorization": f"Bearer {id_token}"},
            trust_env=False,
        )
        if data.status_code == 401:
            return bool(data.json()["code"] == 602)
        time.sleep(0.05)
    return False


def test_disconnect_revokes_at_akoya_and_forgets_at_once(env: GatewayEnv, browser: Browser) -> None:
    browser.connect()
    token = browser.passed()["akoya-id-token"]
    csrf = browser.connections()["csrf"]
    response = browser.fetch("/akoya/disconnect/mikomo", "POST", data={"csrf": csrf})
    assert response.status_code == 303
    assert browser.fetch("/accounts").status_code == 401
    assert browser.connections()["connections"] == []
    assert ends_at_akoya(env, token)


@pytest.mark.parametrize("csrf", ["", "wrong"])
def test_forged_disconnect_changes_nothing(browser: Browser, csrf: str) -> None:
    browser.connect()
    assert browser.fetch("/akoya/disconnect/mikomo", "POST", data={"csrf": csrf}).status_code == 403
    assert browser.fetch("/accounts").status_code == 200


def test_disconnect_without_a_session_is_refused(browser: Browser) -> None:
    response = browser.fetch("/akoya/disconnect/mikomo", "POST", data={"csrf": "x"})
    assert response.status_code == 401
    assert response.json()["type"] == "urn:akoya-gateway:problem:no-session"


def test_form_from_another_site_changes_nothing_even_with_the_token(browser: Browser) -> None:
    browser.connect()
    csrf = browser.connections()["csrf"]
    for headers in (
        {"origin": "https://evil.example"},
        {"origin": "https://evil.example", "sec-fetch-site": "same-origin"},
        {"origin": "null"},
        {"origin": "null", "sec-fetch-site": "cross-site"},
        {"origin": "null", "sec-fetch-site": "none"},
        {"sec-fetch-site": "cross-site"},
    ):
        response = browser.fetch("/akoya/disconnect/mikomo", "POST", data={"csrf": csrf}, headers=headers)
        assert response.status_code == 403
    assert browser.fetch("/accounts").status_code == 200


def test_form_of_an_own_page_under_a_no_referrer_policy_is_accepted(browser: Browser) -> None:
    """Proxies and Helmet add `Referrer-Policy: no-referrer` to all pages, and browsers then send `Origin: null`."""
    browser.connect()
    data, headers = {"csrf": browser.connections()["csrf"]}, {"origin": "null", "sec-fetch-site": "same-origin"}
    wrong = browser.fetch("/akoya/disconnect/mikomo", "POST", data={"csrf": "wrong"}, headers=headers)
    assert wrong.status_code == 403
    assert browser.fetch("/akoya/disconnect/mikomo", "POST", data=data, headers=headers).status_code == 303
    assert browser.fetch("/accounts").status_code == 401


def test_refused_links_and_forms_are_logged_with_the_reason(
    env: GatewayEnv, browser: Browser, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    browser.connect()
    cases = {
        "is not a parameter of this address": browser.fetch("/akoya/connect/mikomo?returnTo=/"),
        "not allowed here (redirects.allow)": browser.fetch("/akoya/connect/mikomo?return_to=https://evil.example"),
        "Origin is not that of public_url": browser.fetch(
            "/akoya/disconnect/mikomo", "POST", data={"csrf": "x"}, headers={"origin": "null"}
        ),
        "the token is not that of the session": browser.fetch("/akoya/disconnect/mikomo", "POST", data={"csrf": "x"}),
    }
    lines = [*env.log().splitlines(), *caplog.text.splitlines()]  # The middleware logs in this process.
    for reason, response in cases.items():
        number = response.json()["request_id"]
        (logged,) = [line for line in lines if number in line and "outcome" not in line]  # not in the access log
        assert reason in logged


def test_logout_ends_the_session_and_the_grants_that_it_alone_led_to(env: GatewayEnv, browser: Browser) -> None:
    browser.connect()
    token = browser.passed()["akoya-id-token"]
    with env.browser() as copy:
        copy.http.cookies.update(browser.http.cookies)
        csrf = browser.connections()["csrf"]
        response = browser.fetch("/akoya/logout", "POST", data={"csrf": csrf})
        assert response.status_code == 303
        assert "Max-Age=0" in response.headers["set-cookie"]
        assert browser.fetch("/accounts").status_code == 401
        assert copy.fetch("/accounts").status_code == 401, "the session has ended, not only the cookie been deleted"
    assert ends_at_akoya(env, token)


def test_rejected_token_is_refreshed_early(env: GatewayEnv, browser: Browser) -> None:
    browser.connect()
    before = browser.passed()["akoya-id-token"]
    browser.fetch("/accounts/stale")
    deadline = time.monotonic() + 60
    while browser.passed()["akoya-id-token"] == before and time.monotonic() < deadline:
        time.sleep(0.05)
    assert browser.passed()["akoya-id-token"] != before
    assert "akoya-token-rejected" not in browser.fetch("/accounts/stale").headers


def test_keys_of_the_signature_are_published(env: GatewayEnv, browser: Browser) -> None:
    document = browser.fetch("/akoya/jwks.json")
    assert document.status_code == 200
    (key,) = document.json()["keys"]
    assert (key["kty"], key["crv"]) == ("OKP", "Ed25519")
    assert "d" not in key
