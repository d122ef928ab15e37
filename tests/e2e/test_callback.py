"""A callback is accepted once, from the browser that started it, for the connector it was started for."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, parse_qsl, urlencode, urlsplit

import httpx
import pytest

from akoya_gateway.endpoints.user_messages import notice_of_error
from tests.e2e.log_errors import errors
from tests.support.environment import Browser, GatewayEnv
from tests.support.waiting import until


def until_logged(env: GatewayEnv, caplog: pytest.LogCaptureFixture, *words: str) -> None:
    """Wait until a log line has all the words. The sidecar logs to its file, the middleware in this process."""

    def is_logged() -> bool:
        lines = [*env.log().splitlines(), *caplog.text.splitlines()]
        return any(all(word in line for word in words) for line in lines)

    until(is_logged, f"a log line has {words}")


def state_of(url: str) -> str:
    return parse_qs(urlsplit(url).query)["state"][0]


def query_of(url: str) -> dict[str, str]:
    return dict(parse_qsl(urlsplit(url).query, strict_parsing=True))


def test_replayed_callback_is_refused(env: GatewayEnv, browser: Browser) -> None:
    callback = env.akoya.consent(browser.begin(), "mikomo_1")
    assert browser.go(callback).status_code == 302
    before = len(env.akoya.events("token"))
    again = browser.go(callback)
    assert again.status_code == 400
    assert "start again" in again.text
    assert len(env.akoya.events("token")) == before, "the code is not sent twice"
    assert browser.fetch("/accounts").status_code == 200, "what was connected stays"


def session_cookie(browser: Browser) -> tuple[str, str]:
    ((name, value),) = [(n, v) for n, v in browser.http.cookies.items() if not n.endswith("-browser")]
    return name, value


def lost(browser: Browser, callback: str) -> None:
    """Complete the callback, but lose its response."""
    before = httpx.Cookies(browser.http.cookies)
    assert browser.go(callback).status_code == 302
    browser.http.cookies = before


def two_banks_and_a_lost_answer(env: GatewayEnv, browser: Browser) -> str:
    """Lose the response to the second bank's callback, and return the owner of the session before it."""
    assert browser.connect("mikomo", "mikomo_1").status_code == 302
    owner = browser.passed()["akoya-owner"]
    lost(browser, env.akoya.consent(browser.begin("other"), "mikomo_4"))
    assert browser.fetch("/mikomo").status_code == 401, "the session id was rotated when its rights grew"
    assert browser.connections()["connections"] == []
    return owner


def test_user_with_a_lost_response_signs_in_again_and_has_all_banks(env: GatewayEnv, browser: Browser) -> None:
    owner = two_banks_and_a_lost_answer(env, browser)
    assert browser.connect("other", "mikomo_4").status_code == 302
    assert browser.passed("/both")["akoya-owner"] == owner
    assert len(browser.connections()["connections"]) == 2


def test_callback_without_the_session_cookie_recovers_from_a_lost_response(env: GatewayEnv, browser: Browser) -> None:
    """With SameSite=Strict, the cookie is sent when an attempt begins but not on the way back from Akoya."""
    browser.connect("mikomo", "mikomo_1")
    owner = browser.passed()["akoya-owner"]
    for arrives in (False, False, True):
        callback = env.akoya.consent(browser.begin("other"), "mikomo_4")
        name, value = session_cookie(browser)
        del browser.http.cookies[name]
        assert browser.go(callback).headers["location"] == "/accounts"
        if not arrives:
            browser.http.cookies.set(name, value, domain="127.0.0.1", path="/")
            assert browser.fetch("/accounts").status_code == 401
    assert browser.passed("/both")["akoya-owner"] == owner


