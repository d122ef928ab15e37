"""Find the access rule that governs a request. The first matching rule wins; patterns are stored in a segment trie.

A segment of a pattern is literal text, `{name}` (exactly one non-empty segment) or, in last position, `*` (any rest,
including an empty one: `/accounts/*` covers `/accounts/` and `/accounts/1/2`, but not `/accounts`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from unicodedata import normalize

from akoya_gateway.access.path_normalization import PathRefused
from akoya_gateway.config.model import AccessRule, GrantSelector, Require


class RuleMatch:
    """The rule that matched, and the values of the parameters in its path.

    `key` is the part of the match that a decision can depend on, as a cache key.
    """

    __slots__ = ("key", "parameters", "rule")

    def __init__(self, rule: AccessRule, parameters: Mapping[str, str]) -> None:
        self.rule = rule
        self.parameters = parameters
        self.key = rule.index, None if rule.parameter is None else parameters[rule.parameter]


@dataclass(slots=True)
class _Node:
    literal: dict[str, _Node] = field(default_factory=dict)
    parameter: _Node | None = None
    rules: list[AccessRule] = field(default_factory=list)
    wildcard: list[AccessRule] = field(default_factory=list)
    is_first: int = 1 << 30
    """The lowest rule index at or below this node. The search skips branches that cannot contain the first match."""


class AmbiguousSpelling(PathRefused):
    """Raised if another spelling of the path is under another rule. Many frameworks treat both spellings as equal."""

    def __init__(self, rule: AccessRule) -> None:
        super().__init__("Another spelling of this path (its case, or a slash at its end) is under another rule.")
        self.rule = rule


class RuleTable:
    """The access rules, compiled once."""

    def __init__(self, rules: Iterable[AccessRule], *, variants: bool = True) -> None:
        """Compile `rules`.

        Args:
            rules: The rules in order of precedence.
            variants: Whether to match a path even if another spelling of it is under another rule
                (`path_variants: allow`).
        """
        self._rules = rules = tuple(rules)
        self._root = _Node()
        self._folded: RuleTable | None = None
        self._is_folded = False
        """True for the table of case-folded patterns if the patterns were the same before."""
        if not variants:
            folded = tuple(_case_folded(rule) for rule in rules)
            self._folded = RuleTable(folded)
            self._folded._is_folded = folded == rules
        self._checked: dict[int, bool] = {}
        """The results of `_check`, by the index of the rule."""
        self._matches: dict[int, RuleMatch] = {}
        """The matches of rules without parameters."""
        self._names: dict[int, tuple[tuple[int, str], ...]] = {}
        for rule in rules:
            self._add(rule)

    def _add(self, rule: AccessRule) -> None:
        node = self._root
        names: list[tuple[int, str]] = []
        segments = rule.path.split("/")[1:]
        node.is_first = min(node.is_first, rule.index)
        for position, segment in enumerate(segments):
            if segment in ("*", "**") and position == len(segments) - 1:
                node.wildcard.append(rule)
                break
            if segment.startswith("{"):
                names.append((position, segment[1:-1]))
                node.parameter = node.parameter or _Node()
                node = node.parameter
            else:
                node = node.literal.setdefault(segment, _Node())
            node.is_first = min(node.is_first, rule.index)
        else:
            node.rules.append(rule)
        self._names[rule.index] = tuple(names)
        if not names:
            self._matches[rule.index] = RuleMatch(rule, _NONE)

    def match(self, method: str, path: str) -> RuleMatch | None:
        """Return the first rule that covers `method` and the normalized `path`, or None if the request is denied.

        Raises:
            AmbiguousSpelling: Variants are not allowed, and another spelling of the path is under another rule.
        """
        segments = path.split("/")
        found = _search(self._root, segments, 1, method, None)
        if found is None:
            return None
        index = found.index
        if self._folded is not None and (
            (self._checked[index] if index in self._checked else self._check(found)) or not path.isascii()
        ):
            self._folded.require_same(method, path, segments, found)
        return self._matches.get(index) or RuleMatch(
            found, {name: segments[position + 1] for position, name in self._names[index]}
        )

    def _check(self, rule: AccessRule) -> bool:
        """Return False if no ASCII path under `rule` can have a variant under a rule with another requirement."""
        found = self._checked[rule.index] = any(
            _differs(other, rule) and _may_share_variants(other, rule) for other in self._rules
        )
        return found

    def require_same(self, method: str, path: str, segments: list[str], rule: AccessRule) -> None:
        """Check that spelling variants of `path` are not under a rule with a requirement that differs from `rule`.

        Called on the table of case-folded patterns, with the segments of `path`. The variants are the case-folded path,
        and that with a trailing slash added or removed.

        Raises:
            AmbiguousSpelling: A variant is under a rule with another requirement. Rules that require nothing do
                not count.
        """
        spelled = segments
        if not path.isascii():
            segments = _resolved("/".join(map(_folded, segments)))
        elif (folded := path.casefold()) != path:
            segments = folded.split("/")
        # If neither the path nor any pattern has another case, the folded path is the path itself, under `rule`.
        if segments is not spelled or not self._is_folded:
            self._require_same(method, segments, rule)
        other = [*segments, ""] if segments[-1] else segments[:-1]
        if len(other) > 1:
            self._require_same(method, other, rule)

    def _require_same(self, method: str, segments: list[str], rule: AccessRule) -> None:
        found = _search(self._root, segments, 1, method, None)
        if found is not None and _differs(found, rule):
            raise AmbiguousSpelling(found)

    def has_method_rules(self, path: str) -> bool:
        """Return True if another method could fall under another rule.

        This is so if the first rule of the path does not cover all methods.
        """
        first = _search(self._root, path.split("/"), 1, None, None)
        return first is not None and first.methods is not None


def _case_folded(rule: AccessRule) -> AccessRule:
    """Return the rule with a case-folded path. Parameter names keep their case."""
    segments = [one if one.startswith("{") else _folded(one) for one in rule.path.split("/")]
    return replace(rule, path="/".join(segments))


def _folded(segment: str) -> str:
    """Return the segment in one case and in one Unicode form (NFKC), so that `a` with a combining diaeresis is `ä`."""
    return segment.casefold() if segment.isascii() else normalize("NFKC", normalize("NFKC", segment).casefold())


def _resolved(path: str) -> list[str]:
    """Return the segments of a path, with dot segments resolved: NFKC can turn other characters into dots."""
    segments: list[str] = []
    for segment in path.split("/"):
        if segment == "..":
            del segments[max(len(segments) - 1, 1) :]
        elif segment != ".":
            segments.append(segment)
    return segments


def _differs(other: AccessRule, rule: AccessRule) -> bool:
    """Return True if a path under `rule` must not have a variant under `other`."""
    return other.require is not Require.NOTHING and _requirement(other) != _requirement(rule)


def _requirement(rule: AccessRule) -> tuple[Require, tuple[str, ...], str | None, GrantSelector | None]:
    return rule.require, rule.connectors, rule.parameter, rule.grant


def _may_share_variants(one: AccessRule, other: AccessRule) -> bool:
    """Return False if the case-folded patterns have different literal segments at the same position.

    Then no ASCII path under one of the rules has a variant under the other. The comparison ends at an empty segment,
    because a variant may lack it.
    """
    for a, b in zip(_case_folded(one).path.split("/")[1:], _case_folded(other).path.split("/")[1:], strict=False):
        if a in _ANY_REST or b in _ANY_REST:
            return True
        if a != b and a[0] != "{" and b[0] != "{":
            return False
    return True


_ANY_REST = ("", "*", "**")
_NONE: Mapping[str, str] = {}


def _search(
    node: _Node, segments: list[str], at: int, method: str | None, best: AccessRule | None
) -> AccessRule | None:
    """Return the first matching rule below `node`, or `best` if that comes first. A `method` of None matches all.

    A loop over the segments, which only calls itself where a literal and a parameter both lead on: this runs for every
    path that is not cached.
    """
    count = len(segments)
    while best is None or node.is_first < best.index:
        if at == count:
            return _first(node.rules, method, best)
        if node.wildcard:
            best = _first(node.wildcard, method, best)
        segment = segments[at]
        at += 1
        child, parameter = node.literal.get(segment), node.parameter if segment else None
        if child is not None and parameter is not None:
            best = _search(child, segments, at, method, best)
            node = parameter
        elif child is not None:
            node = child
        elif parameter is not None:
            node = parameter
        else:
            break
    return best


def _first(rules: list[AccessRule], method: str | None, best: AccessRule | None) -> AccessRule | None:
    for rule in rules:
        if best is not None and rule.index > best.index:
            return best
        if rule.methods is None or method is None or method in rule.methods:
            return rule
        if method == "HEAD" and "GET" in rule.methods:
            return rule
    return best
