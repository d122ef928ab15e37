"""The command `akoya-gateway health`."""

from __future__ import annotations

import http.client
import json
import socket
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import click

from akoya_gateway.cli.options import config_option

if TYPE_CHECKING:
    from akoya_gateway.config.model import Listen

_LOOPBACK = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - the address to query, not to bind


@click.command()
@config_option
@click.option(
    "--url", metavar="URL", help="The admin listener, such as http://127.0.0.1:9090. Default: `admin.listen`."
)
@click.option("--live", is_flag=True, help="Ask only whether the process responds (/livez), not whether it is ready.")
@click.option(
    "--timeout",
    type=click.FloatRange(min=0.1),
    default=2.0,
    show_default=True,
    help="Seconds to wait for the response.",
)
def health(config: Path, url: str | None, live: bool, timeout: float) -> None:
    """Report whether a running gateway is ready, as a probe for containers and scripts.

    Queries the admin listener on this machine. The configuration is read only for its address, so neither secrets nor
    a valid file are needed. The reasons are written to standard error.

    Exit codes: 0 ready, 1 not ready or no response, 2 wrong usage.
    """
    where, connection = _connection(config, url, timeout)
    try:
        connection.request("GET", "/livez" if live else "/readyz")
        response = connection.getresponse()
        status, body = response.status, response.read()
    except (OSError, http.client.HTTPException) as error:
        click.echo(f"no response from the admin listener at {where}: {error}", err=True)
        raise SystemExit(1) from None
    finally:
        connection.close()
    if status == 200:
        click.echo("live" if live else "ready")
        return
    for problem in _problems(body) or [f"status {status}"]:
        click.echo(f"not ready: {problem}", err=True)
    raise SystemExit(1)


def _problems(body: bytes) -> list[str]:
    """Return the problems that /readyz lists, or nothing if another server responded."""
    try:
        report = json.loads(body)
        return [str(problem) for problem in report["problems"]]
    except (ValueError, KeyError, TypeError):
        return []


def _connection(config: Path, url: str | None, timeout: float) -> tuple[str, http.client.HTTPConnection]:
    """Return the address for messages, and a connection to the admin listener that is not open yet."""
    if url is None:
        listen = _admin_listener(config)
        if listen.path is not None:
            return f"unix:{listen.path}", _UnixConnection(listen.path, timeout)
        host, port = _LOOPBACK.get(listen.host, listen.host), listen.port
    else:
        try:
            parts = urlsplit(url)
            host, port = parts.hostname or "", parts.port or 80
        except ValueError:
            host, port = "", 80
        if not host or parts.scheme != "http":
            raise click.BadParameter(
                "it begins with http:// and a host, such as http://127.0.0.1:9090", param_hint="--url"
            )
    return f"{host}:{port}", http.client.HTTPConnection(host, port, timeout=timeout)


def _admin_listener(config: Path) -> Listen:
    from akoya_gateway.config.document import read_document  # noqa: PLC0415
    from akoya_gateway.config.value_parsers import parse_listen  # noqa: PLC0415

    data = read_document(config).data
    admin = data.get("admin", {})
    if admin is None:
        raise click.UsageError(f"{config} has `admin: null`, so no listener can be asked")
    try:
        return parse_listen(admin.get("listen", "127.0.0.1:9090"))
    except (AttributeError, ValueError):
        raise click.UsageError(f"{config}: admin.listen cannot be read; see `akoya-gateway check`") from None


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)
