"""The command `akoya-gateway store`: backup and restore."""

from __future__ import annotations

import asyncio
import errno
import os
import sys
import tempfile
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import click

from akoya_gateway.cli.group import Group
from akoya_gateway.cli.options import config_option

if TYPE_CHECKING:
    from akoya_gateway.store import Store


@click.group(cls=Group, no_args_is_help=True)
def store() -> None:
    """Copy the store to a file and back, whatever kind of store it is. Gateways may be running.

    Exit codes: 0 fine, 1 a fault was found (the store is unavailable, or the file cannot be used), 2 wrong usage.
    """


@store.command()
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@config_option
def backup(file: Path, config: Path) -> None:
    """Write every record to a new FILE that only its owner may read.

    Records stay encrypted, so keep the keys of `sessions.keys` too, elsewhere. An existing file is not overwritten.
    """

    async def work(opened: Store) -> None:
        from akoya_gateway.store.backup import backup as copy  # noqa: PLC0415

        target, partial = _new_file(file)
        written = 0
        try:
            with target:
                with click.progressbar(length=0, label=str(file), show_pos=True, file=sys.stderr) as bar:
                    async for written, total in copy(opened, target):
                        bar.length = total
                        bar.update(written - bar.pos)
                target.flush()
                os.fsync(target.fileno())
            _publish(partial, file)
        finally:
            partial.unlink(missing_ok=True)
        click.echo(f"{written} records written to {file}", err=True)

    if file.exists():
        _fail(f"{file} already exists; backups are never overwritten")
    _run(config, work, file)


def _publish(partial: Path, file: Path) -> None:
    """Give a complete backup its name. A link, unlike a rename, never overwrites, but some file systems lack links."""
    try:
        os.link(partial, file)
    except FileExistsError:
        raise
    except OSError:
        if file.exists():
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST)) from None
        partial.rename(file)


@store.command()
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False, exists=True))
@config_option
def restore(file: Path, config: Path) -> None:
    """Create the records of a backup that the store does not have.

    Records in the store are kept, because they are newer. A grant that is restored has an old refresh token: if it was
    used since the backup, its owner has to connect the bank again.
    """

    async def work(opened: Store) -> None:
        from akoya_gateway.store.backup import read_backup  # noqa: PLC0415
        from akoya_gateway.store.backup import restore as create  # noqa: PLC0415

        with file.open(encoding="utf-8") as source:
            # Once for its faults, so that half of a damaged file is not restored.
            total = sum(1 for _ in read_backup(source))
            source.seek(0)
            created = 0
            with click.progressbar(length=total, label=str(file), show_pos=True, file=sys.stderr) as bar:
                async for is_new in create(opened, read_backup(source)):
                    created += is_new
                    bar.update(1)
        click.echo(f"{created} of {total} records restored; the store has the others already", err=True)

    _run(config, work, file, create=True)


def _new_file(file: Path) -> tuple[IO[str], Path]:
    """Open a file beside `file` that only its owner may read, with a name that no other backup uses."""
    descriptor, name = tempfile.mkstemp(dir=file.parent, prefix=f"{file.name}.", suffix=".partial")
    return os.fdopen(descriptor, "w", encoding="utf-8"), Path(name)


def _run(config: Path, work: Callable[[Store], Coroutine[Any, Any, None]], file: Path, *, create: bool = False) -> None:
    from akoya_gateway.config.loader import load_config  # noqa: PLC0415
    from akoya_gateway.errors import GatewayError  # noqa: PLC0415
    from akoya_gateway.store import open_store_for_command  # noqa: PLC0415
    from akoya_gateway.store.backup import InvalidBackup  # noqa: PLC0415

    # Records stay encrypted, so the keys are not needed.
    url = load_config(config, secrets=(("sessions", "store"),)).sessions.store

    async def run() -> None:
        opened = open_store_for_command(url, create=create)
        await opened.open()
        try:
            await work(opened)
        finally:
            await opened.close()

    try:
        asyncio.run(run())
    except GatewayError as error:
        _fail(f"akoya-gateway: {error.detail or error.title}")
    except UnicodeDecodeError:
        _fail(f"{file}: not a backup")
    except InvalidBackup as error:
        _fail(f"{file}: {error}")
    except OSError as error:
        _fail(f"{file}: {error.strerror or error}")
    except KeyboardInterrupt:
        _fail("Interrupted. Run it again.")


def _fail(message: str) -> None:
    click.echo(message, err=True)
    raise SystemExit(1)
