"""The command `akoya-gateway man`: the manual page, made from the help of all commands."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator

import click

from akoya_gateway.version import __version__

_ENVIRONMENT = (
    ("AKOYA_GATEWAY_CONFIG", "The configuration, if --config is not given."),
    ("NO_COLOR", "If it is set, nothing is coloured."),
)
_EXIT_STATUS = (
    ("0", "Everything is fine."),
    ("1", "A fault was found."),
    ("2", "The command line is wrong."),
    ("141", "The reader of the output closed it early."),
)


@click.command()
@click.pass_context
def man(ctx: click.Context) -> None:
    """Print the manual page: `akoya-gateway man | man -l -`.

    To install it: `akoya-gateway man > ~/.local/share/man/man1/akoya-gateway.1`.
    """
    click.echo("\n".join(_page(ctx.find_root())))


def _page(root: click.Context) -> Iterator[str]:
    name = root.info_name or "akoya-gateway"
    summary, _, rest = inspect.cleandoc(root.command.help or "").partition("\n\n")
    yield f'.TH {_escaped(name.upper())} 1 "" "{name} {__version__}"'
    yield from (".SH NAME", f"{_escaped(name)} \\- {_formatted(summary.rstrip('.'))}")
    yield from (
        ".SH SYNOPSIS",
        f"\\fB{_escaped(name)}\\fR {_escaped(' '.join(root.command.collect_usage_pieces(root)))}",
    )
    yield ".SH DESCRIPTION"
    yield from _paragraphs(rest)
    yield ".SH COMMANDS"
    yield from _commands(root)
    for title, entries in (("ENVIRONMENT", _ENVIRONMENT), ("EXIT STATUS", _EXIT_STATUS)):
        yield f".SH {title}"
        for term, text in entries:
            yield from _entry(term, text)


def _commands(parent: click.Context) -> Iterator[str]:
    """Yield a subsection for each command, and for each command of a group."""
    group = parent.command
    assert isinstance(group, click.Group)
    for name in group.list_commands(parent):
        command = group.get_command(parent, name)
        assert command is not None
        ctx = click.Context(command, info_name=name, parent=parent)
        path = ctx.command_path.partition(" ")[2]
        yield f".SS {_escaped(' '.join([path, *command.collect_usage_pieces(ctx)]))}"
        yield from _paragraphs(inspect.cleandoc(command.help or ""))
        for option in command.get_params(ctx):
            if (record := option.get_help_record(ctx)) is not None:
                yield from _entry(*record)
        if isinstance(command, click.Group):
            yield from _commands(ctx)


def _paragraphs(text: str) -> Iterator[str]:
    for paragraph in text.split("\n\n"):
        yield from (".PP", _formatted(paragraph))


def _entry(term: str, text: str) -> tuple[str, str, str]:
    return ".TP", f"\\fB{_escaped(term)}\\fR", _formatted(text)


def _formatted(text: str) -> str:
    """Join the lines of a paragraph, and set what is in backticks in bold."""
    return re.sub(r"`([^`]*)`", r"\\fB\1\\fR", _escaped(" ".join(text.split())))


def _escaped(text: str) -> str:
    """Escape what roff would interpret: backslashes, hyphens, and a control character at the beginning of a line."""
    escaped = text.replace("\\", "\\e").replace("-", "\\-").replace("…", "...")
    return f"\\&{escaped}" if escaped[:1] in (".", "'") else escaped
