"""Configurations for tests: a small valid one, and helpers that validate changed versions of it."""

from __future__ import annotations

import base64
import copy
from pathlib import Path
from typing import Any

import yaml

from akoya_gateway.config.loader import ValidationResult, validate_config

RING_KEY = base64.b64encode(bytes(range(32))).decode()
ENVIRON = {
    "CLIENT_SECRET": "a-client-secret-for-tests",
    "GATEWAY_KEY": RING_KEY,
    "SIGNING_SECRET": "0123456789abcdef0123456789abcdef",
}
SMALL: dict[str, Any] = {
    "version": 1,
    "public_url": "https://app.example.com",
    "environments": {"sandbox": {"preset": "akoya-sandbox"}},
    "clients": {
        "demo-app": {
            "environment": "sandbox",
            "client_id": "demo",
            "client_secret": {"env": "CLIENT_SECRET"},
            "redirect_uri": "https://app.example.com/akoya/callback",
        }
    },
    "connectors": {"mikomo": {"client": "demo-app"}},
    "access": [{"path": "/*", "require": "any"}],
    "sessions": {"keys": [{"env": "GATEWAY_KEY"}]},
    "signing": {"algorithm": "hmac-sha256", "keys": [{"id": "k1", "env": "SIGNING_SECRET"}]},
}
REMOVED = "(removed)"


def changed(changes: dict[str, Any]) -> dict[str, Any]:
    """Return SMALL, changed at dotted paths (REMOVED deletes): `{"sessions.cookie.idle": "1h", "access.0.path": "/"}`."""
    data = copy.deepcopy(SMALL)
    for path, value in copy.deepcopy(changes).items():
        at: Any = data
        *above, last = path.split(".")
        for key in above:
            at = at[int(key)] if isinstance(at, list) else at.setdefault(key, {})
        if isinstance(at, list):
            at[int(last)] = value
        elif value == REMOVED:
            del at[last]
        else:
            at[last] = value
    return data


def validated(folder: Path, changes: dict[str, Any] | str, environ: dict[str, str] | None = None) -> ValidationResult:
    """Validate SMALL with changes, or a complete text."""
    file = folder / "gateway.yaml"
    file.write_text(changes if isinstance(changes, str) else yaml.safe_dump(changed(changes), sort_keys=False))
    return validate_config(file, ENVIRON if environ is None else environ)


def error_lines(result: ValidationResult) -> list[str]:
    """Return each diagnostic without its position: `path: message (remedy)`."""
    return [str(diagnostic).split(" ", 1)[1] for diagnostic in result.diagnostics]


def warning_lines(result: ValidationResult) -> list[str]:
    return [str(warning).split(" ", 1)[1] for warning in result.warnings]
