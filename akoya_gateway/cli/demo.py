"""The command `akoya-gateway demo`."""

from __future__ import annotations

import click


@click.command()
@click.option("--port", type=click.IntRange(0, 65535), show_default="8080, or a free one", help="The gateway's port.")
@click.option(
    "--bank-port", type=click.IntRange(0, 65535), show_default="9100, or a free one", help="The emulated bank's port."
)
@click.option(
    "--host",
    type=click.Choice(["127.0.0.1", "0.0.0.0"]),  # noqa: S104
    default="127.0.0.1",
    show_default=True,
    help="Address to listen on. 0.0.0.0 is for containers: every machine in reach can use the demo.",
)
@click.option("--open", "open_browser", is_flag=True, help="Open the page in a browser.")
@click.option(
    "--id-token-lifetime",
    type=click.FloatRange(4),
    metavar="SECONDS",
    default=86_400,
    show_default=True,
    help="Lifetime of id_tokens. Use a short one to see refreshes.",
)
def demo(port: int | None, bank_port: int | None, host: str, open_browser: bool, id_token_lifetime: float) -> None:
    """Run the whole flow on this machine: an Akoya emulator, a sample app, and the gateway between them.

    Needs no credentials and no network. Open the printed URL, press "Connect Mikomo Bank" and sign in as mikomo_1 with
    the password mikomo_1. Ctrl-C stops everything; nothing is left behind.

    If the browser is on another machine, forward both ports to it under the same numbers.
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
        settings = SandboxSettings(id_token_lifetime=id_token_lifetime)
        with Demo(port, settings, bank_port=bank_port, host=host) as running:
            click.echo(f"Configuration: {running.config}", err=True)
            click.echo("Akoya Gateway demo. Open this in a browser:\n")
            click.echo(f"    {running.url}/\n")
            click.echo(
                f"The bank is at {running.sandbox.url}. If the browser is on another machine, forward both ports:"
            )
            click.echo(f"    ssh {_forwarded(running.url)} {_forwarded(running.sandbox.url)} THIS-MACHINE\n")
            click.echo("Sign in at the bank as mikomo_1, password mikomo_1. Ctrl-C stops it.")
            if open_browser:
                webbrowser.open(f"{running.url}/")
            code = running.wait()
    except KeyboardInterrupt:
        click.echo("\nStopped.", err=True)
        return
    except OSError as error:
        where = f"cannot listen on {error.filename}: " if error.filename else ""
        click.echo(f"demo: {where}{error.strerror or error} (choose another --port or --bank-port)", err=True)
        raise SystemExit(1) from None
    except DemoFailed as error:
        click.echo(f"demo: {error}", err=True)
        raise SystemExit(1) from None
    click.echo(f"demo: the gateway ended with exit code {code}", err=True)
    raise SystemExit(1)


def _forwarded(url: str) -> str:
    address = url.removeprefix("http://")
    return f"-L {address.rpartition(':')[2]}:{address}"
