"""`akoya-gateway grants`: what it shows, what it never shows, and that it ends grants."""

from __future__ import annotations

import asyncio
import csv
import io
import json
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import pytest
import yaml
from click.testing import CliRunner, Result

from akoya_gateway.cli import app
from akoya_gateway.config import ConfigurationError, load_config
from akoya_gateway.grants import Grant, GrantKey, GrantManager, GrantRepository, GrantState
from akoya_gateway.grants.grant import Lease
from akoya_gateway.oauth.outcomes import TokenSet, TokensIssued
from akoya_gateway.provider import open_providers
from akoya_gateway.sandbox.server import SandboxServer
from akoya_gateway.sandbox.settings import DEFAULT_CLIENT_ID, DEFAULT_CLIENT_SECRET, DEFAULT_REDIRECT_URIS
from akoya_gateway.secret import Secret
from akoya_gateway.store import EncryptedStore, Keyring, open_store
from tests.support.config_documents import ENVIRON, changed

SECRETS = ("the-bearer-of-", "the-refresh-token-of-")


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name, value in ENVIRON.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("COLUMNS", "200")
    file = tmp_path / "gateway.yaml"
    file.write_text(yaml.safe_dump(changed({"sessions.store": f"sqlite://{tmp_path}/grants.db"})))
    return file


def grant(sub: str, **changes: Any) -> Grant:
    now = time.time()
    owner = changes.pop("owner", f"own_{sub}")
    key = GrantKey(owner, changes.pop("environment", "sandbox"), "demo-app", changes.pop("connector", "mikomo"), sub)
    tokens = TokenSet(
        Secret(f"{SECRETS[0]}{sub}"), Secret(f"{SECRETS[1]}{sub}"), now + 900, ("openid",), sub, "consent-1"
    )
    return replace(Grant(key, tokens, GrantState.LIVE, now - 7200, now - 300), **changes)


def write(config: Path, *grants: Grant) -> None:
    async def all_of_them() -> None:
        sessions = load_config(config).sessions
        store = EncryptedStore(open_store(sessions.store), Keyring(sessions.keys))
        await store.open()
        for each in grants:
            assert await GrantRepository(store).write(each, after=0, now=time.time())
        await store.close()

    asyncio.run(all_of_them())


def run(config: Path, *arguments: str) -> Result:
    result = CliRunner().invoke(app, ["grants", *arguments, "--config", str(config)])
    for secret in (*SECRETS, ENVIRON["CLIENT_SECRET"], ENVIRON["GATEWAY_KEY"]):
        assert secret not in result.output
    return result


SOME = (
    grant("s1"),
    grant("s2", connector="other", state=GrantState.NEEDS_RECONNECT, reason="dead_token"),
    grant("s3", environment="production", state=GrantState.UNCERTAIN, reason="refresh_interrupted"),
    grant("s4", owner="own_s1", connector="other"),
    grant("s5", state=GrantState.REVOKED),
)


def listed(config: Path, *options: str) -> list[str]:
    result = run(config, "list", "--format", "json", *options)
    assert result.exit_code == 0
    ids = {each.public_id: each.key.sub for each in SOME}
    return sorted(ids[json.loads(line)["id"]] for line in result.stdout.splitlines())


def test_list_is_narrowed_by_owner_connector_environment_and_state(config: Path) -> None:
    write(config, *SOME)
    assert listed(config) == ["s1", "s2", "s3", "s4"]
    assert listed(config, "--owner", "own_s1") == ["s1", "s4"]
    assert listed(config, "--connector", "other") == ["s2", "s4"]
    assert listed(config, "--environment", "production") == ["s3"]
    assert listed(config, "--state", "live", "--connector", "mikomo") == ["s1"]
    assert listed(config, "--state", "revoked") == ["s5"]
    assert listed(config, "--owner", "nobody") == []


def test_json_line_has_these_fields(config: Path) -> None:
    write(config, SOME[1])
    line = json.loads(run(config, "list", "-f", "json").stdout)
    assert {name: line[name] for name in ("owner", "connector", "client", "environment", "state", "reason")} == {
        "owner": "own_s2",
        "connector": "other",
        "client": "demo-app",
        "environment": "sandbox",
        "state": "needs_reconnect",
        "reason": "dead_token",
    }
    assert line["connected_at"] < line["refreshed_at"] < line["expires_at"]
    assert line["expires_at"].endswith("Z")


