"""Every product of the data APIs, as Akoya's SDK reads it (docs/akoya.md section 6)."""

from __future__ import annotations

import base64
from typing import Any
from urllib.parse import parse_qsl, urljoin, urlsplit

import pytest

from akoya_gateway.sandbox import SandboxServer
from tests.support.sandbox_client import HTTP, call, connect

Accounts = dict[str, dict[str, Any]]


@pytest.fixture(scope="module")
def token(dex: SandboxServer) -> str:
    """The id_token of the user who has accounts of all kinds."""
    return str(connect(dex, "mikomo_7")["id_token"])


@pytest.fixture(scope="module")
def accounts(dex: SandboxServer, token: str) -> Accounts:
    """One account of each kind, with its holdings."""
    listed = call(dex, "/accounts/v2/mikomo", token).json()["accounts"]
    return {kind: described for account in reversed(listed) for kind, described in account.items()}


def all_pages(server: SandboxServer, path: str, token: str, name: str) -> list[list[Any]]:
    """Follow `links.next.href` from `path` on and return the items of each page."""
    pages, url = [], f"{server.url}{path}"
    while url:
        body = HTTP.get(url, headers={"Authorization": f"Bearer {token}"}).json()
        pages.append(body[name])
        following = body["links"].get("next")
        url = urljoin(url, following["href"]) if following else ""
    return pages


def test_accounts_have_the_amounts_of_their_kind(accounts: Accounts) -> None:
    amounts = {
        "depositAccount": "availableBalance",
        "locAccount": "availableCredit",
        "investmentAccount": "currentValue",
        "loanAccount": "principalBalance",
        "annuityAccount": "currentValue",
        "insuranceAccount": "policyCoverageAmount",
    }
    assert set(accounts) == set(amounts)
    assert all(accounts[kind][name] >= 0 for kind, name in amounts.items())


def test_following_the_next_links_reads_every_transaction(dex: SandboxServer, token: str, accounts: Accounts) -> None:
    path = f"/transactions/v2/mikomo/{accounts['depositAccount']['accountId']}"
    pages = all_pages(dex, path, token, "transactions")
    assert [len(page) for page in pages] == [50] * 7 + [15]
    ids = {item["depositTransaction"]["transactionId"] for page in pages for item in page}
    assert len(ids) == 365


def test_links_keep_the_query_and_include_the_previous_page(dex: SandboxServer, token: str, accounts: Accounts) -> None:
    path = f"/transactions/v2/mikomo/{accounts['depositAccount']['accountId']}"
    query = "startTime=2024-02-01T00%3A00%3A00Z&endTime=2024-12-31T00%3A00%3A00Z&limit=40&mode=standard&offset=40"
    links = call(dex, f"{path}?{query}", token).json()["links"]
    for name, offset in (("next", "80"), ("prev", "0")):
        url = urlsplit(links[name]["href"])
        assert (url.netloc, url.path) == ("", path)
        assert dict(parse_qsl(url.query)) == dict(parse_qsl(query)) | {"offset": offset}
    assert "next" not in call(dex, f"{path}?{query}&limit=1000", token).json()["links"]
    assert call(dex, f"{path}?limit=0", token).status_code == 400


def test_account_ids_select_accounts(dex: SandboxServer, token: str, accounts: Accounts) -> None:
    wanted = [accounts[kind]["accountId"] for kind in ("locAccount", "loanAccount")]
    for product in ("accounts-info", "balances", "accounts"):
        body = call(dex, f"/{product}/v2/mikomo?accountIds={','.join(wanted)}", token).json()
        assert [d["accountId"] for account in body["accounts"] for d in account.values()] == wanted
        refused = call(dex, f"/{product}/v2/mikomo?accountIds={wanted[0]},nosuch", token)
        assert (refused.status_code, refused.json()["code"]) == (404, 701)


def test_standard_mode_returns_fdx_values_and_raw_the_values_of_the_bank(dex: SandboxServer, token: str) -> None:
    def types(query: str) -> set[str]:
        body = call(dex, f"/accounts-info/v2/mikomo{query}", token).json()
        return {described["accountType"] for account in body["accounts"] for described in account.values()}

    assert {"CREDITCARD", "BROKERAGE"} < types("?mode=standard")
    assert {"Credit Card", "Self-Directed"} < types("?mode=raw")
    assert types("") == types("?mode=raw")
    assert call(dex, "/accounts-info/v2/mikomo?mode=loud", token).status_code == 400