@pytest.mark.parametrize(("connector", "user"), [("other", "mikomo_5"), ("mikomo", "mikomo_1"), ("mikomo", "mikomo_4")])
def test_rotated_session_id_is_useless_to_another_user(
    env: GatewayEnv, browser: Browser, connector: str, user: str
) -> None:
    """The attacker planted the id in the victim's browser (session fixation), and may own the first bank account."""
    owner = two_banks_and_a_lost_answer(env, browser)
    assert browser.connect(connector, user).status_code == 302
    assert len(browser.connections()["connections"]) == 1
    assert browser.passed()["akoya-owner"] != owner
    assert browser.fetch("/both").status_code == 401


def test_lost_response_of_another_browser_recovers_no_session(env: GatewayEnv, browser: Browser) -> None:
    owner = two_banks_and_a_lost_answer(env, browser)
    with env.browser() as other_browser:
        assert other_browser.connect("other", "mikomo_4").status_code == 302
        assert other_browser.passed()["akoya-owner"] != owner


@pytest.mark.parametrize("presented", [True, False])
def test_attempt_from_before_a_grant_was_added_gives_no_access_to_it(
    env: GatewayEnv, browser: Browser, presented: bool
) -> None:
    """Session fixation: the attacker started an attempt with the planted session id before it was rotated."""
    with env.browser() as planter:
        planter.connect("mikomo", "mikomo_1")
        in_hand = env.akoya.consent(planter.begin("other"), "mikomo_5")
        name, planted = session_cookie(planter)
        browser.http.cookies.set(name, planted, domain="127.0.0.1", path="/")
        assert browser.connect("other", "mikomo_4").status_code == 302
        owner = browser.passed("/both")["akoya-owner"]
        if not presented:
            del planter.http.cookies[name]
        calls = len(env.akoya.events("token"))
        assert errors(planter.go(in_hand)) == "other-owner"
        assert len(env.akoya.events("token")) == calls, "no code is spent"
        assert planter.fetch("/accounts").status_code == 401
        assert browser.passed("/both")["akoya-owner"] == owner
        assert len(browser.connections()["connections"]) == 2


def test_older_rotated_id_and_the_attackers_own_bank_do_not_lead_to_the_victims(
    env: GatewayEnv, browser: Browser
) -> None:
    """Session fixation through a chain of ids: the forwarding entry of the older id leads to the attacker's session."""
    with env.browser() as planter:
        planter.connect("mikomo", "mikomo_1")
        name, older = session_cookie(planter)
        planter.connect("other", "mikomo_5")
        _, planted = session_cookie(planter)
        browser.http.cookies.set(name, planted, domain="127.0.0.1", path="/")
        browser.connect("mikomo", "mikomo_4")
        owner = browser.passed()["akoya-owner"]
        planter.http.cookies.set(name, older, domain="127.0.0.1", path="/")
        planter.connect("other", "mikomo_5")
        assert planter.passed()["akoya-owner"] != owner
        assert len(planter.connections()["connections"]) == 1
        assert browser.passed()["akoya-owner"] == owner


@pytest.mark.parametrize("leaving", ["logout", "disconnect/other"])
def test_rotated_session_id_does_not_restore_a_session_after_logout(
    env: GatewayEnv, browser: Browser, leaving: str
) -> None:
    browser.connect("mikomo", "mikomo_1")
    owner = browser.passed()["akoya-owner"]
    name, dead = session_cookie(browser)
    browser.connect("other", "mikomo_4")
    csrf = browser.connections()["csrf"]
    assert browser.fetch(f"/akoya/{leaving}", "POST", data={"csrf": csrf}).status_code == 303
    with env.browser() as thief:
        thief.http.cookies.set(name, dead, domain="127.0.0.1", path="/")
        thief.connect("other", "mikomo_4")
        assert thief.passed("/accounts")["akoya-owner"] != owner
        assert len(thief.connections()["connections"]) == 1


