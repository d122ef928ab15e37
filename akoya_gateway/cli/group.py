"""The class of commands that have subcommands."""

from __future__ import annotations

import click

from akoya_gateway.config.diagnostics import did_you_mean


class Group(click.Group):
    """Lists its commands in the order of their definition, each with the whole first paragraph of its help.

    For an unknown command it suggests the most similar one.
    """

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        rows = [(name, _first_paragraph(self.get_command(ctx, name))) for name in self.list_commands(ctx)]
        with formatter.section("Commands"):
            formatter.write_dl(rows)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if self.get_command(ctx, args[0]) is None and (near := did_you_mean(args[0], self.list_commands(ctx))):
            ctx.fail(f"No such command {args[0]!r} ({near})")
        return super().resolve_command(ctx, args)


def _first_paragraph(command: click.Command | None) -> str:
    text = (command.help if command is not None else None) or ""
    return " ".join(text.partition("\n\n")[0].split())
