"""Tests that the gateway serves without the fast lane, and says so, where the installed uvicorn does not fit the lane."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import uvicorn

from akoya_gateway.server.uvicorn_api import TESTED
from tests.support.sidecar import Running

# Python imports this module when it starts. The fast lane cannot serve any connection then.
NO_LANE = """
from akoya_gateway.fast_lane.uvicorn_protocol import FastLaneProtocol

def refuse(*args, **options):
    raise AssertionError("the fast lane is used")

FastLaneProtocol.__init__ = refuse
"""
OTHER_VERSION = """
import uvicorn

uvicorn.__version__ = "0.99.0"
"""
OTHER_NAME = """
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

created = WebSocketsSansIOProtocol.__init__

def create(self, *args, **options):
    created(self, *args, **options)
    del self.disconnected

WebSocketsSansIOProtocol.__init__ = create
"""


@pytest.mark.parametrize(
    ("change", "version", "missing", "workers"),
    [
        (OTHER_VERSION, "0.99.0", [], 1),
        (OTHER_NAME, uvicorn.__version__, ["WebSocketsSansIOProtocol.disconnected"], 2),
    ],
    ids=["version", "name"],
)
def test_sidecar_with_an_unfit_uvicorn_warns_once_and_serves_without_the_lane(
    tmp_path: Path, change: str, version: str, missing: list[str], workers: int
) -> None:
    (tmp_path / "sitecustomize.py").write_text(NO_LANE + change)
    places = os.pathsep.join(filter(None, [str(tmp_path), os.environ.get("PYTHONPATH")]))
    with Running(tmp_path, "--workers", str(workers), environ={"PYTHONPATH": places}) as run:
        assert [run.get("/public/x").text for _ in range(3)] == ["done"] * 3
        (entry,) = (line for line in run.log() if line["event"] == "fast lane disabled")
    assert (entry["level"], entry["uvicorn"], entry["tested"], entry["missing"]) == (
        "warning",
        version,
        TESTED,
        missing,
    )


def test_sidecar_with_the_installed_uvicorn_uses_the_lane(tmp_path: Path) -> None:
    with Running(tmp_path) as run:
        assert run.get("/public/x").text == "done"
        assert "fast lane disabled" not in run.events()
