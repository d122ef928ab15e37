"""The default store: one SQLite file, shared by the processes of one machine. A write is durable when its call returns.

Writes go through one thread, which commits all waiting writes in one transaction: many `put`s, one sync, a result
for each. Reads go through another thread. The event loop never blocks on either.
"""
# The SQL is assembled from constants of this file only; values are always bound:
# ruff: noqa: S608

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from typing import Any, TypeVar

from akoya_gateway.clock import Clock
from akoya_gateway.errors import StoreUnavailable
from akoya_gateway.store.base import Record, StoreSize
from akoya_gateway.store.change_notifier import ChangeNotifier, wait_until_changed
from akoya_gateway.store.sqlite_database import OpenConnection, SQLiteDatabase
from akoya_gateway.store.sqlite_thread import ConnectionThread, JobResult
from akoya_gateway.tasks import cancel_and_wait

T = TypeVar("T")

_COLUMNS = "kind, key, body, version, in_group, expires_at"
_LIVE = "(expires_at IS NULL OR expires_at > :now)"
_GET = f"SELECT {_COLUMNS} FROM record WHERE kind = :kind AND key = :key AND {_LIVE}"
_IN_GROUP = f"kind = :kind AND in_group = :in_group AND in_group <> '' AND {_LIVE}"
_FIND = f"SELECT {_COLUMNS} FROM record WHERE {_IN_GROUP} ORDER BY key"
_COUNT = f"SELECT count(*) FROM record WHERE kind = :kind AND {_LIVE}"
_COUNT_GROUP = f"SELECT count(*) FROM record WHERE {_IN_GROUP}"
_KINDS = f"SELECT DISTINCT kind FROM record WHERE {_LIVE} ORDER BY kind"
_SCAN = f"SELECT {_COLUMNS} FROM record WHERE kind = :kind AND key > :after AND {_LIVE} ORDER BY key LIMIT 200"
_CREATE = f"""
    INSERT INTO record ({_COLUMNS}) VALUES (:kind, :key, :body, 1, :in_group, :expires_at)
    ON CONFLICT (kind, key) DO UPDATE
    SET body = excluded.body, version = 1, in_group = excluded.in_group, expires_at = excluded.expires_at
    WHERE record.expires_at <= :now"""
_REPLACE = f"""
    UPDATE record SET body = :body, version = :version, in_group = :in_group, expires_at = :expires_at
    WHERE kind = :kind AND key = :key AND version = :version - 1 AND {_LIVE}"""
_RESEAL = f"UPDATE record SET body = :body WHERE kind = :kind AND key = :key AND version = :version AND {_LIVE}"
_DELETE = f"""
    DELETE FROM record
    WHERE kind = :kind AND key = :key AND (:version IS NULL OR version = :version) AND {_LIVE}"""
_PURGE = "DELETE FROM record WHERE rowid IN (SELECT rowid FROM record WHERE expires_at <= :now LIMIT 500)"

BATCH_SIZE = 256
PURGE_EVERY = 60.0
REREAD_INTERVAL = 2.0
"""Seconds after which a waiter reads again without a notification."""
WATCH_INTERVALS = (0.1, 0.25)
"""Seconds between checks for commits of other processes while a caller waits: first and longest interval."""


