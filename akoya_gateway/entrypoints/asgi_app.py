"""The sidecar as an ASGI app, for whoever runs an ASGI server already.

    AKOYA_GATEWAY_CONFIG=gateway.yaml uvicorn --factory akoya_gateway:sidecar

`akoya-gateway run` has more: the fast lane, limits for what clients send, reload, metrics, health and draining. Here
those are the server's business (docs/operations.md).
"""

from __future__ import annotations

import os
from pathlib import Path

from akoya_gateway.config import load_config
from akoya_gateway.config.model import Config
from akoya_gateway.fast_lane.asgi import AsgiFastLane
from akoya_gateway.fast_lane.lane import FastLane
from akoya_gateway.gateway.date_header import DateHeader, DateMiddleware
from akoya_gateway.gateway.lifespan import App
from akoya_gateway.gateway.middleware import Gateway
from akoya_gateway.gateway.upstream_router import UpstreamRouter, no_upstream
from akoya_gateway.server.http_1_0 import CloseDelimited

CONFIG_VARIABLE = "AKOYA_GATEWAY_CONFIG"
"""Names the configuration where a server calls the factory without arguments; `gateway.yaml` if it is not set."""


def sidecar(config: Config | str | Path | None = None) -> App:
    """The gateway and the hop to the upstreams of `config`: a path, or what `load_config` returned.

    Raises `config.ConfigurationError` for a file with faults.
    """
    if config is None:
        config = os.environ.get(CONFIG_VARIABLE, "gateway.yaml")
    loaded = config if isinstance(config, Config) else load_config(Path(config))
    date_header = DateHeader()
    if not loaded.all_upstreams:
        return CloseDelimited(DateMiddleware(Gateway(no_upstream, loaded, forward_auth=True), date_header))
    router = UpstreamRouter(loaded)
    gateway = Gateway(router, loaded)
    return AsgiFastLane(
        FastLane(gateway, router.current_proxies, date_header),
        CloseDelimited(DateMiddleware(gateway, date_header)),
        date_header,
    )
