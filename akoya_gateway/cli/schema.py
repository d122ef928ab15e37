"""`akoya-gateway schema`"""

from __future__ import annotations

import click


@click.command()
def schema() -> None:
    """Print the JSON Schema (2020-12) of gateway.yaml.

    Editors use it to complete and explain: save it beside your file and begin gateway.yaml with
    `# yaml-language-server: $schema=gateway.schema.json`.
    """
    from akoya_gateway.config.schema_validation import schema_text  # noqa: PLC0415

    click.echo(schema_text(), nl=False)
