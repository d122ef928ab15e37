"""Live checks of a configuration: contacts every service that it names and changes nothing.

The checks themselves are in modules of their own: `provider_checks`, `store_checks` and `connectivity`.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Awaitable, Mapping

import httpx

from akoya_gateway.clock import Clock
from akoya_gateway.config.model import Config, Upstream
from akoya_gateway.config.value_parsers import stays_on_this_machine
from akoya_gateway.doctor.check_result import CheckResult, fine, warning
from akoya_gateway.doctor.connectivity import check_connectivity
from akoya_gateway.doctor.provider_checks import check_client, check_environment, check_keys
from akoya_gateway.doctor.store_checks import check_store
from akoya_gateway.provider import http_client
from akoya_gateway.server.listeners import describe as described


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
        checks: list[Awaitable[list[CheckResult]]] = [
            _settings(config),
            *(check_environment(config, each, client, clock) for each in config.environments.values()),
            *(check_client(config, each, client, clock, credentials) for each in config.clients.values()),
            _identity(config, client),
            _public(config, clock),
            check_store(config),
            *(_upstream(each, (upstream_tls or {}).get(each.name), clock) for each in config.all_upstreams),
        ]
        rounds = await asyncio.gather(*checks)
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


async def _identity(config: Config, http: httpx.AsyncClient) -> list[CheckResult]:
    """Check the key set for the JWTs of the app's users, if one is configured."""
    uri = config.identity.jwks_uri
    return [] if uri is None else [await check_keys("identity.jwt.jwks_uri", uri, http)]


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


async def _upstream(upstream: Upstream, tls: ssl.SSLContext | None, clock: Clock) -> list[CheckResult]:
    about = f"{upstream.address}.url"
    rounds = await asyncio.gather(*(check_connectivity(about, each, tls, clock) for each in upstream.origins))
    return [result for findings in rounds for result in findings]
