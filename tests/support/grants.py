"""Test doubles for the grant manager: a provider that tracks its token families, and stores that fail on demand."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from enum import Enum, auto
from math import inf
from typing import ClassVar

from akoya_gateway.clock import Clock
from akoya_gateway.config.model import Client, Dialect, EncryptionKey, Environment, Seconds, Tokens, key_id
from akoya_gateway.errors import GatewayError, StoreUnavailable
from akoya_gateway.grants import Grant, GrantManager, GrantObserver
from akoya_gateway.oauth.outcomes import (
    DistrustReason,
    OutcomeUnknown,
    ProviderDown,
    Refused,
    RevocationOutcome,
    Revoked,
    TokenOutcome,
    TokenSet,
    TokensIssued,
    Untrusted,
)
from akoya_gateway.secret import Secret
from akoya_gateway.store.base import Record, Store
from akoya_gateway.store.encrypted_store import EncryptedStore
from akoya_gateway.store.encryption import Keyring
from akoya_gateway.store.memory import MemoryStore
from tests.support import virtual_time

OWNER = "own_1"

environment = Environment(
    name="double",
    issuer=None,
    authorization_endpoint="http://127.0.0.1/auth",
    token_endpoint="http://127.0.0.1/token",
    revocation_endpoint="http://127.0.0.1/revoke",
    jwks_uri=None,
    products_url=None,
    dialect=Dialect(),
)
client = Client("demo-app", environment, "id", Secret("secret"), "http://127.0.0.1/cb", "/cb", ("openid",))


class Reuse(Enum):
    PLAIN = auto()
    """A spent refresh token is refused, without further consequences."""
    FAMILY = auto()
    """Reuse of a spent refresh token revokes all tokens of the same consent."""


@dataclass
class Family:
    sub: str
    living: str
    bearers: list[str] = field(default_factory=list)
    spent: set[str] = field(default_factory=set)
    ended: bool = False
    spent_at: dict[str, float] = field(default_factory=dict)


class Provider:
    """Implements `grants.TokenEndpoint` and keeps the true state of all tokens. `faults` is used up call by call."""

    crimes: ClassVar[list[str]] = []
    """Violated invariants. Not raised, because the grant manager would treat an exception as a provider fault."""

    def __init__(
        self, clock: Clock, *, life: float = 900.0, delay: float = 0.1, reuse: Reuse = Reuse.PLAIN, grace: float = 0.0
    ) -> None:
        self.client = replace(client, environment=replace(environment, dialect=Dialect(reuse_grace=Seconds(grace))))
        self.grace = grace
        self.clock = clock
        self.life = life
        self.delay = delay
        self.reuse = reuse
        self.families: list[Family] = []
        self.uses: Counter[str] = Counter()
        self.in_flight: Counter[str] = Counter()
        self.revoked: list[str] = []
        self.revoked_at: list[float] = []
        self.used_at: list[float] = []
        self.issued_at: list[float] = []
        self.faults: list[TokenOutcome | str] = []
        """Outcomes returned without acting, or one of three words.

        "never arrived" does not act. "lost" and "unjudged" act; then the response is lost, or its id_token cannot be
        validated.
        """
        self.revocation_faults: list[RevocationOutcome] = []
        self.before_answer: Callable[[], None] = lambda: None
        self._numbers = itertools.count(1)

    def consent(self, sub: str = "sub_1") -> TokenSet:
        family = Family(sub, "")
        self.families.append(family)
        return self._issue(family)

    def _issue(self, family: Family) -> TokenSet:
        number = next(self._numbers)
        self.issued_at.append(self.clock())
        family.living = f"refresh-{number}"
        family.bearers.append(f"bearer-{number}")
        return TokenSet(
            Secret(f"bearer-{number}"), Secret(family.living), self.clock() + self.life, ("openid",), family.sub
        )

    def family_of(self, token: str) -> Family | None:
        return next((f for f in self.families if token == f.living or token in f.spent), None)

    async def refresh(
        self, refresh_token: Secret, sub: str, nonce: str | None = None, may_send: Callable[[], bool] | None = None
    ) -> TokenOutcome:
        token = refresh_token.reveal()
        self.uses[token] += 1
        self.used_at.append(self.clock())
        self.in_flight[token] += 1
        if self.in_flight[token] > 1:
            self.crimes.append(f"two uses of {token} in flight")
        try:
            await asyncio.sleep(self.delay / 2)
            fault = self.faults.pop(0) if self.faults else None
            response = fault if fault is not None and not isinstance(fault, str) else self._act(token, fault)
            await asyncio.sleep(self.delay / 2)
            self.before_answer()
            return response
        finally:
            self.in_flight[token] -= 1

    def _act(self, token: str, fault: str | None = None) -> TokenOutcome:
        if fault == "never arrived":
            return OutcomeUnknown("timeout")
        response = self.act(token)
        if fault == "unjudged" and isinstance(response, TokensIssued):
            return Untrusted("no key", response.tokens.refresh_token, DistrustReason.KEYS)
        return OutcomeUnknown("cut") if fault == "lost" else response

    def act(self, token: str) -> TokenOutcome:
        family = self.family_of(token)
        if family is None or family.ended:
            return Refused("invalid_request")
        if token != family.living and not self.clock() <= family.spent_at.get(token, -inf) + self.grace:
            family.ended = family.ended or self.reuse is Reuse.FAMILY
            return Refused("invalid_request")
        family.spent.add(token)
        family.spent_at.setdefault(token, self.clock())
        return TokensIssued(self._issue(family))

    async def revoke(self, refresh_token: Secret) -> RevocationOutcome:
        await asyncio.sleep(self.delay)
        if self.revocation_faults:
            return self.revocation_faults.pop(0)
        self.revoked.append(refresh_token.reveal())
        self.revoked_at.append(self.clock())
        family = self.family_of(refresh_token.reveal())
        if family is not None and family.living == refresh_token.reveal():
            family.ended = True
        return Revoked()


class FlakyStore:
    """A store whose methods fail on demand: `down` fails all of them, `failing` is called for each call."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.down = False
        self.failing: Callable[[str, Record | None], str | None] = lambda verb, record: None
        self.writes: list[Record] = []
        self.latency = 0.0

    def __getattr__(self, verb: str) -> object:
        real = getattr(self.store, verb)

        async def call(*args: object, **kwargs: object) -> object:
            record = args[0] if args and isinstance(args[0], Record) else None
            how = "before" if self.down else self.failing(verb, record)
            if how == "before":
                raise StoreUnavailable("down")
            if self.latency:
                await asyncio.sleep(self.latency)
            result = await real(*args, **kwargs)
            if record is not None and result:
                self.writes.append(record)
            if self.latency:
                await asyncio.sleep(self.latency)
            if how == "after":
                raise StoreUnavailable("cut after it was done")
            return result

        return call

    async def scan(self, kind: str):  # type: ignore[no-untyped-def]
        if self.down:
            raise StoreUnavailable("down")
        async for record in self.store.scan(kind):
            yield record


