"""Values for the events of the state machine."""

from __future__ import annotations

from akoya_gateway.grants.grant import GrantKey
from akoya_gateway.oauth.outcomes import (
    TokenSet,
)
from akoya_gateway.secret import Secret

NOW = 1000.0
KEY = GrantKey("own_1", "double", "demo-app", "mikomo", "sub_1")


def tokens(number: int = 1, sub: str = "sub_1", ends: float = NOW + 900) -> TokenSet:
    return TokenSet(Secret(f"bearer-{number}"), Secret(f"refresh-{number}"), ends, ("openid",), sub, "consent")
