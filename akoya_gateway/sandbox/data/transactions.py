"""GET /transactions: one transaction every third day for three years."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from akoya_gateway.sandbox.data.paging import page
from akoya_gateway.sandbox.data.request import DataRequest
from akoya_gateway.sandbox.data.values import money, number_of, timestamp
from akoya_gateway.sandbox.demo_users import Account

COUNT = 365
_FIRST = datetime(2024, 1, 2, 12, 0, tzinfo=UTC)
_MERCHANTS = ("Corner Grocery", "City Transit", "Paper & Ink", "Green Power", "Cafe Lumen", "Book Nook", "Payroll")


def transactions(request: DataRequest) -> dict[str, Any]:
    """Return a page of the transactions between `startTime` and `endTime`, newest first."""
    account, (start, end), standard = request.account(), request.span(), request.standard
    found = []
    for index in reversed(range(COUNT)):
        at = _FIRST + timedelta(days=3 * index)
        if not ((start and at < start) or (end and at > end)):
            found.append(_transaction(account, index, at, standard=standard))
    return page(request, "transactions", found)


def _transaction(account: Account, index: int, at: datetime, *, standard: bool) -> dict[str, Any]:
    seed = number_of(account.id, index)
    merchant = _MERCHANTS[seed % len(_MERCHANTS)]
    credit = merchant == "Payroll"
    kind = ("DIRECTDEPOSIT" if credit else "POINTOFSALE") if standard else ("Direct Deposit" if credit else "POS")
    return {
        account.kind.replace("Account", "Transaction"): {
            "transactionId": f"{account.id}-t{index}",
            "accountId": account.id,
            "postedTimestamp": timestamp(at.timestamp()),
            "transactionTimestamp": timestamp(at.timestamp() - 86_400),
            "transactionType": kind,
            "description": merchant,
            "debitCreditMemo": "CREDIT" if credit else "DEBIT",
            "amount": money(seed % (250_000 if credit else 12_000) + 100),
            "status": "POSTED",
        }
    }
