"""Generates `docs/performance.md` and its plots from the results of the other commands.

python -m benchmarks.report
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from benchmarks import footprint
from benchmarks.rig import plots
from benchmarks.rig.load import Sample
from benchmarks.rig.numbers import outcomes, rows
from benchmarks.rig.systems import SYSTEMS
from benchmarks.rig.table import cells, header, target_cells
from benchmarks.rig.workloads import WORKLOADS

_HEAD = """# How fast it is

Made by `python -m benchmarks.report` from what `benchmarks.compare` and `benchmarks.footprint` measured; do not edit.

Every system stands in front of the same upstream (nginx; a small asyncio server for streams) and logs in for real at
the Akoya emulator. It is proven to refuse without its session and to hand the upstream a token with it, and is then
driven with that live session: by wrk on one thread, as fast as it answers; in `steady` and `half` at a constant rate.
Each server is pinned to the first core, load and upstream share the second; one worker each; access logs are off;
connections are kept alive. Rounds are interleaved (A B C ... A B C ...).

**How to read it.** Numbers are medians over the rounds; ratios are taken within a round and given with the least and
the greatest. On a machine with two cores the load and the upstream often limit the fastest systems, and whatever else
runs shows in every number: *CPU us*, the server's own user and system time for one request, is the steadier measure,
and *x less CPU* says how many times the reference's CPU is saved.

**Latencies** are to be compared in `steady` and `half`. There requests come as from clients that know nothing of each
other, at the same moments for every system of a round, on 32 connections; each latency counts from when the request was
due, waiting for a free connection included, so nobody gains by answering late. *load late* is how late the load itself
was (99th percentile), *load's core* the part of a core it took. *CPU us* is more than at the limit, because a server
that has time sleeps, and is woken for each request. Everywhere else the loop is closed: a connection asks
again as soon as it is answered, so a faster system is asked more.
"""

_NOTES = Path(__file__).with_name("notes.md")


def document(compared: dict[str, Any], weighed: dict[str, Any] | None, pictures: str, notes: str) -> str:
    """Return the page. `pictures` is the folder of the plots as a link, without a trailing slash."""
    samples = [Sample(**one) for one in compared["samples"]]
    parts = [_HEAD, "## What was aimed at\n", *_targets(samples, weighed)]
    parts += ["## The systems\n", _markdown(["name", "what it is"], [[s.name, s.what] for s in SYSTEMS.values()])]
    parts += [f"`{name}` was not measured: {why}.\n" for name, why in compared["absent"].items()]
    for name, workload in WORKLOADS.items():
        found = rows(samples, name, workload.reference)
        if not found:
            continue
        lines = [cells(workload, row) for row in found]
        parts += [f"## {name}: {workload.what}\n", _markdown(header(workload), lines, right=True)]
        parts.append(f"![{name}]({pictures}/{name}.png)\n")
        taken = compared["settings"][name]
        told = f", {taken['sessions']:,} cold sessions" if name == "cold" else ""
        parts.append(f"{taken['rounds']} rounds of {taken['seconds']:g} seconds{told}.\n")
    parts.append(notes)
    parts += ["## Machine and versions\n", _markdown(["", ""], [[k, str(v)] for k, v in compared["machine"].items()])]
    parts.append(_CLOSED_LOOP)
    parts.append(_REPEAT)
    return "\n".join(parts)


_CLOSED_LOOP = """Closed loops have 32 connections (4 with 10 MB bodies), and their latencies follow from throughput;
p99.9 of a short round says little.
"""

_REPEAT = """## How to repeat

```
apt-get install nginx apache2 libapache2-mod-auth-openidc wrk
pip install 'akoya-gateway[bench]' granian
go install github.com/oauth2-proxy/oauth2-proxy/v7@latest       # into a folder on the PATH
python -m benchmarks.compare       # -w and -s choose, --rounds and --seconds lengthen, --quick only tries
python -m benchmarks.compare -w steady -w half --rounds 5 --seconds 10 --merge       # latencies, fifteen minutes
python -m benchmarks.footprint
python -m benchmarks.report
```

In an environment of its own, that is without the test tools: some of them pull in extras of jsonschema that cost a
second at every start. oauth2-proxy takes part where its binary is on the PATH, granian where it is installed.

What had to be set for the peers: the emulator gives out an `access_token` (Envoy insists on one) and takes a code with
either client authentication. Envoy authenticates with HTTP Basic; `connector=mikomo` is part of its authorization
endpoint. mod_auth_openidc learns the endpoints from the emulator's discovery document, because it takes plain http only
from there, and runs one process with 64 threads: a single thread could not hold 32 connections.
"""


def _targets(samples: Sequence[Sample], weighed: dict[str, Any] | None) -> Iterable[str]:
    found = [target_cells(outcome) for outcome in outcomes(samples)]
    if weighed is not None:
        for what, aim, measured, reached in footprint.lines(weighed["footprint"]):
            found.append([what, aim, measured, "reached" if reached else "missed"])
    yield _markdown(["target", "aim", "measured", ""], found)


def _markdown(names: Sequence[str], lines: Iterable[Sequence[str]], *, right: bool = False) -> str:
    rules = ["---", *("---:" if right else "---" for _ in names[1:])]
    return "".join("| " + " | ".join(line) + " |\n" for line in [names, rules, *lines])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    results = Path("benchmarks/results")
    parser.add_argument("--compare", type=Path, default=results / "compare.json", metavar="FILE")
    parser.add_argument("--footprint", type=Path, default=results / "footprint.json", metavar="FILE")
    parser.add_argument("--out", type=Path, default=Path("docs/performance.md"), metavar="FILE")
    chosen = parser.parse_args()
    compared = json.loads(chosen.compare.read_text())
    weighed = json.loads(chosen.footprint.read_text()) if chosen.footprint.exists() else None
    pictures = chosen.out.with_suffix("")
    plots.draw([Sample(**one) for one in compared["samples"]], pictures)
    notes = _NOTES.read_text() if _NOTES.exists() else ""
    chosen.out.write_text(document(compared, weighed, pictures.name, notes), encoding="utf-8")
    print(f"written: {chosen.out} and {pictures}/*.png")


if __name__ == "__main__":
    main()
