"""Live checks of a configuration: contacts every service that it names and changes nothing.

Client credentials are tested with an authorization code that cannot exist, sent as the dialect prescribes. A provider
that rejects only the code has accepted the credentials.
"""

from __future__ import annotations

import asyncio
import json
import os
import ssl
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping
from email.utils import parsedate_to_datetime
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

import httpx

from akoya_gateway.config.model import Client, Config, Environment, Origin, Upstream
from akoya_gateway.config.value_parsers import stays_on_this_machine
from akoya_gateway.doctor.check_result import CheckResult, fault, fine, warning
from akoya_gateway.doctor.connectivity import CONNECT_TIMEOUT, check_connectivity
from akoya_gateway.errors import GatewayError
from akoya_gateway.oauth.authorization_request import (
    authorization_url,
    code_challenge,
    code_verifier,
    new_nonce,
    new_state,
)
from akoya_gateway.oauth.jwks import UnreadableKeys, read_keys
from akoya_gateway.oauth.outcomes import ClientRejected, Refused
from akoya_gateway.provider import Provider, http_client, trust
from akoya_gateway.provider.transport import FetchFailed, get
from akoya_gateway.secret import Secret
from akoya_gateway.server.listeners import describe as described
from akoya_gateway.store import Keyring, Store, describe, open_store
from akoya_gateway.store.encrypted_store import context

MAX_CLOCK_SKEW = 5.0
"""Seconds of clock difference above which to warn. Beyond `tokens.leeway`, id_tokens are refused."""
SLOW_STORE_MILLISECONDS = 50.0
"""Median duration of a store round trip above which to warn."""
DISCOVERY = "/.well-known/openid-configuration"
MAX_DISCOVERY = 262_144
"""Maximum bytes of a discovery document."""
SAMPLE = 50
"""Maximum records of each kind to decrypt."""
NOT_A_CODE = "akoya-gateway-doctor-not-a-code"

Clock = Callable[[], float]


async def run_checks(
    config: Config,
    *,
    upstream_tls: Mapping[str, ssl.SSLContext] | None = None,
    credentials: bool = True,
    clock: Clock = time.time,
    http: httpx.AsyncClient | None = None,
) -> list[CheckResult]:
    """Run all checks and return the results in the order of the configuration.

    Args:
        config: the configuration to check.
        upstream_tls: TLS context of each upstream, by its name.
        credentials: whether to test each client's credentials at its token endpoint.
        clock: wall clock, for token times and certificate expiry.
        http: client to use instead of a new one.
    """
    # Use the gateway's own HTTP client and CA certificates, so that the results apply to the gateway.
    async with http or http_client(process_environment=config.process_environment) as client:
        examinations: list[Awaitable[list[CheckResult]]] = [
            _settings(config),
            *(_environment(config, each, client, clock) for each in config.environments.values()),
            *(_client(config, each, client, clock, credentials) for each in config.clients.values()),
            _public(config, clock),
            _store(config),
            *(_upstream(each, (upstream_tls or {}).get(each.name), clock) for each in config.all_upstreams),
        ]
        rounds = await asyncio.gather(*examinations)
    return [result.clean for findings in rounds for result in findings]


async def _settings(config: Config) -> list[CheckResult]:
    """Return the warnings of `akoya-gateway check` (file permissions, cookies, plain http) and facts about settings."""
    findings = [warning("configuration", each) for each in config.warnings]
    cookie = config.sessions.cookie
    findings.append(
        fine(
            "sessions.cookie", f"{cookie.name}, {'Secure, ' if cookie.secure else ''}SameSite={cookie.same_site.value}"
        )
    )
    summary = f"{len(config.signing.keys)} key(s), {config.signing.algorithm.value}"
    findings.append(fine("signing.keys", summary))
    if (proxy := config.process_environment.proxy) is not None:
        findings.append(fine(proxy.variable, f"HTTPS requests are sent through the proxy {proxy.shown}"))
    if (trusted := config.process_environment.ca_file or config.process_environment.ca_folder) is not None:
        variable = "SSL_CERT_DIR" if config.process_environment.ca_file is None else "SSL_CERT_FILE"
        findings.append(fine(variable, f"CA certificates are read from {trusted} only"))
    if config.admin is not None and not stays_on_this_machine(config.admin):
        findings.append(
            warning(
                "admin.listen",
                f"{described(config.admin)} is reachable from other machines",
                "use 127.0.0.1, or allow only the monitoring to connect to it",
            )
        )
    return findings