def test_customer_and_the_contacts_have_a_full_address(dex: SandboxServer, token: str, accounts: Accounts) -> None:
    customer = call(dex, "/customers/v2/mikomo/current", token).json()["customer"]
    account_id = accounts["loanAccount"]["accountId"]
    contacts = call(dex, f"/contacts/v2/mikomo/{account_id}", token).json()
    assert set(customer["name"]) == {"first", "middle", "last"}
    assert {"line1", "city", "state", "postalCode", "country"} <= set(customer["addresses"][0])
    assert contacts["holders"][0]["name"] == customer["name"]
    assert contacts["holders"][0]["accounts"] == [{"accountId": account_id, "relationship": "PRIMARY"}]
    assert contacts["emails"] == customer["email"]


def test_payment_networks_of_a_deposit_account(dex: SandboxServer, token: str, accounts: Accounts) -> None:
    def networks(kind: str) -> Any:
        return call(dex, f"/payments/v2/mikomo/{accounts[kind]['accountId']}/payment-networks", token)

    found = networks("depositAccount").json()["paymentNetworks"]
    assert [network["type"] for network in found] == ["US_ACH", "US_RTP"]
    assert found[0]["bankId"] == "125000024"
    assert found[0]["identifier"].endswith(accounts["depositAccount"]["accountNumberDisplay"][-4:])
    assert (networks("loanAccount").status_code, networks("loanAccount").json()["code"]) == (400, 704)


def test_statements_are_listed_in_pages_and_read_as_pdf(dex: SandboxServer, token: str, accounts: Accounts) -> None:
    path = f"/statements/v2/mikomo/{accounts['depositAccount']['accountId']}"
    pages = all_pages(dex, f"{path}?limit=10", token, "statements")
    assert [len(page) for page in pages] == [10, 10, 4]
    span = call(dex, f"{path}?startTime=2024-05-01&endTime=2024-06-30", token).json()["statements"]
    assert [each["statementDate"] for each in span] == ["2024-06-01", "2024-05-01"]
    href = span[0]["links"][0]["href"]
    document = call(dex, href, token, accept="application/pdf")
    assert (document.status_code, document.headers["content-type"]) == (200, "application/pdf")
    assert document.content.startswith(b"%PDF-")
    assert call(dex, href, token, accept="text/csv").status_code == 406
    assert call(dex, f"{path}/nosuch", token, accept="application/pdf").status_code == 404


def test_tax_lots_add_up_to_their_holding(dex: SandboxServer, token: str, accounts: Accounts) -> None:
    account = accounts["investmentAccount"]
    holding = account["holdings"][0]
    path = f"/taxlots/v2/mikomo/{account['accountId']}"
    body = call(dex, f"{path}/{holding['holdingId']}", token).json()
    assert body["accountId"] == account["accountId"]
    assert body["holding"]["securityId"] == holding["securityId"]
    assert sum(lot["currentValue"] for lot in body["holding"]["taxLots"]) == holding["marketValue"]
    for wrong in (f"{path}/nosuch", f"/taxlots/v2/mikomo/{accounts['loanAccount']['accountId']}/h"):
        refused = call(dex, wrong, token)
        assert (refused.status_code, refused.json()["code"]) == (404, 701)


def test_tax_forms_are_searched_and_read(dex: SandboxServer, token: str, accounts: Accounts) -> None:
    path = "/tax-forms/v2/mikomo"
    listed = call(dex, f"{path}?taxYear=2024", token).json()["statements"]
    assert [name for each in listed for form in each["forms"] for name in form] == [
        "tax1099Int",
        "tax1099Int",
        "tax1099Div",
    ]
    some = call(dex, f"{path}?taxYear=2024&taxForms=Tax1099Div,Tax1099Misc", token).json()["statements"]
    assert some == listed[2:]
    account_id = accounts["depositAccount"]["accountId"]
    own = call(dex, f"{path}?taxYear=2024&accountId={account_id}", token).json()["statements"]
    assert own == listed[:1]
    form = f"{path}/{listed[0]['taxStatementId']}"
    read = call(dex, form, token).json()
    assert read["forms"] == listed[0]["forms"]
    assert read["issuer"]["businessName"] == {"name1": "Mikomo Bank"}
    encoded = call(dex, f"{form}?taxDataType=BASE64_PDF", token).json()
    assert base64.b64decode(encoded["pdf"]) == call(dex, form, token, accept="application/pdf").content


@pytest.mark.parametrize(
    ("path", "status"),
    [("?taxYear=1999", 409), ("?taxYear=soon", 400), ("?accountId=nosuch", 404), ("/nosuch", 404), ("/x-tax2024", 404)],
)
def test_missing_tax_forms_get_404(dex: SandboxServer, token: str, path: str, status: int) -> None:
    response = call(dex, f"/tax-forms/v2/mikomo{path}", token)
    assert response.status_code == status
    assert isinstance(response.json()["code"], int)
