"""Tests of `akoya-gateway run` as operators use it: signals, crashes, reloads and failures, with real processes and sockets."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import websockets.sync.client
from websockets.exceptions import ConnectionClosed

from tests.support.logs import complete_lines
from tests.support.metrics import values
from tests.support.prefork import ForkedProcess
from tests.support.processes import AS_INSTALLED, START_TIMEOUT, wait_for_port
from tests.support.raw_http import Client
from tests.support.shutdown import ended, ending, unless_done
from tests.support.sidecar import ENVIRON, Running
from tests.support.waiting import until

PASSED = "akoya_gateway_requests_total{outcome=passed,rule=access[0] /public/*,status=2xx}"


class Slow(threading.Thread):
    """A request in a background thread that the app holds until `respond` is called."""

    def __init__(self, run: Running) -> None:
        super().__init__(daemon=True)
        self._run = run
        self._response: httpx.Response | None = None
        self._error: Exception | None = None
        self.start()
        assert run.app.requested.wait(60)

    def run(self) -> None:
        try:
            self._response = self._run.get("/public/slow")
        except httpx.HTTPError as error:
            self._error = error

    def respond(self) -> str:
        self._run.app.go.set()
        self.join(60)
        assert self._response is not None, self._error
        return self._response.text


@pytest.fixture(params=["1", "2"], ids=["one process", "two workers"])
def running(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Running]:
    with Running(tmp_path, "--workers", request.param, "--grace", "60") as run:
        until(lambda: len(run.worker_pids()) == int(request.param), "all workers are up", within=START_TIMEOUT)
        yield run


def test_command_prints_what_it_serves_and_stops_in_order(running: Running) -> None:
    assert running.get("/public/x").text == "done"
    assert running.get("/elsewhere").status_code == 403
    assert running.terminate() == 0
    lines = running.log()
    start = next(line for line in lines if line["event"] == "gateway started")
    assert start["listen"] == f"127.0.0.1:{running.port}"
    assert start["upstream"] == [running.upstream.url]
    assert start["environments"] == ["double"]
    assert any(
        line["event"] == "configuration warning found" and "cookies are not Secure" in line["warning"] for line in lines
    )
    # Sorted: each worker writes its lines after the responses.
    assert sorted(line["path"] for line in lines if line["event"] == "request") == ["/elsewhere", "/public/x"]
    text = complete_lines(running.gateway.log)
    assert not any(secret in text for name, secret in ENVIRON.items() if name != "AKOYA_CLIENT_ID")


def test_admin_listener_has_health_and_metrics_and_the_public_port_has_not(running: Running) -> None:
    assert running.fetch_admin("/livez").status_code == 200
    assert running.fetch_admin("/readyz").json()["status"] == "ready"
    assert "akoya_gateway_build_info" in running.fetch_admin("/metrics").text
    for path in ("/livez", "/readyz", "/metrics"):
        assert running.get(path).status_code == 403
        assert running.fetch_admin("/akoya/").status_code == 404


def test_sigterm_lets_a_slow_response_complete(running: Running) -> None:
    slow = Slow(running)
    running.signal(signal.SIGTERM)
    until(running.draining, "it ends")
    assert slow.respond() == "done"
    assert running.wait() == 0


def test_sigterm_turns_readiness_off_and_refuses_new_connections(running: Running) -> None:
    slow = Slow(running)
    running.signal(signal.SIGTERM)
    until(running.draining, "readiness is off")
    assert running.fetch_admin("/readyz").json()["draining"] is True

    def refused() -> bool:
        try:
            socket.create_connection(("127.0.0.1", running.port), 1).close()
        except ConnectionRefusedError:
            return True
        return False

    until(refused, "new connections are refused")
    assert slow.respond() == "done"
    assert running.wait() == 0


def test_signals_of_log_rotation_are_ignored_and_sigquit_drains(running: Running) -> None:
    """By default each of them would end the process, and with it a token refresh in flight."""
    slow = Slow(running)
    for number in (signal.SIGUSR1, signal.SIGUSR2):
        for pid in {running.pid, *running.worker_pids()}:
            os.kill(pid, number)
    assert running.get("/public/x").text == "done"
    running.signal(signal.SIGQUIT)
    until(running.draining, "it ends")
    assert slow.respond() == "done"
    assert running.wait() == 0
    assert "worker exited" not in running.events()


def test_closed_standard_streams_are_replaced_by_dev_null(tmp_path: Path) -> None:
    """Otherwise log lines were written into the socket that got number 1, and libuv aborted the process at its end."""
    run = Running(tmp_path, changes={"logging": {"format": "console"}})  # the format that looks for a terminal
    gateway = run.gateway
    command = ["/bin/sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh", *gateway.command()]
    with run.upstream, subprocess.Popen(command, env={**os.environ, "PYTHONPATH": AS_INSTALLED, **ENVIRON}) as process:
        try:
            wait_for_port(run.port, process, gateway.log)
            streams = {Path(f"/proc/{process.pid}/fd/{number}").readlink() for number in (0, 1, 2)}
            response = run.get("/public/x").text
        finally:
            process.send_signal(signal.SIGTERM)
            code = process.wait(60)
    assert streams == {Path(os.devnull)}
    assert response == "done"
    assert code == 0


def test_idle_keep_alive_connection_does_not_delay_the_stop(running: Running) -> None:
    with httpx.Client(base_url=running.url, trust_env=False, timeout=60) as client:
        assert client.get("/public/x").status_code == 200
        assert running.terminate(within=30) == 0


def test_hundreds_of_idle_connections_are_closed_while_a_response_completes(running: Running) -> None:
    """Tested manually with 9,000 connections. This number fits into the default file descriptor limit everywhere."""
    with contextlib.ExitStack() as all_of_them:
        idle = [all_of_them.enter_context(Client(running.port)) for _ in range(400)]
        for client in idle:
            client.send(b"GET /public/x HTTP/1.1\r\nHost: a\r\n\r\n")
        for client in idle:
            assert client.response().body == b"done"
        slow = Slow(running)
        running.signal(signal.SIGTERM)
        assert all(client.rest() == b"" for client in idle), "an idle connection must be closed without a response"
        assert slow.respond() == "done"
        assert running.wait() == 0


def test_broken_file_keeps_the_last_good_configuration(running: Running) -> None:
    good = running.gateway.config_path.read_text()
    running.gateway.config_path.write_text(good.replace("client: demo", "client: demmo") + "\nbogus: 1\n")
    running.signal(signal.SIGHUP)
    gauge = "akoya_gateway_config_last_reload_successful{}"
    until(lambda: values(running.fetch_admin("/metrics").content)[gauge] == 0, "the reload has failed")
    assert running.get("/public/x").text == "done"
    faults = [line["fault"] for line in running.log() if line["event"] == "configuration error found"]
    assert len(faults) == 2
    assert any('no client named "demmo"' in fault for fault in faults)
    running.gateway.config_path.write_text(good.replace("/public/*", "/free/*"))
    running.signal(signal.SIGHUP)
    until(lambda: values(running.fetch_admin("/metrics").content)[gauge] == 1, "the reload is done")
    assert running.get("/public/x").status_code == 403
    assert running.get("/free/x").text == "done"
    assert running.terminate() == 0


def test_reload_drops_no_connection_and_no_request(running: Running) -> None:
    with httpx.Client(base_url=running.url, trust_env=False, timeout=60) as client:
        client.get("/public/x")
        slow = Slow(running)
        other = (
            running.gateway.config_path.read_text()
            .replace("pool: 100", "")
            .replace(f"url: {running.upstream.url}", f"url: {running.upstream.url}\n  pool: 7")
        )
        running.gateway.config_path.write_text(other)
        running.signal(signal.SIGHUP)

        def served_and_reloaded() -> bool:
            assert client.get("/public/x").text == "done"
            return "configuration reloaded" in running.events()

        until(served_and_reloaded, "the configuration is reloaded")
        assert client.get("/public/x").text == "done"
        assert slow.respond() == "done"


def test_reload_keeps_streams_and_websockets_open(running: Running) -> None:
    """The reload replaces the connection pool. Streams that run on connections of the old pool must continue."""
    with (
        httpx.Client(base_url=running.url, trust_env=False, timeout=60) as client,
        client.stream("GET", "/public/stream") as stream,
        client.stream("GET", "/public/events") as events,
        websockets.sync.client.connect(f"ws://127.0.0.1:{running.port}/public/ws") as ws,
    ):
        both = [each.iter_lines() for each in (stream, events)]
        text = running.gateway.config_path.read_text()
        url = f"url: {running.upstream.url}"
        running.gateway.config_path.write_text(text.replace(url, f"{url}\n  pool: 7"))
        running.signal(signal.SIGHUP)
        until(lambda: running.events().count("configuration reloaded") == len(running.worker_pids()), "it is reloaded")
        for _ in range(30):
            assert [next(lines) for lines in both] == ["tick", "tick"]
        ws.send("still there")
        assert ws.recv(30) == "still there"
        running.app.go.set()
        assert [list(lines)[-1] for lines in both] == ["done", "done"]


def test_settings_that_a_reload_cannot_change_are_reported(running: Running) -> None:
    text = running.gateway.config_path.read_text().replace("level: info", "level: debug")
    running.gateway.config_path.write_text(text)
    running.signal(signal.SIGHUP)
    until(lambda: any(line.get("setting") == "logging" for line in running.log()), "the setting is logged")


class TestStreams:
    def test_stream_gets_the_grace_and_not_more(self, tmp_path: Path) -> None:
        with (
            Running(tmp_path, "--grace", "1", "--drain-delay", "0.5") as run,
            httpx.Client(trust_env=False, timeout=60) as client,
        ):
            with client.stream("GET", run.url + "/public/stream") as response:
                lines = response.iter_lines()
                assert next(lines) == "tick"
                began = time.monotonic()
                run.signal(signal.SIGTERM)
                with pytest.raises(httpx.HTTPError):
                    for _ in lines:
                        pass
                assert time.monotonic() - began > 1.4, "the drain delay and the grace"
            assert run.wait() == 0
            assert [line for line in run.log() if line["level"] == "error"] == []

    @pytest.mark.parametrize("options", [(), ("--no-fast-lane",)], ids=["tunnel", "messages"])
    def test_websocket_gets_the_grace_and_a_close_code(self, options: tuple[str, ...], tmp_path: Path) -> None:
        with Running(tmp_path, "--grace", "5", *options) as run:
            with websockets.sync.client.connect(f"ws://127.0.0.1:{run.port}/public/ws") as ws:
                ws.send("one")
                assert ws.recv(30) == "one"
                began = time.monotonic()
                run.signal(signal.SIGTERM)
                until(run.draining, "it ends")
                ws.send("two")
                assert ws.recv(30) == "two"
                with pytest.raises(ConnectionClosed) as closed:
                    ws.recv(60)
                assert time.monotonic() - began > 4.9
                assert closed.value.rcvd is not None
                assert closed.value.rcvd.code == 1012
            assert run.wait() == 0

    def test_second_sigterm_does_not_wait(self, tmp_path: Path) -> None:
        with (
            Running(tmp_path, "--grace", "60") as run,
            httpx.Client(trust_env=False, timeout=60) as client,
            client.stream("GET", run.url + "/public/stream") as response,
        ):
            lines = response.iter_lines()
            assert next(lines) == "tick"
            run.signal(signal.SIGTERM)
            until(run.draining, "it ends")
            assert next(lines) == "tick"
            run.signal(signal.SIGTERM)
            assert run.wait(60) == 0

    def test_drain_delay_keeps_serving_while_not_ready(self, tmp_path: Path) -> None:
        """The delay is longer than the test could take, and is ended by a second signal."""
        with Running(tmp_path, "--drain-delay", "300") as run:
            run.signal(signal.SIGTERM)
            until(run.draining, "readiness is off")
            response = run.get("/public/x")
            assert response.text == "done"
            assert response.headers["connection"] == "close"
            run.signal(signal.SIGTERM)
            assert run.wait() == 0


class TestWorkers:
    @pytest.fixture
    def running(self, tmp_path: Path) -> Iterator[Running]:
        with Running(tmp_path, "--workers", "2") as run:
            until(lambda: len(run.worker_pids()) == 2, "both workers are up", within=START_TIMEOUT)
            yield run

    def test_killed_worker_is_replaced_and_the_others_users_see_nothing(self, running: Running) -> None:
        stop = threading.Event()
        failures: list[str] = []
        served = 0
        victim = running.worker_pids()[0]

        def keep_asking() -> None:
            # Use a new connection for each request, so that any live worker can accept it.
            nonlocal served
            while not stop.is_set():
                try:
                    assert running.get("/public/x").text == "done"
                    served += 1
                except httpx.ReadError as error:
                    failures.append(repr(error))
                except httpx.RemoteProtocolError as error:
                    failures.append(repr(error))

        clients = [threading.Thread(target=keep_asking, daemon=True) for _ in range(3)]
        for client in clients:
            client.start()
        until(lambda: served > 10, "requests are served")
        os.kill(victim, signal.SIGKILL)
        until(lambda: victim not in running.worker_pids() and len(running.worker_pids()) == 2, "the worker is replaced")
        before = served
        until(lambda: served > before + 10, "requests are served again")
        stop.set()
        for client in clients:
            client.join(60)
        # Requests in progress in the killed worker are lost. There are at most as many as clients.
        assert len(failures) <= len(clients), failures
        died = next(line for line in running.log() if line["event"] == "worker exited")
        assert died["reason"] == "killed by SIGKILL"
        assert died["pid"] == victim

    def test_configuration_that_no_worker_can_start_with_is_given_up(self, running: Running) -> None:
        """The fault is not visible in the file: it only shows when the store is opened."""
        (running.folder / "folder.db").mkdir()
        text = running.gateway.config_path.read_text()
        running.gateway.config_path.write_text(text.replace("/grants.db", "/folder.db"))
        running.signal(signal.SIGHUP)
        refused = "new configuration not applied"
        until(lambda: running.events().count(refused) == 2, "both workers keep the old configuration")
        victim = running.worker_pids()[0]
        os.kill(victim, signal.SIGKILL)
        until(lambda: victim not in running.worker_pids() and len(running.worker_pids()) == 2, "the worker is replaced")
        until(lambda: "configuration rolled back" in running.events(), "the log says so")
        assert running.get("/public/x").text == "done"
        assert running.terminate() == 0

    def test_worker_that_is_stuck_is_replaced(self, tmp_path: Path) -> None:
        run = Running(tmp_path)
        code = (
            "from akoya_gateway.server import supervisor; from akoya_gateway.cli import app\n"
            "supervisor.STUCK_AFTER = 3.0\n"
            f"app(['run', '--workers', '2', '--config', {str(run.gateway.config_path)!r}])"
        )
        environ = {**os.environ, **ENVIRON}
        with (
            run.upstream,
            run.gateway.log.open("wb") as log,
            subprocess.Popen([sys.executable, "-c", code], env=environ, stdout=log) as process,
        ):
            try:
                until(lambda: run.events().count("worker started") == 2, "both workers are up")
                until(lambda: run.get("/public/x").text == "done", "requests are served")
                victim = next(line["pid"] for line in run.log() if line["event"] == "worker started")
                os.kill(victim, signal.SIGSTOP)

                def killed() -> bool:
                    return any(line["event"] == "stuck worker killed" and line["pid"] == victim for line in run.log())

                until(killed, "the stuck worker is killed")
                until(lambda: run.events().count("worker started") >= 3, "the worker is replaced")
            finally:
                assert ended(process) == 0

    def test_connection_to_the_other_worker_does_not_notice(self, running: Running) -> None:
        connections = [httpx.Client(base_url=running.url, trust_env=False, timeout=60) for _ in range(12)]
        for each in connections:
            each.get("/public/x")
        victim = running.worker_pids()[0]
        theirs = _clients_of(victim, running.port)
        os.kill(victim, signal.SIGKILL)
        until(lambda: not _is_there(victim), "the worker has exited")
        survivors = 0
        for each in connections:
            try:
                assert each.get("/public/x").text == "done"
                survivors += 1
            except (httpx.ReadError, httpx.RemoteProtocolError):
                pass
            each.close()
        assert survivors >= 12 - theirs

    def test_metrics_cover_all_workers_whichever_responds(self, running: Running) -> None:
        for _ in range(30):
            running.get("/public/x")

        def counted() -> set[float]:
            return {values(running.fetch_admin("/metrics").content).get(PASSED, 0.0) for _ in range(6)}

        until(lambda: counted() == {30.0}, "every response reports 30")
        victim = running.worker_pids()[0]
        os.kill(victim, signal.SIGKILL)
        until(lambda: victim not in running.worker_pids() and len(running.worker_pids()) == 2, "the worker is replaced")
        # The exited worker's counts are retained, because a counter must not decrease.
        until(lambda: counted() == {30.0}, "every response reports 30 again")

    def test_workers_end_with_their_supervisor(self, running: Running) -> None:
        workers = running.worker_pids()
        running.signal(signal.SIGKILL)
        until(lambda: not any(_is_there(pid) for pid in workers), "the workers have exited")

    def test_ctrl_c_reaches_every_process_and_still_drains(self, running: Running) -> None:
        slow = Slow(running)
        os.killpg(running.pid, signal.SIGINT)
        until(running.draining, "it ends")
        assert slow.respond() == "done"
        assert running.wait() == 0


def _is_there(pid: int) -> bool:
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False


def _clients_of(pid: int, port: int) -> int:
    """Return how many connections a process has accepted on the port."""
    inodes = set()
    for each in Path(f"/proc/{pid}/fd").iterdir():
        # The process runs: a descriptor that was listed may be closed by now.
        with contextlib.suppress(FileNotFoundError):
            target = str(each.readlink())
            if target.startswith("socket:["):
                inodes.add(target[8:-1])
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return sum(1 for row in rows if row[9] in inodes and row[1].endswith(f":{port:04X}") and row[3] == "01")


class TestFaultsAtStart:
    def start(self, folder: Path, *options: str, **changes: object) -> subprocess.CompletedProcess[str]:
        arguments = ["run", "--config", str(Running(folder, changes=changes).gateway.config_path), *options]
        environ = {**os.environ, **ENVIRON, "PYTHONPATH": AS_INSTALLED}
        paths = folder / "stdout", folder / "stderr"
        with paths[0].open("wb") as out, paths[1].open("wb") as err:
            process = ForkedProcess(
                "akoya_gateway", arguments, env=environ, cwd=folder, output=out.fileno(), errors=err.fileno()
            )
            status = process.wait(60)
        return subprocess.CompletedProcess(arguments, status, *(path.read_text() for path in paths))

    def test_faulty_configuration_is_one_line_a_fault(self, tmp_path: Path) -> None:
        done = self.start(tmp_path, connectors={"mikomo": {"client": "nobody"}}, bogus=1)
        assert done.returncode == 1
        assert len(done.stderr.splitlines()) >= 2
        assert all("gateway.yaml:" in line for line in done.stderr.splitlines())
        assert done.stdout == ""

    @pytest.mark.parametrize("workers", ["1", "2"])
    def test_port_in_use_is_one_line(self, tmp_path: Path, workers: str) -> None:
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            port = taken.getsockname()[1]
            done = self.start(tmp_path, "--workers", workers, listen=f"127.0.0.1:{port}")
        assert done.returncode == 1
        assert done.stderr.splitlines() == [
            f"akoya-gateway: listen: cannot listen on 127.0.0.1:{port}: "
            "another process listens there; stop it or choose another port"
        ]
        assert done.stdout == ""

    @pytest.mark.parametrize("workers", ["1", "2"])
    def test_store_that_cannot_be_opened_is_one_line(self, tmp_path: Path, workers: str) -> None:
        (tmp_path / "folder.db").mkdir()
        store = {"store": f"sqlite://{tmp_path}/folder.db", "keys": [{"env": "AKOYA_GATEWAY_KEY"}]}
        done = self.start(tmp_path, "--workers", workers, sessions=store)
        assert done.returncode == 1
        assert "Traceback" not in done.stdout + done.stderr
        assert done.stdout.count('"start failed"') == 1
        assert "folder.db" in done.stdout

    def test_several_workers_with_the_memory_store_are_refused(self, tmp_path: Path) -> None:
        store = {"store": "memory://", "keys": [{"env": "AKOYA_GATEWAY_KEY"}]}
        done = self.start(tmp_path, "--workers", "2", sessions=store)
        assert done.returncode == 1
        assert done.stderr == (
            "akoya-gateway: sessions.store: memory:// serves one process only, but --workers 2 starts several; "
            "use sqlite: or redis:, or --workers 1\n"
        )


def test_reload_to_the_memory_store_with_several_workers_keeps_the_last_configuration(tmp_path: Path) -> None:
    with Running(tmp_path, "--workers", "2") as run:
        path = run.gateway.config_path
        text = path.read_text()
        path.write_text(re.sub(r"sqlite:\S+?grants\.db", "memory://", text))
        assert path.read_text() != text
        run.signal(signal.SIGHUP)
        until(lambda: sum("memory:// serves one" in str(line.get("reason")) for line in run.log()) > 0, "it is refused")
        assert run.get("/public/x").text == "done"


def test_changed_file_is_noticed(tmp_path: Path) -> None:
    with Running(tmp_path, "--watch") as run:
        path = run.gateway.config_path
        # Replace the file by renaming a new one, as editors and Kubernetes do.
        new = path.with_suffix(".new")
        new.write_text(path.read_text().replace("/public/*", "/free/*"))
        new.rename(path)
        until(lambda: run.get("/free/x").status_code == 200, "the new rule is in force")


@pytest.mark.parametrize("workers", ["1", "2"])
def test_reload_requested_during_the_start_runs_after_it(tmp_path: Path, workers: str) -> None:
    run = Running(tmp_path, "--workers", workers)
    path = run.gateway.config_path
    config = path.read_bytes()
    path.unlink()
    os.mkfifo(path)
    environ = {**os.environ, **ENVIRON}
    with ending(subprocess.Popen(run.gateway.command(), stdout=subprocess.PIPE, env=environ)) as process:
        with unless_done(process.kill, 60.0), path.open("wb") as first:
            # Opening the FIFO for writing returns once the process reads its configuration.
            new = path.with_suffix(".new")
            new.write_bytes(config)
            new.rename(path)
            process.send_signal(signal.SIGHUP)
            first.write(config)
        assert process.stdout is not None
        with process.stdout as log, unless_done(process.kill, 60.0):
            assert any(b'"configuration reloaded"' in line for line in log), "the process exited or did not reload"


@pytest.mark.parametrize("workers", ["1", "2"])
def test_gateway_serves_and_stops_if_its_output_is_not_read(tmp_path: Path, workers: str) -> None:
    run = Running(tmp_path, "--workers", workers)
    environ = {**os.environ, **ENVIRON}
    with run.upstream, subprocess.Popen(run.gateway.command(), stdout=subprocess.PIPE, env=environ) as process:
        with ending(process):
            wait_for_port(run.port, process)
            with httpx.Client(base_url=run.url, trust_env=False, timeout=60) as client:
                # The log lines exceed what a pipe holds.
                assert {client.get("/public/" + "x" * 2000).status_code for _ in range(100)} == {200}
        assert process.returncode == 0


def test_it_listens_on_a_unix_socket_of_its_group(tmp_path: Path) -> None:
    run = Running(tmp_path)
    path = tmp_path / "front.sock"
    text = run.gateway.config_path.read_text().replace(f"listen: 127.0.0.1:{run.port}", f"listen: unix:{path}")
    run.gateway.config_path.write_text(text)
    command = [sys.executable, "-m", "akoya_gateway", "run", "--config", str(run.gateway.config_path)]
    with run.upstream, subprocess.Popen(command, env={**os.environ, **ENVIRON}, stdout=subprocess.PIPE) as process:
        try:
            until(path.exists, "it listens")
            assert path.stat().st_mode & 0o777 == 0o660
            with httpx.Client(transport=httpx.HTTPTransport(uds=str(path)), base_url="http://app") as client:
                assert client.get("/public/x").text == "done"
        finally:
            assert ended(process) == 0
    assert not path.exists()


@pytest.mark.skipif(not Path("/proc/self/smaps_rollup").exists(), reason="memory is read from /proc")
def test_idle_process_takes_less_than_80_megabytes(tmp_path: Path) -> None:
    sidecar = Running(tmp_path, "--workers", "2")
    # A forked process shares its memory with the process that tests fork gateways from.
    sidecar.gateway.prefork = False
    with sidecar as run:
        until(lambda: len(run.worker_pids()) == 2, "all workers are up")
        assert run.get("/public/x").text == "done"
        resident = {
            pid: int(Path(f"/proc/{pid}/smaps_rollup").read_text().split("Rss:")[1].split()[0]) * 1024
            for pid in (run.pid, *run.worker_pids())
        }
    assert max(resident.values()) < 80e6


def test_collector_sleeps_while_modules_load_and_works_while_it_serves(tmp_path: Path) -> None:
    run = Running(tmp_path)
    code = (
        "import gc, sys; from akoya_gateway.entrypoints import sidecar; from akoya_gateway.cli import app\n"
        "real = sidecar.load_config\n"
        "sidecar.load_config = lambda path: print('loading', gc.isenabled()) or real(path)\n"
        "sidecar._ServerRun.run_single = lambda self: print('serving', gc.isenabled()) or 0\n"
        f"app(['run', '--config', {str(run.gateway.config_path)!r}])"
    )
    environ = {**os.environ, **ENVIRON}
    done = subprocess.run([sys.executable, "-c", code], env=environ, capture_output=True, text=True, check=True)
    assert [line for line in done.stdout.splitlines() if not line.startswith("{")] == ["loading False", "serving True"]