async def _environment(
    config: Config, environment: Environment, http: httpx.AsyncClient, clock: Clock
) -> list[CheckResult]:
    name = f"environments.{environment.name}"
    findings = []
    for origin in dict.fromkeys(_hop(config, each) for each in _origins(environment)):
        findings += await check_connectivity(
            f"{name} {origin.authority}", origin, trust(config.process_environment), clock
        )
    unreached = {each.about.split()[-1] for each in findings if each.verdict == "fault"}
    for key, method, healthy in (
        ("authorization_endpoint", "GET", lambda status: status < 500 and status != 404),
        ("token_endpoint", "POST", lambda status: status in (400, 401)),
        ("revocation_endpoint", "POST", lambda status: status in (200, 400, 401)),
        ("jwks_uri", "GET", lambda status: status == 200),
        ("products_url", "GET", lambda status: status < 500),
    ):
        url: str | None = getattr(environment, key)
        if url is not None and _origin(url).authority not in unreached:
            findings += await _endpoint(f"{name}.{key}", method, url, healthy, http, (config.tokens.leeway, clock))
    if environment.issuer is not None and _origin(environment.issuer).authority not in unreached:
        findings += await _discovery(f"{name}.issuer", environment, http)
    if environment.jwks_uri is None:
        findings.append(warning(f"{name}.jwks_uri", "not set: signatures of id_tokens are not checked"))
    return findings


def _hop(config: Config, origin: Origin) -> Origin:
    """Return where a request to the origin is sent: the origin itself, or the proxy."""
    proxy = config.process_environment.proxy_for(origin.host, origin.port) if origin.scheme == "https" else None
    return origin if proxy is None else _origin(proxy.shown)


async def _discovery(about: str, environment: Environment, http: httpx.AsyncClient) -> list[CheckResult]:
    """Compare the configuration with the issuer's discovery document (OpenID Connect Discovery section 4).

    Returns no results if there is no document. An issuer that differs by as little as a slash makes every id_token
    untrusted.
    """
    assert environment.issuer is not None
    try:
        found = await get(http, environment.issuer.rstrip("/") + DISCOVERY, MAX_DISCOVERY, CONNECT_TIMEOUT)
        published = json.loads(found.body)
        issuer = str(published["issuer"])
    except (FetchFailed, ValueError, KeyError, TypeError):
        return []
    if issuer != environment.issuer:
        says = f"{environment.issuer} is configured, but the provider publishes {issuer}"
        return [fault(about, says, "id_tokens will be refused: copy the issuer exactly, including slashes")]
    differing = [
        warning(f"{about.removesuffix('issuer')}{key}", f"the provider publishes a different value: {published[key]}")
        for key in ("authorization_endpoint", "token_endpoint", "jwks_uri")
        if isinstance(published.get(key), str) and getattr(environment, key) not in (None, published[key])
    ]
    return [fine(about, "matches the published issuer"), *differing]


async def _endpoint(
    about: str,
    method: str,
    url: str,
    healthy: Callable[[int], bool],
    http: httpx.AsyncClient,
    time_of_day: tuple[float, Clock],
) -> list[CheckResult]:
    """Send an empty request. An endpoint that refuses it as its specification requires is the right one and works."""
    began = time.perf_counter()
    try:
        response = await http.request(method, url, timeout=CONNECT_TIMEOUT, data={} if method == "POST" else None)
    except httpx.HTTPError as error:
        return [
            fault(about, f"no response: {type(error).__name__} {error}", "see the results above; is a proxy needed?")
        ]
    taken = round((time.perf_counter() - began) * 1000, 1)
    says = f"{method} returned {response.status_code}"
    if not healthy(response.status_code):
        remedy = (
            "the path may be wrong" if response.status_code in (404, 405) else "try again later, or ask the provider"
        )
        return [fault(about, says, remedy)]
    findings = [fine(about, says, taken)]
    if about.endswith("jwks_uri"):
        findings = [_key_set(about, response, taken)]
    if about.endswith("token_endpoint"):
        findings += _clock(about, response, *time_of_day)
    return findings


