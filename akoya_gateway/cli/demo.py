"""`akoya-gateway demo`"""

from __future__ import annotations

from typing import Annotated

import typer


def demo(
    port: Annotated[
        int | None, typer.Option(min=0, max=65535, help="The gateway's port.", show_default="8080, or a free one")
    ] = None,
    open_browser: Annotated[bool, typer.Option("--open", help="Open the page in a browser.")] = False,
    id_token_lifetime: Annotated[
        float, typer.Option(min=4, metavar="SECONDS", help="Life of id_tokens: short ones show refreshes.")
    ] = 86_400,
) -> None:
    """See the whole flow: an Akoya emulator, a sample app and the gateway in between, on this machine.

    Needs no credentials and no network. Open the URL that is printed, press "Connect Mikomo Bank" and sign in as
    mikomo_1 with the password mikomo_1. Ctrl-C stops everything; nothing is left behind.
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
            typer.echo("Akoya Gateway demo. Open this in a browser:\n")
            typer.echo(f"    {running.url}/\n")
            typer.echo("Sign in at the bank as mikomo_1, password mikomo_1. Ctrl-C stops it.")
            typer.echo(f"Configuration: {running.config}", err=True)
            if open_browser:
                webbrowser.open(f"{running.url}/")
            code = running.wait()
    except KeyboardInterrupt:
        typer.echo("\nStopped.", err=True)
        return
    except OSError as error:
        typer.echo(f"demo: {error.strerror or error} (choose another --port)", err=True)
        raise typer.Exit(1) from None
    except DemoFailed as error:
        typer.echo(f"demo: {error}", err=True)
        raise typer.Exit(1) from None
    typer.echo(f"demo: the gateway ended with exit code {code}", err=True)
    raise typer.Exit(1)
