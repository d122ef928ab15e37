"""GET /customers: the consenting user. GET /contacts: the holders of an account."""

from __future__ import annotations

import hashlib
from typing import Any

from akoya_gateway.sandbox.data.request import DataRequest
from akoya_gateway.sandbox.data.values import number_of

_FIRST = ("Alma", "Bruno", "Carla", "Dev", "Edda", "Farid", "Greta", "Hugo", "Ines", "Jonas")
_LAST = ("Abbott", "Berger", "Castro", "Dahl", "Evans", "Fischer", "Gomez", "Haas", "Ito", "Jensen")


def customer(request: DataRequest) -> dict[str, Any]:
    """Return GET /customers/…/current."""
    return {"customer": person(request.consent.user)}


def contacts(request: DataRequest) -> dict[str, Any]:
    """Return GET /contacts: the account holders and how to reach them."""
    account, user = request.account(), person(request.consent.user)
    relationship = {"accountId": account.id, "relationship": "PRIMARY"}
    holder = user | {"relationship": "PRIMARY", "accounts": [relationship]}
    return {
        "holders": [holder],
        "emails": user["email"],
        "addresses": user["addresses"],
        "telephones": user["telephones"],
    }


def person(user: str) -> dict[str, Any]:
    """Return the name and addresses of a test user."""
    seed = number_of(user)
    first, last = _FIRST[seed % 10], _LAST[seed // 10 % 10]
    return {
        "customerId": hashlib.sha256(user.encode()).hexdigest()[:20],
        "name": {"first": first, "middle": "Q", "last": last},
        "email": [f"{first}.{last}@mikomo.example".lower()],
        "telephones": [{"type": "HOME", "country": "1", "number": f"555{seed % 10_000_000:07d}"}],
        "addresses": [
            {
                "type": "HOME",
                "line1": f"{seed % 900 + 1} Sample Street",
                "city": "Springfield",
                "state": "IL",
                "region": "IL",
                "postalCode": f"627{seed % 90 + 10}",
                "country": "US",
            }
        ],
    }
