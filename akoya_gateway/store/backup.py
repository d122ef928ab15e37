"""Copies every record of a store to a file and back, while gateways run.

The file has one JSON object per line: a header, one line for each record, and a last line with the number of records,
by which a truncated file is detected. Bodies stay encrypted as they are in the store, and the file contains no key, so
it is useless without `sessions.keys`. The format does not depend on the kind of store, so a backup can also move grants
from one store to another.
"""

from __future__ import annotations

import base64
import json
import math
from collections.abc import AsyncIterator, Iterable, Iterator
from dataclasses import replace
from typing import IO, Any

from akoya_gateway.store.base import Record, Store

FORMAT = "akoya-gateway store backup"
VERSION = 1
MAX_LINE_BYTES = 8 * 1024 * 1024
"""Longer lines are rejected. No record is that large."""


class InvalidBackup(ValueError):
    """The file is not a complete backup of this format."""


async def backup(store: Store, file: IO[str]) -> AsyncIterator[tuple[int, int]]:
    """Write every live record to `file`. Yield the number of records that are written, and that of all, as it grows.

    A record that changes meanwhile is written as it was before or after the change.

    Raises:
        StoreUnavailable: The backup is incomplete.
        OSError: The file cannot be written.
    """
    kinds = await store.kinds()
    total = sum([await store.count(kind) for kind in kinds])
    _write(file, {"format": FORMAT, "version": VERSION})
    done = 0
    for kind in kinds:
        async for record in store.scan(kind):
            _write(file, _as_object(record))
            done += 1
            yield done, max(done, total)
    _write(file, {"records": done})


async def restore(store: Store, records: Iterable[Record]) -> AsyncIterator[bool]:
    """Create each record that the store does not have. Yield True for each that was created.

    A record that is in the store is never replaced. It is newer: its refresh token may have been rotated since the
    backup, and the one in the backup would be refused.

    Raises:
        StoreUnavailable: Some records were not restored. Run it again.
    """
    for record in records:
        yield await store.put(replace(record, version=1))


def read_backup(file: IO[str]) -> Iterator[Record]:
    """Yield the records of a backup.

    Raises:
        InvalidBackup: The file is not a backup, is damaged or is truncated. The records before the fault have been
            yielded, so read the whole file once before using any.
    """
    header = _read(file, 1)
    if header.get("format") != FORMAT or header.get("version") != VERSION:
        raise InvalidBackup("line 1: not a backup of this version of the gateway")
    count = 0
    while "records" not in (entry := _read(file, count + 2)):
        count += 1
        yield _as_record(entry, count + 1)
    if entry["records"] != count:
        raise InvalidBackup(f"the last line says {entry['records']} records, but there are {count}")


def _write(file: IO[str], entry: dict[str, Any]) -> None:
    file.write(json.dumps(entry, separators=(",", ":")) + "\n")


def _read(file: IO[str], number: int) -> dict[str, Any]:
    line = file.readline(MAX_LINE_BYTES)
    if not line:
        raise InvalidBackup(f"line {number}: the file was cut off, its last line is missing")
    try:
        entry = json.loads(line)
    except (ValueError, RecursionError):
        entry = None
    if not isinstance(entry, dict):
        raise InvalidBackup(f"line {number}: not a JSON object")
    return entry


def _as_object(record: Record) -> dict[str, Any]:
    return {
        "kind": record.kind,
        "key": record.key,
        "group": record.group,
        "expires_at": record.expires_at,
        "body": base64.b64encode(record.body).decode(),
    }


def _as_record(entry: dict[str, Any], number: int) -> Record:
    try:
        kind, key, group, expires_at = (entry[name] for name in ("kind", "key", "group", "expires_at"))
        body = base64.b64decode(entry["body"], validate=True)
        # `encode` refuses lone surrogates, which JSON allows and no store accepts.
        for text in (kind, key, group):
            str.encode(text)
        if expires_at is not None and not math.isfinite(expires_at):
            raise ValueError
        expires_at = None if expires_at is None else float(expires_at)
    except (KeyError, TypeError, ValueError, OverflowError):
        raise InvalidBackup(f"line {number}: not a record") from None
    return Record(kind, key, body, 1, group, expires_at)
