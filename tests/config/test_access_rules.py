"""Access rules: which ones are rejected, which cause warnings, and agreement with the table that applies them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from akoya_gateway.access.rule_table import RuleTable
from akoya_gateway.config.access_rules import _method_sets_overlap
from akoya_gateway.config.model import AccessRule, GrantSelector, GrantSource, Otherwise, Require
from tests.support.config_documents import error_lines, validated, warning_lines


def _rules(tmp_path: Path, *rules: dict[str, Any]) -> tuple[AccessRule, ...]:
    result = validated(tmp_path, {"access": list(rules)})
    assert result.config is not None, error_lines(result)
    return result.config.access


def test_every_form_of_require_is_read(tmp_path: Path) -> None:
    rules = _rules(
        tmp_path,
        {"path": "/static/*", "require": "nothing"},
        {
            "path": "/api/{connector}/*",
            "methods": ["GET", "POST"],
            "require": "{connector}",
            "otherwise": "unauthorized",
        },
        {"path": "/one", "require": "mikomo", "otherwise": "forbidden"},
        {"path": "/all", "require": ["mikomo"], "otherwise": "pass"},
        {"path": "/*", "require": "any"},
    )
    assert [rule.require for rule in rules] == [
        Require.NOTHING,
        Require.PARAMETER,
        Require.CONNECTORS,
        Require.CONNECTORS,
        Require.ANY,
    ]
    assert rules[1].methods == frozenset({"GET", "POST"})
    assert rules[1].parameter == "connector"
    assert rules[2].connectors == rules[3].connectors == ("mikomo",)
    assert [rule.otherwise for rule in rules] == [
        Otherwise.CONNECT,
        Otherwise.UNAUTHORIZED,
        Otherwise.FORBIDDEN,
        Otherwise.PASS,
        Otherwise.CONNECT,
    ]
    assert [rule.index for rule in rules] == [0, 1, 2, 3, 4]


def test_label_of_a_rule_is_its_name_or_its_position_and_path(tmp_path: Path) -> None:
    named, unnamed = _rules(
        tmp_path,
        {"name": "api.v1", "path": "/api/*", "require": "any"},
        {"path": "/*", "require": "nothing"},
    )
    assert (named.label, unnamed.label) == ("api.v1", "access[1] /*")


def test_rules_know_their_line(tmp_path: Path) -> None:
    (rule,) = _rules(tmp_path, {"path": "/*", "require": "any"})
    line = (tmp_path / "gateway.yaml").read_text().splitlines()[rule.line - 1]
    assert line.lstrip().startswith("- path: ")


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ({"path": "/x", "require": "any", "name": "other"}, "access[0].name: `other` is the name of what exceeds"),
        ({"path": "/x", "require": "any", "name": "Two words"}, "access[0].name: expected lower-case letters, digits"),
        ({"path": "/x", "require": "mikmo"}, 'access[0].require: no connector named "mikmo" (did you mean "mikomo"?)'),
        ({"path": "/x", "require": ["mikomo", "x"]}, 'access[0].require[1]: no connector named "x" (known: mikomo)'),
        ({"path": "/x", "require": "anny"}, 'access[0].require: no connector named "anny" (did you mean "any"?)'),
        ({"path": "/x", "require": ["any"]}, 'access[0].require[0]: no connector named "any"'),
        ({"path": "/{bank}", "require": "{connector}"}, 'access[0].require: the path has no parameter "{connector}"'),
        (
            {"path": "/{banks}", "require": "{bank}"},
            'access[0].require: the path has no parameter "{bank}" (did you mean "banks"?)',
        ),
        ({"path": "x", "require": "any"}, "access[0].path: expected a path that begins with /"),
        ({"path": "/a/*/b", "require": "any"}, "access[0].path: `*` can only be the whole last segment"),
        ({"path": "/a*", "require": "any"}, "access[0].path: `*` can only be the whole last segment"),
        ({"path": "/{a}b", "require": "any"}, "access[0].path: a parameter is a whole segment"),
        ({"path": "/{a-b}", "require": "any"}, "access[0].path: a parameter is a whole segment"),
        ({"path": "/{a}/{a}", "require": "any"}, "access[0].path: the parameter {a} appears twice"),
        ({"path": "/a//b", "require": "any"}, "access[0].path: `//` never reaches the rules"),
        ({"path": "/a/../b", "require": "any"}, "access[0].path: a dot segment never reaches the rules"),
        ({"path": "/a?b=1", "require": "any"}, "access[0].path: rules match the path only"),
        (
            {"path": "/a%2fb", "require": "any"},
            'access[0].path: "a%2fb" contains characters that the path of a rule cannot have',
        ),
        (
            {"path": "/a b", "require": "any"},
            'access[0].path: "a b" contains characters that the path of a rule cannot have',
        ),
        ({"path": "/ü", "require": "any"}, 'access[0].path: "\\u00fc" contains characters'),
        ({"path": "/x", "require": "any", "methods": ["ALL"]}, "access[0].methods[0]: ALL is not a method"),
    ],
)
def test_rule_that_cannot_work_is_refused(tmp_path: Path, rule: dict[str, Any], message: str) -> None:
    lines = error_lines(validated(tmp_path, {"access": [rule]}))
    assert len(lines) == 1, lines
    assert lines[0].startswith(message), lines[0]


@pytest.mark.parametrize(
    ("first", "second", "shadowed"),
    [
        ({"path": "/*"}, {"path": "/a"}, True),
        ({"path": "/*"}, {"path": "/"}, True),
        ({"path": "/a/*"}, {"path": "/a"}, False),
        ({"path": "/a/*"}, {"path": "/a/"}, True),
        ({"path": "/a/*"}, {"path": "/a/{x}/*"}, True),
        ({"path": "/{x}"}, {"path": "/a"}, True),
        ({"path": "/{x}"}, {"path": "/"}, False),
        ({"path": "/{x}"}, {"path": "/*"}, False),
        ({"path": "/a"}, {"path": "/{x}"}, False),
        ({"path": "/*", "methods": ["GET"]}, {"path": "/a"}, False),
        ({"path": "/*", "methods": ["GET"]}, {"path": "/a", "methods": ["GET"]}, True),
        ({"path": "/*", "methods": ["GET"]}, {"path": "/a", "methods": ["HEAD"]}, True),
        ({"path": "/*", "methods": ["POST"]}, {"path": "/a", "methods": ["HEAD"]}, False),
        ({"path": "/*", "methods": ["HEAD"]}, {"path": "/a", "methods": ["GET"]}, False),
        ({"path": "/*"}, {"path": "/a", "methods": ["GET"]}, True),
    ],
)
def test_rule_that_can_never_match_is_warned_of(
    tmp_path: Path, first: dict[str, Any], second: dict[str, Any], shadowed: bool
) -> None:
    rules = [{**first, "require": "any"}, {**second, "require": "nothing"}]
    lines = [line for line in warning_lines(validated(tmp_path, {"access": rules})) if "never matches" in line]
    assert bool(lines) is shadowed
    if shadowed:
        assert lines[0].startswith("access[1]: this rule never matches: access[0] ")


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ({"path": "/x", "methods": ["DELET"]}, "methods[0]: DELET is not a registered HTTP method"),
        ({"path": "/accounts/:id"}, 'path: ":id" matches only this text (write {id} for any segment)'),
        ({"path": "/x", "methods": ["GET", "PROPFIND", "QUERY", "PURGE"]}, ""),
        ({"path": "/v1/x:verb"}, ""),
    ],
)
def test_rule_that_does_not_match_what_it_seems_to_is_warned_of(
    tmp_path: Path, rule: dict[str, Any], message: str
) -> None:
    """A public rule behind it would match instead: `methods: [ALL]` and `/:id` are how Express writes rules."""
    result = validated(tmp_path, {"access": [{**rule, "require": "any"}, {"path": "/*", "require": "nothing"}]})
    assert result.config is not None
    lines = [line for line in warning_lines(result) if line.startswith("access[0]")]
    assert [line.partition("access[0].")[2][: len(message)] for line in lines] == ([message] if message else [])


def test_rule_under_the_prefix_is_warned_of(tmp_path: Path) -> None:
    lines = warning_lines(validated(tmp_path, {"access": [{"path": "/akoya/*", "require": "any"}]}))
    assert any("handled by the gateway itself" in line for line in lines)


SEGMENT = st.sampled_from(["a", "b", "{x}", "{y}"])
PATTERN = st.tuples(st.lists(SEGMENT, max_size=3), st.sampled_from(["", "*", "end"])).map(
    lambda made: "/" + "/".join([*made[0], *([made[1]] if made[1] or not made[0] else [])])
)
PATH = st.lists(st.sampled_from(["a", "b", "c"]), max_size=4).flatmap(
    lambda parts: st.sampled_from(["/" + "/".join(parts), "/" + "/".join([*parts, ""])])
)


@settings(max_examples=300, deadline=None)
@given(PATTERN, PATTERN, PATH)
def test_pattern_reported_as_covered_never_matches_first(wide: str, narrow: str, path: str) -> None:
    """The warning and the table that applies the rules agree."""
    table = RuleTable(
        [
            AccessRule(0, wide, None, Require.ANY),
            AccessRule(1, narrow, None, Require.ANY),
        ]
    )
    match = table.match("GET", path)
    if _method_sets_overlap(wide.split("/")[1:], narrow.split("/")[1:]):
        assert match is None or match.rule.index == 0


def test_choices_of_a_login_are_read(tmp_path: Path) -> None:
    rules = _rules(
        tmp_path,
        {"path": "/a", "require": "mikomo"},
        {"path": "/b", "require": "mikomo", "grant": "recent"},
        {"path": "/c", "require": ["mikomo"], "grant": "single"},
        {"path": "/d/{connector}", "require": "{connector}", "grant": {"query": "login"}},
        {"path": "/e", "require": "mikomo", "grant": {"header": "X-Bank-Login"}},
        {"path": "/f/{connector}/{id}", "require": "{connector}", "grant": {"path": "id"}},
    )
    assert [rule.grant for rule in rules] == [
        None,
        None,
        GrantSelector(GrantSource.SINGLE),
        GrantSelector(GrantSource.QUERY, "login"),
        GrantSelector(GrantSource.HEADER, "x-bank-login"),
        GrantSelector(GrantSource.PATH, "id"),
    ]
    assert not any(rule.pass_all for rule in rules)


def test_all_tokens_can_be_passed_for_a_list_of_connectors(tmp_path: Path) -> None:
    second = {"connectors.other": {"client": "demo-app"}}
    rule = {"path": "/x", "require": ["mikomo", "other"], "pass_tokens": "all"}
    result = validated(tmp_path, {**second, "access": [rule]})
    assert result.config is not None, error_lines(result)
    assert result.config.access[0].pass_all


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        ({"path": "/x", "require": "any", "grant": "single"}, "grant: a login can be chosen only where"),
        ({"path": "/x", "require": "nothing", "grant": {"query": "a"}}, "grant: a login can be chosen only where"),
        ({"path": "/{c}", "require": "{c}", "grant": {"path": "c"}}, "grant.path: the path has no other parameter {c}"),
        ({"path": "/{c}/{id}", "require": "{c}", "grant": {"path": "ids"}}, '(did you mean "id"?)'),
        *(
            (
                {"path": "/x", "require": "mikomo", "grant": {"header": name}},
                f"grant.header: {name} cannot choose a login",
            )
            for name in ("Akoya-Grant", "cookie", "Authorization", "Connection", "TE", "X-Forwarded-For", "Host")
        ),
        (
            {"path": "/x", "require": "mikomo", "grant": {"header": "X_Login"}},
            "grant: expected recent, single",
        ),
        ({"path": "/x", "require": "mikomo", "grant": {"query": "a", "header": "b"}}, "grant: "),
        ({"path": "/x", "require": "mikomo", "grant": {}}, "grant: "),
        ({"path": "/x", "require": "mikomo", "grant": "newest"}, "grant: expected recent, single"),
        (
            {"path": "/x", "require": "mikomo", "pass_tokens": "all"},
            "pass_tokens: this rule requires one token at most",
        ),
        ({"path": "/x", "require": "any", "pass_tokens": "all"}, "pass_tokens: this rule requires one token at most"),
        ({"path": "/{c}", "require": "{c}", "pass_tokens": "all"}, "pass_tokens: this rule requires one token at most"),
    ],
)
def test_choice_of_a_login_that_cannot_work_is_an_error(tmp_path: Path, rule: dict[str, Any], message: str) -> None:
    assert message in "\n".join(error_lines(validated(tmp_path, {"access": [rule]})))
