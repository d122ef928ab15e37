"""SQLite failures: no acknowledged write is lost, every failure is reported as what it is, and the store recovers."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import random
import shutil
import signal
import sqlite3
import stat
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from akoya_gateway.config.model import EncryptionKey
from akoya_gateway.errors import StoreUnavailable, UndecryptableRecord
from akoya_gateway.store import DamagedRecord, EncryptedStore, Keyring, Record, open_store
from akoya_gateway.store.sqlite import SQLiteStore
from akoya_gateway.store.sqlite_database import APPLICATION_ID, MIGRATIONS
from tests.support.tiny_disk import tiny_disk

__all__ = ["tiny_disk"]

HELPER = """
import asyncio, sys
from akoya_gateway.store import Record
from akoya_gateway.store.sqlite import SQLiteStore

async def main(path, task, *rest):
    store = SQLiteStore(path, busy_timeout=20, write_timeout=60)
    await store.open()
    await globals()[task](store, *rest)
    await store.close()

async def write(store):
    async def one(lane):
        for n in range(100000):
            assert await store.put(Record("grant", f"{lane}-{n}", b"x" * 3000))
            print(f"{lane}-{n}", flush=True)
    await asyncio.gather(*[one(lane) for lane in range(4)])

async def take(store, number):
    for n in range(int(number)):
        if await store.take("attempt", f"a{n}") is not None:
            print(n, flush=True)

async def increase(store, number):
    done = 0
    while done < int(number):
        r = await store.get("grant", "counter")
        done += await store.put(Record("grant", "counter", str(int(r.body) + 1).encode(), r.version + 1))

async def nothing(store):
    pass

