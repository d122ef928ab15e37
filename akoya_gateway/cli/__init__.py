"""The `akoya-gateway` command line.

Each command is in the module of its name, which is loaded only if the command is used. Heavy imports are inside the
command's function, so that `--help` and `run` start quickly. The command line is parsed with click, because uvicorn
depends on it anyway: the modules of another parser would remain in the memory of `run`.
"""

from __future__ import annotations

import importlib
import os
import sys

import click

from akoya_gateway.cli.group import Group
from akoya_gateway.observability.colour import no_colour
from akoya_gateway.version import __version__

COMMANDS = (
    "demo",
    "init",
    "run",
    "check",
    "explain",
    "url",
    "keys",
    "grants",
    "store",
    "doctor",
    "health",
    "sandbox",
    "schema",
    "man",
)
"""In the order of `--help`."""


CLOSED_PIPE_STATUS = 128 + 13
"""Exit status if the reader of the output closes it early, as in `akoya-gateway grants list | head`: as a shell reports
SIGPIPE. 1 would mean that a fault was found."""


class _Commands(Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def invoke(self, ctx: click.Context) -> object:
        if no_colour():
            ctx.color = False
        try:
            return super().invoke(ctx)
        except BrokenPipeError:
            # The interpreter flushes standard output once more at exit, and would print an error.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise SystemExit(CLOSED_PIPE_STATUS) from None

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = getattr(importlib.import_module(f"{__name__}.{cmd_name}"), cmd_name)
        return command


@click.group(
    cls=_Commands,
    name="akoya-gateway",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.version_option(__version__, message="akoya-gateway %(version)s")
def app() -> None:
    """A gateway between the Akoya network and your app, described by one YAML file.

    Start with `akoya-gateway demo`, which needs no credentials. `akoya-gateway init` then writes a gateway.yaml for
    your app, and `akoya-gateway check` finds out what is missing.

    Colours are off if NO_COLOR is set. Tab completion, here for bash: `eval "$(_AKOYA_GATEWAY_COMPLETE=bash_source
    akoya-gateway)"`; for zsh and fish, write their names instead of bash.

    Exit codes: 0 fine, 1 a fault was found, 2 wrong usage.
    """


def _open_standard_streams() -> None:
    """Open /dev/null as each of standard input, output and error that was closed when the process started.

    Otherwise the next socket or file would get its number: log lines would be written into it, and libuv aborts the
    process when such a socket is closed. Python has None for such a stream (`sys.stdout`), which most code does not
    expect.
    """
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(descriptor)
    for descriptor, (name, mode) in enumerate((("stdin", "r"), ("stdout", "w"), ("stderr", "w"))):
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(descriptor, mode, encoding="utf-8"))


def main() -> None:
    """Run the `akoya-gateway` script.

    If the configuration is invalid, every command prints one line for each error and exits with 1.
    """
    from akoya_gateway.config.diagnostics import ConfigurationError  # noqa: PLC0415

    _open_standard_streams()
    try:
        app(prog_name="akoya-gateway")
    except ConfigurationError as error:
        for diagnostic in error.diagnostics:
            click.echo(str(diagnostic), err=True)
        sys.exit(1)


__all__ = ["app", "main"]
