"""Access rules that are configured but not enforced."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.advisories.advisory import advisory
from tests.support.config_documents import validated
from tests.support.target import Target


@advisory("CVE-2021-21411", "GHSA-652x", attack="A restriction is parsed and, after a refactoring, no longer enforced.",
          ours="For each key of an access rule a test sends a request that only this key refuses. Unknown keys are configuration errors.")  # fmt: skip
def test_cve_2021_21411_every_key_of_a_rule_is_enforced(target: Target, session: str) -> None:
    assert target.fetch("/api/banks/mikomo/x", session).let_in
    assert not target.fetch("/api/banks/mikomo/x", session, method="DELETE").let_in, "methods"
    assert not target.fetch("/api/banks/other/x", session).let_in, "require: a parameter"
    assert not target.fetch("/both", session).let_in, "require: a list"
    assert not target.fetch("/nowhere", session).let_in, "nothing matches"
    assert target.fetch("/closed").status == 403, "otherwise: forbidden"
    assert target.fetch("/mikomo").status == 401, "otherwise: connect"


@pytest.mark.parametrize("key", ["groups", "scope", "path_regex", "Require", "deny"])
@advisory("CVE-2021-32701", attack="A cached allow decision is reused for a request that requires more (a scope that is not in the cache key).",
          ours="Decisions are cached per owner and rule, so a stricter rule is evaluated separately. Unknown configuration keys are errors.")  # fmt: skip
def test_cve_2021_32701_decision_of_one_rule_is_not_used_for_another(
    target: Target, session: str, key: str, tmp_path: Path
) -> None:
    for _ in range(3):
        assert target.fetch("/accounts", session).let_in
        assert target.fetch("/mikomo", session).let_in
        assert not target.fetch("/both", session).let_in
        assert not target.fetch("/api/banks/other/x", session).let_in
    found = validated(tmp_path, {f"access.0.{key}": "admins"})
    assert any(key in str(diagnostic) for diagnostic in found.diagnostics)
