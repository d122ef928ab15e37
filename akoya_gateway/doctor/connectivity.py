"""Checks whether a host can be resolved, reached and trusted: DNS, TCP or unix socket, TLS."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import ssl
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from akoya_gateway.config.model import Origin
from akoya_gateway.doctor.check_result import CheckResult, fault, fine, warning

CONNECT_TIMEOUT = 5.0
"""Timeout of one step in seconds."""
EXPIRY_WARNING_DAYS = 21
"""Days before the expiry of a certificate from which to warn."""


async def check_connectivity(
    about: str, origin: Origin, tls: ssl.SSLContext | None, clock: Callable[[], float]
) -> list[CheckResult]:
    """Return one result per step, up to the first fault. If `tls` is None, the system's CA certificates are used."""
    if origin.path is not None:
        return [await _connect_unix(about, origin.path)]
    steps = [] if _is_address(origin.host) else [await _resolve(about, origin.host, origin.port)]
    if any(each.verdict != "fine" for each in steps):
        return steps
    context = (tls or ssl.create_default_context()) if origin.scheme == "https" else None
    return [*steps, await _connect(about, origin, context, clock)]


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


async def _resolve(about: str, host: str, port: int) -> CheckResult:
    began = time.perf_counter()
    try:
        async with asyncio.timeout(CONNECT_TIMEOUT):
            found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except TimeoutError:
        return fault(
            about, f"DNS: no response for {host} within {CONNECT_TIMEOUT:g} s", "check /etc/resolv.conf and the network"
        )
    except OSError as error:
        return fault(about, f"DNS: {host} cannot be resolved ({error.strerror or error})", "check the name")
    addresses = sorted({str(each[4][0]) for each in found})
    return fine(about, f"DNS: {host} is {', '.join(addresses[:4])}", _since(began))


async def _connect(
    about: str, origin: Origin, context: ssl.SSLContext | None, clock: Callable[[], float]
) -> CheckResult:
    began = time.perf_counter()
    where = origin.authority
    try:
        async with asyncio.timeout(CONNECT_TIMEOUT), _opened(origin, context) as tls:
            taken = _since(began)
            if tls is None:
                return fine(about, f"connects to {where}", taken)
            return _check_certificate(about, tls, clock(), taken)
    except ssl.SSLCertVerificationError as error:
        return fault(about, f"TLS: the certificate of {where} is not accepted: {error.verify_message}",
                     "check the name, the clock of this machine, and its CA certificates")  # fmt: skip
    except ssl.SSLError as error:
        return fault(about, f"TLS: no handshake with {where}: {error.reason or error}", "is it a TLS port?")
    except TimeoutError:
        return fault(about, f"{where} does not respond within {CONNECT_TIMEOUT:g} s", "check firewalls and the address")
    except OSError as error:
        return fault(
            about, f"{where} cannot be reached: {error.strerror or error}", "is it running, and the port right?"
        )


@asynccontextmanager
async def _opened(origin: Origin, context: ssl.SSLContext | None) -> AsyncIterator[ssl.SSLObject | None]:
    _, writer = await asyncio.open_connection(origin.host, origin.port, ssl=context)
    try:
        yield writer.get_extra_info("ssl_object")
    finally:
        writer.transport.abort()


async def _connect_unix(about: str, path: str) -> CheckResult:
    began = time.perf_counter()
    try:
        async with asyncio.timeout(CONNECT_TIMEOUT):
            _, writer = await asyncio.open_unix_connection(path)
        writer.transport.abort()
    except (OSError, TimeoutError) as error:
        return fault(about, f"unix:{path} cannot be reached: {getattr(error, 'strerror', None) or 'no response'}",
                     "is the app running, and may this user write to the socket?")  # fmt: skip
    return fine(about, f"connects to unix:{path}", _since(began))


def _check_certificate(about: str, tls: ssl.SSLObject, now: float, taken: float) -> CheckResult:
    certificate: dict[str, Any] = tls.getpeercert() or {}
    days = (ssl.cert_time_to_seconds(certificate["notAfter"]) - now) / 86400 if "notAfter" in certificate else 0.0
    says = f"{tls.version()}, certificate expires in {days:.0f} days"
    if tls.version() in ("TLSv1", "TLSv1.1"):
        return warning(about, says, "the server should support TLS 1.2 or 1.3")
    if days < EXPIRY_WARNING_DAYS:
        return warning(about, says, "renew it in time")
    return fine(about, says, taken)


def _since(began: float) -> float:
    return round((time.perf_counter() - began) * 1000, 1)
