"""A bank is connected again with another login: both are kept, the old one is ended, or the user is asked."""

from __future__ import annotations

import re
from collections.abc import Iterator

import httpx
import pytest

from tests.support.environment import CLIENT_ID, Browser, GatewayEnv

ACCESS = [{"path": "/accounts", "require": "any"}, {"path": "/mikomo", "require": "mikomo"}]


@pytest.fixture(scope="module")
def env(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayEnv]:
    connectors = {
        "mikomo": {"client": "test-app", "name": "Mikomo <Bank>", "other_login": "ask"},
        "other": {"client": "test-app", "name": "Other Bank", "other_login": "replace"},
        "third": {"client": "test-app", "name": "Third Bank", "connector": "mikomo"},
    }
    with GatewayEnv(tmp_path_factory.mktemp("env"), changes={"access": ACCESS, "connectors": connectors}) as env:
        yield env


def logins(browser: Browser) -> list[tuple[str, str]]:
    return sorted((each["connector"], each["login"]) for each in browser.connections()["connections"])


def follow_to_page(browser: Browser, response: httpx.Response) -> tuple[str, dict[str, dict[str, str]]]:
    """Follow the redirect to the page that asks. Return the page and its two forms by their answer."""
    assert response.status_code == 302
    assert response.headers["location"].startswith("/akoya/other-login/mikomo?grant=g_")
    page = browser.go(response.headers["location"])
    assert page.status_code == 200
    forms: dict[str, dict[str, str]] = {}
    for form in re.findall(
        r'<form method="post" action="/akoya/other-login/mikomo">(.*?)</form>', page.text, re.DOTALL
    ):
        fields = dict(re.findall(r'name="(\w+)" value="([^"]*)"', form))
        forms[fields["answer"]] = fields
    assert set(forms) == {"keep", "end"}
    return page.text, forms


def post(browser: Browser, fields: dict[str, str]) -> httpx.Response:
    return browser.http.post("/akoya/other-login/mikomo", data=fields)


def test_logins_are_added_where_nothing_is_configured(browser: Browser) -> None:
    for user in ("mikomo_1", "mikomo_4"):
        assert browser.connect("third", user).headers["location"] == "/accounts"
    assert logins(browser) == [("third", "mikomo_1"), ("third", "mikomo_4")]


def test_old_login_is_revoked_once_the_new_one_is_stored(env: GatewayEnv, browser: Browser) -> None:
    browser.connect("third", "mikomo_7")
    browser.connect("other", "mikomo_1")
    assert browser.connect("other", "mikomo_4").headers["location"] == "/accounts"
    assert logins(browser) == [("other", "mikomo_4"), ("third", "mikomo_7")]
    assert browser.connect("other", "mikomo_4").headers["location"] == "/accounts"
    assert logins(browser) == [("other", "mikomo_4"), ("third", "mikomo_7")], "a reconnected login is not another one"


def test_other_login_without_a_choice_keeps_both_logins(browser: Browser) -> None:
    assert browser.connect("mikomo", "mikomo_1").headers["location"] == "/accounts"
    page, _ = follow_to_page(browser, browser.connect("mikomo", "mikomo_4"))
    assert "Mikomo &lt;Bank&gt;" in page
    assert "<strong>mikomo_4</strong>" in page
    assert "<strong>mikomo_1</strong>" in page
    assert logins(browser) == [("mikomo", "mikomo_1"), ("mikomo", "mikomo_4")]
    assert browser.connect("mikomo", "mikomo_1").headers["location"] == "/accounts", "a known login needs no question"


def test_choice_determines_whether_the_old_login_is_revoked(browser: Browser) -> None:
    browser.connect("mikomo", "mikomo_1")
    landed = browser.connect("mikomo", "mikomo_4", return_to="/mikomo")
    _, forms = follow_to_page(browser, landed)
    kept = post(browser, forms["keep"])
    assert (kept.status_code, kept.headers["location"]) == (303, "/mikomo")
    assert len(logins(browser)) == 2
    _, again = follow_to_page(browser, landed)
    assert again == forms, "a reload asks the same"
    for _ in range(2):  # The second one is from another tab, or a repeated submission.
        ended = post(browser, forms["end"])
        assert (ended.status_code, ended.headers["location"]) == (303, "/mikomo")
        assert logins(browser) == [("mikomo", "mikomo_4")]
    over = browser.go(landed.headers["location"])
    assert (over.status_code, over.headers["location"]) == (303, "/mikomo"), "there is nothing left to ask"


def test_choice_revokes_only_the_logins_that_its_page_showed(browser: Browser) -> None:
    browser.connect("mikomo", "mikomo_1")
    _, first_tab = follow_to_page(browser, browser.connect("mikomo", "mikomo_4"))
    _, second_tab = follow_to_page(browser, browser.connect("mikomo", "mikomo_7"))
    first_tab["end"]["csrf"] = second_tab["end"]["csrf"]
    assert post(browser, first_tab["end"]).status_code == 303
    assert logins(browser) == [("mikomo", "mikomo_4"), ("mikomo", "mikomo_7")]
    assert post(browser, second_tab["end"]).status_code == 303
    assert logins(browser) == [("mikomo", "mikomo_7")]
    response = post(browser, first_tab["end"])
    assert response.status_code == 409, "the login of this page has ended, so nothing else may be"
    assert logins(browser) == [("mikomo", "mikomo_7")]


def test_forged_responses_change_nothing(env: GatewayEnv, browser: Browser) -> None:
    browser.connect("mikomo", "mikomo_1")
    _, forms = follow_to_page(browser, browser.connect("mikomo", "mikomo_4"))
    end = forms["end"]
    with env.browser() as other_browser:
        other_browser.connect("mikomo", "mikomo_7")
        other_browser.connect("third", "mikomo_10")
        foreign = other_browser.connections()
        theirs = {**end, "csrf": foreign["csrf"]}
        assert post(other_browser, theirs).status_code == 409
        own = {each["connector"]: each["id"] for each in foreign["connections"]}
        assert post(other_browser, {**theirs, "grant": own["mikomo"]}).status_code == 303
        assert len(logins(other_browser)) == 2
    assert post(browser, {**end, "csrf": "wrong"}).status_code == 403
    assert browser.http.post("/akoya/other-login/other", data=end).status_code == 409
    assert browser.http.post("/akoya/other-login/none", data=end).status_code == 404
    assert post(browser, {**end, "logins": end["grant"]}).status_code == 303, (
        "the new login itself cannot be ended here"
    )
    evil = post(browser, {**forms["keep"], "return_to": "https://evil.example/"})
    assert (evil.status_code, evil.headers["location"]) == (303, "/accounts")
    page = browser.go(f"/akoya/other-login/mikomo?grant={end['grant']}&return_to=//evil.example")
    assert "evil" not in page.text
    with env.browser() as anonymous:
        assert anonymous.go("/akoya/other-login/mikomo").status_code == 401
        assert post(anonymous, end).status_code == 401
    assert logins(browser) == [("mikomo", "mikomo_1"), ("mikomo", "mikomo_4")]
    assert CLIENT_ID not in page.text