def test_lost_error_response_keeps_the_session(env: GatewayEnv, browser: Browser) -> None:
    """Users give up on a bank that does not respond. Nothing was connected, so the session continues."""
    browser.connect("mikomo", "mikomo_1")
    before = browser.passed()
    callback = env.akoya.consent(browser.begin("other"), "mikomo_4")
    env.akoya.fault("status", "token.authorization_code", times=1)
    try:
        lost(browser, callback)
    finally:
        env.akoya.clear_faults()
    assert browser.passed()["akoya-owner"] == before["akoya-owner"]
    assert browser.connect("other", "mikomo_4").status_code == 302
    assert browser.passed("/both")["akoya-owner"] == before["akoya-owner"]


def test_second_lost_response_changes_nothing(env: GatewayEnv, browser: Browser) -> None:
    owner = two_banks_and_a_lost_answer(env, browser)
    lost(browser, env.akoya.consent(browser.begin("other"), "mikomo_4"))
    assert browser.connect("other", "mikomo_4").status_code == 302
    assert browser.passed("/both")["akoya-owner"] == owner


def test_recovered_session_is_the_only_one_of_its_owner(env: GatewayEnv, browser: Browser) -> None:
    """The session of the lost response ends, because its cookie may be in another client's hands."""
    browser.connect("mikomo", "mikomo_1")
    callback = env.akoya.consent(browser.begin("other"), "mikomo_4")
    name, dead = session_cookie(browser)
    browser.go(callback)
    _, astray = session_cookie(browser)
    browser.http.cookies.set(name, dead, domain="127.0.0.1", path="/")
    browser.connect("other", "mikomo_4")
    assert len(browser.connections()["connections"]) == 2
    with env.browser() as other:
        other.http.cookies.set(name, astray, domain="127.0.0.1", path="/")
        assert other.fetch("/accounts").status_code == 401


def test_callback_from_another_browser_is_refused_and_consumes_the_attempt(env: GatewayEnv, browser: Browser) -> None:
    callback = env.akoya.consent(browser.begin(), "mikomo_1")
    with env.browser() as victim:
        victim.begin()  # has its own binding
        assert victim.go(callback).status_code == 400
        assert victim.fetch("/accounts").status_code == 401
    assert browser.go(callback).status_code == 400


def test_callback_without_any_cookie_is_refused(env: GatewayEnv, browser: Browser) -> None:
    callback = env.akoya.consent(browser.begin(), "mikomo_1")
    with env.browser() as other_browser:
        assert other_browser.go(callback).status_code == 400


@pytest.mark.parametrize(
    "query",
    ["", "state=x", "code=x", "code=x&state=unknownunknown", "code=a&code=b&state=x", "error=access_denied", "code=%zz&state=x",
     "code=x&state=" + "s" * 600, "code=" + "c" * 5000 + "&state=x", "code=%00&state=x", "code=x&state=%0d%0a", "a=" + "b" * 20000],
)  # fmt: skip
def test_callback_of_an_unknown_attempt_gets_a_page(browser: Browser, query: str) -> None:
    browser.begin()
    response = browser.go(f"/akoya/callback?{query}")
    assert response.status_code == 400
    assert "text/html" in response.headers["content-type"]
    assert response.headers["cache-control"] == "no-store"


@pytest.mark.parametrize(
    ("error", "shown"),
    [
        ("access_denied", "access_denied"),
        ("server_error", "server_error"),
        ("temporarily_unavailable", "temporarily_unavailable"),
        ("invalid_scope", "invalid_scope"),
        ("unauthorized_client", "unauthorized_client"),
        ("a_word_no_bank_has_used_yet", "authorization-refused"),
    ],
)
def test_every_error_ends_at_after_error_with_a_stable_code(browser: Browser, error: str, shown: str) -> None:
    state = state_of(browser.begin())
    query = urlencode({"error": error, "error_description": "<script>alert(1)</script>", "state": state})
    response = browser.go(f"/akoya/callback?{query}")
    assert errors(response) == shown
    assert "script" not in response.headers["location"]
    page = browser.go(response.headers["location"])
    assert page.status_code == 200
    assert "<script" not in page.text


