"""Every advisory has a test or a reason, and the page is up to date."""

from __future__ import annotations

import re

from tests.advisories.catalogue import everything
from tests.advisories.not_applicable import NOT_APPLICABLE
from tests.advisories.page import PAGE, marked, page


def test_every_advisory_has_its_test_or_a_reason() -> None:
    covered = {name for found, _, _ in marked() for name in found.ids}
    assert everything() - covered - set(NOT_APPLICABLE) == set()
    assert covered - everything() == set(), "tests of advisories that are not in the catalogue"
    assert not covered & set(NOT_APPLICABLE)


def test_test_name_begins_with_its_first_advisory_and_docstring_has_attack_and_defence() -> None:
    for found, name, _ in marked():
        slug = re.sub(r"[^a-z0-9]+", "_", found.ids[0].lower())
        words = [word for word in slug.split("_") if word not in ("openidc", "default", "oauth2", "filter", "")]
        assert all(word in name for word in words), name
        assert found.attack.endswith(".")
        assert found.ours.endswith(".")


def test_page_is_up_to_date() -> None:
    assert PAGE.read_text("utf-8") == page(), "python -m tests.advisories.page > docs/advisories.md"
