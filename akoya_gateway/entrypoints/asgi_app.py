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
from akoya_gateway.fast_lane.asgi import Straight
from akoya_gateway.fast_lane.lane import FastLane
from akoya_gateway.gateway.date_header import Dated, Dates
from akoya_gateway.gateway.lifespan import App
from akoya_gateway.gateway.middleware import Gateway
from akoya_gateway.gateway.upstream_router import Hop, nobody
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
    dates = Dates()
    if not loaded.all_upstreams:
        return CloseDelimited(Dated(Gateway(nobody, loaded, forward_auth=True), dates))
    hop = Hop(loaded)
    gateway = Gateway(hop, loaded)
    return Straight(FastLane(gateway, hop.in_force, dates), CloseDelimited(Dated(gateway, dates)), dates)
