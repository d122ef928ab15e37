"""Runs `akoya-gateway` commands in the process of the tests."""

from __future__ import annotations

import contextlib
import io
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from unittest import mock

from akoya_gateway.cli import main


def run_command(
    *arguments: str, folder: Path | None = None, environ: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run `akoya-gateway ARGUMENTS` in this folder, with these environment variables only.

    A new interpreter takes many times the CPU time of a short command. What depends on its start, on signals or on the
    streams of a process needs `subprocess`.
    """
    output, errors = (io.TextIOWrapper(io.BytesIO(), write_through=True) for _ in range(2))
    with (
        mock.patch.dict(os.environ, environ or {}, clear=True),
        mock.patch.object(sys, "argv", ["akoya-gateway", *arguments]),
        contextlib.chdir(folder or Path.cwd()),
        contextlib.redirect_stdout(output),
        contextlib.redirect_stderr(errors),
    ):
        try:
            main()
            status = 0
        except SystemExit as exit_:
            status = exit_.code if isinstance(exit_.code, int) else int(exit_.code is not None)
    for stream in (output, errors):
        stream.seek(0)
    return subprocess.CompletedProcess(arguments, status, output.read(), errors.read())
