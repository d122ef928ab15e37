"""Environment variables for outgoing HTTPS: the proxy, its exceptions, and the trusted certificate authorities.

They are parsed once, when the configuration is loaded, so that `check`, `doctor` and `run` report the same problems and
the HTTP client gets parsed values. Otherwise the client library would read the variables itself, and a bad value would
make its constructor fail.
"""

from __future__ import annotations

import os
import re
import ssl
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from pathlib import Path

from akoya_gateway.secret import Secret

_PROXY = re.compile(
    r"(?:(?P<scheme>https?)://)?(?P<userinfo>[^\x00-\x20/?#@\[\]\x7f-\U0010ffff]*@)?"
    r"(?P<place>(?P<host>\[[0-9A-Fa-f:.]+\]|(?:[A-Za-z0-9_][A-Za-z0-9_-]{0,62}\.)*[A-Za-z0-9_][A-Za-z0-9_-]{0,62}\.?)"
    r"(?::(?P<port>[0-9]{1,5}))?)/?",
    re.IGNORECASE | re.ASCII,
)
_EXCEPTION = re.compile(
    r"(?:(?P<scheme>https?|all)://)?(?:\[(?P<six>[0-9A-Fa-f:.]+)\]|\*?(?P<name>\.?[A-Za-z0-9_-][A-Za-z0-9._-]*))(?::(?P<port>[0-9]{1,5}))?/?",
    re.IGNORECASE | re.ASCII,
)
_ADDRESS = re.compile(r"[0-9]+(?:\.[0-9]+){3}")
_HASHED = re.compile(r"[0-9a-f]{8}\.[0-9]+")


@dataclass(frozen=True, slots=True)
class Proxy:
    """The proxy for HTTPS requests, and the variable that names it.

    `url` may contain a password. `shown` is the same URL without user and password.
    """

    variable: str
    shown: str
    url: Secret


@dataclass(frozen=True, slots=True)
class ProxyException:
    """Hosts that are reached without the proxy: a network, or a name and its subdomains. `port` None means any port."""

    name: str
    network: IPv4Network | IPv6Network | None
    port: int | None

    def covers(self, host: str, port: int) -> bool:
        """Return True if this exception applies to the host and port."""
        if self.port is not None and self.port != port:
            return False
        if self.network is not None:
            try:
                return ip_address(host) in self.network
            except ValueError:
                return False
        return self.name in ("*", host) or host.endswith("." + self.name.removeprefix("."))


@dataclass(frozen=True, slots=True)
class ProcessEnvironment:
    """Proxy and trust settings for HTTPS requests to the provider.

    Without `ca_file` and `ca_folder` the HTTP client uses its default certificate authorities.
    """

    proxy: Proxy | None = None
    exceptions: tuple[ProxyException, ...] = ()
    ca_file: str | None = None
    ca_folder: str | None = None

    def proxy_for(self, host: str, port: int) -> Proxy | None:
        """Return the proxy for HTTPS requests to the host, or None if they go directly to it."""
        name = host.lower().rstrip(".")
        return None if any(each.covers(name, port) for each in self.exceptions) else self.proxy


@dataclass(slots=True)
class _Reading:
    """The variables, and the problems found in them. `faults` and `warnings` are pairs of message and remedy."""

    environ: Mapping[str, str] = field(repr=False)
    faults: list[tuple[str, str]] = field(default_factory=list)
    warnings: list[tuple[str, str]] = field(default_factory=list)

    def variable(self, name: str) -> tuple[str, str]:
        """Return the spelling that is used and its value. Lower case wins even if it is empty, as in curl."""
        for spelling in (name.lower(), name):
            if spelling in self.environ:
                return spelling, self.environ[spelling].strip()
        return name, ""


def read_process_environment(
    environ: Mapping[str, str],
) -> tuple[ProcessEnvironment, list[tuple[str, str]], list[tuple[str, str]]]:
    """Parse the environment variables.

    Returns:
        The usable settings, the faults and the warnings. Faults and warnings are pairs of message and remedy. Their
        texts never contain a part of a proxy URL that could be a password.
    """
    reading = _Reading(environ)
    proxy = _proxy(reading)
    exceptions = _exceptions(reading) if proxy is not None else ()
    ca_file = _ca_file(reading)
    ca_folder = _ca_folder(reading) if ca_file is None else None
    if ca_file is None and ca_folder is None:
        _unused_trust(reading)
    _key_log(reading)
    return ProcessEnvironment(proxy, exceptions, ca_file, ca_folder), reading.faults, reading.warnings


def _proxy(reading: _Reading) -> Proxy | None:
    variable, text = reading.variable("HTTPS_PROXY")
    if not text:
        variable, text = reading.variable("ALL_PROXY")
    if not text:
        return None
    if text.lower().startswith("socks"):
        remedy = "name an HTTP proxy in HTTPS_PROXY, or unset it for the gateway"
        reading.faults.append((f"the variable {variable} names a SOCKS proxy, which is not supported", remedy))
        return None
    found = _PROXY.fullmatch(text)
    if found is None or not _is_port(found["port"] or "1") or not _is_host(found["host"]):
        quotes = "remove the quotes around it" if text[0] in "\"'" else ""
        remedy = quotes or "in user and password / ? # @ and % are percent-encoded"
        reading.faults.append((f"the variable {variable} is not of the form http://USER:PASSWORD@host:port", remedy))
        return None
    scheme = (found["scheme"] or "http").lower()
    shown = f"{scheme}://{found['place']}"
    return Proxy(variable, shown, Secret(f"{scheme}://{found['userinfo'] or ''}{found['place']}"))