def _key_set(about: str, response: httpx.Response, taken: float) -> CheckResult:
    """Read the keys as `provider.remote_keys` does. Keys that cannot verify signatures are not counted."""
    try:
        keys = read_keys(response.content).keys
    except UnreadableKeys as unreadable:
        says = f"the response is not a JWK Set (RFC 7517) with a usable key: {unreadable}"
        return fault(about, says, "the path may be wrong; otherwise ask the provider")
    return fine(about, f"{len(keys)} key(s)", taken)


def _clock(about: str, response: httpx.Response, leeway: float, clock: Clock) -> list[CheckResult]:
    try:
        provider_time = parsedate_to_datetime(response.headers["date"]).timestamp()
    except (KeyError, ValueError):
        return []
    # `Date` has a resolution of one second.
    difference = clock() - provider_time - 0.5
    says = f"clock: {abs(difference):.0f} s {'ahead of' if difference > 0 else 'behind'} the provider"
    if abs(difference) > leeway:
        return [fault(about, says, "id_tokens will be refused: synchronise this machine's clock (NTP)")]
    if abs(difference) > MAX_CLOCK_SKEW:
        return [warning(about, says, "synchronise this machine's clock (NTP)")]
    return [fine(about, "clock: agrees with the provider")]


async def _client(
    config: Config, client: Client, http: httpx.AsyncClient, clock: Clock, credentials: bool
) -> list[CheckResult]:
    findings = []
    if credentials:
        findings.append(await _credentials(config, client, http, clock))
    connector = next((each for each in config.connectors.values() if each.client.name == client.name), None)
    if connector is None:
        return [*findings, warning(f"clients.{client.name}", "no connector uses it", "remove it, or bind a connector")]
    dialect = client.environment.dialect
    challenge = code_challenge(code_verifier()) if dialect.pkce else None
    url = authorization_url(client, connector, new_state(), challenge, new_nonce() if dialect.nonce else None)
    return [*findings, await _authorization(f"clients.{client.name}.redirect_uri", url, client, http)]


async def _credentials(config: Config, client: Client, http: httpx.AsyncClient, clock: Clock) -> CheckResult:
    about = f"clients.{client.name}.client_secret"
    provider = Provider(client, http, None, config.tokens, clock)
    verifier = code_verifier() if client.environment.dialect.pkce else None
    response = await provider.exchange(Secret(NOT_A_CODE), verifier)
    if isinstance(response, Refused):
        return fine(about, f"accepted ({client.environment.dialect.code_auth.value}); the made-up code was refused")
    if isinstance(response, ClientRejected):
        return fault(
            about, f"the provider returned {response.error}", "check client_id, client_secret and dialect.code_auth"
        )
    return warning(about, f"cannot tell: {getattr(response, 'detail', type(response).__name__)}", "try again later")


async def _authorization(about: str, url: str, client: Client, http: httpx.AsyncClient) -> CheckResult:
    """Send the authorization request as a browser would.

    For a wrong redirect_uri, a provider shows an error page and does not redirect to it (RFC 6749 section 4.1.2.1).
    """
    try:
        response = await http.get(url, timeout=CONNECT_TIMEOUT)
    except httpx.HTTPError as error:
        return warning(about, f"cannot tell: {type(error).__name__}", "try again later")
    location = response.headers.get("location", "")
    if response.status_code >= 500:
        return warning(
            about, f"cannot tell: the authorization endpoint returned {response.status_code}", "try again later"
        )
    if response.status_code >= 400:
        return fault(about, f"the authorization request is refused with {response.status_code}", _unregistered(client))
    refused = _error_of(location)
    if refused is None:
        return fine(about, f"the authorization request is accepted ({response.status_code})")
    if location.startswith(client.redirect_uri):
        return fault(
            about, f"registered, but the authorization request is refused: {refused}", "check connector and scopes"
        )
    # Ory Hydra and others redirect to their own error page.
    return fault(about, f"the authorization request is refused: {refused}", _unregistered(client))


def _unregistered(client: Client) -> str:
    return f"is exactly {client.redirect_uri} registered, and does the client_id belong to this environment?"


def _error_of(location: str) -> str | None:
    """Return `error` and `error_description` of a redirect (RFC 6749 section 4.1.2.1), from query or fragment."""
    parts = urlsplit(location)
    found = dict(parse_qsl(parts.fragment) + parse_qsl(parts.query))
    if "error" not in found:
        return None
    description = found.get("error_description", "")
    return f"{found['error'][:80]} ({description[:200]})" if description else found["error"][:80]