def test_failed_connect_is_logged_with_the_providers_error_text_and_the_request_id(
    env: GatewayEnv, browser: Browser, caplog: pytest.LogCaptureFixture
) -> None:
    at_bank = browser.go(
        f"/akoya/callback?error=login_required&error_description=Session+over&state={state_of(browser.begin())}"
    )
    at_akoya = browser.go(f"/akoya/callback?code=never-issued&state={state_of(browser.begin())}")
    for response, words in (
        (at_bank, ("authorization-refused", "login_required", "Session over")),
        (at_akoya, ("code-refused", "invalid_", "400")),
    ):
        number = parse_qs(urlsplit(response.headers["location"]).query)["request_id"][0]
        # The middleware logs in this process.
        lines = [*env.log().splitlines(), *caplog.text.splitlines()]
        (line,) = [line for line in lines if number in line and "connecting a bank failed" in line]
        assert [word for word in words if word not in line] == []


def test_callback_of_no_attempt_is_logged_with_the_reason(
    env: GatewayEnv, browser: Browser, caplog: pytest.LogCaptureFixture
) -> None:
    """The page is the same for all of them, so only the log shows a browser that lost its cookie on the way."""
    caplog.set_level("INFO")
    begun = browser.begin()
    with env.browser() as without_cookie, env.browser() as other:
        other.begin()
        cases = [
            (without_cookie, f"code=x&state={state_of(begun)}", "the browser sent no cookie"),
            (other, f"code=x&state={state_of(browser.begin())}", "started in another browser"),
            (browser, f"code=x&state={'s' * 43}", "already completed"),
            (browser, "error=invalid_client&error_description=Unknown+client", "Unknown client"),
            (browser, "", "neither code nor error"),
        ]
        responses = [(each.fetch(f"/akoya/callback?{query}"), reason) for each, query, reason in cases]
    for response, reason in responses:
        assert response.status_code == 400
        until_logged(env, caplog, response.json()["request_id"], "connecting a bank failed", reason)


def test_callback_with_a_cookie_sent_twice_keeps_the_attempt_and_the_code(env: GatewayEnv, browser: Browser) -> None:
    callback = env.akoya.consent(browser.begin(), "mikomo_1")
    name = next(iter(browser.http.cookies))
    twice = {"cookie": f"{name}=another; " + "; ".join(f"{key}={text}" for key, text in browser.http.cookies.items())}
    before = len(env.akoya.events("token"))
    response = browser.fetch(callback, headers=twice)
    assert response.status_code == 400
    assert response.json()["type"].endswith(":cookie-twice")
    assert len(env.akoya.events("token")) == before
    assert browser.go(callback).status_code == 302


@pytest.mark.parametrize(
    "query", ["", "code=x", "code=a&code=b", "error=a&error=b&state=", "state=%00&code=x", "code=a&state=x&state=y"]
)
def test_callback_without_an_attempt_reports_that_it_is_unreadable(browser: Browser, query: str) -> None:
    response = browser.fetch(f"/akoya/callback?{query}")
    assert response.status_code == 400
    assert response.json()["type"].endswith(":bad-callback")


@pytest.mark.parametrize("query", ["", "code=", "code=%0a"])
def test_unreadable_response_to_a_known_attempt_consumes_the_attempt_and_sends_no_code(
    env: GatewayEnv, browser: Browser, query: str
) -> None:
    state = state_of(browser.begin())
    before = len(env.akoya.events("token"))
    assert errors(browser.go(f"/akoya/callback?{query}&state={state}")) == "bad-callback"
    assert len(env.akoya.events("token")) == before
    assert browser.go(f"/akoya/callback?code=x&state={state}").status_code == 400, "the attempt is used up"


