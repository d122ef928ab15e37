"""The lists of client headers in the files of deploy/, made from akoya_gateway/client_header_names.py.

`python -m tests.support.client_header_lists` writes them. In each file the list is between two comments. Each proxy gets
patterns where it has them; nginx and Traefik's `headers` middleware have none, so they get `IN_FAMILIES` instead.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from akoya_gateway.client_header_names import (
    FROM_PROXIES,
    IN_FAMILIES,
    MOVES_PREFIXES,
    MOVES_SUFFIXES,
    MOVES_THE_REQUEST,
    PROXY_PREFIXES,
    PROXY_SUFFIXES,
)

DEPLOY = Path(__file__).parents[2] / "deploy"
BEGIN, END = "# Made by python -m tests.support.client_header_lists:", "# End of the list."
MAX_CHARACTERS = 1000
PUNCTUATION = "!#$%&'*+.^`|~"
"""The characters of header names (RFC 9110 section 5.6.2) that a server may take for `-`. `_` is handled beside them."""

_ALL_PREFIXES = [prefix.decode() for prefix in (*MOVES_PREFIXES, *PROXY_PREFIXES) if prefix != b"-ws"]
PREFIXES = sorted(
    prefix for prefix in _ALL_PREFIXES if not any(prefix != each and prefix.startswith(each) for each in _ALL_PREFIXES)
)
SUFFIXES = sorted(suffix.decode() for suffix in (*MOVES_SUFFIXES, *PROXY_SUFFIXES))
NAMES = sorted(
    name
    for name in ["x-request-id", *(name.decode() for name in MOVES_THE_REQUEST | FROM_PROXIES)]
    if not name.startswith(tuple(PREFIXES)) and not name.endswith(tuple(SUFFIXES))
)
_TRAEFIKS_OWN = {
    "x-forwarded-method", "x-forwarded-port", "x-forwarded-server", "x-forwarded-tls-client-cert",
    "x-forwarded-tls-client-cert-info", "x-forwarded-uri", "x-real-ip",
}  # fmt: skip
"""Set by Traefik itself on the client's request or on its own to the gateway, and never taken from a client."""
_NEEDED_IN_TRAEFIK = re.compile("user|forwarded|script|path-info")
"""Names whose spelling with `_` the gateway would refuse, because an operator may have named one in `identity.header`."""


def listed() -> list[str]:
    """Return the names in the files of proxies without patterns."""
    return sorted({*NAMES, *(name.decode() for name in MOVES_THE_REQUEST | FROM_PROXIES | IN_FAMILIES)})


def _title(name: str) -> str:
    return "-".join(word.capitalize() for word in name.split("-"))


def _groups(names: list[str]) -> Iterator[str]:
    """Yield alternatives of regular expressions, each of at most `MAX_CHARACTERS`."""
    group: list[str] = []
    for name in names:
        if len("|".join([*group, name])) > MAX_CHARACTERS:
            yield "|".join(group)
            group = []
        group.append(name)
    yield "|".join(group)


def other_than(words: list[str]) -> str:
    """Return a regular expression, without lookahead, for every text that is not one of the words or empty."""
    first = sorted({word[0] for word in words if word})
    options = [f"[^{''.join(first)}].*"] if first else [".+"]
    for letter in first:
        rest = [word[1:] for word in words if word[:1] == letter]
        options.append(f"{letter}({other_than(rest)}){'?' if '' not in rest else ''}")
    return "|".join(options)


def nginx() -> list[str]:
    return [f'proxy_set_header {_title(name)} "";' for name in listed()]


def caddy() -> list[str]:
    patterns = [
        *(f"*{mark}*" for mark in f"_{PUNCTUATION}"),
        *(f"{_title(prefix[:-1])}*" for prefix in PREFIXES),
        *(f"*-{_title(suffix[1:])}" for suffix in SUFFIXES),
    ]
    return [f"\trequest_header -{pattern}" for pattern in [*patterns, *map(_title, NAMES)]]


