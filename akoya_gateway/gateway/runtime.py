"""Everything compiled from one `Config`: opened together, closed together, swapped as one on reload."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass

from akoya_gateway.access.policy import Gatekeeper
from akoya_gateway.access.redirect_policy import RedirectPolicy
from akoya_gateway.admission.denial_responses import Refusals
from akoya_gateway.admission.gate import Desk
from akoya_gateway.admission.header_injector import Passing
from akoya_gateway.authentication.principal import Visitors
from akoya_gateway.authentication.user_identity import identities
from akoya_gateway.clock import Clock
from akoya_gateway.config.model import Config
from akoya_gateway.endpoints.callback import Callback
from akoya_gateway.endpoints.connect import Connect
from akoya_gateway.endpoints.connections import Connections
from akoya_gateway.endpoints.disconnect import Disconnect, Logout
from akoya_gateway.endpoints.observer import Journal, NullJournal
from akoya_gateway.endpoints.rate_limit import Pace
from akoya_gateway.endpoints.router import Routes
from akoya_gateway.errors import GatewayError
from akoya_gateway.gateway.mount import Mount
from akoya_gateway.gateway.original_request import Questions
from akoya_gateway.gateway.response_observer import RequestWatcher
from akoya_gateway.gateway.scope_fast_path import PlainScopes
from akoya_gateway.grants.manager import Keeper
from akoya_gateway.grants.observer import NullObserver, Observer
from akoya_gateway.grants.orphan_cleanup import Orphans
from akoya_gateway.provider import Providers, open_providers
from akoya_gateway.responses.pages import Pages
from akoya_gateway.responses.response import Answer
from akoya_gateway.sessions.authorization_attempts import Attempts
from akoya_gateway.sessions.gateway_cookies import CookieJar
from akoya_gateway.sessions.recovery import Forwardings
from akoya_gateway.sessions.session_store import Sessions
from akoya_gateway.signing import jwks, jwks_headers
from akoya_gateway.store import Store, Vault, open_store
from akoya_gateway.store.encryption import KeyRing
from akoya_gateway.trusted_proxies import TrustedProxies


@dataclass(frozen=True, slots=True)
class Watchers:
    """Who is told what happens; metrics and logs in the sidecar, nobody in a test."""

    observer: Observer
    journal: Journal
    requests: RequestWatcher | None = None


NOBODY = Watchers(NullObserver(), NullJournal())


class Engine:
    """Made by `Engine.open`; `desk` decides, `routes` answers what is ours, `passing` prepares what goes upstream."""

    def __init__(self, config: Config, store: Store, watchers: Watchers, clock: Clock) -> None:
        self.config = config
        self.digests = config.signing.content_digest
        """Bodies up to so many bytes get a Content-Digest."""
        self.body_bytes = config.limits.body_bytes
        self.store = store
        self.pages = Pages(config.prefix)
        self.cookies = CookieJar(config.sessions.cookie, config.limits.attempt_lifetime, clock)
        self.mount = Mount(config.root_path)
        self.trusted = TrustedProxies(config.trusted_proxies)
        self.redirects = RedirectPolicy(config.public_url, config.redirects.allow)
        self.refusals = Refusals(config, self.pages, self.redirects, self.cookies)
        vault = Vault(store, KeyRing(config.sessions.keys))
        self.providers: Providers = open_providers(config, clock)
        self.sessions = Sessions(vault, config.sessions.cookie, clock=clock)
        self.attempts = Attempts(vault, config.limits, clock=clock)
        self.keeper = Keeper(
            vault, self.providers, config.tokens, clock=clock, holder=_holder(), observer=watchers.observer
        )
        self.orphans = Orphans(vault, self.keeper, self.sessions.of, clock=clock)
        self.passing = Passing(config, self.cookies, clock)
        route = config.prefix.encode() + b"/forward-auth"
        self.questions = Questions(route, self.cookies, self.passing.client_headers)
        jwks_uri = config.identity.jwks_uri
        keys = None if jwks_uri is None else self.providers.keys_of(jwks_uri, clock)
        self.visitors = Visitors(self.sessions, self.cookies, identities(config, keys, clock))
        gatekeeper = Gatekeeper(config.access, config.connectors, config.path_variants)
        self.desk = Desk(gatekeeper, self.visitors, self.keeper, self.passing, self.refusals, clock)
        self.callback = Callback(
            config,
            self.attempts,
            self.sessions,
            Forwardings(vault, clock),
            self.cookies,
            self.keeper,
            self.providers,
            self.redirects,
            watchers.journal,
        )
        self.routes = self._routes(watchers.journal, clock)
        bodies = not self.digests and not self.body_bytes
        self.plain = PlainScopes(self.desk, self.passing, self.routes, clock, bodies=bodies, root_path=config.root_path)

    @classmethod
    async def open(
        cls,
        config: Config,
        watchers: Watchers = NOBODY,
        clock: Clock = time.time,
        store: Store | None = None,
    ) -> Engine:
        """`store`: an open one to go on with (reload); otherwise the configured store is opened.

        Raises `GatewayError` when the store is unusable for good.
        """
        used = store or open_store(config.sessions.store, clock)
        try:
            if store is None:
                await used.open()
            engine = cls(config, used, watchers, clock)
        except Exception:
            if store is None:
                await used.close()
            raise
        engine.keeper.start()
        engine.orphans.start()
        return engine

    async def close(self, *, keep_store: bool = False) -> None:
        """Exchanges and refreshes in flight finish first: their answers must reach the store."""
        await self.orphans.stop()
        await self.keeper.stop()
        # Last: an exchange may have begun while the others ended, and from here on none can.
        await self.callback.finish()
        await self.providers.close()
        if not keep_store:
            await self.store.close()

    async def check(self) -> list[str]:
        """What keeps this from serving, in words; empty when ready."""
        try:
            await self.store.check()
        except GatewayError as error:
            return [f"store: {error.detail or error.title}"]
        return []

    def _routes(self, journal: Journal, clock: Clock) -> Routes:
        config, keeper, redirects = self.config, self.keeper, self.redirects
        return Routes(
            config,
            Connections(config, keeper, self.sessions, self.cookies, redirects, self.pages, clock),
            Connect(
                config, self.attempts, redirects, self.cookies, journal, Pace(config.limits.connects_per_minute, clock)
            ),
            self.callback,
            Disconnect(config, keeper, redirects, journal),
            Logout(config, keeper, self.sessions, self.cookies, redirects),
            _key_set(config, clock),
        )


def _key_set(config: Config, clock: Clock) -> Callable[[], Answer]:
    headers = tuple(jwks_headers())
    made: tuple[int, Answer] = (-1, Answer(200))

    def answer() -> Answer:
        # The schedule moves with time, but nobody needs it more often than once a second.
        nonlocal made
        second = int(clock())
        if made[0] != second:
            made = (second, Answer(200, headers, jwks(config.signing, clock)))
        return made[1]

    return answer


def _holder() -> str:
    """Names this process in leases: readable in `grants show`, and never the same twice."""
    return f"{os.uname().nodename[:32]}:{os.getpid()}:{os.urandom(6).hex()}"
