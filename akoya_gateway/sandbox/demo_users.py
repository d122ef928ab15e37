"""The test users of the Mikomo bank and their accounts.

Everything is derived from the names of the user and the bank and never changes.
"""

from __future__ import annotations

import base64
import hashlib
import re
from dataclasses import dataclass

from akoya_gateway.sandbox.data.values import number_of

_USER = re.compile(r"[A-Za-z]+_[A-Za-z0-9_]{1,40}")
_ERROR_USER = re.compile(r"mikomo_(500|501|601|602|701|702|703|704)")


@dataclass(frozen=True, slots=True)
class Account:
    """One account. Amounts are in cents."""

    id: str
    kind: str
    """The FDX wrapper, for example `depositAccount`."""
    type: str
    """The FDX account type."""
    provider_type: str
    """The provider's own word for it, which responses contain without `mode=standard`."""
    nickname: str
    number: str
    balance: int


_KINDS = (
    ("depositAccount", "CHECKING", "CHECKING", "Everyday Checking"),
    ("depositAccount", "SAVINGS", "SAVINGS", "Rainy Day Savings"),
    ("locAccount", "CREDITCARD", "Credit Card", "Mikomo Card"),
    ("investmentAccount", "BROKERAGE", "Self-Directed", "Growth Portfolio"),
    ("loanAccount", "MORTGAGE", "Home Loan", "Home Sweet Home"),
    ("annuityAccount", "FIXEDANNUITY", "Annuity", "Golden Years"),
    ("insuranceAccount", "WHOLELIFEINSURANCE", "Life Insurance", "Family Care"),
)
ALL_KINDS_USER = "mikomo_7"
"""The documented test user who has accounts of all kinds (docs/akoya.md section 8)."""


def can_log_in(user: str, password: str) -> bool:
    """Return whether this is a test user and the password equals the user name (docs/akoya.md section 8)."""
    return password == user and _USER.fullmatch(user) is not None


def error_for(user: str) -> int | None:
    """Return the code with which all data requests of a documented error user fail, or None for other users."""
    found = _ERROR_USER.fullmatch(user)
    return int(found[1]) if found else None


def accounts_for(connector: str, user: str, count: int) -> tuple[Account, ...]:
    """Return the user's accounts at this provider, always the same ones."""
    if user == ALL_KINDS_USER:
        count = max(count, len(_KINDS))
    accounts = []
    for index in range(count):
        kind, type_, provider_type, nickname = _KINDS[index % len(_KINDS)]
        seed = number_of(connector, user, index)
        digest = hashlib.sha256(f"{connector}/{user}/{index}".encode()).hexdigest()[:24]
        accounts.append(
            Account(
                id=f"g8{digest}",
                kind=kind,
                type=type_,
                provider_type=provider_type,
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
