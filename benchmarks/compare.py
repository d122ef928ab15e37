"""Compares the gateway with other proxies in front of the same upstream, in one run.

    python -m benchmarks.compare                          everything, about ten minutes
    python -m benchmarks.compare --quick                  a short run, to see whether everything works
    python -m benchmarks.compare -w small -s sidecar -s envoy-oauth2 --rounds 7 --seconds 5
    python -m benchmarks.compare -w small -w varied -w logged -w head -w 304 --rounds 4 --seconds 1 --merge
                                                          the workloads that a change of the request path affects
    python -m benchmarks.compare -w steady -w half --rounds 5 --paced-seconds 10 --merge
                                                          latencies at a constant rate

Every system performs a real login at the Akoya emulator and is loaded with the resulting session. Each server is pinned
to the first core; wrk and the upstream share the second. Rounds are interleaved (A B C ... A B C ...). Numbers are
medians over the rounds. Ratios are computed within a round and shown with their minimum and maximum. `CPU us` is the
server's own user and system time per request. It varies less than throughput when the machine is busy.

`steady` and `half` send requests at a constant rate, and latencies count from the time at which a request was due. They
need an idle machine. To try them on a busy one, `chrt -f 1 python -m benchmarks.compare -w steady` (as root) gives
everything that is measured priority over all other processes. This uses a different scheduler, which saves context
switches, and which stops processes that use a whole core for 50 ms in every second. Do not use it for closed loops or
for numbers to publish.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmarks.rig import plots
from benchmarks.rig.load import Sample
from benchmarks.rig.machine import machine
from benchmarks.rig.numbers import outcomes, rows
from benchmarks.rig.redis import start_redis
from benchmarks.rig.systems import LOAD_CORE, SYSTEMS, Rig
from benchmarks.rig.table import table, targets
from benchmarks.rig.workloads import WORKLOADS, Lane, Lanes, Workload


def main() -> None:
    chosen = _arguments()
    console = Console(width=max(150, Console().width))
    samples: list[Sample] = []
    facts = machine()
    absent: dict[str, str] = {}
    for number in range(chosen.runs):
        console.print(f"run {number + 1} of {chosen.runs}, {time.strftime('%H:%M:%S')}")
        found, absent = _run(chosen, number * chosen.rounds)
        samples += found
        for name in chosen.workload:
            own = rows(samples, name, WORKLOADS[name].reference)
            if own:
                console.print(table(WORKLOADS[name], own), "")
        _write(chosen, _document(chosen, facts, absent, samples, number + 1), samples)
    for name, why in absent.items():
        console.print(f"{name}: not measured: {why}")
    console.print(targets(outcomes(samples)))


def _run(chosen: argparse.Namespace, first: int) -> tuple[list[Sample], dict[str, str]]:
    """Start the systems, measure each workload, and stop the systems. The number of the first round is `first`."""
    samples: list[Sample] = []
    with ExitStack() as stack:
        cached = tempfile.TemporaryDirectory(prefix="akoya-bench-", ignore_cleanup_errors=True)
        folder = Path(stack.enter_context(cached))
        folder.chmod(0o755)
        rig = stack.enter_context(Rig(folder))
        lanes = Lanes(rig, chosen.systems, chosen.sessions, lambda where: start_redis(where, stack, LOAD_CORE))
        for name in chosen.workload:
            workload = WORKLOADS[name]
            print(f"{name} {time.strftime('%H:%M:%S')}", flush=True)
            seconds = chosen.paced_seconds if workload.paced else chosen.seconds
            samples += _measure(workload, lanes.of(workload), range(first, first + chosen.rounds), seconds)
        return samples, dict(rig.absent)


def _document(
    chosen: argparse.Namespace, facts: dict[str, Any], absent: dict[str, str], samples: list[Sample], runs: int
) -> dict[str, Any]:
    settings = {
        name: {
            "rounds": runs * chosen.rounds,
            "runs": runs,
            "seconds": chosen.paced_seconds if WORKLOADS[name].paced else chosen.seconds,
            "sessions": chosen.sessions,
        }
        for name in chosen.workload
    }
    return {
        "machine": facts,
        "settings": settings,
        "absent": absent,
        "samples": [asdict(sample) for sample in samples],
    }


def _measure(workload: Workload, lanes: list[Lane], rounds: range, seconds: float) -> list[Sample]:
    for lane in lanes:
        lane.run(1.0, -1)
    found = []
    for number in rounds:
        for lane in lanes:
            found.append(lane.run(seconds, number))
            time.sleep(0.2)
    return found


def _write(chosen: argparse.Namespace, document: dict[str, Any], samples: list[Sample]) -> None:
    if chosen.merge and chosen.json.exists():
        before = json.loads(chosen.json.read_text())
        again = {sample.workload for sample in samples}
        document["samples"] = [s for s in before["samples"] if s["workload"] not in again] + document["samples"]
        document["settings"] = before["settings"] | document["settings"]
        document["absent"] = before["absent"] | document["absent"]
    chosen.json.parent.mkdir(parents=True, exist_ok=True)
    chosen.json.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    print(f"written: {chosen.json}")
    if chosen.plots is not None:
        cached = [Sample(**one) for one in document["samples"]]
        for path in plots.draw(cached, chosen.plots):
            print(f"written: {path}")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-w", "--workload", action="append", choices=WORKLOADS, help="again for more (default: all)")
    parser.add_argument("-s", "--systems", action="append", choices=SYSTEMS, help="again for more (default: all)")
    parser.add_argument("--runs", type=int, default=1, help="runs in a row, each with newly started systems (1)")
    parser.add_argument("--rounds", type=int, default=3, help="rounds of each workload in a run (3)")
    parser.add_argument("--seconds", type=float, default=2.0, help="length of one measurement, at least 1 (2)")
    parser.add_argument("--paced-seconds", type=float, default=8.0, help="the same at a constant rate (8)")
    parser.add_argument("--sessions", type=int, default=10_000, help="cold sessions made in each store (10000)")
    parser.add_argument("--quick", action="store_true", help="one round of a second, small GETs, 200 cold sessions")
    parser.add_argument("--json", type=Path, default=Path("benchmarks/results/compare.json"), metavar="FILE")
    parser.add_argument("--merge", action="store_true", help="keep the workloads of the file that were not run now")
    parser.add_argument("--plots", type=Path, default=None, metavar="FOLDER", help="also draw (needs matplotlib)")
    chosen = parser.parse_args()
    if chosen.quick:
        chosen.rounds, chosen.seconds, chosen.paced_seconds, chosen.sessions = 1, 1.0, 1.0, 200
        chosen.workload = chosen.workload or ["small"]
    chosen.workload = chosen.workload or list(WORKLOADS)
    chosen.systems = chosen.systems or list(SYSTEMS)
    return chosen


if __name__ == "__main__":
    main()
