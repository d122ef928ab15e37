"""GET /tax-forms: the tax forms of a year, and one of them as JSON or PDF (beta at Akoya)."""

from __future__ import annotations

import base64
from datetime import UTC, datetime
from typing import Any

from starlette.responses import Response

from akoya_gateway.sandbox.data.customers import person
from akoya_gateway.sandbox.data.document import PDF
from akoya_gateway.sandbox.data.errors import DataError
from akoya_gateway.sandbox.data.request import DataRequest
from akoya_gateway.sandbox.data.values import money, number_of
from akoya_gateway.sandbox.demo_users import Account

FIRST_YEAR = 2020
_ISSUER = {
    "tin": "12-3456789",
    "partyType": "BUSINESS",
    "businessName": {"name1": "Mikomo Bank"},
    "address": {"line1": "1 Bank Plaza", "city": "Springfield", "region": "IL", "postalCode": "62701", "country": "US"},
    "phone": {"number": "8885551212"},
}
_FORMS = {"depositAccount": ("Tax1099Int", "interestIncome"), "investmentAccount": ("Tax1099Div", "ordinaryDividends")}
"""Form and main amount of each kind of account that has one."""


def tax_forms(request: DataRequest) -> dict[str, Any]:
    """Return the statements of `taxYear` (default: the last complete year), `taxForms` and `accountId`.

    Raises:
        DataError: 400 for an invalid year, 409 for a year without forms, 701 for an unknown account.
    """
    year = _year(request)
    wanted = request.query.get("taxForms")
    types = set(wanted.split(",")) if wanted else {name for name, _ in _FORMS.values()}
    found = [
        _statement(account, year)
        for account in request.accounts("accountId")
        if account.kind in _FORMS and _FORMS[account.kind][0] in types
    ]
    return {"statements": found}


def tax_form(request: DataRequest) -> dict[str, Any] | Response:
    """Return one statement, as a PDF file if the client accepts only that. Raises DataError 404."""
    account_id, _, year = request.parameters["form"].partition("-tax")
    account = next((each for each in request.consented if each.id == account_id and each.kind in _FORMS), None)
    if account is None or not year.isascii() or not year.isdigit() or int(year) not in _years(request):
        raise DataError(404, "no such tax form")
    if request.accepts_pdf() and "json" not in request.accept:
        return Response(PDF, media_type="application/pdf")
    user = person(request.consent.user)
    recipient = {
        "tin": "xxx-xx-1234",
        "partyType": "INDIVIDUAL",
        "individualName": user["name"],
        "address": user["addresses"][0],
    }
    described = _statement(account, int(year)) | {"issuer": _ISSUER, "recipient": recipient}
    if request.query.get("taxDataType") == "BASE64_PDF":
        del described["forms"]
        described |= {"taxDataType": "BASE64_PDF", "pdf": base64.b64encode(PDF).decode()}
    return described


def _years(request: DataRequest) -> range:
    return range(FIRST_YEAR, datetime.fromtimestamp(request.now, UTC).year)


def _year(request: DataRequest) -> int:
    years, text = _years(request), request.query.get("taxYear")
    if text is None:
        return years[-1]
    if not text.isascii() or not text.isdigit() or len(text) != 4:
        raise DataError(400, "taxYear: four digits")
    if int(text) not in years:
        raise DataError(409, f"forms exist for {years[0]} to {years[-1]}")
    return int(text)


def _statement(account: Account, year: int) -> dict[str, Any]:
    form, amount = _FORMS[account.kind]
    form_id, cents = f"{account.id}-tax{year}", number_of(account.id, year) % 90_000
    return {
        "taxYear": year,
        "taxStatementId": form_id,
        "attributes": [{"name": "federalTaxWithheld", "value": f"{cents / 1_000:.2f}"}],
        "taxDataType": "JSON",
        "forms": [
            {
                form[0].lower() + form[1:]: {
                    "taxYear": year,
                    "taxFormId": form_id,
                    "taxFormDate": f"{year + 1}-01-31",
                    "taxFormType": form,
                    "accountNumber": f"xxxxx{account.number}",
                    "foreignAccountTaxCompliance": False,
                    amount: money(cents),
                    "federalTaxWithheld": money(cents // 10),
                }
            }
        ],
    }
