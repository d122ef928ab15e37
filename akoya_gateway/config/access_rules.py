"""Reads the access rules: path patterns, requirements, and warnings about rules that can never match."""

from __future__ import annotations

import re
from dataclasses import replace

from akoya_gateway.client_headers import is_known
from akoya_gateway.config.diagnostics import did_you_mean, quoted
from akoya_gateway.config.model import (
    AccessRule,
    DataApi,
    GrantSelector,
    GrantSource,
    Otherwise,
    PathVariants,
    Require,
    Upstream,
)
from akoya_gateway.config.reader import Node, reference
from akoya_gateway.config.server import UpstreamSet

_PARAMETER = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]{0,63})\}")
_Requirement = tuple[Require, tuple[str, ...], str | None]
"""The kind, the connectors, and the path parameter."""
_LITERAL = re.compile(r"[A-Za-z0-9\-._~!$&'()+,;=:@]*")
_METHODS = re.compile(
    "ACL|BIND|CHECKIN|CHECKOUT|CONNECT|COPY|DELETE|GET|HEAD|LABEL|LINK|LOCK|MERGE|MKACTIVITY|MKCALENDAR|MKCOL|"
    "MKREDIRECTREF|MKWORKSPACE|MOVE|OPTIONS|ORDERPATCH|PATCH|POST|PROPFIND|PROPPATCH|PURGE|PUT|QUERY|REBIND|REPORT|"
    "SEARCH|TRACE|UNBIND|UNCHECKOUT|UNLINK|UNLOCK|UPDATE|UPDATEREDIRECTREF"
)
"""The registered methods (https://www.iana.org/assignments/http-methods), and PURGE of caches."""


def read_rules(
    node: Node, connectors: Node, upstreams: UpstreamSet, prefix: str | None, root_path: str, variants: PathVariants
) -> tuple[AccessRule, ...]:
    """Read the access rules and report errors in them.

    The paths of the returned rules begin with `root_path`, as `prefix` does.
    """
    found: list[AccessRule] = []
    nodes: dict[int, Node] = {}
    for rule in node.items():
        built = _rule(rule, connectors, upstreams)
        if built is None:
            continue
        built = replace(built, path=root_path + built.path)
        _require_own_name(rule, built, found)
        _warn_if_shadowed(rule, built, found)
        if prefix and (built.path == prefix or built.path.startswith(f"{prefix}/")):
            rule.warn(f"requests under {prefix}/ are handled by the gateway itself", "remove the rule")
        found.append(built)
        nodes[built.index] = rule
    if variants is PathVariants.REFUSE:
        for built in found:
            _warn_of_variant(nodes[built.index], built, found)
    return tuple(found)


def _rule(node: Node, connectors: Node, upstreams: UpstreamSet) -> AccessRule | None:
    upstream, data_api = _read_upstream(node, upstreams)
    path = node.get("path")
    required = node.get("require")
    if path is None:
        return None
    names = _parameters(path)
    if required is None or names is None:
        return None
    requirement = _requirement(required, names, connectors)
    if requirement is None:
        return None
    require, listed, parameter = requirement
    methods = node.get("methods")
    if methods:
        _check_methods(methods)
    index = node.path[-1]
    assert isinstance(index, int)
    return AccessRule(
        index=index,
        path=path.value,
        methods=frozenset(item.value for item in methods.items()) if methods else None,
        require=require,
        connectors=listed,
        parameter=parameter,
        otherwise=Otherwise(node.plain("otherwise")),
        pass_token=data_api is None and bool(node.plain("pass_token")),
        pass_all=_passes_all(node, requirement),
        grant=_grant_selector(node, requirement, names),
        line=node.reader.document.values[node.path].line,
        upstream=upstream,
        name=node.plain("name") or "",
        data_api=data_api,
    )


def _read_upstream(node: Node, upstreams: UpstreamSet) -> tuple[Upstream | None, DataApi | None]:
    if not node.is_missing("upstream"):
        name = reference(node, "upstream", upstreams.names, "upstream") or ""
        return upstreams.others.get(name), upstreams.data_apis.get(name)
    if upstreams.by_name_only:
        names = ", ".join(map(quoted, upstreams.names.value))
        node.error("this rule leads to no upstream", f"name one of {names} here, or add `upstream` for such rules")
    return upstreams.default, None


