"""The command `akoya-gateway schema`."""

from __future__ import annotations

import click


@click.command()
def schema() -> None:
    """Print the JSON Schema (2020-12) of gateway.yaml.

    Editors use it for completion and help. Save it beside gateway.yaml and begin that file with
    `# yaml-language-server: $schema=gateway.schema.json`.
    """
    from akoya_gateway.config.schema_file import schema_text  # noqa: PLC0415

    click.echo(schema_text(), nl=False)