def _is_host(host: str) -> bool:
    """Return False if the HTTP client would take the host for an address and refuse it."""
    try:
        if host.startswith("["):
            IPv6Address(host[1:-1])
        elif _ADDRESS.fullmatch(host):
            IPv4Address(host)
    except ValueError:
        return False
    return True


def _is_port(digits: str) -> bool:
    return 0 < int(digits) < 65536


def _exceptions(reading: _Reading) -> tuple[ProxyException, ...]:
    variable, text = reading.variable("NO_PROXY")
    found = []
    for entry in filter(None, re.split(r"[,\s]+", text)):  # curl allows blanks between entries as well
        exception = _exception(entry)
        if exception is None:
            excerpt = ascii(entry if len(entry) <= 60 else entry[:60] + "...")
            remedy = "such as .example.com, localhost:8443, 10.0.0.0/8 or fd00::/8"
            reading.warnings.append(
                (f"the variable {variable} has an invalid entry, which is ignored: {excerpt}", remedy)
            )
        elif exception.name != "http":
            found.append(exception)
    return tuple(found)


def _exception(entry: str) -> ProxyException | None:
    """Parse one entry of NO_PROXY, or return None if it is invalid.

    An entry for plain http gets the name "http". The caller discards it, because plain http requests never use a proxy.
    """
    if entry == "*":
        return ProxyException("*", None, None)
    try:
        return ProxyException("", ip_network(entry.strip("[]"), strict=False), None)
    except ValueError:
        found = _EXCEPTION.fullmatch(entry)
    if found is None or not _is_port(found["port"] or "1"):
        return None
    if (found["scheme"] or "").lower() == "http":
        return ProxyException("http", None, None)
    port = int(found["port"]) if found["port"] else None
    try:
        return ProxyException("", ip_network(found["six"] or found["name"]), port)
    except ValueError:
        return None if found["six"] else ProxyException(found["name"].lower().rstrip("."), None, port)


def _ca_file(reading: _Reading) -> str | None:
    text = reading.environ.get("SSL_CERT_FILE")
    if not text:
        return None
    remedy = "name a file of PEM certificates, or unset it for the gateway"
    try:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(cafile=text)
        authorities = context.get_ca_certs()
        if authorities and all(ssl.cert_time_to_seconds(str(each["notAfter"])) < time.time() for each in authorities):
            expired = f"the variable SSL_CERT_FILE names a file whose certificates have all expired: {text!a}"
            reading.warnings.append((expired, remedy))
    except ssl.SSLError:
        reading.faults.append((f"the variable SSL_CERT_FILE names a file without certificates: {text!a}", remedy))
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "not a usable file name"
        reading.faults.append((f"the variable SSL_CERT_FILE names {text!a}: {reason}", remedy))
    return text


def _ca_folder(reading: _Reading) -> str | None:
    text = reading.environ.get("SSL_CERT_DIR")
    if not text:
        return None
    folders = [Path(each) for each in text.split(":") if each]
    there = [each for each in folders if _is_folder(each)]
    if not there:
        remedy = "name a folder of PEM certificates, or unset it for the gateway"
        reading.faults.append((f"the variable SSL_CERT_DIR names no readable folder: {text!a}", remedy))
    elif not any(
        _HASHED.fullmatch(entry.name) and os.access(entry, os.R_OK) for each in there for entry in each.iterdir()
    ):
        warning = f"the variable SSL_CERT_DIR names a folder without certificates named by their hash: {text!a}"
        reading.warnings.append((warning, "run `openssl rehash` there"))
    return text


def _unused_trust(reading: _Reading) -> None:
    """Warn about a variable by which other programs trust the authority of a proxy that inspects TLS."""
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        if reading.environ.get(name):
            warning = f"the variable {name} is set, but only SSL_CERT_FILE and SSL_CERT_DIR are used"
            reading.warnings.append((warning, "set SSL_CERT_FILE to that file if a proxy here inspects TLS"))
            return


def _is_folder(path: Path) -> bool:
    """Return True if the path is a folder that may be listed. False if a parent folder does not allow the check."""
    try:
        return path.is_dir() and os.access(path, os.R_OK | os.X_OK)
    except (OSError, ValueError):
        return False


def _key_log(reading: _Reading) -> None:
    """Check SSLKEYLOGFILE. TLS session keys are written to this file; if that fails, no TLS context can be created."""
    text = reading.environ.get("SSLKEYLOGFILE")
    if not text:
        return
    try:
        with Path(text).open("ab"):
            pass
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "not a usable file name"
        reading.faults.append((f"the variable SSLKEYLOGFILE names {text!a}: {reason}", "unset it for the gateway"))
    else:
        warning = "the variable SSLKEYLOGFILE is set: the keys of TLS connections are written to a file"
        reading.warnings.append((warning, "unset it for the gateway, except to debug TLS"))