def test_csv_opens_in_a_spreadsheet_and_runs_nothing(config: Path) -> None:
    hostile = '=HYPERLINK("http://evil.example")'
    write(config, grant("s1", owner=hostile))
    (row,) = csv.DictReader(io.StringIO(run(config, "list", "--format", "csv").stdout))
    assert row["owner"] == "'" + hostile
    assert row["state"] == "live"


def test_owner_does_not_steer_the_terminal(config: Path) -> None:
    write(config, grant("s1", owner="\x1b[2Jmallory [bold]\n"))
    for arguments in (["list"], ["show", grant("s1", owner="\x1b[2Jmallory [bold]\n").id]):
        output = run(config, *arguments).stdout
        assert "\x1b" not in output
        assert "\\x1b[2Jmallory [bold]" in output


def test_owner_in_a_pipe_is_whole_and_fits_the_option_owner(config: Path) -> None:
    owner = f"{'x' * 40}@app.example.com"
    write(config, grant("s1", owner=owner))
    assert owner in run(config, "list").stdout.split()
    assert run(config, "list", "--owner", owner, "-f", "csv").stdout.count(owner) == 1


def test_list_with_a_limit_stops_there(config: Path) -> None:
    write(config, *SOME)
    result = run(config, "list", "-f", "json", "--limit", "2")
    assert (result.exit_code, len(result.stdout.splitlines())) == (0, 2)


def test_grant_id_never_looks_like_an_option_and_is_taken_in_both_forms(config: Path) -> None:
    dashed = next(each for n in range(10_000) if (each := grant(f"s{n}")).id.startswith("-"))
    write(config, dashed, SOME[0])
    assert json.loads(run(config, "show", dashed.public_id, "-f", "json").stdout)["id"] == f"g_{dashed.id}"
    assert json.loads(run(config, "show", SOME[0].id, "-f", "json").stdout)["id"] == SOME[0].public_id
    assert all(line.startswith("g_") for line in run(config, "list").stdout.splitlines()[1:])


def test_revoke_without_a_terminal_needs_yes(config: Path) -> None:
    write(config, SOME[0])
    for selection in ([SOME[0].public_id], ["--owner", "own_s1"]):
        result = CliRunner().invoke(app, ["grants", "revoke", *selection, "--config", str(config)], input="n\n")
        assert result.exit_code == 2
        assert "confirm with --yes" in result.stderr
    assert listed(config) == ["s1"]


@pytest.mark.parametrize("selection", [[], [SOME[0].public_id, "--owner", "own_s1"]])
def test_revoke_takes_ids_or_a_selection(config: Path, selection: list[str]) -> None:
    assert run(config, "revoke", *selection, "--yes").exit_code == 2


def test_revoke_ends_the_selected_grants_and_no_others(config: Path) -> None:
    write(config, *(replace(each, tokens=replace(each.tokens, refresh_token=None)) for each in SOME))
    result = run(config, "revoke", "--owner", "own_s1", "--yes")
    assert (result.exit_code, sorted(result.stdout.split())) == (
        0,
        sorted([SOME[0].public_id, SOME[3].public_id, "ended", "ended"]),
    )
    assert listed(config) == ["s2", "s3"]


def test_counts_add_up(config: Path) -> None:
    write(config, *SOME, grant("s6"))
    lines = [json.loads(line) for line in run(config, "count", "-f", "json").stdout.splitlines()]
    assert {"state": "live", "connector": "mikomo", "environment": "sandbox", "grants": 2} in lines
    assert sum(line["grants"] for line in lines) == 5
    assert run(config, "count", "--by", "state", "-f", "csv").stdout.splitlines() == [
        "state,grants",
        "live,3",
        "needs_reconnect,1",
        "uncertain,1",
    ]
    assert "needs_reconnect" in run(config, "count").stdout


def test_show_names_the_responsible_party_and_the_action(config: Path) -> None:
    lease = Lease("a-host:17:abc", time.time(), time.time() + 10, sent=True)
    write(config, SOME[1], grant("s7", state=GrantState.REFRESHING, lease=lease))
    shown = json.loads(run(config, "show", SOME[1].id, "-f", "json").stdout)
    assert (shown["who"], shown["sub"], shown["has_refresh_token"]) == ("user", "s2", True)
    output = run(config, "show", grant("s7").id)
    assert output.exit_code == 0
    assert "a-host:17:abc, since 20" in output.stdout
    assert "being renewed" in output.stdout


