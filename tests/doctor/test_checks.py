"""`akoya-gateway doctor` against the emulator, real sockets and a real TLS listener."""

from __future__ import annotations

import asyncio
import json
import math
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from joserfc.jwk import OKPKey

from akoya_gateway.config import load_config
from akoya_gateway.config.model import EncryptionKey, Origin, key_id
from akoya_gateway.doctor import store_checks
from akoya_gateway.doctor.check_result import CheckResult, Severity
from akoya_gateway.doctor.checks import run_checks
from akoya_gateway.doctor.connectivity import check_connectivity
from akoya_gateway.grants.grant import Grant, GrantKey, GrantState
from akoya_gateway.grants.repository import GrantRepository
from akoya_gateway.oauth.outcomes import TokenSet
from akoya_gateway.sandbox.server import SandboxServer
from akoya_gateway.sandbox.settings import SandboxClient, SandboxConnector, SandboxSettings
from akoya_gateway.secret import Secret
from akoya_gateway.store import EncryptedStore, Keyring, Record, open_store
from tests.support.certificates import self_signed
from tests.support.commands import run_command
from tests.support.ports import free_port
from tests.support.processes import AppServer
from tests.support.redis_servers import RedisServer, own_redis
from tests.support.sidecar import ENVIRON, App, Running

__all__ = ["own_redis"]

SECRET = ENVIRON["AKOYA_CLIENT_SECRET"]


@pytest.fixture(scope="module")
def upstream() -> Iterator[AppServer]:
    with AppServer(App()) as server:
        yield server


class DoctorEnv:
    """A configuration whose provider is the emulator."""

    def __init__(self, folder: Path, upstream: AppServer) -> None:
        self.folder = folder
        self.running = Running(folder)
        self.redirect_uri = f"{self.running.url}/akoya/callback"
        client = SandboxClient("client-id", Secret(SECRET), (self.redirect_uri,))
        self.akoya = SandboxServer(
            SandboxSettings(clients=(client,), connectors=(SandboxConnector(),)), port=free_port()
        )
        self.akoya.start()
        self.config = self.running.config() | {"upstream": {"url": upstream.url}}
        self.config["environments"] = {"double": self.akoya.environment()}
        self.path = folder / "gateway.yaml"

    def load(self, environ: dict[str, str] | None = None) -> Any:
        self.path.write_text(yaml.safe_dump(self.config))
        return load_config(self.path, ENVIRON | (environ or {}))

    def findings(self, environ: dict[str, str] | None = None, **options: Any) -> list[CheckResult]:
        return asyncio.run(run_checks(self.load(environ), **options))


@pytest.fixture
def env(tmp_path: Path, upstream: AppServer) -> Iterator[DoctorEnv]:
    env = DoctorEnv(tmp_path, upstream)
    yield env
    env.akoya.stop()


def of(findings: list[CheckResult], about: str) -> list[CheckResult]:
    return [result for result in findings if result.about.endswith(about)]


def faults(findings: list[CheckResult]) -> list[CheckResult]:
    return [result for result in findings if result.verdict is Severity.FAULT]


def test_healthy_configuration_has_no_fault(env: DoctorEnv) -> None:
    findings = env.findings()
    assert faults(findings) == []
    seen = {result.about: result.says for result in findings}
    assert seen["clients.demo.client_secret"].startswith("accepted")
    assert seen["clients.demo.redirect_uri"].startswith("the authorization request is accepted")
    assert seen["environments.double.jwks_uri"].endswith("key(s)")
    assert [each.says for each in of(findings, "token_endpoint")][-1] == "clock: agrees with the provider"
    assert "will be created at the first start" in seen["sessions.store"]
    assert not (env.folder / "grants.db").exists()
    assert not [each.says for each in findings if each.says.startswith("DNS")], "an address needs no name server"