asyncio.run(main(*sys.argv[1:]))
"""


def helper(path: Path, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", HELPER, str(path), *arguments], stdout=subprocess.PIPE, text=True, cwd=Path.cwd()
    )


def grant(key: str = "k1", **changes: object) -> Record:
    return Record(**{"kind": "grant", "key": key, "body": b"sealed", **changes})  # type: ignore[arg-type]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "data" / "grants.db"


@pytest.fixture
async def sqlite(path: Path) -> AsyncIterator[SQLiteStore]:
    store = SQLiteStore(str(path), busy_timeout=0.2)
    await store.open()
    yield store
    await store.close()


@pytest.mark.parametrize("after", [1, 37, 150])
async def test_acknowledged_write_survives_a_kill(path: Path, after: int) -> None:
    process = helper(path, "write")
    assert process.stdout is not None
    acknowledged = [process.stdout.readline().strip() for _ in range(after)]
    process.send_signal(signal.SIGKILL)
    acknowledged += process.stdout.read().split()
    process.wait()
    process.stdout.close()
    store = SQLiteStore(str(path))
    await store.open()
    kept = {record.key async for record in store.scan("grant")}
    await store.close()
    # The kill may have truncated the last line.
    assert set(acknowledged[:-1]) <= kept
    assert len(acknowledged) >= after


async def test_of_several_processes_that_take_exactly_one_gets_each(sqlite: SQLiteStore, path: Path) -> None:
    await asyncio.gather(*[sqlite.put(Record("attempt", f"a{n}", b"x")) for n in range(100)])
    processes = [helper(path, "take", "100") for _ in range(3)]
    taken = [n for process in processes for n in process.communicate(timeout=60)[0].split()]
    assert sorted(map(int, taken)) == list(range(100))


async def test_no_increment_of_several_processes_is_lost(sqlite: SQLiteStore, path: Path) -> None:
    await sqlite.put(Record("grant", "counter", b"0"))
    processes = [helper(path, "increase", "40") for _ in range(3)]
    assert [await asyncio.to_thread(process.wait, 60) for process in processes] == [0, 0, 0]
    for process in processes:
        assert process.stdout is not None
        process.stdout.close()
    kept = await sqlite.get("grant", "counter")
    assert kept is not None
    assert (kept.body, kept.version) == (b"120", 121)


async def test_processes_that_start_together_on_no_file_agree(path: Path) -> None:
    processes = [helper(path, "nothing") for _ in range(4)]
    assert [process.communicate(timeout=60) and process.returncode for process in processes] == [0] * 4


async def test_stores_that_open_together_on_no_file_agree(tmp_path: Path) -> None:
    for n in range(15):
        stores = [SQLiteStore(str(tmp_path / str(n) / "grants.db")) for _ in range(8)]
        outcomes = await asyncio.gather(*[store.open() for store in stores], return_exceptions=True)
        assert outcomes == [None] * 8
        assert sorted(await asyncio.gather(*[store.put(grant()) for store in stores])) == [False] * 7 + [True]
        await asyncio.gather(*[store.close() for store in stores])


async def test_store_locked_by_another_program_is_unavailable_for_writes_until_it_lets_go(
    sqlite: SQLiteStore, path: Path
) -> None:
    assert await sqlite.put(grant())
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    ticks = 0

    async def tick() -> None:
        nonlocal ticks
        while True:
            await asyncio.sleep(0.01)
            ticks += 1

    ticking = asyncio.create_task(tick())
    outcomes = await asyncio.gather(*[sqlite.put(grant(f"n{n}")) for n in range(20)], return_exceptions=True)
    ticking.cancel()
    assert {type(outcome) for outcome in outcomes} == {StoreUnavailable}
    assert "locked by another process" in str(outcomes[0])
    assert ticks > 2, "the event loop kept running meanwhile"
    assert await sqlite.get("grant", "k1") == grant(), "readers are not blocked by a writer"
    with pytest.raises(StoreUnavailable):
        await sqlite.check()
    other.execute("ROLLBACK")
    other.close()
    assert await sqlite.put(grant("n1"))
    await sqlite.check()


async def test_link_to_a_file_that_does_not_exist_is_reported_as_such(tmp_path: Path) -> None:
    (tmp_path / "grants.db").symlink_to(tmp_path / "nowhere" / "grants.db")
    with pytest.raises(StoreUnavailable, match="is a symbolic link to a file that does not exist; correct the link"):
        await SQLiteStore(str(tmp_path / "grants.db")).open()


async def test_full_disk_is_reported_and_recovered_from(tiny_disk: Path) -> None:
    ballast = tiny_disk / "ballast"
    store = SQLiteStore(str(tiny_disk / "grants.db"), busy_timeout=0.2)
    await store.open()
    assert await store.put(grant("first"))
    ballast.write_bytes(b"x" * 1_000_000)
    written = ["first"]
    with pytest.raises(StoreUnavailable, match=r"disk is full|input/output"):
        for n in range(1000):
            assert await store.put(grant(f"k{n}", body=b"x" * 20_000))
            written.append(f"k{n}")
    assert await store.get("grant", "first") is not None
    ballast.unlink()
    assert await store.put(grant("after"))
    await store.check()
    await store.close()
    again = SQLiteStore(str(tiny_disk / "grants.db"))
    await again.open()
    assert {*written, "after"} <= {record.key async for record in again.scan("grant")}
    await again.close()


async def test_body_too_big_for_what_is_left_does_not_take_the_others_with_it(sqlite: SQLiteStore) -> None:
    pages = await sqlite._read(lambda c: c.execute("PRAGMA page_count").fetchone()[0])
    await sqlite._write(lambda c: c.execute(f"PRAGMA max_page_count = {pages + 20}").fetchone())
    puts = [sqlite.put(grant("a")), sqlite.put(grant("big", body=b"x" * 200_000)), sqlite.put(grant("b"))]
    first, big, last = await asyncio.gather(*puts, return_exceptions=True)
    assert (first, last) == (True, True)
    assert isinstance(big, StoreUnavailable)
    assert "disk is full" in big.detail
    assert await sqlite.count("grant") == 2


async def test_read_only_file_system_is_reported_and_recovered_from(tiny_disk: Path) -> None:
    store = SQLiteStore(str(tiny_disk / "grants.db"), busy_timeout=0.2)
    await store.open()
    assert await store.put(grant())
    await store.close()
    subprocess.run(["mount", "-o", "remount,ro", str(tiny_disk)], check=True)
    again = SQLiteStore(str(tiny_disk / "grants.db"), busy_timeout=0.2)
    with pytest.raises(StoreUnavailable, match="the file system is read-only"):
        await again.open()
    subprocess.run(["mount", "-o", "remount,rw", str(tiny_disk)], check=True)
    again = SQLiteStore(str(tiny_disk / "grants.db"), busy_timeout=0.2)
    await again.open()
    assert await again.get("grant", "k1") == grant()
    await again.close()


def spoil(path: Path) -> None:
    """Overwrite everything but the first page."""
    size = path.stat().st_size
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(os.urandom(size - 4096))


async def test_corrupt_pages_are_an_error_and_never_an_empty_result(path: Path) -> None:
    store = SQLiteStore(str(path))
    await store.open()
    await asyncio.gather(*[store.put(grant(f"k{n}", body=b"x" * 3000, group="o")) for n in range(200)])
    await store.close()
    backup = path.with_name("backup")
    shutil.copy(path, backup)
    spoil(path)
    store = SQLiteStore(str(path))
    with pytest.raises(StoreUnavailable, match="is damaged"):
        await store.open()
    shutil.copy(backup, path)
    store = SQLiteStore(str(path))
    await store.open()
    assert await store.count("grant") == 200
    await store.close()


async def test_page_that_is_corrupted_under_a_running_gateway_is_an_error_until_a_backup_is_there(path: Path) -> None:
    store = SQLiteStore(str(path))
    await store.open()
    await asyncio.gather(*[store.put(grant(f"k{n}", body=b"x" * 3000, group="o")) for n in range(800)])
    await store._write(lambda c: None)
    other = sqlite3.connect(path)
    other.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    other.close()
    backup = path.with_name("backup")
    shutil.copy(path, backup)
    spoil(path)
    with pytest.raises(StoreUnavailable, match="is damaged"):
        [record async for record in store.scan("grant")]
    with pytest.raises(StoreUnavailable):
        await store.find("grant", "o")
    backup.rename(path)
    assert await store.count("grant") == 800
    assert await store.put(grant("new"))
    await store.close()


async def test_altered_byte_in_the_file_never_yields_a_wrong_body(path: Path) -> None:
    keyring = Keyring([EncryptionKey("k", b"k" * 32)])
    store = EncryptedStore(SQLiteStore(str(path)), keyring)
    await store.open()
    bodies = {f"k{n}": os.urandom(1500) for n in range(40)}
    assert all(await asyncio.gather(*[store.put(grant(key, body=body)) for key, body in bodies.items()]))
    await store.close()
    whole = path.read_bytes()
    chance = random.Random(7)
    seen = 0
    for _ in range(60):
        altered = bytearray(whole)
        altered[chance.randrange(len(altered))] ^= chance.randrange(1, 256)
        path.write_bytes(altered)
        store = EncryptedStore(SQLiteStore(str(path)), keyring)
        try:
            await store.open()
            for key, body in bodies.items():
                record = await store.get("grant", key)
                assert record is None or record.body == body
                seen += record is not None
        except (StoreUnavailable, DamagedRecord, UndecryptableRecord):
            pass
        finally:
            await store.close()
            for suffix in ("-wal", "-shm"):
                Path(f"{path}{suffix}").unlink(missing_ok=True)
    assert seen


async def test_each_commit_is_synced(sqlite: SQLiteStore) -> None:
    full, write_ahead = (2,), ("wal",)
    assert await sqlite._write(lambda c: c.execute("PRAGMA synchronous").fetchone()) == full
    assert await sqlite._write(lambda c: c.execute("PRAGMA journal_mode").fetchone()) == write_ahead


@pytest.mark.parametrize("content", [b"not a database at all " * 400, b"SQLite format 3\0" + b"\xff" * 8000, b"x"])
async def test_file_that_is_no_database_is_refused_and_left_alone(path: Path, content: bytes) -> None:
    path.parent.mkdir()
    path.write_bytes(content)
    with pytest.raises(StoreUnavailable) as caught:
        await SQLiteStore(str(path)).open()
    assert str(path) in caught.value.detail
    assert path.read_bytes() == content


async def test_database_of_another_program_is_refused_and_left_alone(path: Path) -> None:
    path.parent.mkdir()
    other = sqlite3.connect(path)
    other.execute("CREATE TABLE theirs (x)")
    other.commit()
    with pytest.raises(StoreUnavailable, match="belongs to another program"):
        await SQLiteStore(str(path)).open()
    assert other.execute("SELECT name FROM sqlite_schema").fetchall() == [("theirs",)]
    other.close()


async def test_newer_schema_is_refused(sqlite: SQLiteStore, path: Path) -> None:
    await sqlite.close()
    other = sqlite3.connect(path)
    assert other.execute("PRAGMA application_id").fetchone() == (APPLICATION_ID,)
    other.execute(f"PRAGMA user_version = {len(MIGRATIONS) + 1}")
    other.close()
    with pytest.raises(StoreUnavailable, match="newer release"):
        await SQLiteStore(str(path)).open()


async def test_directory_in_the_place_of_the_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StoreUnavailable, match=str(tmp_path)):
        await SQLiteStore(str(tmp_path)).open()


@pytest.mark.parametrize("slashes", ["sqlite://", "sqlite:///", "sqlite:"])
async def test_path_may_be_written_with_any_number_of_slashes(tmp_path: Path, slashes: str) -> None:
    """SQLAlchemy writes `sqlite:////var/x.db`."""
    store = open_store(f"{slashes}{tmp_path}/a b?c#d%20.db")
    await store.open()
    await store.close()
    assert [each.name for each in tmp_path.iterdir()] == ["a b?c#d%20.db"]


async def test_directory_that_cannot_be_created_is_reported(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreUnavailable, match="cannot be created"):
        await SQLiteStore(str(tmp_path / "file" / "grants.db")).open()


async def test_limit_on_open_files_is_named(sqlite: SQLiteStore, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SQLite reports any failure to open a file as the same error."""
    fault = sqlite3.OperationalError("unable to open database file")
    fault.sqlite_errorname = "SQLITE_CANTOPEN"
    assert "look at the path" in sqlite._file.describe(fault).detail

    def limited(*_: object) -> int:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(os, "open", limited)
    assert "too many open files; raise the limit" in sqlite._file.describe(fault).detail