def test_show_with_the_beginning_of_an_id_finds_the_grant_unless_it_is_ambiguous(config: Path) -> None:
    first: dict[str, Grant] = {}
    for number in range(1_000_000):
        one = grant(f"prefix{number}", owner="own_prefix")
        other = first.setdefault(one.id[:4], one)
        if other is not one and one.id[0] != "-":
            break
    write(config, one, other)
    apart = next(n for n, (a, b) in enumerate(zip(one.id, other.id, strict=True)) if a != b)
    for prefix in (one.id[: apart + 1], one.public_id[: apart + 3], one.id, one.public_id):
        assert json.loads(run(config, "show", prefix, "-f", "json").stdout)["id"] == one.public_id
    ambiguous = run(config, "show", f"g_{one.id[:4]}")
    assert ambiguous.exit_code == 1
    assert ambiguous.stderr == f"g_{one.id[:4]} is ambiguous: {', '.join(sorted((one.public_id, other.public_id)))}\n"
    short = run(config, "show", f"g_{one.id[:3]}")
    assert (short.exit_code, short.stderr) == (1, f"g_{one.id[:3]} is too short: give 4 characters of the ID or more\n")


@pytest.mark.parametrize("command", [["show", "nothing-of-ours"], ["revoke", "nothing-of-ours", "--yes"]])
def test_unknown_grant_is_a_fault(config: Path, command: list[str]) -> None:
    write(config)
    result = run(config, *command)
    assert result.exit_code == 1
    assert "no grant nothing-of-ours" in result.stderr


@pytest.mark.parametrize("command", [["list", "--state", "fine"], ["list", "--format", "xml"], ["show"], ["revoke"]])
def test_wrong_usage_exits_with_2(config: Path, command: list[str]) -> None:
    assert run(config, *command).exit_code == 2


def test_store_that_is_away_is_a_fault_in_one_line(config: Path) -> None:
    config.write_text(yaml.safe_dump(changed({"sessions.store": "redis://127.0.0.1:1"})))
    result = run(config, "list")
    assert result.exit_code == 1
    assert len(result.stderr.splitlines()) == 1
    assert "127.0.0.1:1" in result.stderr


