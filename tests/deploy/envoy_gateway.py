"""The list `removeOnMatch` of deploy/kubernetes/envoy-gateway.yaml, made from akoya_gateway/client_headers.py.

Print it with `python -m tests.deploy.envoy_gateway`. Envoy Gateway allows 64 entries of at most 1,024 characters.
"""

from __future__ import annotations

import yaml

from akoya_gateway.client_headers import _MOVES_PREFIXES, _PROXY_PREFIXES, FROM_PROXIES, MOVES_THE_REQUEST

MAX_CHARACTERS = 1000


def matchers() -> list[dict[str, str]]:
    """Return the matchers: each removes the headers whose whole name matches."""
    prefixes = sorted(prefix.decode() for prefix in (*_PROXY_PREFIXES, *_MOVES_PREFIXES) if prefix != b"-ws")
    names = [name.decode() for name in MOVES_THE_REQUEST | FROM_PROXIES]
    exact = sorted(name for name in names if not name.startswith(tuple(prefixes)))
    found = [
        {"type": "Prefix", "value": "akoya"},
        {"type": "RegularExpression", "value": "signature([-.]input)?"},
        {"type": "Exact", "value": "x-akoya-answer"},
        # Other spellings of names that servers fold, and WebSphere's `$WSRU`.
        {"type": "RegularExpression", "value": r".*[.$].*"},
        *({"type": "Prefix", "value": prefix} for prefix in prefixes),
    ]
    group: list[str] = []
    for name in [*exact, ""]:
        if not name or len("|".join([*group, name])) > MAX_CHARACTERS:
            found.append({"type": "RegularExpression", "value": "|".join(group)})
            group = []
        group.append(name)
    return found


if __name__ == "__main__":
    print(yaml.safe_dump(matchers(), width=120, sort_keys=False), end="")