def _check_methods(node: Node) -> None:
    """Report methods that no request has: the rule would not apply, and a later, public one might instead."""
    for item in node.items():
        if item.value in ("ALL", "ANY"):
            item.error(f"{item.value} is not a method, so the rule would match nothing", "leave out `methods` for all")
        elif not _METHODS.fullmatch(item.value):
            remedy = did_you_mean(item.value, _METHODS.pattern.split("|"))
            item.warn(f"{item.value} is not a registered HTTP method: the rule matches no other one", remedy)


def _parameters(node: Node) -> list[str] | None:
    """Return the names of the pattern's parameters. Report an error and return None if the pattern is invalid."""
    segments: list[str] = node.value.split("/")[1:]
    names: list[str] = []
    for position, segment in enumerate(segments):
        last = position == len(segments) - 1
        if segment == "*" and last:
            continue
        if problem := _segment_problem(segment, last):
            node.error(*problem)
            return None
        if len(segment) > 1 and segment[0] == ":":
            # Express, Rails and others write parameters like this. A later, public rule might match instead.
            node.warn(f"{quoted(segment)} matches only this text", f"write {{{segment[1:]}}} for any segment")
        if match := _PARAMETER.fullmatch(segment):
            if match[1] in names:
                node.error(f"the parameter {{{match[1]}}} appears twice", "give each its own name")
                return None
            names.append(match[1])
    return names


def _segment_problem(segment: str, last: bool) -> tuple[str, str] | None:
    if _PARAMETER.fullmatch(segment):
        return None
    if segment == "**":
        return "`**` is not a pattern", "write *: it stands for the rest of the path, also over several segments"
    if "*" in segment:
        return "`*` can only be the whole last segment", "such as /accounts/*; {name} stands for one segment"
    if "{" in segment or "}" in segment:
        return "a parameter is a whole segment: {name}", "letters, digits and `_` in braces"
    if segment in (".", ".."):
        return "a dot segment never reaches the rules", "write the path without it"
    if not segment and not last:
        return "`//` never reaches the rules", "write one slash"
    if "?" in segment or "#" in segment:
        return "rules match the path only, without query and fragment", "remove what follows ? or #"
    if not _LITERAL.fullmatch(segment):
        return (
            f"{quoted(segment)} contains characters that the path of a rule cannot have",
            "letters, digits and -._~!$&'()+,;=:@; `*` and {name} also match other characters",
        )
    return None


def _requirement(node: Node, names: list[str], connectors: Node) -> _Requirement | None:
    value = node.value
    if value == "nothing":
        return Require.NOTHING, (), None
    if value == "any":
        return Require.ANY, (), None
    if isinstance(value, str) and "{" in value:
        match = _PARAMETER.fullmatch(value)
        if match and match[1] in names:
            return Require.PARAMETER, (), match[1]
        remedy = did_you_mean(value.strip("{}"), names) or "add the parameter to the path"
        node.error(f"the path has no parameter {quoted(value)}", remedy)
        return None
    listed = [item for item in node.items() if _known(item, connectors)]
    if not listed or (isinstance(value, list) and len(listed) != len(value)):
        return None
    return Require.CONNECTORS, tuple(item.value for item in listed), None


def _passes_all(node: Node, requirement: _Requirement) -> bool:
    """Return True for `pass_tokens: all`. Report an error where only one connector can be required."""
    if node.plain("pass_tokens") != "all":
        return False
    require, listed, _ = requirement
    if require is not Require.CONNECTORS or len(listed) < 2:
        node.error("this rule requires one token at most", "list several connectors in `require`", key="pass_tokens")
    return True