def test_wrong_client_secret_is_named_and_not_shown(env: DoctorEnv) -> None:
    found = faults(env.findings({"AKOYA_CLIENT_SECRET": "some-other-secret-entirely"}))
    assert [result.about for result in found] == ["clients.demo.client_secret"]
    assert "dialect.code_auth" in found[0].remedy
    assert "some-other-secret" not in str(found)


def test_credentials_are_not_tested_if_switched_off(env: DoctorEnv) -> None:
    findings = env.findings({"AKOYA_CLIENT_SECRET": "some-other-secret-entirely"}, credentials=False)
    assert of(findings, "client_secret") == []


def test_redirect_uri_that_is_not_registered_is_named(env: DoctorEnv) -> None:
    env.config["clients"]["demo"]["redirect_uri"] += "/other"
    found = of(env.findings(), "redirect_uri")
    assert [result.verdict for result in found] == [Severity.FAULT]
    assert "is exactly" in found[0].remedy


@pytest.mark.parametrize(
    ("location", "message"),
    [
        # Ory Hydra redirects to its own error page (`urls.error`), with a status that looks like a login page.
        (
            "/oauth2/fallbacks/error?error=invalid_client&error_description=The+client+does+not+exist.",
            "the authorization request is refused: invalid_client (The client does not exist.)",
        ),
        ("https://idp.example/error#error=invalid_request", "the authorization request is refused: invalid_request"),
        ("CALLBACK?state=x&error=invalid_scope", "registered, but the authorization request is refused: invalid_scope"),
    ],
)
def test_redirect_that_carries_an_error_is_a_refusal_wherever_it_leads(
    env: DoctorEnv, location: str, message: str
) -> None:
    async def respond(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            where = location.replace("CALLBACK", env.redirect_uri).encode()
            await send({"type": "http.response.start", "status": 303, "headers": [(b"location", where)]})
            await send({"type": "http.response.body"})

    with AppServer(respond) as provider:
        env.config["environments"]["double"]["authorization_endpoint"] = f"{provider.url}/auth"
        (found,) = of(env.findings(credentials=False), "redirect_uri")
    assert (found.verdict, found.says) == (Severity.FAULT, message)


def test_issuer_that_differs_from_the_published_one_is_a_fault(env: DoctorEnv) -> None:
    environment = env.config["environments"]["double"]
    (right,) = of(env.findings(credentials=False), "double.issuer")
    assert (right.verdict, right.says) == (Severity.FINE, "matches the published issuer")
    published = environment["issuer"]
    environment["issuer"] = published.rstrip("/") if published.endswith("/") else published + "/"
    (wrong,) = of(env.findings(credentials=False), "double.issuer")
    assert wrong.verdict is Severity.FAULT
    assert wrong.says == f"{environment['issuer']} is configured, but the provider publishes {published}"
    environment["issuer"] = "http://127.0.0.1:9"
    assert of(env.findings(credentials=False), "double.issuer") == [], "the provider publishes nothing"


def test_endpoint_that_differs_from_the_published_one_is_a_warning(env: DoctorEnv) -> None:
    environment = env.config["environments"]["double"]
    published = environment["token_endpoint"]
    environment["token_endpoint"] = published.replace("127.0.0.1", "localhost")
    found = [each for each in of(env.findings(credentials=False), "token_endpoint") if "publishes" in each.says]
    assert [(each.verdict, each.says) for each in found] == [
        (Severity.WARNING, f"the provider publishes a different value: {published}")
    ]


def test_key_set_that_the_gateway_can_read_is_fine(env: DoctorEnv) -> None:
    """The keys of users' JWTs are checked, too. Both are fetched and decoded as the gateway does."""
    key = OKPKey.generate_key("Ed25519").as_dict(private=False)

    async def respond(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            # A server that compresses badly sends the keys of the first path only to a client that asks for `identity`.
            compressed = scope["path"] == "/keys" and (b"accept-encoding", b"identity") not in scope["headers"]
            body = b"broken" if compressed else json.dumps({"keys": [key]}).encode("utf-16")
            await send(
                {"type": "http.response.start", "status": 404 if scope["path"] == "/none" else 200, "headers": []}
            )
            await send({"type": "http.response.body", "body": body})

    with AppServer(respond) as provider:
        env.config["environments"]["double"]["jwks_uri"] = f"{provider.url}/keys"
        identity = {"jwks_uri": f"{provider.url}/users", "issuer": "i", "audience": "a"}
        env.config["identity"] = {"jwt": identity}
        findings = env.findings(credentials=False)
        assert [each.says for each in of(findings, "jwks_uri") if each.verdict is Severity.FINE] == ["1 key(s)"] * 2
        assert faults(of(findings, "jwks_uri")) == []
        identity["jwks_uri"] = f"{provider.url}/none"
        (missing,) = of(env.findings(credentials=False), "identity.jwt.jwks_uri")
    assert (missing.verdict, missing.says) == (Severity.FAULT, "GET responded with 404")


def test_key_set_without_a_key_that_verifies_is_a_fault(env: DoctorEnv) -> None:
    async def respond(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            body = b'{"keys": [{"kty": "oct", "k": "c2VjcmV0"}, {"kty": "RSA", "use": "enc", "n": "AQ", "e": "AQAB"}]}'
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": body})

    with AppServer(respond) as provider:
        env.config["environments"]["double"]["jwks_uri"] = f"{provider.url}/keys"
        found = [each for each in of(env.findings(credentials=False), "jwks_uri") if each.verdict is Severity.FAULT]
    assert [each.says for each in found] == [
        "the response is not a JWK Set (RFC 7517) with a usable key: no usable key"
    ]


def test_wrong_paths_are_named(env: DoctorEnv) -> None:
    environment = env.config["environments"]["double"]
    for key in ("token_endpoint", "revocation_endpoint", "jwks_uri"):
        environment[key] += "x"
    about = {result.about for result in faults(env.findings(credentials=False))}
    assert {"environments.double.token_endpoint", "environments.double.jwks_uri"} <= about
    assert "environments.double.revocation_endpoint" in about


@pytest.mark.parametrize(
    ("seconds", "verdict"), [(20, Severity.WARNING), (-20, Severity.WARNING), (300, Severity.FAULT)]
)
def test_wrong_clock_is_found(env: DoctorEnv, seconds: int, verdict: Severity) -> None:
    findings = env.findings(clock=lambda: time.time() + seconds)
    clock = next(each for each in of(findings, "token_endpoint") if each.says.startswith("clock"))
    assert clock.verdict is verdict
    assert ("ahead" if seconds > 0 else "behind") in clock.says


def test_provider_and_an_upstream_that_are_not_there(env: DoctorEnv) -> None:
    dead = free_port()
    env.akoya.stop()
    env.config["upstream"]["url"] = f"http://127.0.0.1:{dead}"
    found = faults(env.findings())
    assert any(result.about.startswith("environments.double 127.0.0.1") for result in found)
    assert any(result.about == "upstream.url" and str(dead) in result.says for result in found)


def test_each_upstream_is_tried_by_its_name_and_with_its_own_trust(env: DoctorEnv, tmp_path: Path) -> None:
    pem = tmp_path / "secure.pem"
    pem.write_bytes(self_signed())
    dead = free_port()
    with AppServer(App(), ssl_certfile=str(pem)) as secure:
        url = f"https://127.0.0.1:{secure.port}"
        env.config["upstreams"] = {
            "trusted": {"url": url, "tls": {"ca": str(pem)}},
            "untrusted": {"url": url},
            "dead": {"url": [env.config["upstream"]["url"], f"http://127.0.0.1:{dead}"]},
        }
        env.load()
        done = run_command("doctor", "--config", str(env.path), "--format", "json", environ=ENVIRON)
    assert done.returncode == 1, done.stderr
    reported = [each for each in json.loads(done.stdout)["findings"] if each["about"].startswith("upstream")]
    message = {(each["about"], each["verdict"]) for each in reported if "DNS" not in each["says"]}
    assert message == {
        ("upstream.url", "fine"),
        # The server's certificate expires tomorrow.
        ("upstreams.trusted.url", "warning"),
        ("upstreams.untrusted.url", "fault"),
        ("upstreams.dead.url", "fine"),
        ("upstreams.dead.url", "fault"),
    }


def test_working_store_reports_its_round_trip_time(env: DoctorEnv, monkeypatch: pytest.MonkeyPatch) -> None:
    # On a busy machine the store may take longer than doctor finds acceptable.
    monkeypatch.setattr(store_checks, "SLOW_STORE_MILLISECONDS", math.inf)
    (env.folder / "grants.db").touch(0o600)
    found = of(env.findings(credentials=False), "sessions.store")
    assert [result.verdict for result in found] == [Severity.FINE]
    assert found[0].milliseconds is not None


def test_store_that_does_not_is_a_fault_without_its_password(env: DoctorEnv) -> None:
    env.config["sessions"]["store"] = {"env": "STORE"}
    url = f"redis://user:hush-hush@127.0.0.1:{free_port()}/0"
    found = of(env.findings({"STORE": url}, credentials=False), "sessions.store")
    assert [result.verdict for result in found] == [Severity.FAULT]
    assert "hush" not in str(found)
    assert found[0].says.count("redis://") == 1


def test_store_whose_records_do_not_open_is_a_fault(env: DoctorEnv) -> None:
    """The round trip check passes with any key, but every request of a signed-in user would get 503."""
    config = env.load()

    async def fill() -> None:
        store = EncryptedStore(
            open_store(config.sessions.store), Keyring([EncryptionKey(key_id(b"o" * 32), b"o" * 32)])
        )
        await store.open()
        for n in range(3):
            await store.put(Record("session", f"s{n}", b"{}"))
        await store.close()

    asyncio.run(fill())
    (found,) = of(env.findings(credentials=False), "sessions.store")
    assert found.verdict is Severity.FAULT
    assert "3 of 3 checked records cannot be decrypted" in found.says
    assert key_id(b"o" * 32) in found.says


def test_redis_user_with_too_few_rights_is_a_fault_that_names_the_command(
    env: DoctorEnv, own_redis: RedisServer
) -> None:
    with own_redis.client as client:
        client.execute_command("ACL", "SETUSER", "u", "on", ">hush-hush", "~*", "&*", "+@all", "-evalsha")
    env.config["sessions"]["store"] = {"env": "STORE"}
    (found,) = of(
        env.findings({"STORE": f"redis://u:hush-hush@127.0.0.1:{own_redis.port}/0"}, credentials=False),
        "sessions.store",
    )
    assert found.verdict is Severity.FAULT
    assert "may not run `EVALSHA`" in found.says


class TestTLS:
    @pytest.fixture
    def listener(self, tmp_path: Path) -> Iterator[tuple[int, Path]]:
        pem = tmp_path / "ca.pem"
        pem.write_bytes(self_signed())
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(pem)
        with socket.create_server(("127.0.0.1", 0)) as server:

            def serve() -> None:
                while True:
                    try:
                        connection, _ = server.accept()
                        context.wrap_socket(connection, server_side=True).close()
                    except ssl.SSLError:
                        continue
                    except OSError:
                        if server.fileno() < 0:
                            return

            threading.Thread(target=serve, daemon=True).start()
            yield server.getsockname()[1], pem

    async def test_unknown_authority_is_a_fault(self, listener: tuple[int, Path]) -> None:
        found = (await check_connectivity("x", Origin("https", "127.0.0.1", listener[0]), None, time.time))[-1]
        assert found.verdict is Severity.FAULT
        assert "self-signed" in found.says or "self signed" in found.says

    async def test_certificate_about_to_end_is_a_warning(self, listener: tuple[int, Path]) -> None:
        context = ssl.create_default_context(cafile=str(listener[1]))
        found = (await check_connectivity("x", Origin("https", "127.0.0.1", listener[0]), context, time.time))[-1]
        assert found.verdict is Severity.WARNING
        assert "TLSv1.3" in found.says

    async def test_certificate_with_time_left_is_fine(self, listener: tuple[int, Path]) -> None:
        context = ssl.create_default_context(cafile=str(listener[1]))
        past = time.time() - 100 * 86400
        found = (await check_connectivity("x", Origin("https", "127.0.0.1", listener[0]), context, lambda: past))[-1]
        assert found.verdict is Severity.FINE

    async def test_plain_port_is_no_tls_port(self, upstream: AppServer) -> None:
        found = (await check_connectivity("x", Origin("https", "127.0.0.1", upstream.port), None, time.time))[-1]
        assert found.verdict is Severity.FAULT

    async def test_address_is_not_resolved(self, upstream: AppServer) -> None:
        found = await check_connectivity("x", Origin("http", "127.0.0.1", upstream.port), None, time.time)
        assert [result.says for result in found] == [f"connects to 127.0.0.1:{upstream.port}"]

    async def test_name_that_does_not_exist(self) -> None:
        found = await check_connectivity("x", Origin("https", "does-not-exist.invalid", 443), None, time.time)
        assert [result.verdict for result in found] == [Severity.FAULT]
        assert found[0].says.startswith("DNS")

    async def test_unix_socket_that_is_not_there(self, tmp_path: Path) -> None:
        found = await check_connectivity("x", Origin("http", "app", 80, str(tmp_path / "no.sock")), None, time.time)
        assert [result.verdict for result in found] == [Severity.FAULT]


def test_check_result_cleans_texts_of_other_servers() -> None:
    dirty = CheckResult("x", Severity.FAULT, "answered\n\x1b[2Jcode=hush&token=hush", "see https://x/?code=hush")
    assert "hush" not in str(dirty.clean)
    assert "\x1b" not in dirty.clean.says
    assert "\n" not in dirty.clean.says


def test_grants_of_another_token_endpoint_and_grants_that_wait_are_warnings(env: DoctorEnv) -> None:
    config = env.load()
    client = config.clients[next(iter(config.clients))]

    async def store_grants() -> None:
        store = open_store(config.sessions.store)
        await store.open()
        repository = GrantRepository(EncryptedStore(store, Keyring(config.sessions.keys)))
        for number, source, reason in (
            (1, client.token_source, None), (2, None, None), (3, "another", "dead_token"),
            (4, client.token_source, "untrusted_answer"),
        ):  # fmt: skip
            tokens = TokenSet(Secret("bearer"), Secret("refresh"), 0.0, (), "sub", source=source)
            key = GrantKey(f"own_{number}", client.environment.name, client.name, "mikomo", "sub")
            await repository.write(Grant(key, tokens, GrantState.LIVE, 0.0, 0.0, reason=reason), after=0)
        await store.close()

    asyncio.run(store_grants())
    findings = env.findings(credentials=False)
    (moved,) = of(findings, f"clients.{client.name}")
    assert (moved.verdict, moved.says[:23]) == (Severity.WARNING, "1 of 4 checked grants w")
    (waiting,) = of(findings, "connectors.mikomo")
    assert (waiting.verdict, waiting.says[:36]) == (Severity.WARNING, "refresh responses for 1 of 4 checked")


@pytest.mark.parametrize("form", ["text", "json"])
def test_command_prints_results_and_exits_with_the_status(env: DoctorEnv, form: str) -> None:
    env.load()
    command = ("doctor", "--config", str(env.path), "--format", form)
    environ = {**ENVIRON, "COLUMNS": "200"}
    done = run_command(*command, environ=environ)
    assert done.returncode == 0, done.stdout + done.stderr
    assert SECRET not in done.stdout + done.stderr
    if form == "json":
        assert json.loads(done.stdout)["fine"] is True
    else:
        assert "0 fault(s)" in done.stdout
    env.akoya.stop()
    done = run_command(*command, environ=environ)
    assert done.returncode == 1
