"""`akoya-gateway sandbox`"""

from __future__ import annotations

from typing import Annotated, Literal

import typer


def sandbox(
    host: Annotated[str, typer.Option(help="Address to listen on. Keep to loopback: it has no protection.")] = (
        "127.0.0.1"
    ),
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on; 0 takes a free one.")] = 9100,
    base_url: Annotated[
        str | None,
        typer.Option(metavar="URL", help="How others reach it, if not by host and port.", show_default="host and port"),
    ] = None,
    dialect: Annotated[
        Literal["dex", "hydra"], typer.Option(help="Whose habits: the documented ones (dex), or the newer server's.")
    ] = "dex",
    client_id: Annotated[str | None, typer.Option(help="The app's client id.", show_default="made up")] = None,
    client_secret: Annotated[
        str | None, typer.Option(envvar="AKOYA_SANDBOX_CLIENT_SECRET", help="Its secret.", show_default="made up")
    ] = None,
    redirect_uri: Annotated[
        list[str] | None,
        typer.Option(help="A redirect URI of the app; may be repeated.", show_default="port 8080, /akoya/callback"),
    ] = None,
    connector: Annotated[
        list[str] | None,
        typer.Option(metavar="ID[=NAME]", help="A provider beside mikomo; may be repeated."),
    ] = None,
    id_token_lifetime: Annotated[float, typer.Option(metavar="SECONDS", help="Life of id_tokens.")] = 86_400,
    code_lifetime: Annotated[float, typer.Option(metavar="SECONDS", help="Life of authorization codes.")] = 300,
    refresh_token_lifetime: Annotated[
        float | None, typer.Option(metavar="SECONDS", help="Life of refresh tokens.", show_default="for ever")
    ] = None,
    rotation_grace: Annotated[
        float | None,
        typer.Option(metavar="SECONDS", help="How long a spent refresh token is still taken.", show_default="none"),
    ] = None,
    rate_limit: Annotated[
        float | None, typer.Option(metavar="N", help="Data requests a second; Akoya has 5.", show_default="no limit")
    ] = None,
    accounts: Annotated[int, typer.Option(min=1, max=2000, help="Accounts of each test user.")] = 3,
    alg: Annotated[Literal["RS256", "ES256"], typer.Option(help="How id_tokens are signed.")] = "RS256",
    no_keys: Annotated[bool, typer.Option("--no-keys", help="Publish no keys and no discovery document.")] = False,
    access_token: Annotated[bool, typer.Option("--access-token", help="Put an access_token into answers.")] = False,
    fault: Annotated[
        list[str] | None,
        typer.Option(metavar="FAULT", help="Trouble: KIND[@ENDPOINT][,times=N]…, see above; may be repeated."),
    ] = None,
    control: Annotated[bool, typer.Option("--control", help="Serve the control API at /_sandbox/.")] = False,
) -> None:
    """Run the Akoya emulator alone: authorization, consent pages, tokens, revocation, data.

    Prints the URLs and the `environments:` section for gateway.yaml. Sign in as mikomo_1 with the password mikomo_1;
    mikomo_500, 501, 601, 602 and 701 to 704 connect and then fail at the data APIs.

    Faults: slow, slow_after, status, status_after, cut_before, cut_after, cut_during, html, garbage, wrong_sub,
    lifetime, bad_signature, rotate_keys, secret_rotated, dead_token, callback_error. For instance, the answer to the
    next refresh is lost after the token was issued: --fault cut_after@token.refresh_token,times=1
    """
    from akoya_gateway.sandbox.environment import environment_yaml  # noqa: PLC0415
    from akoya_gateway.sandbox.faults import Fault  # noqa: PLC0415
    from akoya_gateway.sandbox.serve import open_sandbox, serve  # noqa: PLC0415
    from akoya_gateway.sandbox.settings import (  # noqa: PLC0415
        DEFAULT_CLIENT_ID,
        DEFAULT_CLIENT_SECRET,
        DEFAULT_REDIRECT_URIS,
        SandboxClient,
        SandboxConnector,
        SandboxDialect,
        SandboxSettings,
    )
    from akoya_gateway.secret import Secret  # noqa: PLC0415

    try:
        settings = SandboxSettings(
            clients=(
                SandboxClient(
                    client_id=client_id or DEFAULT_CLIENT_ID,
                    client_secret=Secret(client_secret or DEFAULT_CLIENT_SECRET),
                    redirect_uris=tuple(redirect_uri or DEFAULT_REDIRECT_URIS),
                ),
            ),
            connectors=(SandboxConnector(), *(SandboxConnector(*_named(text)) for text in connector or ())),
            dialect=SandboxDialect(dialect),
            base_url=base_url,
            id_token_lifetime=id_token_lifetime,
            code_lifetime=code_lifetime,
            refresh_token_lifetime=refresh_token_lifetime,
            rotation_grace=rotation_grace,
            rate_limit=rate_limit,
            account_count=accounts,
            alg=alg,
            jwks=not no_keys,
            access_token=access_token,
            faults=tuple(Fault.parse_option(text) for text in fault or ()),
            control=control,
        )
    except ValueError as error:
        typer.echo(f"sandbox: {error}", err=True)
        raise typer.Exit(2) from None
    try:
        settings, listener = open_sandbox(settings, host, port)
    except OSError as error:
        typer.echo(f"sandbox: cannot listen on {host}:{port}: {error.strerror} (choose another --port)", err=True)
        raise typer.Exit(1) from None
    client = settings.clients[0]
    typer.echo(f"Akoya emulator at {settings.base_url} (dialect {settings.dialect})\n")
    typer.echo(f"  client_id       {client.client_id}")
    typer.echo(f"  client_secret   {DEFAULT_CLIENT_SECRET if client_secret is None else 'as given'}")
    typer.echo(f"  redirect_uri    {', '.join(client.redirect_uris)}")
    if control:
        typer.echo(f"  control         {settings.base_url}/_sandbox/")
    typer.echo("  sign in as      mikomo_1, password mikomo_1\n\nFor gateway.yaml:\n")
    typer.echo(environment_yaml(settings))
    typer.echo("Ctrl-C stops it.")
    serve(settings, listener)


def _named(text: str) -> tuple[str, str]:
    key, _, name = text.partition("=")
    if not key:
        raise ValueError(f"connector {text!r}: write ID or ID=NAME")
    return key, name or key.capitalize()
