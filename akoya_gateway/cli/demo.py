"""The command `akoya-gateway demo`."""

from __future__ import annotations

import click


@click.command()
@click.option("--port", type=click.IntRange(0, 65535), show_default="8080, or a free one", help="The gateway's port.")
@click.option("--open", "open_browser", is_flag=True, help="Open the page in a browser.")
@click.option(
    "--id-token-lifetime",
    type=click.FloatRange(4),
    metavar="SECONDS",
    default=86_400,
    show_default=True,
    help="Lifetime of id_tokens. Use a short one to see refreshes.",
)
def demo(port: int | None, open_browser: bool, id_token_lifetime: float) -> None:
    """Run the whole flow on this machine: an Akoya emulator, a sample app, and the gateway between them.

    Needs no credentials and no network. Open the printed URL, press "Connect Mikomo Bank" and sign in as mikomo_1 with
    the password mikomo_1. Ctrl-C stops everything; nothing is left behind.
    """
    import signal  # noqa: PLC0415
    import webbrowser  # noqa: PLC0415

    from akoya_gateway.sandbox.demo import Demo, DemoFailed  # noqa: PLC0415
    from akoya_gateway.sandbox.settings import SandboxSettings  # noqa: PLC0415

    def stop(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, stop)
    try:
        with Demo(port, SandboxSettings(id_token_lifetime=id_token_lifetime)) as running:
            click.echo(f"Configuration: {running.config}", err=True)
            click.echo("Akoya Gateway demo. Open this in a browser:\n")
            click.echo(f"    {running.url}/\n")
            click.echo("Sign in at the bank as mikomo_1, password mikomo_1. Ctrl-C stops it.")
            if open_browser:
                webbrowser.open(f"{running.url}/")
            code = running.wait()
    except KeyboardInterrupt:
        click.echo("\nStopped.", err=True)
        return
    except OSError as error:
        click.echo(f"demo: {error.strerror or error} (choose another --port)", err=True)
        raise SystemExit(1) from None
    except DemoFailed as error:
        click.echo(f"demo: {error}", err=True)
        raise SystemExit(1) from None
    click.echo(f"demo: the gateway ended with exit code {code}", err=True)
    raise SystemExit(1)
