"""`akoya-gateway run`"""

from __future__ import annotations

from typing import Annotated

import typer

from akoya_gateway.cli.options import DEFAULT_CONFIG, ConfigOption


def run(
    config: ConfigOption = DEFAULT_CONFIG,
    workers: Annotated[
        int, typer.Option("--workers", "-w", min=1, max=256, help="Processes that share the listening socket.")
    ] = 1,
    grace: Annotated[
        float,
        typer.Option(
            "--grace",
            min=0.0,
            metavar="SECONDS",
            help="After SIGTERM: how long answers, streams and WebSockets under way may take. Refreshes always finish.",
        ),
    ] = 30.0,
    drain_delay: Annotated[
        float,
        typer.Option(
            "--drain-delay",
            min=0.0,
            metavar="SECONDS",
            help="After SIGTERM: how long to go on serving while /readyz says no, so that load balancers notice.",
        ),
    ] = 0.0,
    watch: Annotated[
        bool, typer.Option("--watch", help="Reload when the configuration or a file it names changes.")
    ] = False,
    fast_lane: Annotated[
        bool,
        typer.Option("--fast-lane/--no-fast-lane", help="Serve plain requests below ASGI. Off: all take one path."),
    ] = True,
) -> None:
    """Run the gateway as a sidecar: a reverse proxy in front of your app.

    Logs go to standard output. /livez, /readyz and /metrics are on the `admin` address, not on the public one.

    Signals: SIGTERM drains and stops, a second one stops at once. SIGHUP reloads the configuration and every secret
    without dropping a connection; a file with faults changes nothing.

    Exit codes: 0 stopped in order, 1 a fault (one line each on standard error), 2 wrong usage.
    """
    from akoya_gateway.errors import GatewayError  # noqa: PLC0415
    from akoya_gateway.faces.sidecar import serve  # noqa: PLC0415
    from akoya_gateway.operations.worker import Life  # noqa: PLC0415

    try:
        code = serve(config, workers=workers, life=Life(grace, drain_delay, watch, fast_lane))
    except GatewayError as error:
        typer.echo(f"akoya-gateway: {error.detail or error.title}", err=True)
        raise typer.Exit(1) from None
    raise typer.Exit(1 if code else 0)
