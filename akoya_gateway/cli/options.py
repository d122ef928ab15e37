"""Options that several commands share."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
from click.shell_completion import CompletionItem

from akoya_gateway.config import CONFIG_VARIABLE

DEFAULT_CONFIG = Path("gateway.yaml")

config_option = click.option(
    "--config",
    "-c",
    type=click.Path(path_type=Path),
    metavar="FILE",
    envvar=CONFIG_VARIABLE,
    show_envvar=True,
    default=DEFAULT_CONFIG,
    show_default=True,
    help="The configuration.",
)


def format_option(description: str, *more: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Return the option `--format`: `text` (the default), `json`, and the formats in `more`."""
    return click.option(
        "--format",
        "-f",
        "form",
        type=click.Choice(["text", "json", *more]),
        default="text",
        show_default=True,
        help=description,
    )


def complete_names(section: str) -> Callable[..., list[CompletionItem]]:
    """Return a shell completion that offers the names in a section of the configuration, such as `connectors`."""

    def complete(ctx: click.Context, _: click.Parameter, incomplete: str) -> list[CompletionItem]:
        from akoya_gateway.config.diagnostics import ConfigurationError  # noqa: PLC0415
        from akoya_gateway.config.document import read_document  # noqa: PLC0415

        config = ctx.params.get("config") or os.environ.get(CONFIG_VARIABLE) or DEFAULT_CONFIG
        try:
            entries: Any = read_document(Path(config)).data.get(section)
        except ConfigurationError:
            return []
        names = entries if isinstance(entries, dict) else {}
        return [CompletionItem(name, help=_shown_name(names[name])) for name in names if name.startswith(incomplete)]

    return complete


def _shown_name(entry: object) -> str | None:
    name = entry.get("name") if isinstance(entry, dict) else None
    return name if isinstance(name, str) else None
