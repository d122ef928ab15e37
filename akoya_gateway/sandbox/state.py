"""State of the emulator: clients, logins in progress, codes, consents, refresh tokens and recorded events."""

from __future__ import annotations

import hashlib
from collections import Counter, deque
from dataclasses import dataclass, field, replace
from typing import Any

from akoya_gateway.sandbox.settings import SandboxClient, SandboxSettings
from akoya_gateway.secret import Secret

MAX_EVENTS = 100_000


@dataclass(frozen=True, slots=True)
class AuthorizationRequest:
    """A valid authorization request."""

    client: SandboxClient
    connector: str
    redirect_uri: str
    scopes: tuple[str, ...]
    state: str | None
    nonce: str | None = None
    code_challenge: str | None = None


@dataclass(slots=True)
class Login:
    """One user's progress through the consent pages. The steps are login, terms, accounts, done."""

    id: str
    request: AuthorizationRequest
    ends_at: float
    user: str | None = None
    terms: bool = False
    done: bool = False


@dataclass(slots=True)
class Consent:
    """What a user granted to a client at a provider. Tokens refer to it by `grant_id`."""

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
    """ID of the key that signed the first id_token."""
    ended: str | None = None
    """Why the consent has ended: `revoked`, `reused`, `dead_token`, `customer`. None: it is valid."""
    ended_code: int = 602


@dataclass(slots=True)
class Code:
    """An authorization code."""

    value: str
    consent: Consent
    redirect_uri: str
    code_challenge: str | None
    ends_at: float
    used: bool = False


@dataclass(slots=True)
class RefreshToken:
    """A refresh token. `spent_at` is when it was used."""

    value: str
    consent: Consent
    ends_at: float | None
    spent_at: float | None = None


@dataclass(slots=True)
class State:
    """The mutable state. Not thread-safe: it is used from one event loop only."""

    clients: dict[str, SandboxClient] = field(default_factory=dict)
    logins: dict[str, Login] = field(default_factory=dict)
    codes: dict[str, Code] = field(default_factory=dict)
    consents: dict[str, Consent] = field(default_factory=dict)
    refresh_tokens: dict[str, RefreshToken] = field(default_factory=dict)
    data_calls: deque[float] = field(default_factory=deque)
    events: deque[dict[str, Any]] = field(default_factory=lambda: deque(maxlen=MAX_EVENTS))
    counters: Counter[str] = field(default_factory=Counter)
    clock_offset: float = 0.0
    recorded: int = 0

    @staticmethod
    def of(settings: SandboxSettings) -> State:
        """Return the initial state."""
        return State(clients={client.client_id: client for client in settings.clients})

    def record(self, at: float, what: str, outcome: str, **facts: Any) -> dict[str, Any]:
        """Record and return an event. `facts` contain fingerprints of tokens, never tokens."""
        self.recorded += 1
        event: dict[str, Any] = {"n": self.recorded, "at": at, "what": what, "outcome": outcome} | facts
        self.events.append(event)
        self.counters[what] += 1
        self.counters[f"{what}.{outcome}"] += 1
        return event

    def end(self, consent: Consent, why: str, code: int = 602) -> None:
        """End the consent, which invalidates all of its tokens."""
        if consent.ended is None:
            consent.ended, consent.ended_code = why, code

    def change_secret(self, client_id: str, secret: str) -> None:
        self.clients[client_id] = replace(self.clients[client_id], client_secret=Secret(secret))

    def register_redirect_uri(self, client_id: str, uri: str) -> None:
        client = self.clients[client_id]
        if uri not in client.redirect_uris:
            self.clients[client_id] = replace(client, redirect_uris=(*client.redirect_uris, uri))


def fingerprint(token: str | None) -> str | None:
    """Return a shortened hash, just long enough to distinguish tokens. None for an empty token."""
    return hashlib.sha256(token.encode()).hexdigest()[:12] if token else None
