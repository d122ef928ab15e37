"""What the emulator remembers: clients, logins under way, codes, consents, refresh tokens, and what happened."""

from __future__ import annotations

import hashlib
from collections import Counter, deque
from dataclasses import dataclass, field, replace
from typing import Any

from akoya_gateway.sandbox.settings import SandboxClient, SandboxSettings
from akoya_gateway.secret import Secret

EVENTS_KEPT = 100_000


@dataclass(frozen=True, slots=True)
class AuthorizationRequest:
    """A request at /auth that was in order."""

    client: SandboxClient
    connector: str
    redirect_uri: str
    scopes: tuple[str, ...]
    state: str | None
    nonce: str | None = None
    code_challenge: str | None = None


@dataclass(slots=True)
class Login:
    """One person on the consent pages. Steps: login, terms, accounts, then done."""

    id: str
    request: AuthorizationRequest
    ends_at: float
    user: str | None = None
    terms: bool = False
    done: bool = False


@dataclass(slots=True)
class Consent:
    """What a user granted to a client at a provider. `grant_id` is its name in tokens."""

    grant_id: str
    client_id: str
    connector: str
    user: str
    accounts: tuple[str, ...]
    scopes: tuple[str, ...]
    given_at: float
    session_id: str
    nonce: str | None = None
    kid: str | None = None
    """Of the key that signed the first id_token."""
    ended: str | None = None
    """Why it no longer holds: `revoked`, `reused`, `dead_token`, `customer`."""
    ended_code: int = 602


@dataclass(slots=True)
class Code:
    value: str
    consent: Consent
    redirect_uri: str
    code_challenge: str | None
    ends_at: float
    used: bool = False


@dataclass(slots=True)
class RefreshToken:
    value: str
    consent: Consent
    ends_at: float | None
    spent_at: float | None = None


@dataclass(slots=True)
class State:
    """Everything that changes. All access is from one event loop."""

    clients: dict[str, SandboxClient] = field(default_factory=dict)
    logins: dict[str, Login] = field(default_factory=dict)
    codes: dict[str, Code] = field(default_factory=dict)
    consents: dict[str, Consent] = field(default_factory=dict)
    refresh_tokens: dict[str, RefreshToken] = field(default_factory=dict)
    data_calls: deque[float] = field(default_factory=deque)
    events: deque[dict[str, Any]] = field(default_factory=lambda: deque(maxlen=EVENTS_KEPT))
    counters: Counter[str] = field(default_factory=Counter)
    clock_offset: float = 0.0
    recorded: int = 0

    @staticmethod
    def of(settings: SandboxSettings) -> State:
        return State(clients={client.client_id: client for client in settings.clients})

    def record(self, at: float, what: str, outcome: str, **facts: Any) -> dict[str, Any]:
        """Remember what happened. `facts` hold fingerprints of tokens, never tokens."""
        self.recorded += 1
        event: dict[str, Any] = {"n": self.recorded, "at": at, "what": what, "outcome": outcome} | facts
        self.events.append(event)
        self.counters[what] += 1
        self.counters[f"{what}.{outcome}"] += 1
        return event

    def end(self, consent: Consent, why: str, code: int = 602) -> None:
        """The consent holds no longer, with all of its tokens."""
        if consent.ended is None:
            consent.ended, consent.ended_code = why, code

    def change_secret(self, client_id: str, secret: str) -> None:
        self.clients[client_id] = replace(self.clients[client_id], client_secret=Secret(secret))

    def register_redirect_uri(self, client_id: str, uri: str) -> None:
        client = self.clients[client_id]
        if uri not in client.redirect_uris:
            self.clients[client_id] = replace(client, redirect_uris=(*client.redirect_uris, uri))


def fingerprint(token: str | None) -> str | None:
    """Enough of a hash to tell tokens apart, and nothing more."""
    return hashlib.sha256(token.encode()).hexdigest()[:12] if token else None
