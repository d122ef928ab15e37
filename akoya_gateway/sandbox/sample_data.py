"""The sample app's call to a v3 data API of Akoya, for a request of a user or in a batch job.

Akoya requires the context of each call: whether a user caused it, and when the user was last active. The gateway sends
both, so the app only copies them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

import httpx

from akoya_verify import Verified

INTENT = "nonpayments"
"""What the app uses the data for. An app that uses Akoya's Payments product sends `payments`."""


class NoData(Exception):
    """The data API did not return the data. The message is for the page."""


@dataclass(frozen=True, slots=True)
class DataAccess:
    """The token for one bank and the context of the call."""

    provider: str
    id_token: str = field(repr=False)
    interaction_type: str
    last_access: str

    @staticmethod
    def of_request(verified: Verified) -> DataAccess | None:
        """Return the access of a verified request, or None if it came without a token."""
        values = verified.provider, verified.id_token, verified.interaction_type, verified.last_access
        provider, id_token, interaction_type, last_access = values
        if provider is None or id_token is None or interaction_type is None or last_access is None:
            return None
        return DataAccess(provider, id_token, interaction_type, last_access)

    @staticmethod
    def of_token(document: Mapping[str, Any]) -> DataAccess:
        """Return the access of a batch job, from the response of the gateway's token route."""
        return DataAccess(*(document[name] for name in ("provider", "id_token", "interaction_type", "last_access")))

    @property
    def context(self) -> dict[str, str]:
        """The three context headers of v3."""
        return {
            "x-akoya-interaction-type": self.interaction_type,
            "x-akoya-last-access": self.last_access,
            "x-akoya-intent-type": INTENT,
        }


async def balances(http: httpx.AsyncClient, products_url: str, access: DataAccess) -> list[dict[str, Any]]:
    """Return the accounts with their balances. Raises NoData."""
    url = f"{products_url}/balances/v3/{quote(access.provider, safe='')}"
    try:
        response = await http.get(url, headers={"Authorization": f"Bearer {access.id_token}", **access.context})
        body = response.json()
    except (httpx.HTTPError, ValueError):
        raise NoData("The bank's data could not be loaded.") from None
    if response.status_code not in (200, 206):
        raise NoData(f"The data API answered {body.get('code')}: {body.get('message')}.")
    return [described for account in body["accounts"] for described in account.values() if "error" not in described]