RING = Keyring([EncryptionKey(key_id(b"k" * 32), b"k" * 32)])


class GrantEnv:
    """Grant managers that share one store, as replicas do. `manager` is the first."""

    def __init__(
        self,
        managers: int = 1,
        *,
        store: Store | None = None,
        clock: Clock = virtual_time.clock,
        tokens: Tokens | None = None,
        observer: GrantObserver | None = None,
        seed: int = 1,
        life: float = 900.0,
        delay: float = 0.1,
        reuse: Reuse = Reuse.PLAIN,
        grace: float = 0.0,
    ) -> None:
        self.clock = clock
        self.tokens = tokens or Tokens(background=False)
        self.store = FlakyStore(store or MemoryStore(clock))
        self.provider = Provider(clock, life=life, delay=delay, reuse=reuse, grace=grace)
        self.observer = observer
        self.random = random.Random(seed)
        self.managers = [self.new_manager(f"holder-{n}") for n in range(managers)]

    @property
    def manager(self) -> GrantManager:
        return self.managers[0]

    def new_manager(self, holder: str, provider: Provider | None = None) -> GrantManager:
        store = EncryptedStore(self.store, RING)  # type: ignore[arg-type]
        return GrantManager(
            store,
            {"demo-app": provider or self.provider},
            self.tokens,
            clock=self.clock,
            random=self.random.random,
            holder=holder,
            observer=self.observer,
        )

    async def connect(self, sub: str = "sub_1", connector: str = "mikomo", owner: str = OWNER) -> Grant:
        return await self.manager.connect(owner, client, connector, self.provider.consent(sub))

    async def stored(self, grant: Grant) -> Grant:
        found = await self.manager.repository.get(grant.id)
        assert found is not None
        return found


async def status(grant: Grant, manager: GrantManager) -> int:
    """Return the status of the response to the grant's user: 200 if a bearer would be passed on."""
    try:
        await manager.get_fresh(grant)
    except GatewayError as error:
        return error.status
    return 200


def bearer(grant: Grant) -> str:
    return grant.tokens.bearer.reveal()


def down(retry_after: float | None = None) -> ProviderDown:
    return ProviderDown("no connection", retry_after)
