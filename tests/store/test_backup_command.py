"""`akoya-gateway store backup` and `restore` as an operator runs them, from one kind of store to another."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import stat
import time
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner, Result

from akoya_gateway.cli import app
from akoya_gateway.config import load_config
from akoya_gateway.store import EncryptedStore, Keyring, Record, open_store
from tests.support.config_documents import ENVIRON, changed
from tests.support.redis_servers import RedisServer
from tests.support.tiny_disk import fill, tiny_disk

__all__ = ["tiny_disk"]

RECORDS = (
    Record("grant", "k1", b"a refresh token", group="owner"),
    Record("grant", "k2", b"another", group="owner", expires_at=time.time() + 3600),
    Record("session", "s1", b"a session"),
)


@pytest.fixture(autouse=True)
def _environ(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GATEWAY_KEY", ENVIRON["GATEWAY_KEY"])


def configured(folder: Path, url: str) -> Path:
    folder.mkdir(exist_ok=True)
    file = folder / "gateway.yaml"
    file.write_text(yaml.safe_dump(changed({"sessions.store": url})))
    return file


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["store", *map(str, arguments)])


def opened(config: Path) -> EncryptedStore:
    sessions = load_config(config, secrets=(("sessions",),)).sessions
    return EncryptedStore(open_store(sessions.store), Keyring(sessions.keys))


def write(config: Path, *records: Record) -> None:
    async def all_of_them() -> None:
        store = opened(config)
        await store.open()
        for record in records:
            assert await store.put(record)
        await store.close()

    asyncio.run(all_of_them())


def content(config: Path) -> dict[tuple[str, str], Record]:
    async def read() -> dict[tuple[str, str], Record]:
        store = opened(config)
        await store.open()
        found = {(kind, one.key): one for kind in await store.store.kinds() async for one in store.scan(kind)}
        await store.close()
        return found

    return asyncio.run(read())


def test_backup_of_one_store_is_restored_into_another_kind_of_store(own_redis: RedisServer, tmp_path: Path) -> None:
    sqlite = configured(tmp_path / "from", f"sqlite://{tmp_path}/from.db")
    redis = configured(tmp_path / "to", own_redis.url)
    write(sqlite, *RECORDS)
    file = tmp_path / "store.backup"
    # Another backup to the same file, which is still being written.
    other = tmp_path / "store.backup.partial"
    other.write_text("half of it")
    done = run("backup", file, "--config", sqlite)
    assert done.exit_code == 0, done.output
    assert "3 records written" in done.output
    assert other.read_text() == "half of it"
    other.unlink()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert b"refresh token" not in file.read_bytes(), "records stay encrypted"
    assert [path.name for path in tmp_path.glob("store.backup*")] == ["store.backup"]
    done = run("restore", file, "--config", redis)
    assert done.exit_code == 0, done.output
    assert "3 of 3 records restored" in done.output
    found = content(redis)
    assert {key: (one.body, one.group) for key, one in found.items()} == {
        (one.kind, one.key): (one.body, one.group) for one in RECORDS
    }
    assert found["grant", "k2"].expires_at == pytest.approx(RECORDS[1].expires_at, abs=1)


def test_restore_keeps_records_that_changed_since_the_backup(tmp_path: Path) -> None:
    config = configured(tmp_path, f"sqlite://{tmp_path}/grants.db")
    write(config, *RECORDS)
    file = tmp_path / "store.backup"
    assert run("backup", file, "--config", config).exit_code == 0
    write(config, Record("grant", "k1", b"a rotated refresh token", 2, "owner"))

    async def remove() -> None:
        store = opened(config)
        await store.open()
        assert await store.delete("session", "s1")
        await store.close()

    asyncio.run(remove())
    done = run("restore", file, "--config", config)
    assert "1 of 3 records restored" in done.output
    found = content(config)
    assert found["grant", "k1"].body == b"a rotated refresh token"
    assert found["session", "s1"].body == b"a session"


def test_damaged_backup_restores_nothing_and_the_line_is_named(tmp_path: Path) -> None:
    config = configured(tmp_path / "a", f"sqlite://{tmp_path}/a.db")
    write(config, *RECORDS)
    file = tmp_path / "store.backup"
    assert run("backup", file, "--config", config).exit_code == 0
    empty = configured(tmp_path / "b", f"sqlite://{tmp_path}/b.db")
    lines = file.read_text().splitlines(keepends=True)
    record = json.loads(lines[1])
    faults = {
        "".join(lines[:-1]): "line 5: the file was cut off",
        "".join(lines)[:-30]: "line 4: not a JSON object",
        "".join([lines[0], *lines[2:]]): "says 3 records, but there are 2",
        "".join(lines[1:]): "line 1: not a backup",
        "": "line 1: the file was cut off",
        "[]\n": "line 1: not a JSON object",
        "".join([lines[0], json.dumps({**record, "body": "*"}) + "\n", *lines[2:]]): "line 2: not a record",
        "".join([lines[0], json.dumps({**record, "key": 1}) + "\n", *lines[2:]]): "line 2: not a record",
        # Accepted by JSON, and by no store: the records before would be restored, and then the command would fail.
        "".join([*lines[:2], json.dumps({**record, "key": "\ud800"}) + "\n", lines[3]]): "line 3: not a record",
        "".join([*lines[:2], json.dumps({**record, "expires_at": 10**400}) + "\n", lines[3]]): "line 3: not a record",
        "".join([*lines[:2], json.dumps({**record, "expires_at": float("nan")}) + "\n"]): "line 3: not a record",
        "".join([*lines[:2], json.dumps({**record, "expires_at": float("inf")}) + "\n"]): "line 3: not a record",
        "".join([lines[0], "[" * 100_000 + "\n"]): "line 2: not a JSON object",
    }
    for text, reason in faults.items():
        damaged = tmp_path / "damaged"
        damaged.write_text(text)
        done = run("restore", damaged, "--config", empty)
        assert (done.exit_code, reason in done.output) == (1, True), (reason, done.output)
        assert content(empty) == {}
    (tmp_path / "damaged").write_bytes(b"\xff\xfe")
    assert "not a backup" in run("restore", tmp_path / "damaged", "--config", empty).output


def test_backup_never_overwrites_and_leaves_nothing_of_a_failed_one(tmp_path: Path) -> None:
    config = configured(tmp_path, f"sqlite://{tmp_path}/grants.db")
    write(config, *RECORDS)
    file = tmp_path / "store.backup"
    file.write_text("precious")
    done = run("backup", file, "--config", config)
    assert (done.exit_code, "already exists" in done.output) == (1, True)
    assert file.read_text() == "precious"
    away = configured(tmp_path / "away", "redis://127.0.0.1:1/?timeout=0.2")
    done = run("backup", tmp_path / "other", "--config", away)
    assert done.exit_code == 1
    assert not (tmp_path / "other").exists()
    done = run("backup", tmp_path / "no" / "folder", "--config", config)
    assert (done.exit_code, "No such file or directory" in done.output) == (1, True)


def test_backup_on_a_full_disk_fails_and_leaves_nothing(tmp_path: Path, tiny_disk: Path) -> None:
    config = configured(tmp_path, f"sqlite://{tmp_path}/grants.db")
    write(config, *RECORDS)
    fill(tiny_disk)
    done = run("backup", tiny_disk / "store.backup", "--config", config)
    assert (done.exit_code, "No space left on device" in done.output) == (1, True), done.output
    assert [path.name for path in tiny_disk.iterdir()] == ["ballast"]


def test_backup_on_a_file_system_without_links_is_complete(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = configured(tmp_path, f"sqlite://{tmp_path}/grants.db")
    write(config, *RECORDS)

    def no_links(*_: object) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", no_links)
    file = tmp_path / "store.backup"
    assert run("backup", file, "--config", config).exit_code == 0
    assert len(file.read_text().splitlines()) == 5
    assert [path.name for path in tmp_path.glob("store.backup*")] == ["store.backup"]


@pytest.mark.parametrize(("url", "reason"), [
    ("memory://", "memory:// is the memory of the gateway's process, which a command cannot reach"),
    ("sqlite:none.db", "none.db; the gateway creates it when it starts"),
    (f"sqlite:{'n' * 300}.db", "n.db: cannot be created: File name too long"),
])  # fmt: skip
def test_command_without_a_store_to_work_on_fails_and_creates_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, url: str, reason: str
) -> None:
    """It used to report success: an empty backup, no grants, and that old keys may be removed."""
    for name, value in ENVIRON.items():
        monkeypatch.setenv(name, value)
    config = configured(tmp_path, url)
    file = tmp_path / "store.backup"
    for command in (
        ["store", "backup", str(file)],
        ["keys", "rotate-store"],
        ["grants", "list"],
        ["grants", "revoke", "g_abcdef", "--yes"],
    ):
        done = CliRunner().invoke(app, [*command, "--config", str(config)])
        assert (done.exit_code, reason in done.output) == (1, True), done.output
    assert [path.name for path in tmp_path.iterdir()] == ["gateway.yaml"]


def test_restore_into_memory_is_refused_and_into_a_new_database_is_not(tmp_path: Path) -> None:
    source, target = configured(tmp_path / "source", "sqlite:a.db"), configured(tmp_path / "target", "sqlite:b.db")
    write(source, *RECORDS)
    file = tmp_path / "store.backup"
    assert run("backup", file, "--config", source).exit_code == 0
    refused = run("restore", file, "--config", configured(tmp_path / "memory", "memory://"))
    assert (refused.exit_code, "which a command cannot reach" in refused.output) == (1, True)
    assert run("restore", file, "--config", target).exit_code == 0
    assert (tmp_path / "target" / "b.db").exists()
