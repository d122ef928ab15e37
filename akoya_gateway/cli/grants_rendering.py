"""The output of `akoya-gateway grants`.

Each grant is printed as it is read, so that memory use does not grow with the number of grants.
"""

from __future__ import annotations

import asyncio
import contextlib
import csv
import json
import shutil
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

import click

from akoya_gateway.cli.table import aligned, row_of
from akoya_gateway.config.model import Config
from akoya_gateway.errors import GatewayError
from akoya_gateway.grants.grant import to_record_id
from akoya_gateway.grants.listing import (
    GrantDetails,
    GrantFilter,
    GrantSummary,
    UnreadableRecord,
    find_ids,
    get_details,
    list_grants,
)
from akoya_gateway.grants.manager import GrantManager
from akoya_gateway.provider import open_providers
from akoya_gateway.store import EncryptedStore, Keyring, describe, open_store_for_command

FIELDS = (
    "id",
    "owner",
    "environment",
    "client",
    "connector",
    "state",
    "reason",
    "connected_at",
    "refreshed_at",
    "expires_at",
)
MOMENTS = frozenset({"connected_at", "refreshed_at", "expires_at", "retry_at"})
COLUMNS = {
    "id": 24,
    "owner": 28,
    "connector": 14,
    "environment": 12,
    "state": 15,
    "connected": 9,
    "refreshed": 9,
    "ends": 9,
    "reason": 24,
}
"""The columns of the table and their widths. Widths are fixed because rows are printed before all rows are known."""
MIN_PREFIX = 4
"""Number of characters of an ID, not counting `g_`, that `show` requires, as Git does."""
MAX_CANDIDATES = 10
"""Number of IDs that `show` lists if a prefix is ambiguous."""
PAGE_TIMEOUT = 20.0
"""Seconds for which `revoke` itself tries to revoke grants at Akoya."""


async def list_all(config: Config, filter_: GrantFilter, form: str, limit: int | None) -> int:
    """Print the matching grants, at most `limit`. Return the exit code: 1 if there are unreadable records."""
    writer: Any = {"text": _Rows, "json": _Lines, "csv": _Values}[form](FIELDS)
    number, unreadable = 0, 0
    async with _vault(config) as store:
        async for entry in list_grants(store, filter_):
            if isinstance(entry, UnreadableRecord):
                unreadable += 1
                _print_note(f"grant {entry.id} cannot be read: {entry.why}")
            else:
                number += 1
                writer.add(entry)
            if number == limit:
                break
    writer.end()
    _print_note(f"{_grants(number)} in {describe(config.sessions.store)}" + _unreadable_suffix(unreadable))
    return 1 if unreadable else 0


async def count(config: Config, filter_: GrantFilter, columns: Sequence[str], form: str) -> int:
    """Print the number of matching grants for each combination of `columns`, which are fields of `GrantSummary`.

    Return the exit code: 1 if there are unreadable records.
    """
    found: Counter[tuple[str, ...]] = Counter()
    unreadable: Counter[str] = Counter()
    async with _vault(config) as store:
        async for entry in list_grants(store, filter_):
            if isinstance(entry, UnreadableRecord):
                unreadable[entry.why] += 1
            else:
                found[tuple(str(getattr(entry, column)) for column in columns)] += 1
    _print_counts(sorted(found.items()), columns, form)
    for why, number in unreadable.items():
        _print_note(f"{number} cannot be read: {why}")
    _print_note(
        f"{_grants(found.total())} in {describe(config.sessions.store)}" + _unreadable_suffix(unreadable.total())
    )
    return 1 if unreadable else 0


async def show(config: Config, grant_id: str, *, as_json: bool) -> int:
    """Print one grant. Return the exit code: 1 unless exactly one grant has this ID or an ID that begins with it."""
    if len(grant_id.removeprefix("g_")) < MIN_PREFIX:
        _print_note(f"{_printable(grant_id)} is too short: give {MIN_PREFIX} characters of the ID or more")
        return 1
    async with _vault(config) as store:
        ids = await find_ids(store, grant_id)
        found = await get_details(store, ids[0]) if len(ids) == 1 else None
    if len(ids) > 1:
        shown = ", ".join(ids[:MAX_CANDIDATES]) + (", ..." if len(ids) > MAX_CANDIDATES else "")
        _print_note(f"{_printable(grant_id)} is ambiguous: {shown}")
        return 1
    if found is None:
        return _unknown(grant_id)
    if as_json:
        click.echo(json.dumps(_document(found)))
        return 0
    now = time.time()
    for name, value in _document(found).items():
        click.echo(f"{name.replace('_', ' '):18}{_in_words(name, value, getattr(found, name), now)}")
    return 0


async def revoke(config: Config, wanted: Sequence[str] | GrantFilter, *, confirm: bool) -> int:
    """Disconnect the grants and revoke them at Akoya.

    Args:
        config: The configuration.
        wanted: The IDs of the grants, or a filter.
        confirm: Whether to ask for confirmation first, with the number of grants.

    Returns:
        The exit code: 1 if one of the grants does not exist or cannot be read.
    """
    code = 0
    async with _vault(config) as store, open_providers(config, time.time) as providers:
        if isinstance(wanted, GrantFilter):
            found = [entry async for entry in list_grants(store, wanted)]
            code = int(any(isinstance(entry, UnreadableRecord) for entry in found))
            grant_ids = [entry.id for entry in found if isinstance(entry, GrantSummary)]
        else:
            grant_ids = list(dict.fromkeys(wanted))
        if confirm and grant_ids:
            click.confirm(f"End {_grants(len(grant_ids))}? Users must connect again.", abort=True)
        grants = GrantManager(store, providers, config.tokens)
        for grant_id in grant_ids:
            grant = await grants.repository.get(to_record_id(grant_id))
            if grant is None:
                code = _unknown(grant_id)
                continue
            await grants.disconnect(grant)
            click.echo(f"{grant.public_id} ended")
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(PAGE_TIMEOUT):
                await grants.revocation_queue.sweep()
        waiting = await grants.revocation_queue.count()
    if waiting:
        _print_note(f"{waiting} waiting to be revoked at Akoya; the gateways repeat it until it is done")
    return code


