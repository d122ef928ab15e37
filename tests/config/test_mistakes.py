"""Mistakes that people make in their first configuration: each is found, and the message says what to write instead."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import pytest
import yaml

from akoya_gateway.config.model import Seconds
from tests.support.config_documents import ENVIRON, changed, error_lines, validated, warning_lines


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"clients.demo-app.client_id": "${AKOYA_CLIENT_ID}"},
            "clients.demo-app.client_id: variables are not replaced in this file "
            "(write {env: AKOYA_CLIENT_ID} for a client_id or secret, and the value itself for anything else)",
        ),
        (
            {"connectors.mikomo.name": "$BANK"},
            "connectors.mikomo.name: variables are not replaced in this file "
            "(write {env: BANK} for a client_id or secret, and the value itself for anything else)",
        ),
        (
            {"access.0.path": "/api/**"},
            "access[0].path: `**` is not a pattern "
            "(write *: it stands for the rest of the path, also over several segments)",
        ),
        (
            {"listen": ":8080"},
            "listen: expected host:port (0.0.0.0:8080 is port 8080 of all addresses), [IPv6]:port or unix:/path, "
            'not ":8080"',
        ),
        (
            {"access.0.require": {"connector": None}},
            'not a mapping (put it in quotes: "{connector}")',
        ),
        (
            {"signing.keys": [{"file": "signing.pem"}], "signing.algorithm": "ed25519"},
            'there is no file "{folder}/signing.pem" (names are relative to the folder of this configuration; '
            "`akoya-gateway keys new --out signing.pem` makes one)",
        ),
        (
            {"signing.keys": [{"file": "secret.txt"}]},
            'there is no file "{folder}/secret.txt" (names are relative to the folder of this configuration; '
            "`akoya-gateway keys new --algorithm hmac-sha256 --out secret.txt` makes one)",
        ),
        (
            {"sessions.keys": [{"file": "store.key"}]},
            'there is no file "{folder}/store.key" (names are relative to the folder of this configuration; '
            "`akoya-gateway keys new --store --out store.key` makes one)",
        ),
        (
            {"sessions.store": {"file": "store-url"}},
            'there is no file "{folder}/store-url" (names are relative to the folder of this configuration)',
        ),
        (
            {"sessions.store": "sqlite:gateway.yaml/grants.db"},
            'sessions.store: the folder of the store cannot be created: "{folder}/gateway.yaml" is not a folder',
        ),
    ],
)  # fmt: skip
def test_check_names_what_to_write_instead(changes: dict[str, Any], message: str) -> None:
    with tempfile.TemporaryDirectory() as folder:  # messages shorten longer paths, such as those of `tmp_path`
        (found,) = error_lines(validated(Path(folder), changes))
    assert message.replace("{folder}", folder) in found


def test_key_of_the_wrong_kind_is_reported_with_the_command_for_the_right_one(tmp_path: Path) -> None:
    pem = "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEIA\n-----END PRIVATE KEY-----\n"
    (found,) = error_lines(validated(tmp_path, {}, {**ENVIRON, "SIGNING_SECRET": pem}))
    assert "it is a PEM, not a shared secret (`akoya-gateway keys new --algorithm hmac-sha256` makes one)" in found


def test_variable_of_the_configuration_is_not_suggested_for_a_key(tmp_path: Path) -> None:
    changes = {"sessions.keys": [{"env": "AKOYA_GATEWAY_KEY"}]}
    (found,) = error_lines(validated(tmp_path, changes, {**ENVIRON, "AKOYA_GATEWAY_CONFIG": "gateway.yaml"}))
    assert "(set it; `akoya-gateway keys new --store` makes one)" in found


def test_unquoted_braces_are_reported_with_the_quoted_form(tmp_path: Path) -> None:
    text = yaml.safe_dump(changed({})).replace("- path: /*", "- {path: /api/{bank}/*, require: any}\n- path: /*")
    (found,) = map(str, validated(tmp_path, text).diagnostics)
    assert 'quote texts with braces, such as "/api/{connector}/*" and "{connector}"' in found


def test_section_for_anchors_is_ignored(tmp_path: Path) -> None:
    text = "x-times: &idle {idle: 2h}\n" + yaml.safe_dump(changed({"sessions.cookie": "IDLE"})).replace("IDLE", "*idle")
    result = validated(tmp_path, text)
    assert error_lines(result) == []
    assert result.config is not None
    assert result.config.sessions.cookie.idle == Seconds(7200)
    assert error_lines(validated(tmp_path, {"y-times": {}})) != []


@pytest.mark.parametrize(
    ("changes", "warns"),
    [
        ({"upstream.url": "http://127.0.0.1:3000"}, True),
        ({"upstream.url": "http://127.0.0.1:3000", "trusted_proxies": ["127.0.0.1"]}, False),
        ({}, False),
        (
            {
                "public_url": "http://localhost:8080",
                "clients.demo-app.redirect_uri": "http://localhost:8080/akoya/callback",
                "upstream.url": "http://127.0.0.1:3000",
            },
            False,
        ),
    ],
)
def test_https_with_no_proxy_to_end_it_is_a_warning_for_a_sidecar(
    tmp_path: Path, changes: dict[str, Any], warns: bool
) -> None:
    message = (
        "public_url: https, but the gateway does not end TLS, and no proxy in front of it is trusted "
        "(list the proxy that terminates TLS in trusted_proxies)"
    )
    assert (message in warning_lines(validated(tmp_path, changes))) is warns