async def _public(config: Config, clock: Clock) -> list[CheckResult]:
    """Check the public URL, which leads to whatever terminates TLS in front of the gateway.

    Faults become warnings, because browsers may reach the URL although this machine cannot.
    """
    if config.public_url.scheme != "https":
        return []
    found = await check_connectivity("public_url", config.public_url, None, clock)
    return [
        each if each.verdict != "fault" else warning(each.about, f"from here: {each.says}", each.remedy)
        for each in found
    ]


async def _store(config: Config) -> list[CheckResult]:
    about = "sessions.store"
    name = describe(config.sessions.store)
    if (missing := _missing_file_result(name)) is not None:
        return [missing]
    try:
        store = open_store(config.sessions.store)
        began = time.perf_counter()
        async with asyncio.timeout(CONNECT_TIMEOUT):
            await store.open()
        opened = round((time.perf_counter() - began) * 1000, 1)
        try:
            taken = []
            for _ in range(5):
                began = time.perf_counter()
                async with asyncio.timeout(CONNECT_TIMEOUT):
                    await store.check()
                taken.append(round((time.perf_counter() - began) * 1000, 2))
            shut = await _shut_records(config, store)
        finally:
            await store.close()
    except GatewayError as error:
        says = error.detail or error.title
        says = says if says.startswith(name) else f"{name}: {says}"
        return [fault(about, says, "is it running, writable, and the URL right?")]
    except TimeoutError:
        return [
            fault(
                about,
                f"{name}: no response within {CONNECT_TIMEOUT:g} s",
                "is it running, or locked by another process?",
            )
        ]
    if shut:
        remedy = "put the key back into sessions.keys, or restore a backup"
        return [fault(about, f"{name}: {each}", remedy) for each in shut]
    middle = sorted(taken)[2]
    says = f"{name} opened in {opened:g} ms; a write and a read take {middle:g} ms"
    if middle > SLOW_STORE_MILLISECONDS:
        return [warning(about, says, "every connect and refresh waits for it: move it closer to the gateway")]
    return [fine(about, says, middle)]


async def _shut_records(config: Config, store: Store) -> list[str]:
    """Return the problems of records that cannot be decrypted. `store.check` does not find these."""
    keyring, shut, looked = Keyring(config.sessions.keys), Counter[str](), 0
    async with asyncio.timeout(CONNECT_TIMEOUT):
        for kind in ("grant", "session"):
            looked_at_most = looked + SAMPLE
            async for record in store.scan(kind):
                looked += 1
                try:
                    keyring.decrypt(record.body, context(record))
                except GatewayError as error:
                    shut[error.detail or error.title] += 1
                if looked >= looked_at_most:
                    break
    return [f"{count} of {looked} checked records cannot be decrypted: {why}" for why, count in shut.items()]


def _missing_file_result(name: str) -> CheckResult | None:
    """Return the result for an SQLite database that does not exist yet, or None.

    The file is not created here, because it must belong to the user that runs the gateway.
    """
    kind, _, rest = name.partition(":")
    path = Path(rest)
    if kind != "sqlite" or path.exists():
        return None
    folder = next(each for each in (path.parent, *path.parent.parents) if each.exists())
    if os.access(folder, os.W_OK | os.X_OK):
        return fine("sessions.store", f"{name} will be created at the first start")
    return fault("sessions.store", f"{name} does not exist, and {folder} is not writable", "make the folder writable")


async def _upstream(upstream: Upstream, tls: ssl.SSLContext | None, clock: Clock) -> list[CheckResult]:
    about = f"{upstream.address}.url"
    rounds = await asyncio.gather(*(check_connectivity(about, each, tls, clock) for each in upstream.origins))
    return [result for findings in rounds for result in findings]


def _origins(environment: Environment) -> list[Origin]:
    """Return the origins of all endpoints, without duplicates."""
    urls = (
        environment.authorization_endpoint,
        environment.token_endpoint,
        environment.revocation_endpoint,
        environment.jwks_uri,
        environment.products_url,
    )
    return list(dict.fromkeys(_origin(url) for url in urls if url is not None))


def _origin(url: str) -> Origin:
    parts = urlsplit(url)
    return Origin(parts.scheme, parts.hostname or "", parts.port or {"http": 80, "https": 443}[parts.scheme])
