"""`keys rotate-store` as an operator runs it: with a configuration, two keys, and a store in use."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import os
import pty
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from akoya_gateway.cli.rotate_store import rotate_store
from akoya_gateway.config import ConfigurationError, load_config
from akoya_gateway.store import EncryptedStore, Keyring, Record, open_store
from tests.support.config_documents import ENVIRON, changed

OLD, NEW = (base64.b64encode(hashlib.sha256(name).digest()).decode() for name in (b"old", b"new"))


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A configuration with both keys, the new one first."""
    for name, value in {**ENVIRON, "OLD_KEY": OLD, "NEW_KEY": NEW}.items():
        monkeypatch.setenv(name, value)
    file = tmp_path / "gateway.yaml"
    keys = [{"env": "NEW_KEY"}, {"env": "OLD_KEY"}]
    file.write_text(yaml.safe_dump(changed({"sessions.store": "sqlite:./var/50%25 off.db", "sessions.keys": keys})))
    return file


async def fill(config: Path, number: int) -> None:
    sessions = load_config(config).sessions
    store = EncryptedStore(open_store(sessions.store), Keyring(sessions.keys[1:]))
    await store.open()
    for start in range(0, number, 500):
        records = [Record("grant", f"k{n}", b"plain", group="o") for n in range(start, min(start + 500, number))]
        assert all(await asyncio.gather(*map(store.put, records)))
    await store.close()


async def opened_by_the_new_key(config: Path) -> int:
    sessions = load_config(config).sessions
    store = EncryptedStore(open_store(sessions.store), Keyring(sessions.keys[:1]))
    await store.open()
    found = await store.find("grant", "o")
    await store.close()
    return len(found)


def test_store_is_re_encrypted_and_the_result_is_printed(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asyncio.run(fill(config, 30))
    assert rotate_store(config) == 0
    output = " ".join(capsys.readouterr().err.split())
    assert "30 records checked, 30 re-encrypted" in output
    assert "may be removed" in output
    assert asyncio.run(opened_by_the_new_key(config)) == 30
    assert (config.parent / "var" / "50%25 off.db").exists(), "the path is used as written"
    assert rotate_store(config) == 0
    assert "0 re-encrypted" in " ".join(capsys.readouterr().err.split())


def test_on_a_terminal_a_bar_grows_and_what_ctrl_c_left_is_done_by_the_next_run(config: Path) -> None:
    asyncio.run(fill(config, 20_000))
    first = Terminal(config)
    first.until(rb" [1-9]\d*/20000")
    first.interrupt()
    code, output = first.end()
    assert code == 1
    assert b"Interrupted. What was done is done" in output
    done = asyncio.run(sealed_anew(config))
    assert 0 < done < 20_000
    code, output = Terminal(config).end()
    assert code == 0
    assert b"20000/20000" in output
    assert b"20000 records checked, %d re-encrypted" % (20_000 - done) in output
    assert asyncio.run(sealed_anew(config)) == 20_000


class Terminal:
    """The command, running in its own pseudo-terminal."""

    def __init__(self, config: Path) -> None:
        self._ours, theirs = pty.openpty()
        command = [sys.executable, "-m", "akoya_gateway", "keys", "rotate-store", "--config", str(config)]
        self._process = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True)
        os.close(theirs)
        self._told = b""

    def until(self, pattern: bytes) -> None:
        while not re.search(pattern, self._told):
            assert self._read(), self._told

    def interrupt(self) -> None:
        self._process.send_signal(signal.SIGINT)

    def end(self) -> tuple[int, bytes]:
        while self._read():
            pass
        os.close(self._ours)
        return self._process.wait(60), self._told

    def _read(self) -> bytes:
        """Read some output. Empty when the command has ended (on Linux the read then fails with EIO)."""
        try:
            output = os.read(self._ours, 65_536)
        except OSError:
            output = b""
        self._told += output
        return output


async def sealed_anew(config: Path) -> int:
    sessions = load_config(config).sessions
    store = open_store(sessions.store)
    await store.open()
    keyring = Keyring(sessions.keys)
    done = sum([not keyring.needs_reencryption(record.body) async for record in store.scan("grant")])
    await store.close()
    return done


def test_missing_key_is_named_and_exits_with_the_status(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asyncio.run(fill(config, 3))
    missing = load_config(config).sessions.keys[1].id
    config.write_text(config.read_text().replace("  - env: OLD_KEY\n", ""))
    assert rotate_store(config) == 1
    assert f"3 records need key {missing}" in " ".join(capsys.readouterr().err.split())


def test_store_that_cannot_be_created_is_an_error_of_the_configuration(config: Path) -> None:
    (config.parent / "var").write_text("a file")
    with pytest.raises(ConfigurationError, match="the folder of the store cannot be created"):
        rotate_store(config)
