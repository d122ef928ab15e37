"""The first matching rule wins, whatever the shape of the trie."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from akoya_gateway.access.rule_table import AmbiguousSpelling, RuleTable
from akoya_gateway.config.model import AccessRule, Require


def rule(index: int, path: str, methods: frozenset[str] | None = None) -> AccessRule:
    return AccessRule(index, path, methods, Require.NOTHING)


def table(*paths: str) -> RuleTable:
    return RuleTable(rule(index, path) for index, path in enumerate(paths))


def index(found: RuleTable, path: str, method: str = "GET") -> int | None:
    match = found.match(method, path)
    return None if match is None else match.rule.index


def test_first_of_two_matching_rules_wins() -> None:
    assert index(table("/a/*", "/a/b"), "/a/b") == 0
    assert index(table("/a/b", "/a/*"), "/a/b") == 0
    assert index(table("/a/b", "/a/*"), "/a/c") == 1


def test_parameter_and_a_literal_are_tried_in_the_order_written() -> None:
    assert index(table("/{x}/b", "/a/{y}"), "/a/b") == 0
    assert index(table("/a/{y}", "/{x}/b"), "/a/b") == 0
    assert index(table("/a/c", "/{x}/b"), "/a/b") == 1


def test_trailing_star_covers_all_paths_below_but_not_the_folder_itself() -> None:
    found = table("/accounts/*")
    assert index(found, "/accounts/") == 0
    assert index(found, "/accounts/1/2/3") == 0
    assert index(found, "/accounts") is None
    assert index(found, "/accountsx/1") is None


def test_pattern_slash_star_matches_every_path() -> None:
    assert index(table("/*"), "/") == 0
    assert index(table("/*"), "/a/b/") == 0


def test_path_without_a_rule_has_no_match() -> None:
    assert index(table("/a"), "/b") is None
    assert index(table(), "/") is None


def test_parameter_takes_exactly_one_segment_and_never_an_empty_one() -> None:
    found = table("/api/{connector}/x")
    match = found.match("GET", "/api/mikomo/x")
    assert match is not None
    assert match.parameters == {"connector": "mikomo"}
    assert index(found, "/api//x") is None
    assert index(found, "/api/a/b/x") is None


def test_methods_narrow_a_rule_and_head_matches_like_get() -> None:
    found = RuleTable([rule(0, "/a", frozenset({"GET"})), rule(1, "/a", frozenset({"POST"}))])
    assert index(found, "/a", "HEAD") == 0
    assert index(found, "/a", "POST") == 1
    assert index(RuleTable([rule(0, "/a", frozenset({"POST"}))]), "/a", "HEAD") is None
    assert index(found, "/a", "DELETE") is None


METHODS = ["GET", "POST", "PUT"]


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["/a", "/{x}", "/*", "/b"]), st.none() | st.frozensets(st.sampled_from(METHODS), min_size=1)
        ),
        max_size=5,
    )
)
def test_path_without_method_rules_has_one_rule_for_every_method(
    rules: list[tuple[str, frozenset[str] | None]],
) -> None:
    found = RuleTable([rule(at, path, methods) for at, (path, methods) in enumerate(rules)])
    if not found.has_method_rules("/a"):
        assert len({index(found, "/a", method) for method in [*METHODS, "DELETE"]}) == 1


def test_path_has_method_rules_unless_an_earlier_rule_covers_all_methods() -> None:
    found = RuleTable([rule(0, "/a", frozenset({"GET"})), rule(1, "/*"), rule(2, "/b", frozenset({"GET"}))])
    assert found.has_method_rules("/a")
    assert not found.has_method_rules("/b"), "the earlier rule covers all methods"


def test_path_of_another_case_does_not_match() -> None:
    assert index(table("/Admin"), "/admin") is None


SEGMENTS = st.sampled_from(["a", "b", "{x}", "{y}"])
PATTERNS = st.lists(SEGMENTS, min_size=1, max_size=4).flatmap(
    lambda parts: st.sampled_from(
        ["/" + "/".join(parts), "/" + "/".join(parts) + "/*", "/*", "/" + "/".join(parts) + "/"]
    )
)


def naive(pattern: str, path: str) -> bool:
    wanted, found = pattern.split("/")[1:], path.split("/")[1:]
    if wanted[-1] == "*":
        wanted = wanted[:-1]
        if len(found) <= len(wanted):
            return False
        found = found[: len(wanted)]
    return len(wanted) == len(found) and all(
        w == f or (w.startswith("{") and f != "") for w, f in zip(wanted, found, strict=True)
    )


@given(st.lists(PATTERNS, max_size=6), st.lists(st.sampled_from(["a", "b", "c", ""]), max_size=4))
def test_trie_decides_as_reading_the_list_from_the_top_does(patterns: list[str], parts: list[str]) -> None:
    path = "/" + "/".join(parts)
    expected = next((i for i, pattern in enumerate(patterns) if naive(pattern, path)), None)
    assert index(table(*patterns), path) == expected


@settings(max_examples=500)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(["/a", "/A", "/a/", "/{x}", "/{x}/", "/a/*", "/A/b", "/*", "/b"]),
            st.sampled_from(["", "x", "y"]),
        ),
        min_size=2,
        max_size=4,
    ),
    st.sampled_from(["/", "/a", "/A", "/a/", "/A/", "/a/b", "/A/b", "/a/B/", "/b", "/B"]),
)
def test_variant_under_a_rule_that_differs_is_found_whatever_the_patterns(
    patterns: list[tuple[str, str]], path: str
) -> None:
    rules = [AccessRule(at, path, None, *_requires(connector)) for at, (path, connector) in enumerate(patterns)]
    found = next((rule for rule in rules if naive(rule.path, path)), None)
    refused = False
    folded = path.casefold()
    for variant in (folded, folded[:-1] if folded.endswith("/") else folded + "/"):
        other = next((rule for rule in rules if variant and naive(rule.path.casefold(), variant)), None)
        if found is not None and other is not None and other.require is not Require.NOTHING:
            refused |= (other.require, other.connectors) != (found.require, found.connectors)
    checked = RuleTable(rules, variants=False)
    for _ in range(2):  # Repeated, because what the patterns show is cached.
        if refused:
            with pytest.raises(AmbiguousSpelling):
                checked.match("GET", path)
        else:
            match = checked.match("GET", path)
            assert (match and match.rule) is found


def _requires(connector: str) -> tuple[Require, tuple[str, ...]]:
    return (Require.CONNECTORS, (connector,)) if connector else (Require.NOTHING, ())
