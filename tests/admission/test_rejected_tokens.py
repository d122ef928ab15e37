"""Which grants are refreshed for a value of the app's response header `Akoya-Token-Rejected`."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from akoya_gateway.admission.decision import Admitted
from akoya_gateway.grants.grant import Grant, GrantKey, GrantState
from akoya_gateway.oauth.outcomes import TokenSet
from akoya_gateway.secret import Secret

TOKENS = TokenSet(Secret("bearer"), Secret("refresh"), 1900.0, (), "sub")
FIRST = Grant(GrantKey("owner", "double", "app", "mikomo", "sub"), TOKENS, GrantState.LIVE, 1.0, 1.0)
SECOND = replace(FIRST, key=replace(FIRST.key, connector="other"))
FOREIGN = replace(FIRST, key=replace(FIRST.key, owner="another"))
RULE: Any = None


@pytest.mark.parametrize(
    ("value", "grants"),
    [
        ("1", [FIRST]),
        ("", [FIRST]),
        ("602", [FIRST]),
        ("mikomo", [FIRST]),
        ("other", [SECOND]),
        ("other, mikomo", [FIRST, SECOND]),
        (SECOND.public_id, [SECOND]),
        (f"{FIRST.public_id},{SECOND.public_id}", [FIRST, SECOND]),
        (f" {SECOND.public_id} ,{FOREIGN.public_id}", [SECOND]),
        (FOREIGN.public_id, []),
        (SECOND.public_id[2:], [FIRST]),
        ("g_", [FIRST]),
        ("ü", [FIRST]),
    ],
)
def test_value_of_the_header_names_the_grants_that_were_passed(value: str, grants: list[Grant]) -> None:
    admitted = Admitted(RULE, FIRST, "owner", others=(SECOND,))
    assert admitted.rejected_grants(value.encode()) == tuple(grants)


def test_nothing_is_refreshed_without_the_header_or_without_a_grant() -> None:
    assert Admitted(RULE, FIRST, "owner").rejected_grants(None) == ()
    assert Admitted(RULE).rejected_grants(b"1") == ()