async def test_removed_file_is_an_error_until_one_is_there_again(sqlite: SQLiteStore, path: Path) -> None:
    assert await sqlite.put(grant())
    away = path.with_name("away.db")
    for suffix in ("", "-wal", "-shm"):
        Path(f"{path}{suffix}").rename(f"{away}{suffix}")
    for operation in (sqlite.get("grant", "k1"), sqlite.put(grant("k2")), sqlite.check()):
        with pytest.raises(StoreUnavailable, match="was removed"):
            await operation
    for suffix in ("", "-wal", "-shm"):
        Path(f"{away}{suffix}").rename(f"{path}{suffix}")
    assert await sqlite.get("grant", "k1") == grant()
    assert await sqlite.put(grant("k2"))


@pytest.mark.parametrize("removed", [("-wal",), ("-wal", "-shm"), ("-shm",)])
async def test_removed_log_costs_no_commit_when_the_process_is_killed(
    sqlite: SQLiteStore, path: Path, tmp_path: Path, removed: tuple[str, ...]
) -> None:
    assert await sqlite.put(grant("before"))
    for suffix in removed:
        Path(f"{path}{suffix}").unlink()
    assert await sqlite.put(grant("after"))
    assert await sqlite.get("grant", "before") is not None
    kept = tmp_path / "what a kill leaves"
    kept.mkdir()
    for suffix in ("", "-wal"):
        shutil.copy(f"{path}{suffix}", kept)
    with contextlib.closing(sqlite3.connect(kept / path.name)) as left:
        keys = left.execute("SELECT key FROM record WHERE kind = 'grant' ORDER BY key").fetchall()
        assert keys == [("after",), ("before",)]
        assert left.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


