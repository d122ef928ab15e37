"""`akoya-gateway`: one module a command, loaded when it is asked for.

A command module has a function with the module's name, or a typer app called `app` where there are subcommands. Heavy
imports stand inside the function, so that `--help` and `run` start quickly.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from typing import Any

import typer
import typer.core
import typer.main

COMMANDS = ("run", "demo", "check", "explain", "url", "keys", "grants", "doctor", "sandbox", "schema")
"""In the order of `--help`."""


class _Commands(typer.core.TyperGroup):
    def list_commands(self, ctx: Any) -> list[str]:
        return [name for name in COMMANDS if importlib.util.find_spec(f"{__name__}.{name}")]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        return _command(cmd_name) if cmd_name in self.list_commands(ctx) else None


def _command(name: str) -> Any:
    module = importlib.import_module(f"{__name__}.{name}")
    own: typer.Typer | None = getattr(module, "app", None)
    if own is None:
        own = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode="markdown")
        own.command(name)(getattr(module, name))
    command = typer.main.get_command(own)
    command.name = name
    return command


def _version(wanted: bool) -> None:
    if wanted:
        from akoya_gateway import __version__  # noqa: PLC0415

        typer.echo(f"akoya-gateway {__version__}")
        raise typer.Exit


app = typer.Typer(
    cls=_Commands,
    name="akoya-gateway",
    no_args_is_help=True,
    rich_markup_mode="markdown",
    add_completion=False,
    # A pretty traceback shows local variables, and those may be secrets.
    pretty_exceptions_enable=False,
)


@app.callback()
def _gateway(
    version: bool = typer.Option(False, "--version", help="Print the version.", is_eager=True, callback=_version),
) -> None:
    """A gateway between the Akoya network and your app, described by one YAML file.

    Start with `akoya-gateway demo`, which needs no credentials. Then copy gateway.yaml, make it yours, and let
    `akoya-gateway check` say what is missing.

    Exit codes: 0 fine, 1 a fault was found, 2 wrong usage.
    """


def main() -> None:
    """The `akoya-gateway` script. A faulty configuration is 1, with one line a fault, in every command."""
    from akoya_gateway.config.faults import ConfigurationError  # noqa: PLC0415

    try:
        app()
    except ConfigurationError as error:
        for fault in error.faults:
            typer.echo(str(fault), err=True)
        sys.exit(1)


__all__ = ["app", "main"]
