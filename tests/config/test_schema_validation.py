"""Messages of schema validation, which never contain a secret."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.support.config_documents import REMOVED, error_lines, validated


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"version": 2}, "version: expected 1, not 2"),
        ({"version": REMOVED}, '"version" is missing (such as `version: 1`)'),
        ({"acess": []}, 'acess: unknown key "acess"'),
        ({"sesions": {}}, 'sesions: unknown key "sesions"'),
        ({"listen": 8080}, "listen: expected host:port (0.0.0.0:8080 is port 8080 of all addresses)"),
        ({"prefix": "/akoya/"}, "prefix: expected a path such as /akoya, without a slash at its end"),
        ({"tokens.refresh_before": 60}, "tokens.refresh_before: expected a duration with its unit"),
        ({"tokens.background": "yes"}, 'tokens.background: expected true or false, not "yes"'),
        ({"tokens": None}, "tokens: expected a mapping, but nothing is given"),
        ({"limits.header_bytes": "64kb"}, "limits.header_bytes: expected a size, such as 32KiB, 10MB"),
        ({"limits.attempts": 0}, "limits.attempts: must be 1 or more"),
        ({"logging.level": "warn"}, 'logging.level: expected one of debug, info, warning, error, not "warn"'),
        ({"environments": {}}, "environments: must have at least 1 entry"),
        ({"connectors": {"*bad": {"client": "demo-app"}}}, 'connectors.*bad: "*bad" cannot be used as a name'),
        ({"connectors": {"My Bank": {"client": "demo-app"}}}, 'connectors."My Bank": "My Bank" cannot be used'),
        ({"access.0.require": {"connector": None}}, "access[0].require: expected nothing, any"),
        ({"access.0.methods": ["get"]}, "access[0].methods[0]: expected an HTTP method in capitals"),
        ({"access.0": {"path": "/*"}}, 'access[0]: "require" is missing (such as `require: any`)'),
        ({"access": []}, "access: must have at least 1 item"),
        ({"upstream": {"url": "127.0.0.1:3000"}}, "upstream.url: expected one address or a list"),
        ({"upstream": {"url": "http://127.0.0.1:3000/base"}}, "upstream.url: expected one address or a list"),
        ({"upstream": {"url": ["http://127.0.0.1:1", 7]}}, "upstream.url[1]: expected http://host:port"),
        (
            {"clients.demo-app.scopes": "openid profile"},
            'clients.demo-app.scopes: expected a list, not "openid profile"',
        ),
        ({"clients.demo-app.client_id": 12}, "clients.demo-app.client_id: expected a text in quotes"),
        ({"clients.demo-app.redirect_uri": "/callback"}, "clients.demo-app.redirect_uri: expected a URL"),
        ({"sessions.cookie.name": "a b"}, "sessions.cookie.name: expected a cookie name"),
        ({"sessions.store": "postgres://x"}, "sessions.store: expected sqlite:path"),
        ({"environments.sandbox.issuer": 7}, "environments.sandbox.issuer: expected a URL"),
        (
            {"environments.sandbox.dialect": {"errors": [{"means": "dead_token"}]}},
            "environments.sandbox.dialect.errors[0]",
        ),
        ({"identity": {"jwt": {"issuer": "x"}}}, 'identity.jwt: "jwks_uri" is missing'),
        ({"connectors.mikomo.name": "a\nb"}, "connectors.mikomo.name: a line end or control character"),
        ({"clients.demo-app.scopes": ["openid\n", "offline_access"]}, "clients.demo-app.scopes[0]: a line end"),
    ],
)
def test_schema_violation_is_reported_in_plain_english(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    lines = error_lines(validated(tmp_path, changes))
    assert any(line.startswith(message) for line in lines), lines
    assert len([line for line in lines if not line.startswith("identity.jwt")]) <= 1, lines


@pytest.mark.parametrize(
    "secret",
    [
        "hunter2-hunter2",
        {"hunter2-hunter2": None},
        {"env": "hunter2-hunter2"},
        {"env": "X", "value": "hunter2-hunter2"},
        {"value": "hunter2-hunter2"},
        ["hunter2-hunter2"],
        {"env": ["hunter2-hunter2"]},
        {"env": "X", "file": "hunter2-hunter2"},
        {"env": {"hunter2-hunter2": "hunter2-hunter2"}},
    ],
)
@pytest.mark.parametrize("place", ["clients.demo-app.client_secret", "sessions.keys.0", "signing.keys.0"])
def test_literal_secret_is_refused_and_never_shown(tmp_path: Path, place: str, secret: object) -> None:
    result = validated(tmp_path, {place: secret})
    text = "\n".join(map(str, (*result.diagnostics, *result.warnings)))
    assert result.config is None
    assert len(result.diagnostics) == 1, text
    assert "hunter2" not in text
    assert "{env: NAME}" in text or "environment variable" in text or "{id: k1, env: NAME}" in text


def test_password_in_any_url_is_never_shown(tmp_path: Path) -> None:
    url = "https://user:hunter2@app.example.com"
    places: list[dict[str, Any]] = [
        {"public_url": url},
        {"upstream": {"url": url}},
        {"upstream": {"url": [url]}},
        {"clients.demo-app.redirect_uri": f"{url}/cb"},
        {"environments.sandbox.token_endpoint": f"{url}/token"},
        {"redirects.allow": [f"{url}/*"]},
        {"redirects.after_connect": f"{url}/x"},
        {"redirects.after_connect": f"x{url}"},
    ]
    for changes in places:
        lines = error_lines(validated(tmp_path, changes))
        assert lines
        assert "hunter2" not in "\n".join(lines), lines


def test_store_url_with_a_password_is_refused_and_never_shown(tmp_path: Path) -> None:
    for url in (
        "redis://:hunter2@db/0",
        "rediss://user:hunter2@db/0",
        "redis+sentinel://:hunter2@[::1/0",
        "redis://db/0?Password=hunter2",
    ):
        text = "\n".join(error_lines(validated(tmp_path, {"sessions.store": url})))
        assert "a secret must not be written in this file" in text
        assert "hunter2" not in text