def test_cancelled_consent_shares_nothing_and_shows_a_message(browser: Browser) -> None:
    state = state_of(browser.begin())
    response = browser.go(f"/akoya/callback?error=access_denied&state={state}")
    assert "You cancelled" in browser.go(response.headers["location"]).text
    assert browser.fetch("/accounts").status_code == 401


@pytest.mark.parametrize(
    "rest",
    ["", "&code=", "&code=a&error=access_denied", "&error=", "&code=a%00", "&code=a&code=b", "&code=a&code=a", "&code=a&c%6fde=b",
     "&error=access_denied&error=server_error", "&code=a&iss=x&iss=y", "&code=a&%zz=1"],
)  # fmt: skip
def test_unreadable_response_sends_no_code_and_consumes_the_attempt(
    env: GatewayEnv, browser: Browser, rest: str
) -> None:
    state = state_of(browser.begin())
    calls = len(env.akoya.events("token"))
    assert errors(browser.go(f"/akoya/callback?state={state}{rest}")) == "bad-callback"
    assert len(env.akoya.events("token")) == calls
    assert browser.go(f"/akoya/callback?state={state}&code=a").status_code == 400, "single use"


def test_two_states_consume_no_attempt_and_send_no_code(env: GatewayEnv, browser: Browser) -> None:
    """A callback with two states is ambiguous: an attacker could add a victim's state to end the victim's attempt."""
    callback = env.akoya.consent(browser.begin(), "mikomo_1")
    state = state_of(callback)
    calls = len(env.akoya.events("token"))
    for other in (state, state_of(browser.begin("other")), "x", ""):
        response = browser.fetch(f"{callback}&state={other}")
        assert response.status_code == 400
        assert response.json()["type"].endswith(":bad-callback")
    assert len(env.akoya.events("token")) == calls
    assert browser.go(callback).headers["location"] == "/accounts"


def test_code_added_to_a_victims_callback_connects_no_bank(env: GatewayEnv, browser: Browser) -> None:
    callback = env.akoya.consent(browser.begin(), "mikomo_1")
    with env.browser() as attacker:
        theirs = parse_qs(urlsplit(env.akoya.consent(attacker.begin(), "mikomo_4")).query)["code"][0]
    for crafted in (f"{callback}&code={theirs}", callback):
        browser.go(crafted)
        assert browser.fetch("/accounts").status_code == 401


def test_unknown_extra_parameters_are_tolerated(env: GatewayEnv, browser: Browser) -> None:
    callback = env.akoya.consent(browser.begin(), "mikomo_1") + "&scope=openid+profile&something=new"
    assert browser.go(callback).status_code == 302
    assert browser.fetch("/accounts").status_code == 200


def test_response_of_another_issuer_is_a_mix_up(
    env: GatewayEnv, browser: Browser, caplog: pytest.LogCaptureFixture
) -> None:
    """The log has both issuers: if all users are affected, `issuer` in gateway.yaml differs, often by a slash."""
    caplog.set_level("INFO")
    callback = env.akoya.consent(browser.begin(), "mikomo_1") + "&iss=https%3A%2F%2Fevil.example"
    assert errors(browser.go(callback)) == "foreign-issuer"
    until_logged(env, caplog, "foreign-issuer", "iss is https://evil.example, but issuer is")


def test_two_tabs_work_side_by_side(env: GatewayEnv, browser: Browser) -> None:
    first, second = browser.begin("mikomo"), browser.begin("other")
    later = env.akoya.consent(second, "mikomo_1")
    assert browser.go(later).status_code == 302
    assert browser.go(env.akoya.consent(first, "mikomo_1")).status_code == 302
    assert {c["connector"] for c in browser.connections()["connections"]} == {"mikomo", "other"}


