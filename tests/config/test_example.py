"""gateway.yaml and docs/configuration.md agree with the schema."""

from __future__ import annotations

import re
import secrets
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from akoya_gateway.cli import app
from akoya_gateway.config.loader import validate_config
from akoya_gateway.config.reference import reference
from akoya_gateway.config.schema_validation import load_schema

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "gateway.yaml"
SCHEMA = load_schema()


def test_example_is_fine_once_its_keys_are_made_and_the_variables_it_names_are_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = re.findall(r"^[^#\n]*?\{(?:id: \w+, )?env: (\w+)\}", EXAMPLE.read_text(), re.MULTILINE)
    assert set(names) == {"AKOYA_CLIENT_ID", "AKOYA_CLIENT_SECRET"}
    copy = tmp_path / "gateway.yaml"
    shutil.copy(EXAMPLE, copy)
    monkeypatch.chdir(tmp_path)
    for line in re.findall(r"^#   akoya-gateway (keys new .*--out \S+)", EXAMPLE.read_text(), re.MULTILINE):
        assert CliRunner().invoke(app, line.split()).exit_code == 0
    result = validate_config(copy, {name: secrets.token_hex(32) for name in names})
    assert result.diagnostics == ()
    assert result.config is not None
    assert result.config.sessions.store == f"sqlite://{tmp_path}/var/grants.db"


def test_editors_find_the_schema_from_its_first_line() -> None:
    first = EXAMPLE.read_text().splitlines()[0]
    match = re.fullmatch(r"# yaml-language-server: \$schema=(\S+)", first)
    assert match
    assert (ROOT / match[1]).is_file()


def _keys(node: Any) -> set[str]:
    """Return every key that any mapping of the schema has."""
    found: set[str] = set()
    if isinstance(node, dict):
        found |= set(node.get("properties", {}))
        for name, below in node.items():
            if name not in ("examples", "default"):
                found |= _keys(below)
    elif isinstance(node, list):
        for below in node:
            found |= _keys(below)
    return found


def test_example_names_every_key() -> None:
    text = EXAMPLE.read_text()
    assert {key for key in _keys(SCHEMA) if not re.search(rf"(?<![\w.]){key}\b", text)} == set()


def test_commented_keys_of_the_example_exist() -> None:
    top = set(yaml.safe_load(EXAMPLE.read_text()))
    top |= set(re.findall(r"^# ([a-z_]+):", EXAMPLE.read_text(), re.MULTILINE))
    assert top == set(SCHEMA["properties"])


def test_reference_is_up_to_date() -> None:
    page = (ROOT / "docs" / "configuration.md").read_text()
    assert page == reference(SCHEMA), "run: python -m akoya_gateway.config.reference > docs/configuration.md"


def test_reference_has_every_key() -> None:
    page = (ROOT / "docs" / "configuration.md").read_text()
    missing = {key for key in _keys(SCHEMA) if f"| `{key}` |" not in page}
    assert missing == set()
