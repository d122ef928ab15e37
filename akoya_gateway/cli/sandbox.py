"""The command `akoya-gateway sandbox`."""

from __future__ import annotations

import click


@click.command()
@click.option(
    "--host",
    default="127.0.0.1",
    show_default=True,
    help="Address to listen on. Use a loopback address: the emulator has no access control.",
)
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=9100,
    show_default=True,
    help="Port to listen on; 0 takes a free one.",
)
@click.option(
    "--base-url", metavar="URL", show_default="host and port", help="Its URL for clients, if not host and port."
)
@click.option(
    "--dialect",
    type=click.Choice(["dex", "hydra"]),
    default="dex",
    show_default=True,
    help="Behavior to emulate: the documented one (dex), or that of the newer server.",
)
@click.option("--client-id", show_default="made up", help="The app's client id.")
@click.option("--client-secret", envvar="AKOYA_SANDBOX_CLIENT_SECRET", show_default="made up", help="Its secret.")
@click.option(
    "--redirect-uri",
    multiple=True,
    show_default="port 8080, /akoya/callback",
    help="A redirect URI of the app; may be repeated.",
)
@click.option("--connector", metavar="ID[=NAME]", multiple=True, help="A provider beside mikomo; may be repeated.")
@click.option(
    "--id-token-lifetime",
    type=float,
    metavar="SECONDS",
    default=86_400,
    show_default=True,
    help="Lifetime of id_tokens.",
)
@click.option(
    "--code-lifetime",
    type=float,
    metavar="SECONDS",
    default=300,
    show_default=True,
    help="Lifetime of authorization codes.",
)
@click.option(
    "--refresh-token-lifetime",
    type=float,
    metavar="SECONDS",
    show_default="forever",
    help="Lifetime of refresh tokens.",
)
@click.option(
    "--rotation-grace",
    type=float,
    metavar="SECONDS",
    show_default="none",
    help="How long a used refresh token is still accepted.",
)
@click.option(
    "--rate-limit",
    type=float,
    metavar="N",
    show_default="5 for v3, no limit for v2",
    help="Data requests per second; Akoya's sandbox allows 5.",
)
@click.option(
    "--max-last-access-age",
    type=float,
    metavar="SECONDS",
    show_default="any age",
    help="Refuse user requests to v3 with an older x-akoya-last-access.",
)
@click.option(
    "--data-timeout",
    type=float,
    metavar="SECONDS",
    default=10,
    show_default=True,
    help="When a slow data response becomes 408.",
)
@click.option("--accounts", type=click.IntRange(1, 2000), default=3, show_default=True, help="Accounts per test user.")
@click.option(
    "--alg",
    type=click.Choice(["RS256", "ES256"]),
    default="RS256",
    show_default=True,
    help="How id_tokens are signed.",
)
@click.option("--no-keys", is_flag=True, help="Publish no keys and no discovery document.")
@click.option("--access-token", is_flag=True, help="Include an access_token in token responses.")
@click.option(
    "--fault",
    metavar="FAULT",
    multiple=True,
    help="Fault to inject: KIND[@ENDPOINT][,times=N]…, see above; may be repeated.",
)
@click.option("--control", is_flag=True, help="Serve the control API at /_sandbox/.")
def sandbox(
    host: str,
    port: int,
    base_url: str | None,
    dialect: str,
    client_id: str | None,
    client_secret: str | None,
    redirect_uri: tuple[str, ...],
    connector: tuple[str, ...],
    id_token_lifetime: float,
    code_lifetime: float,
    refresh_token_lifetime: float | None,
    rotation_grace: float | None,
    rate_limit: float | None,
    max_last_access_age: float | None,
    data_timeout: float,
    accounts: int,
    alg: str,
    no_keys: bool,
    access_token: bool,
    fault: tuple[str, ...],
    control: bool,
) -> None:
    """Run the Akoya emulator alone: authorization, consent pages, tokens, revocation, data.

    Prints the URLs and the `environments:` section for gateway.yaml. Sign in as mikomo_1 with the password mikomo_1;
    mikomo_500, 501, 601, 602 and 701 to 704 connect and then fail at the data APIs.

    Faults: slow, slow_after, status, status_after, cut_before, cut_after, cut_during, html, garbage, wrong_sub,
    lifetime, bad_signature, rotate_keys, secret_rotated, dead_token, callback_error, partial. For example, to lose the
    response to the next refresh after the token was issued: --fault cut_after@token.refresh_token,times=1. To make the
    balances of one bank unavailable: --fault status@data.balances,connector=mikomo,status=503
    """
    from akoya_gateway.sandbox.fault_injection import Fault  # noqa: PLC0415
    from akoya_gateway.sandbox.foreground import open_sandbox, serve  # noqa: PLC0415
    from akoya_gateway.sandbox.gateway_environment import environment_yaml  # noqa: PLC0415
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
                    redirect_uris=redirect_uri or DEFAULT_REDIRECT_URIS,
                ),
            ),
            connectors=(SandboxConnector(), *(SandboxConnector(*_named(text)) for text in connector)),
            dialect=SandboxDialect(dialect),
            base_url=base_url,
            id_token_lifetime=id_token_lifetime,
            code_lifetime=code_lifetime,
            refresh_token_lifetime=refresh_token_lifetime,
            rotation_grace=rotation_grace,
            rate_limit=rate_limit,
            v3_rate_limit=5.0 if rate_limit is None else rate_limit,
            max_last_access_age=max_last_access_age,
            data_timeout=data_timeout,
            account_count=accounts,
            alg=alg,
            jwks=not no_keys,
            access_token=access_token,
            faults=tuple(Fault.parse_option(text) for text in fault),
            control=control,
        )
    except ValueError as error:
        click.echo(f"sandbox: {error}", err=True)
        raise SystemExit(2) from None
    try:
        settings, listener = open_sandbox(settings, host, port)
    except OSError as error:
        click.echo(f"sandbox: cannot listen on {host}:{port}: {error.strerror} (choose another --port)", err=True)
        raise SystemExit(1) from None
    client = settings.clients[0]
    click.echo(f"Akoya emulator at {settings.base_url} (dialect {settings.dialect})\n")
    click.echo(f"  client_id       {client.client_id}")
    click.echo(f"  client_secret   {DEFAULT_CLIENT_SECRET if client_secret is None else 'as given'}")
    click.echo(f"  redirect_uri    {', '.join(client.redirect_uris)}")
    if control:
        click.echo(f"  control         {settings.base_url}/_sandbox/")
    click.echo("  sign in as      mikomo_1, password mikomo_1\n\nFor gateway.yaml:\n")
    click.echo(environment_yaml(settings))
    click.echo("Ctrl-C stops it.")
    serve(settings, listener)


def _named(text: str) -> tuple[str, str]:
    key, _, name = text.partition("=")
    if not key:
        raise ValueError(f"connector {text!r}: write ID or ID=NAME")
    return key, name or key.capitalize()
