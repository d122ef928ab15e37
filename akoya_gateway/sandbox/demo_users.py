"""The test users of the Mikomo bank and their accounts. All data is derived from the user name and never changes."""

from __future__ import annotations

import base64
import hashlib
import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

_USER = re.compile(r"[A-Za-z]+_[A-Za-z0-9_]{1,40}")
_ERROR_USER = re.compile(r"mikomo_(500|501|601|602|701|702|703|704)")
_FIRST = ("Alma", "Bruno", "Carla", "Dev", "Edda", "Farid", "Greta", "Hugo", "Ines", "Jonas")
_LAST = ("Abbott", "Berger", "Castro", "Dahl", "Evans", "Fischer", "Gomez", "Haas", "Ito", "Jensen")
_MERCHANTS = ("Corner Grocery", "City Transit", "Paper & Ink", "Green Power", "Cafe Lumen", "Book Nook", "Payroll")


@dataclass(frozen=True, slots=True)
class Account:
    """One account. Amounts are in cents."""

    id: str
    kind: str
    """The FDX wrapper: `depositAccount`, `locAccount` or `investmentAccount`."""
    type: str
    nickname: str
    number: str
    balance: int


_KINDS = (
    ("depositAccount", "CHECKING", "Everyday Checking"),
    ("depositAccount", "SAVINGS", "Rainy Day Savings"),
    ("locAccount", "CREDITCARD", "Mikomo Card"),
    ("investmentAccount", "INVESTMENTACCOUNT", "Growth Portfolio"),
)


def _number(*parts: object) -> int:
    return int.from_bytes(hashlib.sha256("/".join(map(str, parts)).encode()).digest()[:8])


def can_log_in(user: str, password: str) -> bool:
    """Return whether this is a test user and the password equals the user name (docs/akoya.md section 8)."""
    return password == user and _USER.fullmatch(user) is not None


def error_for(user: str) -> int | None:
    """Return the code with which all data requests of a documented error user fail, or None for other users."""
    found = _ERROR_USER.fullmatch(user)
    return int(found[1]) if found else None


def accounts_for(connector: str, user: str, count: int) -> tuple[Account, ...]:
    """Return the user's accounts at this provider, always the same ones."""
    accounts = []
    for index in range(count):
        kind, type_, nickname = _KINDS[index % len(_KINDS)]
        seed = _number(connector, user, index)
        digest = hashlib.sha256(f"{connector}/{user}/{index}".encode()).hexdigest()[:24]
        accounts.append(
            Account(
                id=f"g8{digest}",
                kind=kind,
                type=type_,
                nickname=nickname if index < len(_KINDS) else f"{nickname} {index // len(_KINDS) + 1}",
                number=f"{seed % 10_000:04d}",
                balance=seed % 2_500_000 + 1_000,
            )
        )
    return tuple(accounts)


def subject(connector: str, user: str, least_bytes: int = 0) -> str:
    """Return the `sub` claim in Dex's format: base64url of a protobuf message {1: user id, 2: connector}.

    >>> subject("mikomo", "mikomo_1")
    'CghtaWtvbW9fMRIGbWlrb21v'
    """
    user_id, provider = user.encode().ljust(least_bytes, b"."), connector.encode()
    message = b"\x0a" + _varint(len(user_id)) + user_id + b"\x12" + _varint(len(provider)) + provider
    return base64.urlsafe_b64encode(message).rstrip(b"=").decode()


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def _money(cents: int) -> float:
    return round(cents / 100, 2)


def info(account: Account) -> dict[str, Any]:
    """Return an account as in /accounts-info (FDX schema)."""
    return {
        account.kind: {
            "accountId": account.id,
            "accountNumberDisplay": f"xxxxx{account.number}",
            "accountType": account.type,
            "nickname": account.nickname,
            "productName": account.nickname,
            "status": "OPEN",
            "currency": {"currencyCode": "USD"},
        }
    }


def balance(account: Account, now: float) -> dict[str, Any]:
    """Return an account as in /balances."""
    described = info(account)[account.kind]
    described["balanceAsOf"] = datetime.fromtimestamp(now, UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z")
    described["currentBalance"] = _money(account.balance)
    if account.kind == "depositAccount":
        described["availableBalance"] = _money(account.balance - account.balance % 500)
    elif account.kind == "locAccount":
        described["creditLine"] = 10_000.0
        described["availableCredit"] = _money(max(0, 1_000_000 - account.balance))
    return {account.kind: described}


def detail(account: Account, now: float) -> dict[str, Any]:
    """Return an account as in /accounts: with balances and, for investments, holdings."""
    described = balance(account, now)[account.kind]
    if account.kind == "investmentAccount":
        shares = account.balance // 10_000
        described["holdings"] = [
            {"holdingId": f"{account.id}-h1", "symbol": "MKMO", "holdingName": "Mikomo Index", "units": shares,
             "currentUnitPrice": 100.0, "marketValue": float(shares * 100), "holdingType": "MUTUALFUND"},
        ]  # fmt: skip
    return {account.kind: described}


def transactions(account: Account, start: datetime | None, end: datetime | None) -> list[dict[str, Any]]:
    """Return the transactions in [start, end], newest first, of three years with one every third day."""
    first = datetime(2024, 1, 2, 12, 0, tzinfo=UTC)
    wrapper = account.kind.replace("Account", "Transaction")
    found = []
    for index in reversed(range(365)):
        at = first + timedelta(days=3 * index)
        if (start and at < start) or (end and at > end):
            continue
        seed = _number(account.id, index)
        merchant = _MERCHANTS[seed % len(_MERCHANTS)]
        credit = merchant == "Payroll"
        found.append(
            {
                wrapper: {
                    "transactionId": f"{account.id}-t{index}",
                    "accountId": account.id,
                    "postedTimestamp": at.strftime("%Y-%m-%dT%H:%M:%S.000Z"),
                    "description": merchant,
                    "debitCreditMemo": "CREDIT" if credit else "DEBIT",
                    "amount": _money(seed % (250_000 if credit else 12_000) + 100),
                    "status": "POSTED",
                }
            }
        )
    return found


def customer(user: str) -> dict[str, Any]:
    """Return a customer as in /customers/current."""
    seed = _number(user)
    first, last = _FIRST[seed % 10], _LAST[seed // 10 % 10]
    return {
        "customerId": hashlib.sha256(user.encode()).hexdigest()[:20],
        "name": {"first": first, "last": last},
        "email": [f"{first}.{last}@mikomo.example".lower()],
        "telephones": [{"type": "HOME", "country": "1", "number": f"555{seed % 10_000_000:07d}"}],
        "addresses": [{"line1": f"{seed % 900 + 1} Sample Street", "city": "Springfield", "country": "US"}],
    }
