"""`load_config`: the example of the design, a single source of defaults, and all or nothing."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import pytest

from akoya_gateway.config import ConfigurationError, load_config
from akoya_gateway.config.model import Cookie, Dialect, Limits, Listen, Logging, Tokens, Upstream
from akoya_gateway.config.presets import DEFAULT_ERRORS
from tests.support.config_documents import ENVIRON, error_lines, validated

DESIGN = (Path(__file__).with_name("design.yaml")).read_text()


def test_design_s_example_loads(tmp_path: Path) -> None:
    result = validated(tmp_path, DESIGN)
    assert result.config is not None, error_lines(result)
    config = result.config
    assert str(config.public_url) == "https://app.example.com"
    assert config.clients["demo-app"].redirect_uri == "https://app.example.com/akoya/callback"
    assert config.clients["demo-app"].callback_path == "/akoya/callback"
    assert config.environments["double"].jwks_uri == "http://127.0.0.1:9100/keys"
    assert [rule.path for rule in config.access] == ["/static/*", "/api/banks/{connector}/*", "/*"]
    assert [rule.line for rule in config.access] == [36, 37, 38]
    assert config.sessions.store == "sqlite:///var/lib/akoya-gateway/grants.db"
    assert config.sessions.cookie.lifetime == 30 * 86400.0
    assert config.source == tmp_path / "gateway.yaml"


def test_schema_s_defaults_are_the_model_s(tmp_path: Path) -> None:
    """`model` repeats some defaults for code that builds values without a file; they must be the same."""
    config = validated(tmp_path, {"upstream": {"url": "http://127.0.0.1:3000"}}).config
    assert config is not None
    assert config.tokens == Tokens()
    assert config.limits == Limits()
    assert config.logging == Logging()
    assert config.listen == Listen()
    assert config.sessions.cookie == Cookie("__Host-akoya", True)
    assert config.upstream == Upstream(config.upstream.origins) if config.upstream else False
    environment = config.environments["sandbox"]
    assert dataclasses.replace(environment.dialect, errors=()) == Dialect()
    assert environment.dialect.errors == DEFAULT_ERRORS
    assert (environment.timeout, environment.rate) == (15.0, 5.0)


def test_all_faults_come_in_one_error(tmp_path: Path) -> None:
    file = tmp_path / "gateway.yaml"
    file.write_text("version: 2\npublic_url: 7\n")
    with pytest.raises(ConfigurationError) as caught:
        load_config(file, {})
    assert len(caught.value.diagnostics) == 8  # two wrong values, six missing keys
    assert str(caught.value).splitlines() == [str(diagnostic) for diagnostic in caught.value.diagnostics]


def test_environment_is_the_process_s_by_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in ENVIRON.items():
        monkeypatch.setenv(name, value)
    validated(tmp_path, {})
    assert load_config(str(tmp_path / "gateway.yaml")).clients["demo-app"].client_id == "demo"


def test_same_file_gives_equal_configurations(tmp_path: Path) -> None:
    assert validated(tmp_path, DESIGN).config == validated(tmp_path, DESIGN).config


def test_model_alone_loads_no_parser() -> None:
    code = (
        "import sys, akoya_gateway.config.model;"
        "assert not {'yaml', 'jsonschema', 'cryptography', 'joserfc'} & set(sys.modules), 'loaded'"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env={"PATH": os.environ["PATH"]})
