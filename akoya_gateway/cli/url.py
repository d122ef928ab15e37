"""`akoya-gateway url`"""

from __future__ import annotations

from typing import Annotated

import typer

from akoya_gateway.cli.options import DEFAULT_CONFIG, ConfigOption


def url(
    connector: Annotated[str, typer.Argument(help="A connector's name in the configuration.")],
    config: ConfigOption = DEFAULT_CONFIG,
    state: Annotated[
        str | None, typer.Option("--state", metavar="TEXT", help="Use this state in place of a random one.")
    ] = None,
) -> None:
    """Print the authorization URL for a connector: Akoya's "build your own URL".

    It is the URL that the gateway itself would redirect to, to try a client registration by hand. No authorization
    attempt stands behind it, so the gateway will refuse the callback; people are sent to the connect route instead.
    """
    from akoya_gateway.config.faults import did_you_mean  # noqa: PLC0415
    from akoya_gateway.config.load import load_config  # noqa: PLC0415
    from akoya_gateway.protocol import authorization  # noqa: PLC0415

    loaded = load_config(config)
    found = loaded.connectors.get(connector)
    if found is None:
        known = ", ".join(loaded.connectors)
        remedy = did_you_mean(connector, loaded.connectors) or f"known: {known}"
        typer.echo(f"{config}: no connector named {connector!r} ({remedy})", err=True)
        raise typer.Exit(2)
    dialect = found.client.environment.dialect
    challenge = authorization.code_challenge(authorization.code_verifier()) if dialect.pkce else None
    nonce = authorization.new_nonce() if dialect.nonce else None
    typer.echo(
        authorization.authorization_url(
            found.client, found, state or authorization.new_state(), code_challenge=challenge, nonce=nonce
        )
    )
    typer.echo(
        "warning: no authorization attempt stands behind this URL, the gateway will refuse its callback; "
        f"send people to {loaded.public_url}{loaded.prefix}/connect/{connector}",
        err=True,
    )
    if dialect.pkce:
        typer.echo("warning: the code verifier of this URL is thrown away, its code cannot be exchanged", err=True)
