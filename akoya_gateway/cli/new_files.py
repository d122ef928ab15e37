"""Writes new files: atomically and, for secrets, readable by their owner only."""

from __future__ import annotations

import os
from pathlib import Path

import click

SECRET = 0o600
PUBLIC = 0o644


def write_new(file: Path, text: str, mode: int = SECRET) -> None:
    """Create a file and make it durable.

    Raises:
        OSError: The file exists or cannot be written. Nothing is left of a new file that could not be written, because
            an empty key file would keep the next attempt from creating it.
    """
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as out:
            out.write(text)
            out.flush()
            os.fsync(out.fileno())
    except BaseException:
        file.unlink()
        raise


def write_new_or_exit(file: Path, text: str) -> None:
    """Create a secret file, or print why that is not possible and exit with 1."""
    try:
        write_new(file, text)
    except FileExistsError:
        click.echo(f"{file} already exists; keys are never overwritten", err=True)
        raise SystemExit(1) from None
    except OSError as fault:
        click.echo(f"{file} cannot be written: {fault.strerror}", err=True)
        raise SystemExit(1) from None
