"""The SQLite file is replaced, emptied or altered by an operator while gateways use it."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from akoya_gateway.errors import StoreUnavailable
from akoya_gateway.store import Record
from akoya_gateway.store.sqlite import SQLiteStore


def grant(key: str, **changes: object) -> Record:
    return Record(**{"kind": "grant", "key": key, "body": b"x" * 3000, **changes})  # type: ignore[arg-type]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "data" / "grants.db"


@pytest.fixture
async def stores(path: Path) -> AsyncIterator[tuple[SQLiteStore, SQLiteStore]]:
    """Two gateways with one file."""
    one, another = SQLiteStore(str(path)), SQLiteStore(str(path))
    await one.open()
    await another.open()
    yield one, another
    await one.close()
    await another.close()


def execute(path: Path, *statements: str) -> list[tuple[object, ...]]:
    """Run statements as another program and return the rows of the last one."""
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
        for statement in statements:
            rows = other.execute(statement).fetchall()
        return rows


async def test_log_of_a_replaced_file_is_not_applied_to_its_successor(
    stores: tuple[SQLiteStore, SQLiteStore], path: Path
) -> None:
    """SQLite leaves the log behind. Pages of the old file would damage the new one, or undo the restore."""
    one, another = stores
    copy = path.with_name("copy.db")
    for n in range(20):
        assert await one.put(grant(f"k{n}"))
    execute(path, "DELETE FROM record WHERE key = 'k3'", f"VACUUM INTO '{copy}'", "PRAGMA wal_checkpoint(TRUNCATE)")
    assert await one.put(grant("late"))
    assert await another.put(grant("later"))
    assert Path(f"{path}-wal").stat().st_size
    copy.rename(path)
    for store in stores:
        assert await store.get("grant", "late") is None
        assert await store.count("grant") == 19
    assert await another.put(grant("new"))
    assert await one.put(grant("newer"))
    assert await another.get("grant", "newer") == grant("newer")
    for store in stores:
        await store.close()
    assert execute(path, "PRAGMA integrity_check") == [("ok",)]
    assert execute(path, "SELECT count(*) FROM record") == [(21,)]


async def test_connection_that_an_error_has_closed_does_not_apply_the_log_either(
    stores: tuple[SQLiteStore, SQLiteStore], path: Path
) -> None:
    copy = path.with_name("copy.db")
    assert await stores[0].put(grant("k"))
    execute(path, f"VACUUM INTO '{copy}'", "PRAGMA wal_checkpoint(TRUNCATE)", "ALTER TABLE record RENAME TO away")
    for store in stores:
        with pytest.raises(StoreUnavailable, match="no such table"):
            await store.get("grant", "k")
    copy.rename(path)
    for store in stores:
        assert await store.get("grant", "k") == grant("k")
        await store.check()
    for store in stores:
        await store.close()
    assert execute(path, "PRAGMA integrity_check") == [("ok",)]


async def test_emptied_file_is_an_error_and_not_an_empty_store(
    stores: tuple[SQLiteStore, SQLiteStore], path: Path
) -> None:
    one, another = stores
    assert await one.put(grant("k"))
    copy, empty = path.with_name("copy.db"), path.with_name("empty")
    execute(path, f"VACUUM INTO '{copy}'")
    empty.touch()
    empty.rename(path)
    for operation in (one.get("grant", "k"), one.put(grant("other")), another.check()):
        with pytest.raises(StoreUnavailable, match="is empty now; put it back"):
            await operation
    assert path.stat().st_size == 0
    copy.rename(path)
    for store in stores:
        assert await store.get("grant", "k") == grant("k")


async def test_check_uses_the_table_of_the_records(stores: tuple[SQLiteStore, SQLiteStore], path: Path) -> None:
    """Readiness must not report a store as usable from which no record can be read."""
    one, _ = stores
    await one.check()
    assert await one.kinds() == ()
    execute(path, "ALTER TABLE record RENAME TO away")
    with pytest.raises(StoreUnavailable, match="no such table"):
        await one.check()
    execute(path, "ALTER TABLE away RENAME TO record")
    await one.check()
