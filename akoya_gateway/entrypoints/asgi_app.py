"""The sidecar as an ASGI app, for an existing ASGI server.

    AKOYA_GATEWAY_CONFIG=gateway.yaml uvicorn --factory akoya_gateway:sidecar

`akoya-gateway run` also provides the byte-level fast lane, limits on client input, reload, metrics, health checks and
draining. Here these are the responsibility of the server (docs/operations.md).
"""

from __future__ import annotations

import os
from pathlib import Path

from starlette.types import ASGIApp

from akoya_gateway.config import CONFIG_VARIABLE, load_config
from akoya_gateway.config.model import Config
from akoya_gateway.fast_lane.asgi import AsgiFastLane
from akoya_gateway.fast_lane.lane import FastLane
from akoya_gateway.gateway.date_header import DateHeader
from akoya_gateway.gateway.middleware import Gateway
from akoya_gateway.gateway.upstream_router import UpstreamRouter, no_upstream
from akoya_gateway.server.http_1_0 import CloseDelimited


def sidecar(config: Config | str | Path | None = None) -> ASGIApp:
    """Return an ASGI app: the gateway with a reverse proxy to the configured upstreams.

    Without upstreams, the gateway serves forward-auth only.

    Args:
        config: A path, the result of `load_config`, or None to use `AKOYA_GATEWAY_CONFIG`.

    Raises:
        config.ConfigurationError: The file has errors.
    """
    if config is None:
        config = os.environ.get(CONFIG_VARIABLE, "gateway.yaml")
    loaded = config if isinstance(config, Config) else load_config(Path(config))
    date_header = DateHeader()
    if not loaded.all_upstreams:
        return CloseDelimited(Gateway(no_upstream, loaded, forward_auth=True, date_header=date_header))
    router = UpstreamRouter(loaded)
    gateway = Gateway(router, loaded, date_header=date_header)
    return AsgiFastLane(FastLane(gateway, router.current_proxies, date_header), CloseDelimited(gateway))
