"""What users granted: kept, renewed, ended. `Keeper` is the way in; `life` is the state machine."""

from __future__ import annotations

from akoya_gateway.grants.errors import NeedsReconnect, RegistrationFault, TemporarilyUnavailable
from akoya_gateway.grants.grant import Grant, GrantKey, GrantState, OwnerGrants
from akoya_gateway.grants.interfaces import TokenEndpoint
from akoya_gateway.grants.manager import Keeper
from akoya_gateway.grants.observer import NullObserver, Observer
from akoya_gateway.grants.provider_health import Fault
from akoya_gateway.grants.refresh_policy import Remedy, Who, remedy
from akoya_gateway.grants.repository import Book

__all__ = [
    "Book",
    "Fault",
    "Grant",
    "GrantKey",
    "GrantState",
    "Keeper",
    "NeedsReconnect",
    "NullObserver",
    "Observer",
    "OwnerGrants",
    "RegistrationFault",
    "Remedy",
    "TemporarilyUnavailable",
    "TokenEndpoint",
    "Who",
    "remedy",
]