@contextlib.asynccontextmanager
async def _vault(config: Config) -> AsyncIterator[EncryptedStore]:
    store = EncryptedStore(open_store_for_command(config.sessions.store), Keyring(config.sessions.keys))
    await store.open()
    try:
        yield store
    finally:
        with contextlib.suppress(GatewayError):
            await store.close()


class _Lines:
    """Writes one JSON object per line."""

    def __init__(self, fields: Iterable[str]) -> None:
        pass

    def add(self, entry: GrantSummary) -> None:
        sys.stdout.write(json.dumps(_document(entry)) + "\n")

    def end(self) -> None:
        sys.stdout.flush()


class _Values:
    """Writes CSV with a header row."""

    def __init__(self, fields: Iterable[str]) -> None:
        self._writer = csv.writer(sys.stdout)
        self._writer.writerow(fields)

    def add(self, entry: GrantSummary) -> None:
        self._writer.writerow([_csv_safe(value) for value in _document(entry).values()])

    def end(self) -> None:
        sys.stdout.flush()


class _Rows:
    """Writes a table. On a terminal, cells are truncated to their columns, and lines to the terminal's width."""

    def __init__(self, fields: Iterable[str]) -> None:
        # A program that reads the output needs whole values, so nothing is truncated in a pipe.
        self._width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
        self._first = True
        self._now = time.time()

    def add(self, entry: GrantSummary) -> None:
        if self._first:
            self._write(tuple(COLUMNS))
            self._first = False
        self._write([_printable(cell) for cell in self._cells(entry)])

    def end(self) -> None:
        sys.stdout.flush()

    def _write(self, cells: Sequence[str]) -> None:
        line = row_of(cells, tuple(COLUMNS.values()), truncate=self._width is not None)
        sys.stdout.write(line[: self._width] + "\n")

    def _cells(self, entry: GrantSummary) -> tuple[str, ...]:
        return (
            entry.id,
            entry.owner,
            entry.connector,
            entry.environment,
            entry.state.value,
            span(self._now - entry.connected_at),
            span(self._now - entry.refreshed_at),
            span(entry.expires_at - self._now) if entry.expires_at > self._now else "ended",
            entry.reason or "",
        )


def _print_counts(found: Sequence[tuple[tuple[str, ...], int]], columns: Sequence[str], form: str) -> None:
    if form == "json":
        for names, number in found:
            click.echo(json.dumps(dict(zip(columns, names, strict=True)) | {"grants": number}))
    elif form == "csv":
        writer = csv.writer(sys.stdout)
        writer.writerow([*columns, "grants"])
        writer.writerows([[*names, number] for names, number in found])
    else:
        rows = [(*map(_printable, names), f"{number:,}") for names, number in found]
        for line in aligned([(*columns, "grants"), *rows]):
            click.echo(line)


def _document(entry: GrantSummary | GrantDetails) -> dict[str, Any]:
    """Return the grant as a dictionary for JSON, with times in RFC 3339 format and UTC."""
    document = asdict(entry)
    for name in MOMENTS & document.keys():
        document[name] = _moment(document[name]) if document[name] else None
    if (lease := document.get("lease")) is not None:
        holder, started, expires = lease
        document["lease"] = {"holder": holder, "started_at": _moment(started), "expires_at": _moment(expires)}
    return document


def _in_words(name: str, value: Any, raw: Any, now: float) -> str:
    if name == "lease" and value is not None:
        return _printable(f"{value['holder']}, since {value['started_at']}, until {value['expires_at']}")
    if name in MOMENTS and value is not None:
        return f"{value}  ({span(now - raw)} ago)" if raw <= now else f"{value}  (in {span(raw - now)})"
    if value is None or value == ():
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return _printable(" ".join(value) if isinstance(value, tuple | list) else str(value))


def span(seconds: float) -> str:
    """Format a duration in its largest whole unit: `12s`, `5m`, `3h` or `8d`.

    >>> span(7300)
    '2h'
    """
    for unit, length in (("d", 86400.0), ("h", 3600.0), ("m", 60.0)):
        if seconds >= length:
            return f"{int(seconds // length)}{unit}"
    return f"{max(int(seconds), 0)}s"


def _moment(seconds: float) -> str:
    return datetime.fromtimestamp(int(seconds), UTC).isoformat().replace("+00:00", "Z")


def _printable(text: str) -> str:
    """Escape unprintable characters. An owner may come from an identity provider and must not control the terminal."""
    return "".join(each if each.isprintable() else f"\\x{ord(each):02x}" for each in text)


def _csv_safe(value: Any) -> Any:
    """Prefix a text with `'` if a spreadsheet would take it for a formula. Return other values unchanged."""
    return f"'{value}" if isinstance(value, str) and value[:1] in "=+-@\t\r" and value else value


def _grants(number: int) -> str:
    return f"{number:,} grant{'' if number == 1 else 's'}"


def _unreadable_suffix(unreadable: int) -> str:
    return f", and {unreadable:,} that cannot be read" if unreadable else ""


def _unknown(grant_id: str) -> int:
    _print_note(f"no grant {_printable(grant_id)}")
    return 1


def _print_note(text: str) -> None:
    click.echo(text, err=True)