class SQLiteStore:
    """The store of `sqlite:///path`.

    Args:
        path: The database file.
        clock: Used for the expiry of records.
        busy_timeout: Seconds to wait for another process's lock.
        write_timeout: Seconds that a call waits for its thread, which a stuck disk may block.
    """

    def __init__(
        self, path: str, clock: Clock = time.time, *, busy_timeout: float = 3.0, write_timeout: float = 10.0
    ) -> None:
        self._clock = clock
        self._write_timeout = write_timeout
        self._file = SQLiteDatabase(path, busy_timeout)
        self._changes = ChangeNotifier()
        self._watcher: asyncio.Task[None] | None = None
        self._purged_at = 0.0
        sessions: list[_Session] = []
        self._writing = _Session(self._file, sessions)
        self._reading = _Session(self._file, sessions)
        self._writer: ConnectionThread[sqlite3.Connection] = ConnectionThread(
            "akoya-store-writer", self._commit, BATCH_SIZE
        )
        self._reader: ConnectionThread[sqlite3.Connection] = ConnectionThread(
            "akoya-store-reader", self._read_each, BATCH_SIZE
        )

    async def open(self) -> None:
        try:
            await asyncio.to_thread(self._file.prepare)
            self._writer.start()
            self._reader.start()
            await self.check()
        except BaseException as fault:
            await self.close()
            if isinstance(fault, Exception) and not isinstance(fault, StoreUnavailable):
                # For example RuntimeError, when the operating system allows no more threads.
                raise StoreUnavailable(f"{self._file.path}: cannot be opened ({type(fault).__name__})") from fault
            raise

    async def close(self) -> None:
        await cancel_and_wait(self._watcher)
        self._watcher = None
        await self._writer.stop()
        await self._reader.stop()
        self._reading.close()
        self._writing.close()
        self._changes.notify_all()

    async def check(self) -> None:
        """Create, read and delete a record in one transaction, so that nothing else sees it, and read."""
        parameters = _parameters(Record("pulse", "", b"", 1, "pulse"), self._clock())

        def write(connection: sqlite3.Connection) -> None:
            connection.execute("UPDATE pulse SET beats = beats + 1")
            for sql in (_CREATE, _GET, _DELETE):
                connection.execute(sql, parameters)

        await self._write(write)
        await self._read(lambda c: c.execute(_GET, parameters).fetchone())

    async def get(self, kind: str, key: str) -> Record | None:
        parameters = {"kind": kind, "key": key, "now": self._clock()}
        row = await self._read(lambda c: c.execute(_GET, parameters).fetchone())
        return None if row is None else _record(row)

    async def find(self, kind: str, group: str) -> tuple[Record, ...]:
        parameters = {"kind": kind, "in_group": group, "now": self._clock()}
        rows = await self._read(lambda c: c.execute(_FIND, parameters).fetchall())
        return tuple([_record(row) for row in rows])

    async def put(self, record: Record) -> bool:
        parameters = _parameters(record, self._clock())
        sql = _CREATE if record.version == 1 else _REPLACE
        done = await self._write(lambda c: c.execute(sql, parameters).rowcount == 1)
        if done:
            self._changes.notify((record.kind, record.key))
        return done

    async def reseal(self, record: Record) -> bool:
        parameters = _parameters(record, self._clock())
        return await self._write(lambda c: c.execute(_RESEAL, parameters).rowcount == 1)

    async def delete(self, kind: str, key: str, version: int | None = None) -> bool:
        parameters = {"kind": kind, "key": key, "version": version, "now": self._clock()}
        done = await self._write(lambda c: c.execute(_DELETE, parameters).rowcount == 1)
        if done:
            self._changes.notify((kind, key))
        return done

    async def take(self, kind: str, key: str) -> Record | None:
        parameters = {"kind": kind, "key": key, "version": None, "now": self._clock()}

        def get_and_delete(connection: sqlite3.Connection) -> Any:
            row = connection.execute(_GET, parameters).fetchone()
            if row is not None:
                connection.execute(_DELETE, parameters)
            return row

        row = await self._write(get_and_delete)
        if row is None:
            return None
        self._changes.notify((kind, key))
        return _record(row)

    async def changed(self, kind: str, key: str, version: int, timeout: float) -> Record | None:
        with self._changes.subscribe((kind, key)) as bell:
            if self._watcher is None or self._watcher.done():
                self._watcher = asyncio.create_task(self._watch_others())
            return await wait_until_changed(
                self.get,
                bell,
                (kind, key),
                version=version,
                timeout=timeout,
                clock=self._clock,
                poll_interval=REREAD_INTERVAL,
            )

    async def count(self, kind: str, group: str | None = None) -> int:
        parameters = {"kind": kind, "in_group": group, "now": self._clock()}
        sql = _COUNT if group is None else _COUNT_GROUP
        (found,) = await self._read(lambda c: c.execute(sql, parameters).fetchone())
        return int(found)

    async def size(self) -> StoreSize:
        """Return the size of the database with its log, and the maximum size on its disk."""
        return await self._read(lambda _: self._file.size())

    async def kinds(self) -> tuple[str, ...]:
        parameters = {"now": self._clock()}
        rows = await self._read(lambda c: c.execute(_KINDS, parameters).fetchall())
        return tuple([kind for (kind,) in rows])

    async def scan(self, kind: str) -> AsyncIterator[Record]:
        """Yield the live records of a kind.

        Each page is a separate short read, so a slow consumer holds no snapshot that would keep the write-ahead log
        from being truncated.
        """
        after = ""
        while True:
            parameters = {"kind": kind, "after": after, "now": self._clock()}
            rows = await self._read(lambda c, parameters=parameters: c.execute(_SCAN, parameters).fetchall())  # type: ignore[misc]
            if not rows:
                return
            for row in rows:
                yield _record(row)
            after = rows[-1][1]

    async def _read(self, work: Callable[[sqlite3.Connection], T]) -> T:
        return await self._reader.submit(work, self._write_timeout)

    async def _write(self, work: Callable[[sqlite3.Connection], T]) -> T:
        return await self._writer.submit(work, self._write_timeout)

    # The following runs on the reader's thread.

    def _read_each(self, works: Sequence[Callable[[sqlite3.Connection], Any]]) -> list[JobResult]:
        outcomes = []
        for work in works:
            try:
                with self._reading.use() as connection:
                    outcomes.append(JobResult(work(connection)))
            except Exception as fault:  # the caller of `submit` raises it
                outcomes.append(JobResult(error=fault))
        return outcomes

    # The following runs on the writer's thread.

    def _commit(self, works: Sequence[Callable[[sqlite3.Connection], Any]]) -> list[JobResult]:
        """Run all jobs in one transaction; if a job fails, run each in a transaction of its own.

        A job fails before the commit, so nothing has been applied yet. Running them separately keeps one bad job, such
        as a body that no longer fits on the disk, from failing the others.
        """
        judging = False
        try:
            with self._writing.use() as connection:
                connection.execute("BEGIN IMMEDIATE")
                judging = True
                values = [work(connection) for work in works]
                judging = False
                self._purge(connection)
                connection.execute("COMMIT")
            return [JobResult(value) for value in values]
        except Exception as fault:  # the caller of `submit` raises it
            if len(works) == 1 or not judging or not self._writing.alive:
                return [JobResult(error=fault) for _ in works]
        return [outcome for work in works for outcome in self._commit([work])]

    def _purge(self, connection: sqlite3.Connection) -> None:
        """Delete a bounded number of expired records about once a minute, in a transaction that is committed anyway."""
        now = self._clock()
        if not 0 <= now - self._purged_at < PURGE_EVERY:
            gone = connection.execute(_PURGE, {"now": now}).rowcount
            if gone < 500:
                self._purged_at = now

    async def _watch_others(self) -> None:
        """Wake all waiters when another connection has committed (`PRAGMA data_version`), while there are waiters."""
        pause, longest = WATCH_INTERVALS
        seen: int | None = None
        while self._changes:
            with contextlib.suppress(StoreUnavailable):  # the waiter gets the error from its own read
                (version,) = await self._read(lambda c: c.execute("PRAGMA data_version").fetchone())
                if version != seen:
                    self._changes.notify_all()
                seen = version
            await asyncio.sleep(pause)
            pause = min(pause * 1.5, longest)


