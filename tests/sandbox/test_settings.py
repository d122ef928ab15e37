"""Invalid settings are rejected when they are created."""

from __future__ import annotations

from typing import Any

import pytest

from akoya_gateway.sandbox import Audience, SandboxDialect, SandboxSettings


@pytest.mark.parametrize(
    "wrong",
    [
        {"alg": "none"},
        {"alg": "HS256"},
        {"clients": ()},
        {"base_url": "http://127.0.0.1:1/"},
        {"revoke_unknown_status": 500},
        {"dialect": "latin"},
        {"audience": "choir"},
    ],
)
def test_invalid_setting_raises_value_error(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r".+"):
        SandboxSettings(**wrong)


def test_enum_settings_accept_their_values() -> None:
    words: dict[str, Any] = {"dialect": "hydra", "audience": "string"}
    settings = SandboxSettings(**words)
    assert settings.dialect is SandboxDialect.HYDRA
    assert settings.audience is Audience.STRING
    assert not settings.audience_is_array


def test_client_secret_does_not_print() -> None:
    assert "sandbox~only" not in repr(SandboxSettings())
