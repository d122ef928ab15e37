"""Grants: storing, refreshing and revoking the tokens of a user's bank connections.

`GrantManager` is the entry point; `state_machine` is the state machine, described in docs/grants.md.
"""

from __future__ import annotations

from akoya_gateway.grants.errors import NeedsReconnect, RegistrationFault, TemporarilyUnavailable
from akoya_gateway.grants.grant import Grant, GrantKey, GrantState, OwnerGrants
from akoya_gateway.grants.interfaces import TokenEndpoint
from akoya_gateway.grants.manager import GrantManager
from akoya_gateway.grants.observer import GrantObserver, NullGrantObserver
from akoya_gateway.grants.provider_health import RegistrationProblem
from akoya_gateway.grants.refresh_policy import Remedy, ResponsibleParty, remedy
from akoya_gateway.grants.repository import GrantRepository

__all__ = [
    "Grant",
    "GrantKey",
    "GrantManager",
    "GrantObserver",
    "GrantRepository",
    "GrantState",
    "NeedsReconnect",
    "NullGrantObserver",
    "OwnerGrants",
    "RegistrationFault",
    "RegistrationProblem",
    "Remedy",
    "ResponsibleParty",
    "TemporarilyUnavailable",
    "TokenEndpoint",
    "remedy",
]
