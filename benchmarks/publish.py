"""Measures everything on `docs/performance.md` in three runs in a row, and writes the page.

    python -m benchmarks.publish                        on an idle machine, about 18 minutes
    python -m benchmarks.publish --trial /tmp/trial     one short run into this folder; the repository is not changed

Each run starts all systems, measures each workload once, and stops them. The page shows the ratio of each run. The
results of an earlier publication are replaced only by complete ones: they are written at the end.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import IO

RESULTS, PAGE = Path("benchmarks/results"), Path("docs/performance.md")
_RUNS = ("--runs", "3", "--rounds", "1", "--seconds", "1", "--paced-seconds", "4", "--sessions", "4000")
_TRIAL = ("--runs", "1", "--rounds", "1", "--seconds", "1", "--paced-seconds", "1", "--sessions", "200")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trial", type=Path, metavar="FOLDER", help="one short run; write everything to this folder")
    trial: Path | None = parser.parse_args().trial
    with tempfile.TemporaryDirectory(prefix="akoya-publish-") as name:
        folder = Path(name)
        compared, weighed, inside = folder / "compare.json", folder / "footprint.json", folder / "inside.json"
        _step("compare", *(_RUNS if trial is None else _TRIAL), "--json", str(compared))
        short = () if trial is None else ("--connections", "500", "--streamed", "64", "--starts", "2")
        _step("footprint", *short, "--json", str(weighed))
        with inside.open("w") as output:
            _step(
                "inside", *(() if trial is None else ("--rounds", "2", "--requests", "2000")), "--json", output=output
            )
        results = RESULTS if trial is None else trial
        results.mkdir(parents=True, exist_ok=True)
        for each in (compared, weighed, inside):
            shutil.copy(each, results)
    page = PAGE if trial is None else trial / PAGE.name
    _step(
        "report",
        "--compare",
        str(results / compared.name),
        "--footprint",
        str(results / weighed.name),
        "--inside",
        str(results / inside.name),
        "--out",
        str(page),
    )


def _step(module: str, *options: str, output: IO[str] | None = None) -> None:
    """Run one of the other commands, with its standard output to `output`. Exits with its status if it fails."""
    began = time.monotonic()
    done = subprocess.run([sys.executable, "-m", f"benchmarks.{module}", *options], stdout=output)
    print(f"{module}: {time.monotonic() - began:.0f} seconds", flush=True)
    if done.returncode:
        raise SystemExit(done.returncode)


if __name__ == "__main__":
    main()
