"""Tests of path variants that many frameworks treat alike (case, trailing slash), and of method overrides in the query."""

from __future__ import annotations

from pathlib import Path

import pytest

from akoya_gateway.access.path_normalization import PathRefused
from akoya_gateway.access.request import names_a_method_in
from akoya_gateway.access.rule_table import RuleTable
from akoya_gateway.config.model import AccessRule, Require
from akoya_gateway.gateway.explain import Explainer
from tests.support.config_documents import validated

ANY, NOTHING, BANK = Require.ANY, Require.NOTHING, Require.CONNECTORS


def rule(
    index: int, path: str, require: Require, connectors: tuple[str, ...] = (), methods: frozenset[str] | None = None
) -> AccessRule:
    return AccessRule(index, path, methods, require, connectors)


RULES = [
    rule(0, "/accounts", BANK, ("mikomo",)),
    rule(1, "/api/*", ANY),
    rule(2, "/item/*", ANY, methods=frozenset({"DELETE"})),
    rule(3, "/Upper", ANY),
    rule(4, "/slash/", ANY),
    rule(5, "/same", ANY),
    rule(6, "/same/*", ANY),
    rule(7, "/ä", ANY),
    rule(8, "/*", NOTHING),
]
TABLE, LAX = RuleTable(RULES, variants=False), RuleTable(RULES)


@pytest.mark.parametrize(
    ("path", "index"),
    [("/accounts", 0), ("/accounts/", None), ("/ACCOUNTS", None), ("/Accounts/", None), ("/accounts/x", 8), ("/api/me", 1), ("/API/me", None),
     ("/Api/Me/", None), ("/api/ME", 1), ("/api/", 1), ("/api", None), ("/item/1", 8), ("/ITEM/1", 8), ("/Upper", 3), ("/upper", None), ("/slash/", 4),
     ("/slash", None), ("/same", 5), ("/same/", 6), ("/ä", 7), ("/Ä", None),
     ("/a\u0308", None), ("/A\u0308/", None), ("/\uff41ccounts", None), ("/\uff21\uff30\uff29/me", None), ("/mi\u212a", 8), ("/\u017fame", None), ("/o\u0308", 8),
     ("/api\uff0fme", None), ("/x\uff0f\uff0e\uff0e\uff0faccounts", None), ("/x/\u2025/accounts/", None), ("/x/\uff0e/accounts", 8), ("/o\uff0fo", 8), ("/\u2025/o", 8),
     ("/", 8), ("/other/", 8)],
)  # fmt: skip
def test_path_that_is_under_another_rule_in_another_spelling_is_refused(path: str, index: int | None) -> None:
    for _ in range(2):  # Repeated, to check that a denied path is not cached as another result.
        if index is None:
            with pytest.raises(PathRefused) as refused:
                TABLE.match("GET", path)
            assert (refused.value.status, refused.value.code) == (400, "ambiguous-path")
            assert LAX.match("GET", path) is not None
        else:
            match = TABLE.match("GET", path)
            assert match is not None
            assert match.rule.index == index


def test_path_with_full_width_dots_that_lead_to_another_rule_is_refused() -> None:
    table = RuleTable([rule(0, "/open/*", NOTHING), rule(1, "/accounts", ANY)], variants=False)
    for path in ("/open/\u2025/accounts", "/open/\uff0e\uff0e\uff0faccounts", "/open/\u2025/\u2025/accounts"):
        with pytest.raises(PathRefused):
            table.match("GET", path)
    assert table.match("GET", "/open/\uff0faccounts") is not None


def test_method_decides_whether_another_rule_covers_the_spelling() -> None:
    with pytest.raises(PathRefused):
        TABLE.match("DELETE", "/Item/1")
    match = TABLE.match("DELETE", "/item/1")
    assert match is not None
    assert match.rule.index == 2


def test_stricter_rule_than_the_matching_one_counts_and_a_public_one_does_not() -> None:
    table = RuleTable(
        [
            rule(0, "/a", ANY),
            rule(1, "/a/*", BANK, ("mikomo",)),
            rule(2, "/b", BANK, ("mikomo",)),
            rule(3, "/b/*", NOTHING),
        ],
        variants=False,
    )
    for path in ("/a", "/a/", "/b/"):
        with pytest.raises(PathRefused):
            table.match("GET", path)
    assert table.match("GET", "/b") is not None, "the target of the other spelling must be public"


@pytest.mark.parametrize(
    "query",
    [b"_method=DELETE", b"a=1&_method=DELETE", b"a;_method=DELETE", b"%5Fmethod=PUT", b"_%6Dethod=PUT", b"_METHOD=put", b".method=x", b"[method=x",
     b"_method[]=x", b"_method%00x=y", b"%20_method=x", b"_method=", b"%2emethod=x", b"X-HTTP-Method-Override=PUT", b"x_http_method=PUT", b"x.method.override=PUT", b"_http_method=PUT", b"method_override=PUT", b"x-tunneled-method=PUT"],
)  # fmt: skip
def test_parameter_that_a_framework_reads_as_the_method_is_an_override(query: bytes) -> None:
    assert names_a_method_in(query)


@pytest.mark.parametrize(
    "query",
    [
        b"",
        b"a=1",
        b"method=GET",
        b"_methods=x",
        b"x_method=y",
        b"a=_method",
        b"payment_method=card",
        b"_methodical=x",
        b"http_method=GET",
        b"overridden-method=x",
        b"%zz=1",
    ],
)
def test_another_parameter_is_no_override(query: bytes) -> None:
    assert not names_a_method_in(query)


ACCESS = [
    {"path": "/accounts", "require": "mikomo"},
    {"path": "/item/*", "methods": ["DELETE"], "require": "any"},
    {"path": "/*", "require": "nothing"},
]


@pytest.mark.parametrize(
    ("target", "method", "expected"),
    [("/accounts/", "GET", "Another spelling of this path (its case, or a slash at its end) is under another rule. It is access[0] /accounts"),
     ("/item/1?_method=DELETE", "POST", "is a method override"), ("/accounts?_method=DELETE", "POST", "mikomo"), ("/ACCOUNTS", "GET", "400")],
)  # fmt: skip
def test_explain_reports_why_such_a_request_is_refused(tmp_path: Path, target: str, method: str, expected: str) -> None:
    config = validated(tmp_path, {"access": ACCESS}).config
    assert config is not None
    explanation = Explainer(config, (), 0.0).explain(method, target)
    assert expected in (explanation.refusal or f"passed by {explanation.rule}")
    allowed = validated(tmp_path, {"access": ACCESS, "path_variants": "allow"}).config
    assert allowed is not None
    assert Explainer(allowed, (), 0.0).explain("GET", "/ACCOUNTS").refusal is None


def test_check_warns_of_a_rule_whose_own_path_is_refused(tmp_path: Path) -> None:
    access = [
        {"path": "/accounts", "require": "any"},
        {"path": "/accounts/*", "require": "mikomo"},
        {"path": "/*", "require": "nothing"},
    ]
    warning_lines = [
        diagnostic.message
        for diagnostic in validated(tmp_path, {"access": access}).warnings
        if "refused" in diagnostic.message
    ]
    assert (
        warning_lines == ["requests for it are refused: /accounts/ is under access[1] /accounts/* in line 3"]
        or len(warning_lines) == 1
    )
    assert not [
        diagnostic
        for diagnostic in validated(tmp_path, {"access": access, "path_variants": "allow"}).warnings
        if "refused" in diagnostic.message
    ]
    assert not [
        diagnostic for diagnostic in validated(tmp_path, {"access": ACCESS}).warnings if "refused" in diagnostic.message
    ]