def _grant_selector(node: Node, requirement: _Requirement, names: list[str]) -> GrantSelector | None:
    """Read `grant`: None for `recent`. Report an error where the rule requires more than one connector, or none."""
    below = node.get("grant")
    if below is None or below.value == "recent":
        return None
    require, listed, parameter = requirement
    if require not in (Require.CONNECTORS, Require.PARAMETER) or len(listed) > 1:
        below.error("a login can be chosen only where `require` is one connector", "remove `grant`")
        return None
    if below.value == "single":
        return GrantSelector(GrantSource.SINGLE)
    given = [(key, value) for key, value in below.value.items() if value is not None]
    if len(given) != 1:
        below.error("expected one of {query: NAME}, {header: NAME} and {path: NAME}", "keep one of them")
        return None
    ((source, name),) = given
    if source == "path" and (name not in names or name == parameter):
        others = [other for other in names if other != parameter]
        remedy = did_you_mean(name, others) or "add the parameter to the path"
        below.error(f"the path has no other parameter {{{name}}}", remedy, key="path")
    if source == "header" and is_known(name.encode()):
        below.error(f"{name} cannot choose a login", "take a header of your own, such as X-Bank-Login", key="header")
    return GrantSelector(GrantSource(source), name.lower() if source == "header" else name)


def _known(node: Node, connectors: Node) -> bool:
    if node.value in connectors.value:
        return True
    names = [*connectors.value, *(("nothing", "any") if isinstance(node.path[-1], str) else ())]
    remedy = did_you_mean(node.value, names) or f"known: {', '.join(names)}"
    node.error(f"no connector named {quoted(node.value)}", remedy)
    return False


def _require_own_name(node: Node, rule: AccessRule, earlier: list[AccessRule]) -> None:
    """Report an error if another rule has the same name, or if metrics use it for something else."""
    if rule.name == "other":
        node.error("`other` is the name of what exceeds the limits of metrics", "choose another name", key="name")
    for other in earlier:
        if rule.name and rule.name == other.name:
            node.error(f"the rule in line {other.line} has the same name", "give each its own name", key="name")


def _warn_if_shadowed(node: Node, rule: AccessRule, earlier: list[AccessRule]) -> None:
    for other in earlier:
        same_methods = other.methods is None or (
            rule.methods is not None and rule.methods - {"HEAD"} <= other.methods - {"HEAD"} and _heads(rule, other)
        )
        if same_methods and _method_sets_overlap(other.path.split("/")[1:], rule.path.split("/")[1:]):
            node.warn(f"this rule never matches: {other.label} in line {other.line} comes first", "move or remove it")
            return


def _warn_of_variant(node: Node, rule: AccessRule, rules: list[AccessRule]) -> None:
    """Warn if requests for the rule's path are refused because of its variant with or without a trailing slash.

    That is the case if the variant matches another rule with a different requirement.
    """
    if "{" in rule.path or rule.path.endswith("*") or _first(rule.path, rule, rules) is not rule:
        return
    variant = rule.path[:-1] if rule.path.endswith("/") else rule.path + "/"
    other = _first(variant, rule, rules)
    if other is None or other is rule or other.require is Require.NOTHING:
        return
    requirements = [(one.require, one.connectors, one.parameter, one.grant) for one in (other, rule)]
    if requirements[0] != requirements[1]:
        remedy = "give both the same requirement, or set path_variants: allow for an app that tells them apart"
        node.warn(f"requests for it are refused: {variant} is under {other.label} in line {other.line}", remedy)


def _first(path: str, requested: AccessRule, rules: list[AccessRule]) -> AccessRule | None:
    """Return the first rule that matches the path, ignoring case, and a method of `requested`, or None."""
    method = min(requested.methods or {"GET"})
    segments = path.casefold().split("/")[1:]
    for rule in rules:
        if (rule.methods is None or method in rule.methods) and _method_sets_overlap(
            rule.path.casefold().split("/")[1:], segments
        ):
            return rule
    return None


def _heads(rule: AccessRule, other: AccessRule) -> bool:
    """Return True if `rule` does not list HEAD or `other` accepts it. A rule for GET also accepts HEAD."""
    assert rule.methods is not None
    assert other.methods is not None
    return "HEAD" not in rule.methods or bool(other.methods & {"GET", "HEAD"})


def _method_sets_overlap(wide: list[str], narrow: list[str]) -> bool:
    """Return True if every path that matches the pattern `narrow` also matches the pattern `wide`."""
    for position, segment in enumerate(wide):
        if segment == "*":
            return position < len(narrow)
        if position >= len(narrow) or narrow[position] == "*":
            return False
        if segment.startswith("{"):
            if not narrow[position]:
                return False
        elif segment != narrow[position]:
            return False
    return len(wide) == len(narrow)
