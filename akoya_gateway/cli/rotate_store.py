"""`akoya-gateway keys rotate-store`: everything in the store under the first key of `sessions.keys`."""

from __future__ import annotations

import asyncio
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from akoya_gateway.config import load_config
from akoya_gateway.config.model import Sessions
from akoya_gateway.errors import OperatorError
from akoya_gateway.store import KeyRing, Vault, describe, open_store
from akoya_gateway.store.rotation import Progress, rotate


def rotate_store(config_path: Path) -> int:
    """Run it with a progress bar on stderr. Returns the exit code: 0 when old keys may leave the ring now.

    Raises `config.ConfigurationError`. It may be interrupted, and run beside a gateway.
    """
    console = Console(stderr=True)
    sessions = load_config(config_path).sessions
    try:
        progress = asyncio.run(_rotate(sessions, console))
    except OperatorError as fault:
        console.print(fault.detail, markup=False, highlight=False)
        return 1
    except KeyboardInterrupt:
        console.print("Interrupted. What was done is done; run it again for the rest.")
        return 1
    for line in summary(progress, sessions.keys[0].id):
        console.print(line, markup=False, highlight=False)
    return 0 if progress.complete else 1


async def _rotate(sessions: Sessions, console: Console) -> Progress:
    vault = Vault(open_store(sessions.store), KeyRing(sessions.keys))
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    await vault.open()
    try:
        with Bar(*columns, console=console) as bar:
            task = bar.add_task(describe(sessions.store), total=None)
            progress = Progress(0, 0)
            async for progress in rotate(vault):
                bar.update(task, completed=progress.done, total=progress.total)
        return progress
    finally:
        await vault.close()


def summary(progress: Progress, first: str) -> list[str]:
    """What an operator wants to know, one line each."""
    lines = [f"{progress.done} records looked at, {progress.resealed} sealed anew under key {first}."]
    lines += [
        f"{n} records need key {key}, which is not in sessions.keys: add it and run this again."
        for key, n in progress.missing
    ]
    if progress.damaged:
        lines.append(f"{progress.damaged} records are damaged and were left as they are: restore them from a backup.")
    if progress.busy:
        lines.append(f"{progress.busy} records changed all the time: run this again.")
    if progress.complete:
        lines.append("Keys after the first may be removed once every gateway has loaded the new ring.")
    return lines
