"""The command `akoya-gateway keys rotate-store`: re-encrypts the store with the first key of `sessions.keys`."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import click

from akoya_gateway.config import load_config
from akoya_gateway.config.model import Sessions
from akoya_gateway.errors import OperatorError
from akoya_gateway.store import EncryptedStore, Keyring, describe, open_store_for_command
from akoya_gateway.store.key_rotation import Progress, rotate


def rotate_store(config_path: Path) -> int:
    """Re-encrypt the store, with a progress bar on standard error.

    It may be interrupted, and may run while gateways are running.

    Returns:
        The exit code: 0 if the old keys may now be removed from the ring.

    Raises:
        ConfigurationError: the configuration is invalid.
    """
    sessions = load_config(config_path, secrets=(("sessions",),)).sessions
    try:
        progress = asyncio.run(_rotate(sessions))
    except OperatorError as fault:
        click.echo(fault.detail, err=True)
        return 1
    except KeyboardInterrupt:
        click.echo("Interrupted. What was done is done; run it again for the rest.", err=True)
        return 1
    for line in summary(progress, sessions.keys[0].id):
        click.echo(line, err=True)
    return 0 if progress.complete else 1


async def _rotate(sessions: Sessions) -> Progress:
    store = EncryptedStore(open_store_for_command(sessions.store), Keyring(sessions.keys))
    await store.open()
    try:
        progress = Progress(0, 0)
        with click.progressbar(length=0, label=describe(sessions.store), show_pos=True, file=sys.stderr) as bar:
            async for progress in rotate(store):
                bar.length = progress.total
                bar.update(progress.done - bar.pos)
        return progress
    finally:
        await store.close()


def summary(progress: Progress, first: str) -> list[str]:
    """Return the result of a rotation as lines for the operator."""
    lines = [f"{progress.done} records checked, {progress.resealed} re-encrypted with key {first}."]
    lines += [
        f"{n} records need key {key}, which is not in sessions.keys: add it and run this again."
        for key, n in progress.missing
    ]
    if progress.damaged:
        lines.append(f"{progress.damaged} records are damaged and were left as they are: restore them from a backup.")
    if progress.busy:
        lines.append(f"{progress.busy} records kept changing: run this again.")
    if progress.complete:
        lines.append("Keys after the first may be removed once every gateway has loaded the new ring.")
    return lines
