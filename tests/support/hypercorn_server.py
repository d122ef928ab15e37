"""Runs an ASGI app under Hypercorn as a process."""

from __future__ import annotations

from tests.support.processes import PYTHON, AnyServerProcess


class Hypercorn(AnyServerProcess):
    def command(self) -> list[str]:
        (self.folder / "served.py").write_text('from akoya_gateway import sidecar\n\napp = sidecar("gateway.yaml")\n')
        return [PYTHON, "-m", "hypercorn", "served:app", "--bind", f"127.0.0.1:{self.port}"]
