"""The command `akoya-gateway url`."""

from __future__ import annotations

from pathlib import Path

import click

from akoya_gateway.cli.options import complete_names, config_option


@click.command()
@click.argument("connector", shell_complete=complete_names("connectors"))
@config_option
@click.option("--state", metavar="TEXT", help="Use this state instead of a random one.")
def url(connector: str, config: Path, state: str | None) -> None:
    """Print the authorization URL for a connector: Akoya's "build your own URL".

    This is the URL to which the gateway itself would redirect. Use it to try a client registration by hand. It belongs
    to no authorization attempt, so the gateway will refuse its callback. Send users to the connect route instead.
    """
    from akoya_gateway.config.diagnostics import did_you_mean  # noqa: PLC0415
    from akoya_gateway.config.loader import load_config  # noqa: PLC0415
    from akoya_gateway.config.reader import NO_SECRETS  # noqa: PLC0415
    from akoya_gateway.oauth import authorization_request  # noqa: PLC0415

    # The URL needs the ID of one client and no other secret.
    loaded = load_config(config, secrets=NO_SECRETS)
    found = loaded.connectors.get(connector)
    if found is None:
        names = ", ".join(loaded.connectors)
        remedy = did_you_mean(connector, loaded.connectors) or f"known: {names}"
        click.echo(f"{config}: no connector named {connector!r} ({remedy})", err=True)
        raise SystemExit(2)
    loaded = load_config(config, secrets=(("clients", found.client.name, "client_id"),))
    found = loaded.connectors[connector]
    dialect = found.client.environment.dialect
    challenge = authorization_request.code_challenge(authorization_request.code_verifier()) if dialect.pkce else None
    nonce = authorization_request.new_nonce() if dialect.nonce else None
    click.echo(
        authorization_request.authorization_url(
            found.client, found, state or authorization_request.new_state(), code_challenge=challenge, nonce=nonce
        )
    )
    click.echo(
        "warning: this URL belongs to no authorization attempt, the gateway will refuse its callback; "
        f"send users to {loaded.public_url}{loaded.prefix}/connect/{connector}",
        err=True,
    )
    if dialect.pkce:
        click.echo("warning: the code verifier of this URL is discarded, its code cannot be exchanged", err=True)
