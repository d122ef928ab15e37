"""The parts that every endpoint needs, in one place."""

from __future__ import annotations

import base64
import uuid
from dataclasses import dataclass
from random import Random

from starlette.requests import Request

from akoya_gateway.clock import Clock
from akoya_gateway.sandbox.fault_injection import ArmedFaults
from akoya_gateway.sandbox.settings import SandboxConnector, SandboxSettings
from akoya_gateway.sandbox.signing_keys import SigningKeys
from akoya_gateway.sandbox.state import State


@dataclass(slots=True)
class SandboxContext:
    settings: SandboxSettings
    real_clock: Clock
    random: Random
    state: State
    keys: SigningKeys
    faults: ArmedFaults

    def now(self) -> float:
        """Unix seconds, moved by what the control API added."""
        return self.real_clock() + self.state.clock_offset

    def base_url(self, request: Request) -> str:
        return self.settings.base_url or str(request.base_url).rstrip("/")

    def issuer(self, request: Request) -> str:
        """With the trailing slash that Akoya's issuers have."""
        return self.settings.issuer or self.base_url(request) + "/"

    def connector(self, connector_id: str) -> SandboxConnector | None:
        return next((c for c in self.settings.connectors if c.id == connector_id), None)

    def token(self, size: int = 32) -> str:
        """An unguessable URL-safe text of `size` random bytes."""
        return base64.urlsafe_b64encode(self.random.randbytes(size)).rstrip(b"=").decode()

    def base32(self, size: int) -> str:
        """`size` lower-case base32 characters, as Dex names things."""
        return base64.b32encode(self.random.randbytes(size)).decode().lower()[:size]

    def uuid(self) -> str:
        return str(uuid.UUID(bytes=self.random.randbytes(16), version=4))

    def reset(self) -> None:
        """Forget everything but the settings and the signing key."""
        fresh = State.of(self.settings)
        fresh.recorded = self.state.recorded
        self.state = fresh
        self.faults.reset()
