"""GET /payments/…/payment-networks: what is needed to pay into or from an account."""

from __future__ import annotations

from typing import Any

from akoya_gateway.sandbox.data.errors import DataError
from akoya_gateway.sandbox.data.request import DataRequest
from akoya_gateway.sandbox.data.values import number_of

ROUTING_NUMBER = "125000024"


def payment_networks(request: DataRequest) -> dict[str, Any]:
    """Return the payment networks of a deposit account. Raises DataError 704 for other accounts."""
    account = request.account()
    if account.kind != "depositAccount":
        raise DataError(704, account.type)
    identifier = f"{number_of(account.id) % 100_000_000:08d}{account.number}"
    return {
        "paymentNetworks": [
            {
                "bankId": ROUTING_NUMBER,
                "identifier": identifier,
                "identifierType": "ACCOUNT_NUMBER",
                "type": network,
                "transferIn": True,
                "transferOut": network == "US_ACH",
            }
            for network in ("US_ACH", "US_RTP")
        ]
    }
