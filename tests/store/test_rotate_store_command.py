"""`keys rotate-store` as an operator runs it: a configuration, two keys, a store that is in use."""

from __future__ import annotations

import asyncio
import base64
import hashlib
from pathlib import Path

import pytest
import yaml

from akoya_gateway.cli.rotate_store import rotate_store
from akoya_gateway.config import load_config
from akoya_gateway.store import KeyRing, Record, Vault, open_store
from tests.config.making import ENVIRON, changed

OLD, NEW = (base64.b64encode(hashlib.sha256(name).digest()).decode() for name in (b"old", b"new"))


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Names both keys, the new one first."""
    for name, value in {**ENVIRON, "OLD_KEY": OLD, "NEW_KEY": NEW}.items():
        monkeypatch.setenv(name, value)
    file = tmp_path / "gateway.yaml"
    keys = [{"env": "NEW_KEY"}, {"env": "OLD_KEY"}]
    file.write_text(yaml.safe_dump(changed({"sessions.store": "sqlite:./var/50%25 off.db", "sessions.keys": keys})))
    return file


async def fill(config: Path, number: int) -> None:
    sessions = load_config(config).sessions
    vault = Vault(open_store(sessions.store), KeyRing(sessions.keys[1:]))
    await vault.open()
    for n in range(number):
        assert await vault.put(Record("grant", f"k{n}", b"plain", group="o"))
    await vault.close()


async def opened_by_the_new_key(config: Path) -> int:
    sessions = load_config(config).sessions
    vault = Vault(open_store(sessions.store), KeyRing(sessions.keys[:1]))
    await vault.open()
    found = await vault.find("grant", "o")
    await vault.close()
    return len(found)


def test_the_store_is_sealed_anew_and_the_operator_is_told(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asyncio.run(fill(config, 30))
    assert rotate_store(config) == 0
    told = " ".join(capsys.readouterr().err.split())
    assert "30 records looked at, 30 sealed anew" in told
    assert "may be removed" in told
    assert asyncio.run(opened_by_the_new_key(config)) == 30
    assert (config.parent / "var" / "50%25 off.db").exists(), "the path is taken as it is written"
    assert rotate_store(config) == 0
    assert "0 sealed anew" in " ".join(capsys.readouterr().err.split())


def test_a_key_that_is_missing_is_named_and_the_exit_code_tells(
    config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asyncio.run(fill(config, 3))
    missing = load_config(config).sessions.keys[1].id
    config.write_text(config.read_text().replace("  - env: OLD_KEY\n", ""))
    assert rotate_store(config) == 1
    assert f"3 records need key {missing}" in " ".join(capsys.readouterr().err.split())


def test_a_store_that_is_unavailable_is_said_in_one_line(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (config.parent / "var").write_text("a file")
    assert rotate_store(config) == 1
    told = capsys.readouterr().err
    assert "cannot be created" in told
    assert "Traceback" not in told
