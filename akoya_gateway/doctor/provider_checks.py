"""Checks of an environment and its clients: endpoints, discovery, keys, clock, credentials and redirect URI.

Client credentials are tested with an authorization code that cannot exist, sent as the dialect prescribes. A provider
that rejects only the code has accepted the credentials.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from email.utils import parsedate_to_datetime
from urllib.parse import parse_qsl, urlsplit

import httpx

from akoya_gateway.clock import Clock
from akoya_gateway.config.model import Client, Config, Environment, Origin
from akoya_gateway.doctor.check_result import CheckResult, fault, fine, warning
from akoya_gateway.doctor.connectivity import CONNECT_TIMEOUT, check_connectivity
from akoya_gateway.oauth.authorization_request import (
    authorization_url,
    code_challenge,
    code_verifier,
    new_nonce,
    new_state,
)
from akoya_gateway.oauth.jwks import MAX_DOCUMENT_BYTES, UnreadableKeys, read_keys
from akoya_gateway.oauth.outcomes import ClientRejected, Refused
from akoya_gateway.provider import Provider, trust
from akoya_gateway.provider.transport import FetchFailed, get
from akoya_gateway.secret import Secret

MAX_CLOCK_SKEW = 5.0
"""Seconds of clock difference above which to warn. Beyond `tokens.leeway`, id_tokens are refused."""
DISCOVERY = "/.well-known/openid-configuration"
MAX_DISCOVERY = 262_144
"""Maximum bytes of a discovery document."""
NOT_A_CODE = "akoya-gateway-doctor-not-a-code"


async def check_environment(
    config: Config, environment: Environment, http: httpx.AsyncClient, clock: Clock
) -> list[CheckResult]:
    """Check that the environment's servers can be reached, and that its endpoints, keys and clock are right."""
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
        ("products_url", "GET", lambda status: status < 500),
    ):
        url: str | None = getattr(environment, key)
        if url is not None and _origin(url).authority not in unreached:
            findings += await _endpoint(f"{name}.{key}", method, url, healthy, http, (config.tokens.leeway, clock))
    if environment.jwks_uri is not None and _origin(environment.jwks_uri).authority not in unreached:
        findings.append(await check_keys(f"{name}.jwks_uri", environment.jwks_uri, http))
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
    except (FetchFailed, ValueError, KeyError, TypeError, RecursionError):
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
        response = await http.request(
            method,
            url,
            timeout=CONNECT_TIMEOUT,
            data={} if method == "POST" else None,
            headers={"Accept-Encoding": "identity"},
        )
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
    if about.endswith("token_endpoint"):
        findings += _clock(about, response, *time_of_day)
    return findings


async def check_keys(about: str, url: str, http: httpx.AsyncClient) -> CheckResult:
    """Fetch and read the keys as `provider.remote_keys` does. Keys that cannot verify signatures are not counted."""
    began = time.perf_counter()
    try:
        document = await get(http, url, MAX_DOCUMENT_BYTES, CONNECT_TIMEOUT)
        keys = read_keys(document.body).keys
    except FetchFailed as failed:
        return fault(about, f"GET {failed}", "the path may be wrong; redirects are not followed")
    except UnreadableKeys as unreadable:
        says = f"the response is not a JWK Set (RFC 7517) with a usable key: {unreadable}"
        return fault(about, says, "the path may be wrong; otherwise ask the provider")
    return fine(about, f"{len(keys)} key(s)", round((time.perf_counter() - began) * 1000, 1))


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


async def check_client(
    config: Config, client: Client, http: httpx.AsyncClient, clock: Clock, credentials: bool
) -> list[CheckResult]:
    """Check that the provider knows the client, its secret (if `credentials`) and its redirect URI."""
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
