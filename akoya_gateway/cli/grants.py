"""`akoya-gateway grants`"""

from __future__ import annotations

import sys
from collections.abc import Callable, Coroutine
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from akoya_gateway.cli.options import DEFAULT_CONFIG, ConfigOption

if TYPE_CHECKING:
    from akoya_gateway.config.model import Config

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="markdown",
    add_completion=False,
    pretty_exceptions_enable=False,
    help="""See and manage what users granted. Tokens are never shown.

    It reads the store of the configuration, also while gateways run. A million grants are streamed.

    Exit codes: 0 fine, 1 a fault was found (no such grant, a record that cannot be read, the store is away), 2 wrong
    usage.
    """,
)


class Format(StrEnum):
    TABLE = "table"
    JSON = "json"
    CSV = "csv"


class State(StrEnum):
    LIVE = "live"
    REFRESHING = "refreshing"
    UNCERTAIN = "uncertain"
    NEEDS_RECONNECT = "needs_reconnect"
    REVOKED = "revoked"


class By(StrEnum):
    STATE = "state"
    CONNECTOR = "connector"
    ENVIRONMENT = "environment"


FormatOption = Annotated[Format, typer.Option("--format", "-f", help="A table for people; JSON lines or CSV.")]
OwnerOption = Annotated[str | None, typer.Option("--owner", help="Only this owner's.")]
ConnectorOption = Annotated[str | None, typer.Option("--connector", help="Only this connector's.")]
EnvironmentOption = Annotated[str | None, typer.Option("--environment", help="Only this environment's.")]
StateOption = Annotated[
    State | None,
    typer.Option("--state", help="Only those. Disconnected ones (revoked) stay for a day."),
]


@app.command("list")
def list_grants(
    config: ConfigOption = DEFAULT_CONFIG,
    owner: OwnerOption = None,
    connector: ConnectorOption = None,
    environment: EnvironmentOption = None,
    state: StateOption = None,
    output: FormatOption = Format.TABLE,
) -> None:
    """List grants: owner, connector, environment, state, ages and reason, in no order."""
    from akoya_gateway.cli import grants_output  # noqa: PLC0415

    wanted = _wanted(owner, connector, environment, state)
    _run(config, lambda loaded: grants_output.list_all(loaded, wanted, output.value))


@app.command()
def count(
    config: ConfigOption = DEFAULT_CONFIG,
    by: Annotated[
        list[By] | None, typer.Option("--by", help="What to count by; may be repeated. By default all three.")
    ] = None,
    owner: OwnerOption = None,
    connector: ConnectorOption = None,
    environment: EnvironmentOption = None,
    state: StateOption = None,
    output: FormatOption = Format.TABLE,
) -> None:
    """Count grants by state, connector and environment."""
    from akoya_gateway.cli import grants_output  # noqa: PLC0415

    wanted = _wanted(owner, connector, environment, state)
    columns = tuple(each.value for each in dict.fromkeys(by or By))
    _run(config, lambda loaded: grants_output.count(loaded, wanted, columns, output.value))


@app.command()
def show(
    grant: Annotated[str, typer.Argument(metavar="ID", help="As `list` shows it.")],
    config: ConfigOption = DEFAULT_CONFIG,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
) -> None:
    """Show one grant, and who must do what about it."""
    from akoya_gateway.cli import grants_output  # noqa: PLC0415

    _run(config, lambda loaded: grants_output.show(loaded, grant, as_json=as_json))


@app.command()
def revoke(
    grants: Annotated[list[str], typer.Argument(metavar="ID...", help="As `list` shows them.")],
    config: ConfigOption = DEFAULT_CONFIG,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """End grants as if their users had disconnected: forgotten at once, revoked at Akoya.

    Gateways that run stop passing them within a second. If Akoya cannot be reached the revocation waits in the store
    and is repeated by the gateways.
    """
    from akoya_gateway.cli import grants_output  # noqa: PLC0415

    if not yes and sys.stdin.isatty():
        typer.confirm(f"End {len(grants)} grant{'s' if len(grants) > 1 else ''}? Users must connect again.", abort=True)
    _run(config, lambda loaded: grants_output.revoke(loaded, grants))


def _wanted(owner: str | None, connector: str | None, environment: str | None, state: State | None) -> Any:
    from akoya_gateway.grants.grant import GrantState  # noqa: PLC0415
    from akoya_gateway.grants.register import Wanted  # noqa: PLC0415

    return Wanted(owner, connector, None if state is None else GrantState(state.value), environment)


def _run(path: Path, work: Callable[[Config], Coroutine[Any, Any, int]]) -> None:
    """`work` with the configuration; its result is the exit code."""
    import asyncio  # noqa: PLC0415

    from akoya_gateway.config.load import load_config  # noqa: PLC0415
    from akoya_gateway.errors import GatewayError  # noqa: PLC0415

    config = load_config(path)
    try:
        code = asyncio.run(work(config))
    except GatewayError as error:
        typer.echo(f"akoya-gateway: {error.detail or error.title}", err=True)
        code = 1
    if code:
        raise typer.Exit(code)