def test_unreadable_record_is_reported_and_hides_no_other(
    config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(config, grant("s1"))
    missing = load_config(config).sessions.keys[0].id
    monkeypatch.setenv("GATEWAY_KEY", "QUJDREVGR0hJSktMTU5PUFFSU1RVVldYWVphYmNkZWY=")
    write(config, grant("s2"))
    for command in ("list", "count"):
        result = run(config, command)
        assert result.exit_code == 1
        assert missing in result.stderr
        assert "1 grant in sqlite" in result.stderr
        assert "and 1 that cannot be read" in result.stderr


def test_revoke_forgets_at_once_and_revokes_at_akoya(
    config: Path, tmp_path: Path, akoya_sandbox: SandboxServer
) -> None:
    environment = akoya_sandbox.environment()
    changes = {
        "environments": {"sandbox": environment},
        "clients.demo-app.client_id": DEFAULT_CLIENT_ID,
        "clients.demo-app.redirect_uri": DEFAULT_REDIRECT_URIS[0],
        "public_url": "http://127.0.0.1:8080",
        "sessions.store": f"sqlite://{tmp_path}/grants.db",
    }
    secret = {**ENVIRON, "CLIENT_SECRET": DEFAULT_CLIENT_SECRET}
    config.write_text(yaml.safe_dump(changed(changes)))
    first, second = (asyncio.run(connect(config, akoya_sandbox, owner, secret)) for owner in ("own_1", "own_2"))

    runner = CliRunner(env=secret)
    result = runner.invoke(app, ["grants", "revoke", first.id, "--yes", "--config", str(config)])
    assert result.exit_code == 0, result.output
    assert result.stdout == f"{first.public_id} ended\n"
    assert [event["outcome"] for event in akoya_sandbox.events("revoke")] == ["revoked"]
    left = runner.invoke(app, ["grants", "list", "-f", "json", "--config", str(config)]).stdout
    assert [json.loads(line)["id"] for line in left.splitlines()] == [second.public_id]

    akoya_sandbox.fault("status", "revoke", status=503)
    result = runner.invoke(app, ["grants", "revoke", second.id, "-y", "--config", str(config)])
    assert result.exit_code == 0, "the grant is deleted although revocation failed"
    assert "1 waiting to be revoked at Akoya" in result.stderr
    assert not runner.invoke(app, ["grants", "list", "-f", "json", "--config", str(config)]).stdout


async def connect(config: Path, akoya: SandboxServer, owner: str, environ: dict[str, str]) -> Grant:
    loaded = load_config(config, environ)
    store = EncryptedStore(open_store(loaded.sessions.store), Keyring(loaded.sessions.keys))
    await store.open()
    parameters = {
        "connector": "mikomo",
        "client_id": DEFAULT_CLIENT_ID,
        "redirect_uri": DEFAULT_REDIRECT_URIS[0],
        "response_type": "code",
        "scope": "openid profile offline_access",
        "state": "a-state-of-enough-bytes",
    }
    landed = await asyncio.to_thread(akoya.consent, f"{akoya.url}/auth?{urlencode(parameters)}")
    async with open_providers(loaded, time.time) as providers:
        response = await providers["demo-app"].exchange(Secret(parse_qs(urlsplit(landed).query)["code"][0]))
        assert isinstance(response, TokensIssued)
        grants = GrantManager(store, providers, loaded.tokens)
        connected = await grants.connect(owner, loaded.clients["demo-app"], "mikomo", response.tokens)
    await store.close()
    return connected


def test_memory_does_not_grow_with_the_number_of_grants(config: Path) -> None:
    """The peak memory of listing 10,000 grants of 2 kB is close to that of listing none."""
    few = peak(config)
    big = Secret("b" * 2000)

    async def many() -> None:
        sessions = load_config(config).sessions
        store = EncryptedStore(open_store(sessions.store), Keyring(sessions.keys))
        await store.open()
        repository = GrantRepository(store)
        for start in range(0, 10_000, 500):
            some = [grant(f"s{n}") for n in range(start, start + 500)]
            some = [replace(each, tokens=replace(each.tokens, bearer=big)) for each in some]
            await asyncio.gather(*[repository.write(each, after=0) for each in some])
        await store.close()

    asyncio.run(many())
    assert peak(config) < few + 12_000, "kilobytes; 10,000 grants are more than 20,000 kB"


def peak(config: Path) -> int:
    """Return the peak resident size, in kilobytes, of a process that lists all grants as JSON."""
    program = (
        "import resource, sys\nfrom akoya_gateway.cli import app\n"
        "try: app(['grants', 'list', '-f', 'json', '-c', sys.argv[1]])\n"
        "finally: print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(config)], capture_output=True, text=True, timeout=60, check=False
    )
    return int(done.stderr.splitlines()[-1])


def test_rotate_store_reports_the_result_by_its_exit_code(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(config, grant("s1"))
    runner = CliRunner()
    assert runner.invoke(app, ["keys", "rotate-store", "--config", str(config)]).exit_code == 0
    monkeypatch.setenv("GATEWAY_KEY", "QUJDREVGR0hJSktMTU5PUFFSU1RVVldYWVphYmNkZWY=")
    assert runner.invoke(app, ["keys", "rotate-store", "--config", str(config)]).exit_code == 1


def test_looking_at_grants_and_keys_needs_no_secret_of_a_client(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An administrator's shell has no secrets of the service. Those of the store are needed to read it."""
    write(config, grant("one"))
    monkeypatch.delenv("CLIENT_SECRET")
    for command in (
        ["grants", "count"],
        ["grants", "list"],
        ["keys", "list"],
        ["keys", "rotate-store"],
        ["url", "mikomo"],
    ):
        done = CliRunner().invoke(app, [*command, "--config", str(config)])
        assert done.exit_code == 0, (command, done.output)
    monkeypatch.delenv("SIGNING_SECRET")
    assert run(config, "list").exit_code == 0
    monkeypatch.delenv("GATEWAY_KEY")
    done = CliRunner().invoke(app, ["url", "mikomo", "--config", str(config)])
    assert "client_id=demo" in done.output
    with pytest.raises(ConfigurationError, match="GATEWAY_KEY is not set"):
        CliRunner().invoke(app, ["grants", "list", "--config", str(config)], catch_exceptions=False)


def test_revoke_needs_the_secrets_of_the_clients_because_it_calls_akoya(
    config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(config, grant("one"))
    monkeypatch.delenv("CLIENT_SECRET")
    with pytest.raises(ConfigurationError, match="CLIENT_SECRET is not set"):
        CliRunner().invoke(
            app, ["grants", "revoke", "--owner", "own_one", "--yes", "--config", str(config)], catch_exceptions=False
        )
