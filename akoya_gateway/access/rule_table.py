"""Which access rule governs a request: first match wins, found by walking a trie of segments.

A pattern's segments are literal text, `{name}` (exactly one non-empty segment) or a last `*` (everything below, the
empty rest included: `/accounts/*` covers `/accounts/` and `/accounts/1/2`, not `/accounts`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from akoya_gateway.access.path_normalization import PathRefused
from akoya_gateway.config.model import AccessRule, Require


@dataclass(frozen=True, slots=True)
class RuleMatch:
    rule: AccessRule
    parameters: Mapping[str, str]

    @property
    def key(self) -> tuple[int, str | None]:
        """What of the match a decision can depend on."""
        parameter = self.rule.parameter
        return self.rule.index, None if parameter is None else self.parameters[parameter]


@dataclass(slots=True)
class _Node:
    literal: dict[str, _Node] = field(default_factory=dict)
    parameter: _Node | None = None
    rules: list[AccessRule] = field(default_factory=list)
    wildcard: list[AccessRule] = field(default_factory=list)
    is_first: int = 1 << 30
    """The lowest rule index at or below this node: branches that cannot win are not walked."""


class AmbiguousSpelling(PathRefused):
    """Another spelling of the path falls under another rule, and many frameworks serve both alike."""

    def __init__(self, rule: AccessRule) -> None:
        super().__init__("Another spelling of this path (its case, or a slash at its end) is under another rule.")
        self.rule = rule


class RuleTable:
    """Compiled once; `match` walks the path's segments, and remembers where it ended for paths asked for again."""

    def __init__(self, rules: Iterable[AccessRule], *, variants: bool = True) -> None:
        """`variants`: a path that another rule governs in another spelling is matched all the same
        (`path_variants: allow`)."""
        rules = tuple(rules)
        self._root = _Node()
        self._folded = None if variants else RuleTable(_case_folded(rule) for rule in rules)
        self._cache: dict[tuple[str, str], RuleMatch | None] = {}
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

    def match(self, method: str, path: str) -> RuleMatch | None:
        """The first rule that covers `method` and the judged `path`, or None: refused.

        Raises `AmbiguousSpelling`.
        """
        asked = (method, path)
        try:
            return self._cache[asked]
        except KeyError:
            found = self._search(method, path)
        if found is not None and self._folded is not None:
            self._folded.require_same(method, path.casefold(), found.rule)
        if len(method) + len(path) <= _MAX_KEY_BYTES:
            if len(self._cache) >= _MAX_ENTRIES:
                self._cache.clear()
            self._cache[asked] = found
        return found

    def _search(self, method: str, path: str) -> RuleMatch | None:
        segments = path.split("/")
        found = _search(self._root, segments, 1, method, None)
        if found is None:
            return None
        names = self._names[found.index]
        return RuleMatch(found, {name: segments[position + 1] for position, name in names} if names else _NONE)

    def require_same(self, method: str, path: str, rule: AccessRule) -> None:
        """Raise `AmbiguousSpelling` if `path`, or it with a slash added or removed, is under a rule with another
        requirement than `rule`. In the table of case-folded patterns."""
        other = path[:-1] if path.endswith("/") else path + "/"
        for spelling in (path, other):
            found = self._search(method, spelling) if spelling else None
            if found is None or found.rule.index == rule.index or found.rule.require is Require.NOTHING:
                continue
            if _requirement(found.rule) != _requirement(rule):
                raise AmbiguousSpelling(found.rule)

    def has_method_rules(self, path: str) -> bool:
        """Whether another method could come under another rule: the first rule of the path is not for all of them."""
        first = _search(self._root, path.split("/"), 1, None, None)
        return first is not None and first.methods is not None


def _case_folded(rule: AccessRule) -> AccessRule:
    """The rule for paths in lower case; the names of its parameters stay."""
    segments = [one if one.startswith("{") else one.casefold() for one in rule.path.split("/")]
    return replace(rule, path="/".join(segments))


def _requirement(rule: AccessRule) -> tuple[Require, tuple[str, ...], str | None]:
    return rule.require, rule.connectors, rule.parameter


_MAX_ENTRIES = 4096
_MAX_KEY_BYTES = 256
_NONE: Mapping[str, str] = {}


def _search(
    node: _Node, segments: list[str], at: int, method: str | None, best: AccessRule | None
) -> AccessRule | None:
    """`method` None: whichever."""
    if best is not None and node.is_first > best.index:
        return best
    if at == len(segments):
        return _first(node.rules, method, best)
    best = _first(node.wildcard, method, best)
    segment = segments[at]
    child = node.literal.get(segment)
    if child is not None:
        best = _search(child, segments, at + 1, method, best)
    if node.parameter is not None and segment:
        best = _search(node.parameter, segments, at + 1, method, best)
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