def envoy() -> list[str]:
    matchers = [
        *(f'contains: "{mark}"' for mark in PUNCTUATION),
        *(f"prefix: {prefix}" for prefix in PREFIXES if prefix != "x-forwarded-"),
        *(f"suffix: {suffix}" for suffix in SUFFIXES if suffix not in ("-forwarded-for", "-forwarded-proto")),
        # All of `x-forwarded-` but the two that Envoy sets: it limits the size of a regular expression.
        *(f'safe_regex: {{regex: "x-forwarded-{part}"}}' for part in (
            "[^fp].*", "(f[^o].*|fo[^r].*|for.+)", "(p[^r].*|pr[^o].*|pro[^t].*)", "prot([^o].*|o.+)",
        )),
        *(f'safe_regex: {{regex: "{part}-forwarded-(for|proto)"}}' for part in ("[^x].*", "x[^-].*", "x-.+")),
    ]  # fmt: skip
    indent = " " * 26
    lines = [f"{indent}- remove_on_match: {{key_matcher: {{{matcher}}}}}" for matcher in matchers]
    return [*lines, *(f"{indent}- remove: {name}" for name in NAMES)]


def haproxy() -> list[str]:
    # Header names are in lower case here, and a line of the file may have 2,048 characters.
    expressions = [
        "[^a-z0-9-]",
        *(f"^({group})" for group in _groups(PREFIXES)),
        f"({'|'.join(SUFFIXES)})$",
        *(f"^({group})$" for group in _groups(NAMES)),
    ]
    return [f"    http-request del-header {expression} -m reg" for expression in expressions]


def traefik() -> list[str]:
    names = [name for name in listed() if name not in _TRAEFIKS_OWN]
    spelled = [_title(name).replace("-", "_") for name in names if "-" in name and _NEEDED_IN_TRAEFIK.search(name)]
    return [f'          {name}: ""' for name in [*map(_title, names), *spelled]]


def traefik_expression() -> list[str]:
    own = ["for", "host", "port", "proto", "server", "tls-client-cert", "tls-client-cert-info"]
    prefixes = "|".join(prefix for prefix in PREFIXES if prefix != "x-forwarded-")
    described = ("-forwarded-for", "-forwarded-host", "-forwarded-proto")
    suffixes = "|".join(suffix for suffix in SUFFIXES if suffix not in described)
    expression = (
        f"(?i)^(akoya.*|signature(-input)?|.*[^a-z0-9-].*|({prefixes}).*|.*({suffixes})"
        f"|([^x].*|x[^-].*|x-.+)-forwarded-(for|host|proto)|x-forwarded-({other_than(own)}))$"
    )
    return [f'        authResponseHeadersRegex: "{expression}"']


def envoy_gateway() -> list[dict[str, str]]:
    """Return the matchers of `removeOnMatch`. Envoy Gateway allows 64, of at most 1,024 characters each."""
    return [
        {"type": "Prefix", "value": "akoya"},
        {"type": "RegularExpression", "value": "signature([-.]input)?"},
        {"type": "Exact", "value": "x-akoya-answer"},
        # Other spellings of names that servers fold, and WebSphere's `$WSRU`.
        {"type": "RegularExpression", "value": ".*[^a-z0-9:_-].*"},
        *({"type": "RegularExpression", "value": f"({group}).*"} for group in _groups(PREFIXES)),
        {"type": "RegularExpression", "value": f".*({'|'.join(SUFFIXES)})"},
        *({"type": "RegularExpression", "value": group} for group in _groups(NAMES)),
    ]


def _envoy_gateway_lines() -> list[str]:
    return [f"        - {{type: {one['type']}, value: '{one['value']}'}}" for one in envoy_gateway()]


FILES = {
    "nginx/akoya-client-headers.conf": [nginx],
    "caddy/client-headers.caddy": [caddy],
    "envoy/envoy.yaml": [envoy],
    "haproxy/haproxy.cfg": [haproxy],
    "traefik/dynamic.yaml": [traefik, traefik_expression],
    "kubernetes/envoy-gateway.yaml": [_envoy_gateway_lines],
}


def with_lists(name: str, text: str) -> str:
    """Return the text of a file in deploy/ with its lists as they should be."""
    lists = iter(FILES[name])
    kept: list[str] = []
    inside = False
    for line in text.split("\n"):
        inside = inside and line.strip() != END
        if not inside:
            kept.append(line)
        if line.strip() == BEGIN:
            kept += next(lists)()
            inside = True
    assert next(lists, None) is None, f"{name} has no place for a list"
    return "\n".join(kept)


if __name__ == "__main__":
    for name in FILES:
        path = DEPLOY / name
        path.write_text(with_lists(name, path.read_text()))
