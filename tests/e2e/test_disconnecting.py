"""The questions before disconnecting, over HTTP: they change nothing, and only their own form acts."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from tests.support.environment import Browser, GatewayEnv

BANK = "Mikomo <script>alert(1)</script> Bank"


@pytest.fixture(scope="module")
def env(tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayEnv]:
    changes = {
        "connectors": {
            "mikomo": {"client": "test-app", "name": BANK},
            "other": {"client": "test-app", "name": "Other Bank"},
        },
        "pages": {"app_name": "Example Budget", "language": "es", "links": {"help": "/help"}},
    }
    with GatewayEnv(tmp_path_factory.mktemp("env"), changes=changes) as env:
        yield env


@pytest.fixture
def browser(env: GatewayEnv) -> Iterator[Browser]:
    with env.browser() as browser:
        yield browser


def hidden(page: str) -> dict[str, str]:
    return dict(re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)">', page))


def states(browser: Browser) -> dict[str, str]:
    return {each["connector"]: each["state"] for each in browser.connections()["connections"]}


def test_confirmation_page_names_the_bank_and_changes_nothing(browser: Browser) -> None:
    browser.connect("mikomo", "mikomo_1")
    for method in ("GET", "HEAD"):
        response = browser.http.request(method, "/akoya/disconnect/mikomo", headers=browser.NAVIGATION)
        assert response.status_code == 200
        assert response.headers["referrer-policy"] == "same-origin", "the CSRF check needs the Origin header"
        assert states(browser) == {"mikomo": "live"}
    page = browser.go("/akoya/disconnect/mikomo").text
    assert "<h1>¿Desconectar Mikomo &lt;script&gt;alert(1)&lt;/script&gt; Bank?</h1>" in page
    assert "dejarán de compartirse con Example Budget" in page
    assert '<a class="button" href="/akoya/">Mantener la conexión</a>' in page
    assert '<a href="/help">Ayuda</a>' in page


def test_confirmation_form_disconnects_and_redirects_back(browser: Browser) -> None:
    browser.connect("mikomo", "mikomo_1")
    browser.connect("mikomo", "mikomo_4")
    first, second = (each["id"] for each in browser.connections()["connections"])
    page = browser.go(f"/akoya/disconnect/mikomo?grant={first}&return_to=/accounts").text
    assert page.count("<li>") == 1, "only the login that is disconnected"
    form = hidden(page)
    assert (form["grant"], form["return_to"]) == (first, "/accounts")
    assert '<a class="button" href="/accounts">Mantener la conexión</a>' in page
    wrong = browser.http.post("/akoya/disconnect/mikomo", data={**form, "csrf": "wrong"})
    assert wrong.status_code == 403
    done = browser.http.post("/akoya/disconnect/mikomo", data=form)
    assert (done.status_code, done.headers["location"]) == (303, "/accounts")
    assert [each["id"] for each in browser.connections()["connections"]] == [second]
    again = browser.go(f"/akoya/disconnect/mikomo?grant={first}")
    assert (again.status_code, again.headers["location"]) == (303, "/akoya/"), "as after the back button"


def test_confirmation_page_does_not_redirect_to_other_origins(browser: Browser) -> None:
    browser.connect("mikomo", "mikomo_1")
    for path in ("/akoya/disconnect/mikomo", "/akoya/logout"):
        for target in ("https://evil.example/", "//evil.example", "/nowhere"):
            page = browser.go(path, params={"return_to": target}).text
            assert target not in page
            assert "return_to" not in hidden(page)
    assert browser.go("/akoya/disconnect/other").headers["location"] == "/akoya/"
    assert browser.go("/akoya/disconnect/mikomo?grant=g_other").headers["location"] == "/akoya/"
    assert states(browser) == {"mikomo": "live"}


def test_signing_out_requires_confirmation_only_if_banks_would_be_disconnected(
    env: GatewayEnv, browser: Browser
) -> None:
    with env.browser() as other_browser:
        assert other_browser.go("/akoya/logout").headers["location"] == "/akoya/"
        assert other_browser.go("/akoya/disconnect/mikomo").status_code == 401
    browser.connect("mikomo", "mikomo_1")
    assert 'href="/akoya/logout"' in browser.go("/akoya/").text
    page = browser.go("/akoya/logout").text
    assert page.count("<li>") == 1
    assert states(browser) == {"mikomo": "live"}
    assert browser.http.post("/akoya/logout", data={"csrf": "wrong"}).status_code == 403
    assert browser.http.post("/akoya/logout", data=hidden(page)).headers["location"] == "/akoya/?done=signed-out"
    assert browser.connections()["connections"] == []


def test_page_is_in_the_language_of_the_browser_and_json_in_english(browser: Browser) -> None:
    languages = {None: "es", "en": "en", "fr, en;q=0.5, es;q=0.4": "en", "de": "es"}
    for wanted, tag in languages.items():
        headers = browser.NAVIGATION | ({} if wanted is None else {"accept-language": wanted})
        for path in ("/akoya/", "/nowhere"):
            response = browser.http.get(path, headers=headers)
            assert f'<html lang="{tag}">' in response.text
            assert response.headers["content-language"] == tag
            assert response.headers["vary"] == "accept, accept-language"
    response = browser.fetch("/nowhere", headers={"accept-language": "es"})
    assert response.json()["title"] == "Access denied"
    twice = [("accept", "text/html"), ("accept-language", "de"), ("accept-language", "en")]
    assert '<html lang="en">' in browser.http.get("/akoya/", headers=twice).text


def test_page_for_a_required_bank_shows_the_reason(browser: Browser) -> None:
    response = browser.go("/accounts")
    assert response.headers["location"] == "/akoya/?return_to=/accounts"
    assert "Para continuar, conecte un banco." in browser.go(response.headers["location"]).text
    browser.connect("mikomo", "mikomo_1")
    page = browser.go("/akoya/?return_to=/accounts").text
    assert "Para continuar" not in page
    assert re.search(r"<small>\d+ cuentas</small><small>Conectado desde el \d+ de [a-z]+ de 20\d\d</small>", page)
