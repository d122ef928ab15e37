"""Generates `docs/advisories.md` from the tests: `python -m tests.advisories.page > docs/advisories.md`."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.advisories.advisory import Advisory
from tests.advisories.catalogue import CATALOGUE, UNNUMBERED
from tests.advisories.not_applicable import NOT_APPLICABLE

HERE = Path(__file__).parent
PAGE = HERE.parents[1] / "docs" / "advisories.md"
_INTRODUCTION = """# Advisories

Generated from `tests/advisories/` by `python -m tests.advisories.page > docs/advisories.md`. Edit the tests, not this page.

Published vulnerabilities of similar gateways and libraries, and what Akoya Gateway does about each. Each row is a test,
written from the published description. The entry points: **all** are the sidecar, the middleware and forward-auth behind
a real nginx; **core** is the code that all of them share; **sidecar** is the sidecar alone. Tests marked **+ URL** also
run against any other gateway:

```
pytest tests/advisories --gateway-url=http://127.0.0.1:4180 --protected-path=/accounts --public-path=/public/x
                        [--connect-path=/oauth2/start] [--callback-path=/oauth2/callback]
```

That gateway must return success for the public path, but not for the protected one. Tests that need a session are skipped.
"""


def marked() -> Iterator[tuple[Advisory, str, str]]:
    """Yield each marked test: the advisory, `module::name`, the entry points."""
    for path in sorted(HERE.glob("test_*.py")):
        module = importlib.import_module(f"tests.advisories.{path.stem}")
        for name, test in vars(module).items():
            if isinstance(found := getattr(test, "advisory", None), Advisory):
                yield found, f"{path.stem}.py::{name}", _entrypoints(test)


def _entrypoints(test: Any) -> str:
    arguments = set(inspect.signature(test).parameters)
    if "GatewayEnv(" in inspect.getsource(test):
        return "sidecar"
    if "target" not in arguments:
        return "core"
    return "all" if arguments & {"session", "browser"} else "all + URL"


def page() -> str:
    found = list(marked())
    lines = [_INTRODUCTION]
    for system, text in CATALOGUE.items():
        names = text.split() + [name for name in UNNUMBERED if _mentions(name, system)]
        lines += [
            f"## {system}\n",
            "| advisory | attack | what the gateway does | entry points | test |",
            "|---|---|---|---|---|",
        ]
        rows = [entry for entry in found if set(entry[0].ids) & set(names)]
        rows.sort(key=lambda entry: names.index(next(name for name in names if name in entry[0].ids)))
        for one, test, entrypoints in rows:
            ids = ", ".join(name for name in one.ids if name in names)
            lines.append(f"| {ids} | {_cell(one.attack)} | {_cell(one.ours)} | {entrypoints} | `{test}` |")
        lines.append("")
    lines += ["## Not applicable\n", "| advisory | attack | reason |", "|---|---|---|"]
    lines += [f"| {name} | {_cell(attack)} | {_cell(why)} |" for name, (attack, why) in NOT_APPLICABLE.items()]
    return "\n".join(lines) + "\n"


def _mentions(name: str, system: str) -> bool:
    return {
        "lua-resty-openidc default": "mod_auth",
        "Envoy oauth2 filter (2026)": "Envoy",
        "ALBeast (2024)": "Traefik",
    }[name] in system


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


if __name__ == "__main__":
    print(page(), end="")
