"""Sessions, cookies, stores, and the bounds of tokens and limits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from akoya_gateway.config.model import Config
from tests.support.config_documents import ENVIRON, error_lines, validated, warning_lines

UNESCAPED = [
    "Tr0ub/4dor&3",
    "57#Wc903z",
    "p@ss:w/o#r?d%",
    "ab?cd/ef",
    "100%zz",
    "a b",
    "word@",
    "/",
    "#",
    "a[b]c",
    "6379/0",
]

LOOPBACK = {"public_url": "http://localhost:8080", "clients.demo-app.redirect_uri": "http://localhost:8080/cb"}


def _config(tmp_path: Path, changes: dict[str, Any], environ: dict[str, str] | None = None) -> Config:
    result = validated(tmp_path, changes, environ)
    assert result.config is not None, error_lines(result)
    return result.config


def test_cookie_is_host_bound_where_https_is(tmp_path: Path) -> None:
    cookie = _config(tmp_path, {}).sessions.cookie
    assert (cookie.name, cookie.secure) == ("__Host-akoya", True)


def test_prefix_is_dropped_on_loopback_http(tmp_path: Path) -> None:
    cookie = _config(tmp_path, LOOPBACK).sessions.cookie
    assert (cookie.name, cookie.secure) == ("akoya-8080", False), "browsers send cookies to every port of a host"
    assert _config(tmp_path, {**LOOPBACK, "sessions.cookie.name": "akoya"}).sessions.cookie.name == "akoya"
    result = validated(tmp_path, {**LOOPBACK, "sessions.cookie.name": "__Host-app"})
    assert result.config is not None
    assert result.config.sessions.cookie.name == "app"
    assert any(line.startswith("sessions.cookie.name: public_url is plain http") for line in warning_lines(result))


def test_relative_store_is_beside_the_configuration(tmp_path: Path) -> None:
    assert _config(tmp_path, {}).sessions.store == f"sqlite://{tmp_path}/var/grants.db"
    assert _config(tmp_path, {"sessions.store": "sqlite:g.db"}).sessions.store == f"sqlite://{tmp_path}/g.db"
    assert _config(tmp_path, {"sessions.store": "sqlite:///a/g.db"}).sessions.store == "sqlite:///a/g.db"


def test_store_with_a_password_comes_from_a_secret(tmp_path: Path) -> None:
    environ = {**ENVIRON, "STORE": "rediss://:pw@db/0"}
    assert _config(tmp_path, {"sessions.store": {"env": "STORE"}}, environ).sessions.store == "rediss://:pw@db/0"
    lines = error_lines(validated(tmp_path, {"sessions.store": {"env": "STORE"}}, {**ENVIRON, "STORE": "hunter2"}))
    assert lines[0].startswith("sessions.store: a store is sqlite:")
    assert "hunter2" not in lines[0]
    for text, remedy in (
        ('"redis://db"', "redis+cluster://, without quotes"),
        ("REDIS://db", "cluster://, in lower case"),
    ):
        lines = error_lines(validated(tmp_path, {"sessions.store": {"env": "STORE"}}, {**ENVIRON, "STORE": text}))
        assert lines[0].endswith(remedy)


@pytest.mark.parametrize("password", UNESCAPED)
def test_store_password_that_is_not_escaped_is_a_fault_that_does_not_show_it(tmp_path: Path, password: str) -> None:
    environ = {**ENVIRON, "STORE": f"redis://:{password}@cache.example.com:6379/0"}
    (line,) = error_lines(validated(tmp_path, {"sessions.store": {"env": "STORE"}}, environ))
    assert line == (
        "sessions.store: redis://\u2026 is not of the form redis://USER:PASSWORD@host:port/database; "
        "in user and password / ? # @ and % are percent-encoded (%2F %3F %23 %40 %25)"
    )


def test_memory_is_warned_of(tmp_path: Path) -> None:
    assert any(
        "lost at a restart" in line for line in warning_lines(validated(tmp_path, {"sessions.store": "memory://"}))
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sessions.cookie.name": "sid"}, "sessions.cookie.name: with https the name must begin with __Host-"),
        ({"sessions.cookie.idle": "31d"}, "sessions.cookie.idle: idle is longer than lifetime"),
        ({"sessions.cookie.same_site": "none"}, "sessions.cookie.same_site: expected one of lax, strict"),
        ({"sessions.store": "sqlite://relative.db"}, "sessions.store: `sqlite://` is followed by an absolute path"),
        ({"sessions.store": "redis://[::1/0"}, "sessions.store: redis://\u2026 is not of the form"),
        (
            {"sessions.store": "redis://h/x"},
            "sessions.store: redis://h/x: the path must end in the number of a database",
        ),
        ({"sessions.store": "redis+sentinel://a"}, "sessions.store: redis+sentinel://a: name the service"),
        ({"sessions.store": "redis://a?tiemout=1"}, "sessions.store: redis://a: no option 'tiemout'"),
        ({"sessions.store": "redis://:a/b@h"}, "sessions.store: a secret must not be written in this file"),
        ({"sessions.store": "sqlite:"}, "sessions.store: the store names no file"),
        ({"tokens.refresh_before": "15m"}, "tokens.refresh_before: is not shorter than assume_lifetime"),
        ({"tokens.leeway": "1h"}, "tokens.leeway: must be 10m or less"),
        ({"tokens.assume_lifetime": "0s"}, "tokens.assume_lifetime: must be more than 0"),
        ({"limits.attempt_lifetime": "16m"}, "limits.attempt_lifetime: must be 15m or less"),
        ({"limits.header_bytes": 10}, "limits.header_bytes: must be 4KiB to 1MiB"),
        ({"signing.expires": "0ms"}, "signing.expires: must be more than 0"),
    ],
)
def test_one_mistake_is_one_fault(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    lines = error_lines(validated(tmp_path, changes))
    assert [line for line in lines if line.startswith(message)], lines
    assert len(lines) == 1 or "assume_lifetime" in message, lines


def test_audience_is_the_upstream_unless_named(tmp_path: Path) -> None:
    assert _audiences(tmp_path, {}) == ["https://app.example.com"]
    upstreams = {
        "upstream": {"url": "http://127.0.0.1:3000"},
        "upstreams": {"reports": {"url": ["https://10.0.0.5", "https://10.0.0.6"]}},
        "access": [{"path": "/r", "require": "any", "upstream": "reports"}, {"path": "/*", "require": "any"}],
    }
    assert _audiences(tmp_path, upstreams) == ["https://10.0.0.5", "http://127.0.0.1:3000"]
    assert _audiences(tmp_path, {**upstreams, "signing.audience": "app"}) == ["app", "app"]


def _audiences(folder: Path, changes: dict[str, Any]) -> list[str]:
    """Return the audience under each access rule."""
    config = _config(folder, changes)
    return [config.audience(rule.upstream) for rule in config.access]


def test_tls_file_of_a_store_that_cannot_be_used_is_a_fault(tmp_path: Path) -> None:
    environ = {**ENVIRON, "STORE": "rediss://:hunter2@cache/0?ca=tls/ca.pem"}
    (line,) = error_lines(validated(tmp_path, {"sessions.store": {"env": "STORE"}}, environ))
    assert line == f"sessions.store: rediss://cache/0: `ca` {tmp_path}/tls/ca.pem does not exist or cannot be read"


@pytest.mark.parametrize(("store", "problem"), [
    ("sqlite::memory:", "`:memory:` would be the name of a file (write memory://"),
    ("sqlite:///:memory:", "`:memory:` would be the name of a file (write memory://"),
    ("sqlite:~/grants.db", "`~` is not expanded (write the whole path)"),
    ("sqlite:///~/grants.db", "`~` is not expanded (write the whole path)"),
    ("sqlite:$HOME/grants.db", "variables are not expanded"),
    ("sqlite:${STATE}/grants.db", "variables are not expanded"),
    ("sqlite:grants.db?timeout=5", "an SQLite store has no options (remove `?`"),
])  # fmt: skip
def test_path_that_other_programs_would_expand_is_refused(tmp_path: Path, store: str, problem: str) -> None:
    """SQLite would create files and folders of these names."""
    (line,) = error_lines(validated(tmp_path, {"sessions.store": store}))
    assert line.startswith(f"sessions.store: {problem}"), line