async def test_file_and_directory_are_private_when_we_make_them(sqlite: SQLiteStore, path: Path) -> None:
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    for file in path.parent.iterdir():
        assert stat.S_IMODE(file.stat().st_mode) == 0o600, file


async def test_world_writable_directory_is_warned_about(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    tmp_path.chmod(0o777)
    store = SQLiteStore(str(tmp_path / "grants.db"))
    with caplog.at_level(logging.WARNING):
        await store.open()
    await store.close()
    assert "every user" in caplog.text


async def test_ended_records_are_purged_from_the_file(path: Path) -> None:
    now = 1000.0
    store = SQLiteStore(str(path), lambda: now)
    await store.open()
    await asyncio.gather(*[store.put(grant(f"k{n}", expires_at=1010.0)) for n in range(700)])
    now = 1100.0
    for n in range(3):
        assert await store.put(grant(f"new{n}"))
    await store.close()
    other = sqlite3.connect(path)
    assert other.execute("SELECT count(*) FROM record").fetchone() == (3,)
    other.close()


async def test_value_that_sqlite_rejects_affects_no_other_write(sqlite: SQLiteStore) -> None:
    puts = [sqlite.put(grant("a")), sqlite.put(grant("\ud800")), sqlite.put(grant("b", version=2**70))]
    fine, *wrong = await asyncio.gather(*puts, return_exceptions=True)
    assert fine is True
    assert all(isinstance(fault, Exception) for fault in wrong)
    assert await sqlite.put(grant("c"))


async def test_closed_store_raises_and_releases_its_waiters(sqlite: SQLiteStore) -> None:
    assert await sqlite.put(grant())
    waiter = asyncio.create_task(sqlite.changed("grant", "k1", 1, 30))
    await asyncio.sleep(0.2)
    await sqlite.close()
    for operation in (waiter, sqlite.get("grant", "k1")):
        with pytest.raises(StoreUnavailable, match="closed"):
            await asyncio.wait_for(operation, 60)
    await sqlite.close()
