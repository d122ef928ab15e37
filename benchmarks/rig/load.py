"""Load generators and their results: wrk at full speed; our own clients for constant rates, streams and WebSockets."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.rig.processes import cpu_seconds

_SCRIPT = """
local headers = {headers}
local cookies = {cookies}
local method = "{method}"
local body = {body}
local at = 0
local plain
local vary = {vary}
local function made(cookie)
  if cookie then headers["cookie"] = cookie end
  return wrk.format(method, nil, headers, body)
end
function init(args) plain = made(nil) end
function request()
  if vary then
    at = at + 1
    headers["x-trace"] = "trace-" .. at
    return wrk.format(method, wrk.path .. "/" .. at .. "?page=" .. at, headers, body)
  end
  if #cookies == 0 then return plain end
  at = at % #cookies + 1
  return made(cookies[at])
end
function done(summary, latency, requests)
  local e = summary.errors
  io.write(string.format(
    'RESULT {{"requests":%d,"micros":%d,"bytes":%d,"errors":%d,"p50":%d,"p99":%d,"p999":%d,"max":%d}}\\n',
    summary.requests, summary.duration, summary.bytes, e.connect + e.read + e.write + e.status + e.timeout,
    latency:percentile(50), latency:percentile(99), latency:percentile(99.9), latency.max))
end
"""


@dataclass(frozen=True)
class Sample:
    """One round of one system. Latencies and CPU are in microseconds; `per_second` is in the unit of the workload."""

    workload: str
    system: str
    round: int
    per_second: float
    megabytes_per_second: float
    cpu_us: float
    p50: float
    p99: float
    p999: float
    errors: int
    late: float = 0.0
    """At a constant rate: 99th percentile of the delay that the load generator itself caused."""
    load_cpu: float = 0.0
    """Fraction of a core that the load generator used."""


def wrk(
    folder: Path,
    url: str,
    headers: Mapping[str, str],
    *,
    seconds: float,
    connections: int,
    cores: str | None,
    cookies: Sequence[str] = (),
    body_bytes: int = 0,
    vary: bool = False,
    method: str = "GET",
) -> dict[str, float]:
    """Run wrk and return the values that its `done` reports. If `vary` is true, all paths and headers differ."""
    script = folder / "load.lua"
    script.write_text(
        _SCRIPT.format(
            headers=_table(headers),
            cookies="{" + ",".join(json.dumps(cookie) for cookie in cookies) + "}",
            method="PUT" if body_bytes else method,
            vary="true" if vary else "false",
            body=f'string.rep("x", {body_bytes})' if body_bytes else "nil",
        )
    )
    pin = ["taskset", "-c", cores] if cores is not None else []
    command = [
        *pin, "wrk", "-t1", f"-c{connections}", f"-d{max(1, round(seconds))}s", "--timeout", "20s",
        "-s", str(script), url,
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=seconds + 60, check=True)
    for line in done.stdout.splitlines():
        if line.startswith("RESULT "):
            return dict(json.loads(line[7:]))
    raise RuntimeError(f"wrk said nothing: {done.stdout} {done.stderr}")


def sample_of(result: Mapping[str, float], cpu: float, workload: str, system: str, number: int) -> Sample:
    seconds = result["micros"] / 1e6
    requests = max(1.0, result["requests"])
    return Sample(
        workload,
        system,
        number,
        result["requests"] / seconds,
        result["bytes"] / seconds / 1e6,
        cpu / requests * 1e6,
        result["p50"],
        result["p99"],
        result["p999"],
        int(result["errors"]),
        result.get("late", 0.0),
        result.get("load_cpu", 0.0),
    )


def steady(
    url: str,
    headers: Mapping[str, str],
    pid: int,
    *,
    rate: float,
    seconds: float,
    connections: int,
    seed: int,
    cores: str | None,
) -> tuple[dict[str, float], float]:
    """Send `rate` requests per second; see `benchmarks.rig.steady`. Returns the same as `streaming`."""
    command = ["benchmarks.rig.steady", url, rate, seconds, connections, seed, json.dumps(dict(headers))]
    return _client([str(each) for each in command], pid, seconds, cores)


def streaming(
    kind: str, url: str, headers: Mapping[str, str], pid: int, *, count: int, seconds: float, cores: str | None
) -> tuple[dict[str, float], float]:
    """Run `benchmarks.rig.clients`; `kind` is `events` or `echo`.

    Returns its results, and the CPU seconds that `pid` used meanwhile.
    """
    command = ["benchmarks.rig.clients", kind, url, str(count), str(seconds), json.dumps(dict(headers))]
    return _client(command, pid, seconds, cores)


def _client(module: Sequence[str], pid: int, seconds: float, cores: str | None) -> tuple[dict[str, float], float]:
    """Run a client, which prints one line to stderr when it starts to measure, and its results to stdout at the end."""
    pin = ["taskset", "-c", cores] if cores is not None else []
    command = [*pin, sys.executable, "-m", *module]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as client:
        assert client.stderr is not None
        first = client.stderr.readline()
        meter = Meter(pid)
        arguments, trouble = client.communicate(timeout=seconds + 60)
        spent = meter.spent()
    if client.returncode:
        raise RuntimeError(f"{' '.join(module[:3])}: {first}{trouble[-1500:]}")
    return dict(json.loads(arguments)), spent


class Meter:
    """CPU time of a process tree, from construction to `spent()`."""

    def __init__(self, pid: int) -> None:
        self._pid = pid
        self._began = cpu_seconds(pid)

    def spent(self) -> float:
        return cpu_seconds(self._pid) - self._began


def _table(headers: Mapping[str, str]) -> str:
    return "{" + ",".join(f"[{json.dumps(name)}]={json.dumps(value)}" for name, value in headers.items()) + "}"
