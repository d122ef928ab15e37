"""Runs the tests of the integrations again, with the oldest supported releases of the frameworks."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent
PACKAGES = Path(sys.prefix) / "oldest-frameworks"


@pytest.mark.timeout(300)
@pytest.mark.skipif(not PACKAGES.is_dir(), reason="scripts/install test could not download the oldest frameworks")
def test_integrations_work_with_the_oldest_supported_releases() -> None:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist"]
    # The oldest releases cause deprecation warnings of today's Python and libraries.
    files = [str(FOLDER / name) for name in ("test_integrations.py", "test_framework_apis.py")]
    done = subprocess.run(
        [*command, "--override-ini=filterwarnings=", *files],
        cwd=FOLDER.parents[1],
        env={**os.environ, "PYTHONPATH": str(PACKAGES)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stdout
