"""The settings, state and services that all endpoints share."""

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
    """What all endpoints of one emulator share."""

    settings: SandboxSettings
    real_clock: Clock
    random: Random
    state: State
    keys: SigningKeys
    faults: ArmedFaults

    def now(self) -> float:
        """Return Unix seconds, including the offset set by the control API."""
        return self.real_clock() + self.state.clock_offset

    def base_url(self, request: Request) -> str:
        return self.settings.base_url or str(request.base_url).rstrip("/")

    def issuer(self, request: Request) -> str:
        """Return the issuer. The default has a trailing slash, like Akoya's issuers."""
        return self.settings.issuer or self.base_url(request) + "/"

    def connector(self, connector_id: str) -> SandboxConnector | None:
        return next((c for c in self.settings.connectors if c.id == connector_id), None)

    def token(self, size: int = 32) -> str:
        """Return `size` random bytes as URL-safe base64."""
        return base64.urlsafe_b64encode(self.random.randbytes(size)).rstrip(b"=").decode()

    def base32(self, size: int) -> str:
        """Return `size` random lower-case base32 characters, the form of Dex's identifiers."""
        return base64.b32encode(self.random.randbytes(size)).decode().lower()[:size]

    def uuid(self) -> str:
        return str(uuid.UUID(bytes=self.random.randbytes(16), version=4))

    def reset(self) -> None:
        """Reset everything except the settings and the signing keys."""
        fresh = State.of(self.settings)
        fresh.recorded = self.state.recorded
        self.state = fresh
        self.faults.reset()