def test_late_callback_after_another_tab_won_replaces_its_grant(env: GatewayEnv, browser: Browser) -> None:
    """The same bank in two tabs: the session id has been rotated in between, but it is the same browser."""
    early, won = browser.begin("mikomo"), browser.begin("mikomo")
    assert browser.go(env.akoya.consent(won, "mikomo_1")).status_code == 302
    first = browser.passed("/mikomo")
    assert browser.go(env.akoya.consent(early, "mikomo_1")).headers["location"] == "/accounts"
    assert [each["state"] for each in browser.connections()["connections"]] == ["live"]
    second = browser.passed("/mikomo")
    assert second["akoya-owner"] == first["akoya-owner"]
    assert second["akoya-id-token"] != first["akoya-id-token"]


def test_attempts_of_one_browser_are_bounded_and_the_newest_survive(env: GatewayEnv, browser: Browser) -> None:
    urls = [browser.begin() for _ in range(12)]
    assert browser.go(env.akoya.consent(urls[0], "mikomo_1")).status_code == 400
    assert browser.go(env.akoya.consent(urls[-1], "mikomo_1")).status_code == 302


def test_code_that_akoya_refuses_is_explained(env: GatewayEnv, browser: Browser) -> None:
    state = state_of(browser.begin())
    response = browser.go(f"/akoya/callback?code=never-issued&state={state}")
    assert errors(response) == "code-refused"


@pytest.mark.parametrize(
    ("kind", "shown"),
    [("status", "temporarily_unavailable"), ("cut_after", "outcome-unknown"), ("html", "outcome-unknown")],
)
def test_token_endpoint_failure_is_reported_and_the_code_is_sent_once(
    env: GatewayEnv, browser: Browser, kind: str, shown: str
) -> None:
    callback = env.akoya.consent(browser.begin(), "mikomo_1")
    env.akoya.fault(kind, "token.authorization_code", times=1)
    before = len(env.akoya.events("token"))
    try:
        response = browser.go(callback)
    finally:
        env.akoya.clear_faults()
    assert errors(response) == shown
    assert len(env.akoya.events("token")) - before <= 1
    assert browser.fetch("/accounts").status_code == 401


def test_code_and_its_token_response_are_never_logged(env: GatewayEnv, browser: Browser) -> None:
    callback = env.akoya.consent(browser.begin(), "mikomo_1")
    browser.go(callback)
    code = parse_qs(urlsplit(callback).query)["code"][0]
    log = env.log()
    assert code not in log
    assert browser.passed()["akoya-id-token"] not in log
    for value in browser.http.cookies.values():
        assert value not in log


def test_other_methods_at_the_callback_are_refused_and_consume_no_attempt(env: GatewayEnv, browser: Browser) -> None:
    callback = env.akoya.consent(browser.begin(), "mikomo_1")
    for method in ("POST", "HEAD", "PUT", "DELETE"):
        response = browser.http.request(method, callback)
        assert response.status_code == 405
        assert response.headers["allow"] == "GET"
    assert browser.go(callback).status_code == 302


def test_callback_without_the_session_cookie_keeps_the_owner_and_ends_the_old_id(
    env: GatewayEnv, browser: Browser
) -> None:
    """With SameSite=Strict, the return from Akoya is a cross-site navigation, and only the binding cookie is sent."""
    browser.connect("mikomo")
    owner = browser.passed()["akoya-owner"]
    callback = env.akoya.consent(browser.begin("other"), "mikomo_1")
    (name,) = [name for name in browser.http.cookies if not name.endswith("-browser")]
    old = browser.http.cookies[name]
    del browser.http.cookies[name]
    assert browser.go(callback).status_code == 302
    assert browser.passed()["akoya-owner"] == owner
    assert {c["connector"] for c in browser.connections()["connections"]} == {"mikomo", "other"}
    with env.browser() as planter:
        planter.http.cookies.set(name, old)
        assert planter.fetch("/accounts").status_code == 401


class TwoClients(GatewayEnv):
    """Each bank has its own client registration and therefore its own redirect URI."""

    def config(self) -> dict[str, Any]:
        config = super().config()
        first = config["clients"]["test-app"]
        config["clients"]["second"] = {**first, "redirect_uri": f"{self.redirect_uri}/second"}
        config["connectors"]["other"]["client"] = "second"
        return config


