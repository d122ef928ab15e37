"""A user with several logins at one bank: what clients, browsers and background jobs are told, and which token passes."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from tests.support.environment import Browser, GatewayEnv
from tests.support.waiting import until

BEARER = "a-bearer-for-background-jobs-in-tests"
INVENTED = "g_AAAAAAAAAAAAAAAAAAAAAA"
ACCESS = [
    {"path": "/query", "require": "mikomo", "grant": {"query": "login"}, "otherwise": "connect"},
    {"path": "/header", "require": "mikomo", "grant": {"header": "X-Bank-Login"}, "otherwise": "connect"},
    {"path": "/single", "require": "mikomo", "grant": "single"},
    {"path": "/tokens", "require": ["other", "mikomo"], "pass_tokens": "all", "otherwise": "unauthorized"},
    {"path": "/tokens/stale", "require": ["other", "mikomo"], "pass_tokens": "all", "otherwise": "unauthorized"},
    {"path": "/accounts", "require": "any"},
]


@pytest.fixture(scope="module")
def env(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayEnv]:
    with GatewayEnv(tmp_path_factory.mktemp("env"), changes={"access": ACCESS}, token_bearer=BEARER) as env:
        yield env


@pytest.fixture
def logins(browser: Browser) -> list[dict[str, str]]:
    """Connect two logins at one bank, and return what the app receives for each, the first connected first."""
    passed = []
    for user in ("mikomo_1", "mikomo_4"):
        browser.connect("mikomo", user)
        passed.append(browser.passed())
    return passed


def test_each_token_is_reachable_by_its_id(browser: Browser, logins: list[dict[str, str]]) -> None:
    for login in logins:
        passed = browser.passed(f"/query?login={login['akoya-grant']}")
        assert passed["akoya-grant"] == login["akoya-grant"]
        assert passed["akoya-id-token"] == login["akoya-id-token"]
    assert logins[0]["akoya-id-token"] != logins[1]["akoya-id-token"]
    assert logins[0]["akoya-grant"] in logins[1]["akoya-connections"]


def test_ids_of_other_users_and_unknown_ids_get_identical_responses(
    env: GatewayEnv, browser: Browser, logins: list[dict[str, str]]
) -> None:
    with env.browser() as other_browser:
        other_browser.connect("mikomo", "mikomo_7")
        foreign = other_browser.passed()["akoya-grant"]
    for accept in ("application/json", "text/html"):
        responses = []
        for id_ in (foreign, INVENTED):
            response = browser.http.get(f"/query?login={id_}", headers={"accept": accept})
            text = re.sub(r"[0-9a-f]{16}", "<request ID>", response.text).replace(id_, "<id>")
            responses.append((response.status_code, text, {name for name in response.headers if name != "date"}))
        assert responses[0][0] == 404
        assert responses[0] == responses[1]


def test_request_without_a_login_id_gets_the_choices(browser: Browser, logins: list[dict[str, str]]) -> None:
    for path in ("/query?a=1", "/header", "/single"):
        response = browser.fetch(path)
        problem = response.json()
        assert response.status_code == 409
        assert problem["type"] == "urn:akoya-gateway:problem:ambiguous-grant"
        assert {choice["id"] for choice in problem["choices"]} == {login["akoya-grant"] for login in logins}
        assert len({choice["name"] for choice in problem["choices"]}) == 2
        assert all(re.fullmatch(r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\dZ", choice["since"]) for choice in problem["choices"])
        assert logins[0]["akoya-id-token"] not in response.text


def test_choice_page_links_to_the_same_address_with_a_login(browser: Browser, logins: list[dict[str, str]]) -> None:
    page = browser.go("/query?a=1&b=%26%22")
    assert page.status_code == 409
    links = [link.replace("&amp;", "&") for link in re.findall(r'href="(/query[^"]*)"', page.text)]
    assert {link.rpartition("=")[2] for link in links} == {login["akoya-grant"] for login in logins}
    for link in links:
        response = browser.go(link)
        assert response.status_code == 200
        assert response.json()["query"] == urlsplit(link).query
        assert response.json()["query"].startswith("a=1&b=%26%22&login=g_")
    for path in ("/header", "/single"):
        page = browser.go(path)
        assert page.status_code == 409
        assert 'href="/akoya/"' in page.text
        assert "/query" not in page.text


def test_user_with_one_login_gets_it_without_a_choice(browser: Browser) -> None:
    browser.connect()
    for path in ("/query", "/header", "/single"):
        assert browser.passed(path)["akoya-connector"] == "mikomo"


def test_user_without_a_login_is_redirected_to_connect(browser: Browser) -> None:
    assert browser.go("/query").headers["location"].startswith("/akoya/connect/mikomo")
    assert browser.fetch("/single").status_code == 401


def test_all_tokens_are_passed_and_the_cached_decision_follows_them(env: GatewayEnv, browser: Browser) -> None:
    browser.connect("mikomo", "mikomo_1")
    assert browser.fetch("/tokens").status_code == 401
    browser.connect("other", "mikomo_4")
    single = {connector: browser.passed(path) for connector, path in (("mikomo", "/single"), ("other", "/accounts"))}
    for _ in range(3):
        passed = browser.passed("/tokens")
        assert passed["akoya-connector"] == "other"
        assert passed["akoya-id-tokens"] == ", ".join(
            f'{connector}="{single[connector]["akoya-id-token"]}"' for connector in ("other", "mikomo")
        )


def test_app_reports_which_of_the_passed_tokens_was_rejected(browser: Browser) -> None:
    browser.connect("mikomo", "mikomo_1")
    mikomo = browser.passed("/single")["akoya-grant"]
    browser.connect("other", "mikomo_4")

    def tokens() -> list[str]:
        return re.findall(r'"([^"]+)"', browser.passed("/tokens")["akoya-id-tokens"])

    # GET takes the fast lane, POST with a body the general path.
    other, first = tokens()
    response = browser.fetch("/tokens/stale", headers={"x-rejected": mikomo})
    assert (response.status_code, "akoya-token-rejected" in response.headers) == (200, False)
    until(lambda: tokens()[1] != first)
    second = tokens()[1]
    assert tokens() == [other, second]
    assert browser.fetch("/tokens/stale", "POST", content=b"x").status_code == 200
    until(lambda: tokens()[0] != other)
    assert tokens()[1] == second


def test_background_job_selects_a_login(env: GatewayEnv, browser: Browser, logins: list[dict[str, str]]) -> None:
    owner = logins[0]["akoya-owner"]

    def fetch(**parameters: object) -> httpx.Response:
        headers = {"authorization": f"Bearer {BEARER}"}
        url = f"{env.admin_url}/akoya/token/mikomo"
        return httpx.get(url, params=parameters, headers=headers, trust_env=False, timeout=60)  # type: ignore[arg-type]

    for login in logins:
        response = fetch(owner=owner, grant=login["akoya-grant"])
        assert response.json()["grant"] == login["akoya-grant"]
        assert response.json()["id_token"] == login["akoya-id-token"]
    assert fetch(owner=owner).json()["grant"] == logins[1]["akoya-grant"]
    with env.browser() as other_browser:
        other_browser.connect("mikomo", "mikomo_7")
        foreign = other_browser.passed()["akoya-grant"]
    problems = []
    for id_ in (foreign, INVENTED):
        response = fetch(owner=owner, grant=id_)
        assert response.status_code == 404
        problems.append(re.sub(r"[0-9a-f]{16}", "", response.text))
    assert "unknown-grant" in problems[0]
    assert problems[0] == problems[1]
    for bad in ("", "x" * 65, [logins[0]["akoya-grant"]] * 2):
        assert fetch(owner=owner, grant=bad).status_code == 400


def test_identified_user_gets_the_choices(tmp_path: Path) -> None:
    changes = {"access": ACCESS, "identity": {"header": "X-User"}, "trusted_proxies": ["127.0.0.1/32"]}
    with GatewayEnv(tmp_path, changes=changes) as env, env.browser() as browser:
        browser.http.headers["x-user"] = "anna"
        for user in ("mikomo_1", "mikomo_4"):
            browser.connect("mikomo", user)
        ids = {each["akoya-grant"] for each in [browser.passed()]}
        ids |= {choice["id"] for choice in browser.fetch("/query").json()["choices"]}
        assert len(ids) == 2
        for _ in range(2):
            for id_ in ids:
                assert browser.passed(f"/query?login={id_}")["akoya-grant"] == id_
                assert browser.fetch("/query").status_code == 409


def test_logins_are_named_and_can_be_renamed(env: GatewayEnv, browser: Browser, logins: list[dict[str, str]]) -> None:
    first, second = (login["akoya-grant"] for login in logins)

    def responses() -> dict[str, str]:
        return {each["id"]: each["login"] for each in browser.connections()["connections"]}

    names = responses()
    assert set(names) == {first, second}
    assert len(set(names.values())) == 2
    csrf = browser.connections()["csrf"]
    given = 'My "<b>business</b>" login'
    response = browser.http.post("/akoya/rename/mikomo", data={"csrf": csrf, "grant": second, "name": f"  {given}\n"})
    assert (response.status_code, response.headers["location"]) == (303, "/akoya/?done=renamed")
    assert responses() == {first: names[first], second: given}
    page = browser.go("/akoya/?done=renamed").text
    assert "My &#34;&lt;b&gt;business&lt;/b&gt;&#34; login" in page
    assert "<b>business" not in page
    assert given in {choice["name"] for choice in browser.fetch("/single").json()["choices"]}
    browser.http.post("/akoya/rename/mikomo", data={"csrf": csrf, "grant": first, "name": given})
    assert responses() == {first: given, second: f"{given} (2)"}
    for grant in (first, second):
        browser.http.post("/akoya/rename/mikomo", data={"csrf": csrf, "grant": grant, "name": " "})
    assert responses() == names


def test_rename_of_another_users_login_is_refused(
    browser: Browser, env: GatewayEnv, logins: list[dict[str, str]]
) -> None:
    csrf, grant = browser.connections()["csrf"], logins[0]["akoya-grant"]
    with env.browser() as other_browser:
        other_browser.connect("mikomo", "mikomo_7")
        foreign = other_browser.passed()["akoya-grant"]
        bodies = set()
        for id_ in (foreign, INVENTED, "", grant[2:]):
            response = browser.http.post("/akoya/rename/mikomo", data={"csrf": csrf, "grant": id_, "name": "x"})
            assert response.status_code == 404
            bodies.add(re.sub(r"[0-9a-f]{16}", "", response.text))
        assert len(bodies) == 1
        assert other_browser.connections()["connections"][0]["login"] != "x"
    wrong = browser.http.post("/akoya/rename/mikomo", data={"csrf": "wrong", "grant": grant, "name": "x"})
    assert wrong.status_code == 403
    other = {"csrf": csrf, "grant": grant, "name": "x"}
    assert browser.http.post("/akoya/rename/other", data=other).status_code == 404
    assert (
        browser.http.post("/akoya/rename/mikomo", data=other, headers={"origin": "https://evil.example"}).status_code
        == 403
    )
    with env.browser() as anonymous:
        assert anonymous.http.post("/akoya/rename/mikomo", data=other).status_code == 401
    assert "x" not in {each["login"] for each in browser.connections()["connections"]}


def test_one_of_several_logins_can_be_disconnected(
    env: GatewayEnv, browser: Browser, logins: list[dict[str, str]]
) -> None:
    first, second = (login["akoya-grant"] for login in logins)
    csrf = browser.connections()["csrf"]
    with env.browser() as other_browser:
        other_browser.connect("mikomo", "mikomo_7")
        foreign = other_browser.passed()["akoya-grant"]
        bodies = set()
        for id_ in (foreign, INVENTED, "", first[2:]):
            response = browser.http.post("/akoya/disconnect/mikomo", data={"csrf": csrf, "grant": id_})
            assert (response.status_code, response.json()["type"]) == (404, "urn:akoya-gateway:problem:unknown-grant")
            bodies.add(re.sub(r"[0-9a-f]{16}", "", response.text))
        assert len(bodies) == 1
        other_bank = browser.http.post("/akoya/disconnect/other", data={"csrf": csrf, "grant": first})
        assert other_bank.status_code == 404
        assert len(other_browser.connections()["connections"]) == 1
    assert len(browser.connections()["connections"]) == 2
    browser.http.post("/akoya/disconnect/mikomo", data={"csrf": csrf, "grant": first})
    assert [each["id"] for each in browser.connections()["connections"]] == [second]
    assert browser.passed("/single")["akoya-grant"] == second
    assert browser.fetch(f"/query?login={first}").status_code == 404
    browser.connect("mikomo", "mikomo_1")
    browser.http.post("/akoya/disconnect/mikomo", data={"csrf": csrf})
    csrf = browser.connections()["csrf"]
    browser.http.post("/akoya/disconnect/mikomo", data={"csrf": csrf})
    assert browser.connections()["connections"] == []
