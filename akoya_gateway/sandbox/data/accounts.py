"""Accounts as in /accounts-info, /balances and /accounts, and tax lots (FDX schemas)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from akoya_gateway.sandbox.data.errors import DataError
from akoya_gateway.sandbox.data.request import DataRequest
from akoya_gateway.sandbox.data.values import money, number_of, timestamp
from akoya_gateway.sandbox.demo_users import Account

Described = dict[str, Any]
_UNIT_PRICE = 100.0


def accounts_info(request: DataRequest) -> Described:
    """Return GET /accounts-info."""
    return _wrapped(request, lambda account: _info(account, standard=request.standard))


def balances(request: DataRequest) -> Described:
    """Return GET /balances."""
    return _wrapped(request, lambda account: _balance(account, request))


def accounts(request: DataRequest) -> Described:
    """Return GET /accounts: balances and, for investments, holdings."""
    return _wrapped(request, lambda account: _detail(account, request))


def tax_lots(request: DataRequest) -> Described:
    """Return GET /taxlots. Raises DataError 701 if the holding does not exist."""
    account, wanted = request.account(), request.parameters["holding"]
    holding = next((each for each in _holdings(account) if each["holdingId"] == wanted), None)
    if holding is None:
        raise DataError(701, "no such holding")
    thirds = (holding["units"] // 3, holding["units"] // 3, holding["units"] - 2 * (holding["units"] // 3))
    lots = []
    for index, units in enumerate(thirds):
        paid = 60.0 + number_of(wanted, index) % 3_000 / 100
        lots.append(
            {
                "originalPurchaseDate": f"{2021 + index}-03-1{index}T00:00:00.000Z",
                "quantity": units,
                "purchasedPrice": paid,
                "costBasis": round(paid * units, 2),
                "currentValue": _UNIT_PRICE * units,
                "positionType": "LONG",
            }
        )
    named = {name: holding[name] for name in ("holdingId", "securityId", "securityIdType")}
    return {"accountId": account.id, "holding": named | {"taxLots": lots}}


def partial(body: Described) -> Described:
    """Return an accounts response in which the last account has failed (206)."""
    *good, last = body["accounts"]
    failed = {kind: {"error": {"code": 704, "message": "Account type not supported"}} for kind in last}
    return {"accounts": [*good, failed]}


def _wrapped(request: DataRequest, describe: Callable[[Account], Described]) -> Described:
    return {"accounts": [{account.kind: describe(account)} for account in request.accounts()]}


def _info(account: Account, *, standard: bool) -> Described:
    return {
        "accountId": account.id,
        "accountNumberDisplay": f"xxxxx{account.number}",
        "accountType": account.type if standard else account.provider_type,
        "nickname": account.nickname,
        "productName": account.nickname,
        "status": "OPEN",
        "currency": {"currencyCode": "USD"},
    }


def _balance(account: Account, request: DataRequest) -> Described:
    described = _info(account, standard=request.standard) | {"balanceAsOf": timestamp(request.now)}
    return described | _AMOUNTS[account.kind](account.balance)


_AMOUNTS: dict[str, Callable[[int], Described]] = {
    "depositAccount": lambda cents: {
        "balanceType": "ASSET",
        "currentBalance": money(cents),
        "availableBalance": money(cents - cents % 500),
    },
    "locAccount": lambda cents: {
        "balanceType": "LIABILITY",
        "currentBalance": money(cents),
        "creditLine": 10_000.0,
        "availableCredit": money(max(0, 1_000_000 - cents)),
    },
    "loanAccount": lambda cents: {
        "balanceType": "LIABILITY",
        "principalBalance": money(cents * 10),
        "nextPaymentAmount": money(cents // 12),
    },
    "investmentAccount": lambda cents: {
        "balanceType": "ASSET",
        "currentValue": money(cents),
        "availableCashBalance": money(cents % 10_000),
        "margin": False,
    },
    "annuityAccount": lambda cents: {"balanceType": "ASSET", "currentValue": money(cents * 2)},
    "insuranceAccount": lambda cents: {"policyCoverageAmount": 100_000.0, "currentValue": money(cents)},
}
"""Amounts of each kind of account; the argument is its balance in cents."""


def _detail(account: Account, request: DataRequest) -> Described:
    described = _balance(account, request)
    return described | {"holdings": _holdings(account)} if account.kind == "investmentAccount" else described


def _holdings(account: Account) -> list[Described]:
    if account.kind != "investmentAccount":
        return []
    units = account.balance // 10_000
    return [
        {
            "holdingId": f"{account.id}-h1",
            "holdingName": "Mikomo Index",
            "holdingType": "MUTUALFUND",
            "symbol": "MKMO",
            "securityId": "US0000000MK1",
            "securityIdType": "ISIN",
            "positionType": "LONG",
            "units": units,
            "currentUnitPrice": _UNIT_PRICE,
            "marketValue": _UNIT_PRICE * units,
            "cashAccount": False,
        }
    ]