def test_callback_at_another_clients_address_sends_no_code(tmp_path: Path) -> None:
    with TwoClients(tmp_path, entrypoint="middleware") as env, env.browser() as browser:
        env.akoya.register_redirect_uri(f"{env.redirect_uri}/second")
        callback = urlsplit(env.akoya.consent(browser.begin("mikomo"), "mikomo_1"))
        astray = callback._replace(path=f"{callback.path}/second").geturl()
        assert errors(browser.go(astray)) == "wrong-callback"
        assert env.akoya.events("token") == []
        assert browser.go(callback.geturl()).status_code == 400, "the attempt is used up"
        assert browser.go(env.akoya.consent(browser.begin("other"), "mikomo_1")).headers["location"] == "/accounts"


def test_failed_attempt_shows_the_number_of_its_log_lines_and_a_way_to_try_again(tmp_path: Path) -> None:
    with GatewayEnv(tmp_path, changes={"redirects": {"allow": ["/*"]}}) as env, env.browser() as browser:
        state = query_of(browser.begin(return_to="/mikomo?x={1}"))["state"]
        response = browser.go(f"/akoya/callback?error=access_denied&state={state}")
        query = query_of(response.headers["location"])
        assert {**query, "request_id": ""} == {
            "error": "access_denied", "connector": "mikomo", "request_id": "", "return_to": "/mikomo?x={1}",
        }  # fmt: skip
        number = query["request_id"]
        lines = [json.loads(line) for line in env.log().splitlines() if number in line]
        assert ("authorization attempt finished", "access_denied") in [
            (line["event"], line.get("result")) for line in lines
        ]
        page = browser.go(response.headers["location"]).text
        assert f"mention this number: <code>{number}</code>" in page
        assert (
            '<a class="button main" href="/akoya/connect/mikomo?return_to=/mikomo%3Fx%3D%7B1%7D">Try again: Mikomo Bank</a>'
            in page
        )
        assert '<a href="/">Back to the app</a>' in page, "the requested page needs the bank that failed"


def test_failed_attempt_passes_its_number_to_a_page_of_the_app(tmp_path: Path) -> None:
    with (
        GatewayEnv(tmp_path, changes={"redirects": {"after_error": "/public/failed?a=b"}}) as env,
        env.browser() as browser,
    ):
        response = browser.go(f"/akoya/callback?error=access_denied&state={query_of(browser.begin())['state']}")
        path, _, query = response.headers["location"].partition("?")
        assert path == "/public/failed"
        assert list(dict(parse_qsl(query))) == ["a", "error", "connector", "request_id"]


@pytest.mark.parametrize("written", ["<b>1</b>", "x" * 65, "a b", "", "\u0661"])
def test_error_number_of_another_form_is_not_shown(browser: Browser, written: str) -> None:
    page = browser.go("/akoya/", params={"error": "access_denied", "connector": "no-such", "request_id": written}).text
    assert "You cancelled" in page
    assert "mention this number" not in page
    assert "Try again:" not in page
    assert "mention this number" not in browser.go("/akoya/?request_id=abc").text


def test_page_for_an_error_has_a_number_and_ways_back(env: GatewayEnv, browser: Browser) -> None:
    page = browser.go("/akoya/connect/nobank").text
    number = re.search(r"mention this number: <code>([0-9a-f]{16})</code>", page)
    assert number is not None
    assert '<a class="button" href="/">Back to the app</a>' in page
    if env.entrypoint == "sidecar":
        until(lambda: f'"request_id":"{number[1]}"' in env.log(), "the line is written, after the response")


def test_no_page_claims_that_an_error_was_reported() -> None:
    codes = ("client-refused", "untrusted-id-token", "store-unavailable", "whatever")
    assert not [code for code in codes if "told" in notice_of_error(code)]
