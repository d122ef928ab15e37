"""Opens the SQLite file.

Creates the file with private permissions, checks and migrates its schema, and describes its errors.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import logging
import os
import sqlite3
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

from akoya_gateway.errors import StoreUnavailable
from akoya_gateway.store.base import StoreSize

APPLICATION_ID = 0x616B6F79
"""The application ID `akoy`, at byte 68 of the file (sqlite.org/fileformat2.html section 1.3.16)."""

MIGRATIONS = (
    """
    CREATE TABLE record (
      kind TEXT NOT NULL,
      key TEXT NOT NULL,
      in_group TEXT NOT NULL,
      version INTEGER NOT NULL,
      expires_at REAL,
      body BLOB NOT NULL
    ) STRICT;
    CREATE UNIQUE INDEX record_by_key ON record (kind, key);
    CREATE INDEX record_by_group ON record (kind, in_group, key) WHERE in_group <> '';
    CREATE INDEX record_by_end ON record (expires_at) WHERE expires_at IS NOT NULL;
    CREATE TABLE pulse (id INTEGER PRIMARY KEY CHECK (id = 1), beats INTEGER NOT NULL) STRICT;
    INSERT INTO pulse VALUES (1, 0);
    """,
)
"""Schema migrations. Step n takes the schema from `user_version` n to n + 1. Never edit a released step; add one."""

_log = logging.getLogger("akoya_gateway.store")

_ADVICE = {
    "SQLITE_BUSY": (
        "is locked by another process; end the program that holds it (a backup, a shell). "
        "A network file system may report this too: use a local disk"
    ),
    "SQLITE_LOCKED": "is locked by another connection of this process",
    "SQLITE_FULL": "cannot grow: the disk is full (or a quota is reached); make room",
    "SQLITE_READONLY": "cannot be written: the file, its directory or the file system is read-only, or of another user",
    "SQLITE_PERM": "may not be opened by this user",
    "SQLITE_CANTOPEN": "cannot be opened: look at the path, the directory's owner and its permissions",
    "SQLITE_IOERR": "gives input/output errors: look at the disk (is it full?), at limits, and at the kernel's log",
    "SQLITE_CORRUPT": "is damaged; stop the gateway and restore a backup (or try `sqlite3 FILE .recover`)",
    "SQLITE_NOTADB": "is not an SQLite database; look at sessions.store, the file was left alone",
    "SQLITE_PROTOCOL": "cannot be locked: write-ahead logging needs a local file system",
    "SQLITE_NOMEM": "cannot be used: out of memory",
}


FileID = tuple[tuple[int, int], tuple[int, int] | None]
"""A database file and its write-ahead log: device and inode of each."""

_PUT_BACK = "put it back, or restart the gateway to begin with an empty one"


class SQLiteDatabase:
    """The database file. `connect` returns connections that are ready for use; `describe` explains an error."""

    def __init__(self, path: str, busy_timeout: float) -> None:
        self.path = Path(path).absolute()
        self._log = Path(f"{self.path}-wal")
        self._opened: FileID | None = None
        """The file that was opened last."""
        self.busy_timeout = busy_timeout

    def prepare(self) -> None:
        """Create the directory (0700) and the file (0600) if they are missing.

        An existing directory that every user may write to is accepted with a warning. Raises `StoreUnavailable`.
        """
        directory = self.path.parent
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            with contextlib.suppress(FileExistsError):
                os.close(os.open(self.path, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600))
            mode = directory.stat().st_mode
            dangling = self.path.is_symlink() and not self.path.exists()
        except OSError as fault:
            raise StoreUnavailable(f"{self.path}: cannot be created: {fault.strerror}") from fault
        if dangling:
            raise StoreUnavailable(f"{self.path}: is a symbolic link to a file that does not exist; correct the link")
        if mode & stat.S_IWOTH and not mode & stat.S_ISVTX:
            _log.warning("the directory of the store may be written by every user: %s; chmod o-w it", directory)

    def connect(self) -> OpenConnection:
        """Return a connection in autocommit mode, with the schema in place. Raises `StoreUnavailable`."""
        with self.translated_errors():
            place = self._place()
            self._check_replacement(place)
            connection = sqlite3.connect(
                f"file://{quote(str(self.path))}?mode=rw",
                uri=True,
                timeout=self.busy_timeout,
                isolation_level=None,
                check_same_thread=False,
                cached_statements=64,
            )
            try:
                self._check_file(connection)
                self._set_up(connection)
                self._opened = (place, self._log_place())
                return OpenConnection(connection, self._opened)
            except BaseException:
                connection.close()
                raise

    def is_same_file(self, opened: OpenConnection) -> bool:
        """Return False if the path now refers to another file, such as a restored backup, or the log was removed.

        Commits to a removed write-ahead log are lost if the process is killed.

        Raises:
            StoreUnavailable: The file was removed: data written to a removed file would be lost at the next start.
        """
        with self.translated_errors():
            return (self._place(), self._log_place()) == opened.file_id

    def size(self) -> StoreSize:
        """Return the size of the file with its log, and the maximum size. Raises `StoreUnavailable`."""
        with self.translated_errors():
            used = self.path.stat().st_size
            with contextlib.suppress(FileNotFoundError):
                used += self._log.stat().st_size
            disk = os.statvfs(self.path)
            return StoreSize(used, used + disk.f_bavail * disk.f_frsize)

    def _check_replacement(self, place: tuple[int, int]) -> None:
        """Raise for a file that was emptied. Discard the log of the previous file if it was replaced by another one.

        SQLite keeps the write-ahead log of a database that was moved, and would apply its pages to the new file. If
        another process has already opened the new file, the log is that of the new file and stays.
        """
        if self._opened is None:
            return
        if self.path.stat().st_size == 0:  # SQLite would create an empty store in it
            raise StoreUnavailable(f"{self.path}: is empty now; {_PUT_BACK}")
        if place != self._opened[0]:
            with self._locked_directory():
                if self._log_place() in (None, self._opened[1]):
                    for suffix in ("-wal", "-shm"):
                        Path(f"{self.path}{suffix}").unlink(missing_ok=True)

    @contextmanager
    def _locked_directory(self) -> Iterator[None]:
        """Exclude other gateway processes, which may discard the same log."""
        descriptor = os.open(self.path.parent, os.O_RDONLY | os.O_CLOEXEC)
        try:
            with contextlib.suppress(OSError):  # the file system may have no such locks
                fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    def _place(self) -> tuple[int, int]:
        try:
            found = self.path.stat()
        except FileNotFoundError:
            raise StoreUnavailable(f"{self.path}: the database was removed; {_PUT_BACK}") from None
        except OSError as fault:
            raise StoreUnavailable(f"{self.path}: cannot be reached: {fault.strerror}") from fault
        return found.st_dev, found.st_ino

    def _log_place(self) -> tuple[int, int] | None:
        try:
            found = self._log.stat()
        except FileNotFoundError:
            return None
        return found.st_dev, found.st_ino

    def _check_file(self, connection: sqlite3.Connection) -> None:
        """Reject a database of another program or of a newer release before anything is written to it."""
        if 0 < self.path.stat().st_size < 512:  # SQLite would treat the file as empty and overwrite it
            raise StoreUnavailable(f"{self.path}: {_ADVICE['SQLITE_NOTADB']}")
        connection.execute("BEGIN")  # one snapshot for all three reads: another process may be creating the schema
        (application,) = connection.execute("PRAGMA application_id").fetchone()
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        (tables,) = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
        connection.execute("COMMIT")
        if application != APPLICATION_ID and (application or version or tables):
            raise StoreUnavailable(f"{self.path}: belongs to another program; it was left alone, name another file")
        if version > len(MIGRATIONS):
            raise StoreUnavailable(
                f"{self.path}: was written by a newer release (schema {version}, this one knows {len(MIGRATIONS)}); "
                "run that release, or restore the backup from before"
            )

    def _set_up(self, connection: sqlite3.Connection) -> None:
        mode = self._write_ahead(connection)
        if mode != "wal":
            raise StoreUnavailable(f"{self.path}: the file system cannot do write-ahead logging; use a local disk")
        # FULL: the log is synced at each commit, so that acknowledged writes survive a power failure.
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA journal_size_limit = 67108864")
        connection.execute("PRAGMA trusted_schema = OFF")
        if self._version(connection) < len(MIGRATIONS):
            self._migrate(connection)

    def _write_ahead(self, connection: sqlite3.Connection) -> str:
        """Switch to WAL and return the journal mode.

        SQLite does not apply its busy timeout here, so retry: another process may be starting at the same time.
        """
        deadline = time.monotonic() + self.busy_timeout
        while True:
            try:
                return str(connection.execute("PRAGMA journal_mode = WAL").fetchone()[0])
            except sqlite3.OperationalError as fault:
                if not fault.sqlite_errorname.startswith("SQLITE_BUSY") or time.monotonic() > deadline:
                    raise
                time.sleep(0.01)

    def _migrate(self, connection: sqlite3.Connection) -> None:
        connection.execute("BEGIN IMMEDIATE")
        try:
            for version in range(self._version(connection), len(MIGRATIONS)):
                for statement in filter(str.strip, MIGRATIONS[version].split(";")):
                    connection.execute(statement)
            connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            connection.execute(f"PRAGMA user_version = {len(MIGRATIONS)}")
            connection.execute("COMMIT")
        except BaseException:
            with contextlib.suppress(sqlite3.Error):
                connection.execute("ROLLBACK")
            raise

    @staticmethod
    def _version(connection: sqlite3.Connection) -> int:
        return int(connection.execute("PRAGMA user_version").fetchone()[0])

    @contextmanager
    def translated_errors(self) -> Iterator[None]:
        """Convert exceptions of sqlite3 and the operating system to `StoreUnavailable` with advice for the operator."""
        try:
            yield
        except sqlite3.Error as fault:
            raise self.describe(fault) from fault
        except OSError as fault:
            raise StoreUnavailable(f"{self.path}: {os.strerror(fault.errno or errno.EIO)}") from fault

    def describe(self, fault: sqlite3.Error) -> StoreUnavailable:
        """Return a `StoreUnavailable` that explains the error and says what to do."""
        name = getattr(fault, "sqlite_errorname", "")
        if name.startswith("SQLITE_CANTOPEN") and (obstacle := self._obstacle()):
            return StoreUnavailable(f"{self.path}: {obstacle} ({name})")
        for prefix, advice in _ADVICE.items():
            if name.startswith(prefix):
                return StoreUnavailable(f"{self.path}: {advice} ({name})")
        return StoreUnavailable(f"{self.path}: {fault} ({name or type(fault).__name__})")

    def _obstacle(self) -> str | None:
        """Return why SQLite cannot open the file with its log, if the system says so. SQLite itself does not."""
        directory = self.path.parent
        try:
            with contextlib.ExitStack() as opened:
                for _ in range(4):
                    # Not the database: closing it would release the locks of SQLite (fcntl).
                    opened.callback(os.close, os.open(directory, os.O_RDONLY | os.O_CLOEXEC))
        except OSError as fault:
            if fault.errno in {errno.EMFILE, errno.ENFILE}:
                return "cannot be opened: too many open files; raise the limit (ulimit -n)"
        return None if os.access(directory, os.W_OK | os.X_OK) else _ADVICE["SQLITE_READONLY"]


class OpenConnection:
    """A connection, and the file and the write-ahead log that it was opened on."""

    __slots__ = ("connection", "file_id")

    def __init__(self, connection: sqlite3.Connection, place: FileID) -> None:
        self.connection = connection
        self.file_id = place
