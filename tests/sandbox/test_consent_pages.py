"""The pages that a user sees between /auth and the callback (docs/akoya.md sections 3 and 8)."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from akoya_gateway.sandbox import SandboxServer, SandboxSettings
from tests.support.sandbox_client import HTTP, STATE, Person, authorization_url, call, query_of, redeem


@pytest.fixture
def person(dex: SandboxServer) -> Iterator[Person]:
    with Person(dex) as somebody:
        yield somebody.open(authorization_url(dex))


def test_sign_in_terms_accounts_approve(either: SandboxServer) -> None:
    with Person(either) as person:
        person.open(authorization_url(either))
        assert person.title == "Sign in"
        assert person.sign_in("mikomo_4").title == "Terms of data sharing"
        assert person.press("continue").title == "Choose accounts"
        ids = person.account_ids()
        person.press("continue", {"account": ids[:1]})
        query = query_of(person.sent_to)
    assert query["state"] == STATE
    tokens = redeem(either, query["code"]).json()
    accounts = call(either, "/accounts-info/v2/mikomo", tokens["id_token"]).json()["accounts"]
    assert [next(iter(account.values()))["accountId"] for account in accounts] == ids[:1]


@pytest.mark.parametrize(("user", "password"), [("mikomo_1", "wrong"), ("nobody", "nobody"), ("mikomo_1", "")])
def test_wrong_password_shows_an_error_and_the_form(person: Person, user: str, password: str) -> None:
    person.sign_in(user, password)
    assert person.page.status_code == 401
    assert "do not match" in person.page.text
    assert person.sign_in().title == "Terms of data sharing"


def test_at_least_one_account_must_be_chosen(person: Person) -> None:
    person.sign_in().press("continue").press("continue")
    assert person.page.status_code == 400
    assert "Choose at least one account" in person.page.text
    person.press("continue", {"account": person.account_ids()})
    assert "code" in query_of(person.sent_to)


def test_account_of_another_user_cannot_be_selected(person: Person) -> None:
    person.sign_in().press("continue").press("continue", {"account": ["g8000000000000000000000000"]})
    assert person.page.status_code == 400


@pytest.mark.parametrize("pages", [0, 1])
def test_first_cancel_at_the_bank_shows_a_connection_issue_and_the_second_is_sent(person: Person, pages: int) -> None:
    if pages:
        person.sign_in()
    assert person.press("cancel").title == "Connection Issue"
    person.press("cancel")
    query = query_of(person.sent_to)
    assert query["error"] == "access_denied"
    assert query["state"] == STATE


def test_sign_in_after_a_connection_issue_can_be_retried(person: Person) -> None:
    person.press("cancel").press("continue")
    assert person.title == "Sign in"


def test_cancel_at_the_account_selection_is_sent_at_once(person: Person) -> None:
    person.sign_in().press("continue").press("cancel")
    assert query_of(person.sent_to)["error"] == "access_denied"


def test_later_pages_redirect_to_the_current_step(person: Person, dex: SandboxServer) -> None:
    start = str(person.page.url).removesuffix("/login")
    assert person.open(f"{start}/accounts").title == "Sign in"
    assert person.sign_in().title == "Terms of data sharing"
    assert person.open(f"{start}/accounts").title == "Terms of data sharing"


def test_going_back_and_signing_in_as_another_user_works(person: Person) -> None:
    start = str(person.page.url)
    person.sign_in("mikomo_1").press("continue")
    first = person.account_ids()
    person.open(start).sign_in("mikomo_7").press("continue")
    assert person.account_ids() != first


def test_completed_login_cannot_be_resumed(person: Person) -> None:
    start = str(person.page.url)
    person.sign_in().press("continue")
    person.press("continue", {"account": person.account_ids()})
    person.open(start)
    assert (person.page.status_code, person.title) == (400, "Requested resource does not exist")


def test_abandoned_login_expires(akoya_sandbox: SandboxServer) -> None:
    with Person(akoya_sandbox) as person:
        person.open(authorization_url(akoya_sandbox))
        akoya_sandbox.advance(601)
        person.sign_in()
        assert (person.page.status_code, person.title) == (400, "Requested resource does not exist")


def test_consent_pages_load_nothing_from_other_origins_and_cannot_be_framed(person: Person, dex: SandboxServer) -> None:
    headers = person.page.headers
    assert "default-src 'none'" in headers["content-security-policy"]
    assert "frame-ancestors 'none'" in headers["content-security-policy"]
    assert headers["cache-control"] == "no-store"
    assert "http://" not in person.page.text.replace(dex.url, "")
    assert person.open("/assets/sandbox.css").page.headers["content-type"].startswith("text/css")


@pytest.mark.parametrize("step", ["login", "terms", "accounts", "problem"])
@pytest.mark.parametrize("action", ["", "continue", "cancel", "<b>"])
def test_forms_submitted_out_of_order_never_grant(person: Person, step: str, action: str) -> None:
    start = str(person.page.url).removesuffix("/login")
    response = person._http.post(f"{start}/{step}", data={"action": action})
    assert response.status_code in (302, 303, 401)
    assert "code=" not in response.headers.get("location", "")


def test_hundreds_of_accounts_can_be_chosen() -> None:
    with SandboxServer(SandboxSettings(account_count=400)) as server, Person(server) as person:
        person.open(authorization_url(server)).sign_in().press("continue")
        ids = person.account_ids()
        assert len(ids) == 400
        person.press("continue", {"account": ids})
        tokens = redeem(server, query_of(person.sent_to)["code"]).json()
        assert len(tokens["id_token"]) > 12_000


def test_error_at_the_redirect_uri_waits_for_the_approval(person: Person, dex: SandboxServer) -> None:
    dex.fault("callback_error", "consent", error="server_error", times=1)
    person.sign_in().press("continue")
    person.press("continue", {"account": person.account_ids()})
    assert query_of(person.sent_to) == {"error": "server_error", "state": STATE}


def test_start_page_explains_the_emulator(either: SandboxServer) -> None:
    page = HTTP.get(f"{either.url}/")
    assert page.status_code == 200
    assert "Akoya emulator" in page.text
    assert either.settings.dialect.value in page.text