class _Session:
    """The connection of one thread: opened on first use, closed when it is unusable, opened again by the next use.

    `sessions` are all of the file; this one adds itself.
    """

    def __init__(self, file: SQLiteDatabase, sessions: list[_Session]) -> None:
        self._file = file
        self._sessions = sessions
        self._in_use = threading.Lock()
        sessions.append(self)
        self._opened: OpenConnection | None = None

    @property
    def alive(self) -> bool:
        return self._opened is not None

    @contextlib.contextmanager
    def use(self) -> Any:
        """Yield the connection; on an exception roll back the open transaction.

        Raises:
            StoreUnavailable: For every `sqlite3.Error`.
        """
        opened = self._opened  # the other thread may close it meanwhile
        if opened is not None and not self._file.is_same_file(opened):
            self._close_all()
        with self._in_use:
            yield from self._use()

    def _use(self) -> Iterator[sqlite3.Connection]:
        if self._opened is None:
            self._opened = self._file.connect()
        connection = self._opened.connection
        try:
            yield connection
        except sqlite3.Error as fault:
            if not _is_transient(fault):
                self.close()
            elif connection.in_transaction:
                self._roll_back(connection)
            raise self._file.describe(fault) from fault
        except BaseException:
            if connection.in_transaction:
                self._roll_back(connection)
            raise

    def close(self) -> None:
        if self._opened is not None:
            with contextlib.suppress(sqlite3.Error):
                self._opened.connection.close()
            self._opened = None

    def _close_all(self) -> None:
        """Close the connections of all sessions, none of which may be in use by this thread.

        Only the last close moves the commits of a removed write-ahead log to the file.
        """
        with contextlib.ExitStack() as held:
            for each in self._sessions:
                held.enter_context(each._in_use)
            for each in self._sessions:
                each.close()

    def _roll_back(self, connection: sqlite3.Connection) -> None:
        try:
            connection.execute("ROLLBACK")
        except sqlite3.Error:
            self.close()


def _is_transient(fault: sqlite3.Error) -> bool:
    """Return True for errors that a new connection would not fix, such as a lock or a full disk."""
    name = getattr(fault, "sqlite_errorname", "")
    return name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED", "SQLITE_FULL", "SQLITE_TOOBIG", "SQLITE_CONSTRAINT"))


def _parameters(record: Record, now: float) -> dict[str, Any]:
    return {
        "kind": record.kind,
        "key": record.key,
        "body": record.body,
        "version": record.version,
        "in_group": record.group,
        "expires_at": record.expires_at,
        "now": now,
    }


def _record(row: Sequence[Any]) -> Record:
    kind, key, body, version, group, expires_at = row
    return Record(kind, key, body, version, group, expires_at)
