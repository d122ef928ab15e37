"""All objects built from one `Config`. They are opened and closed together, and replaced as a whole on reload."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from akoya_gateway.access.policy import AccessPolicy
from akoya_gateway.access.redirect_policy import RedirectPolicy
from akoya_gateway.admission.denial_responses import ErrorResponder
from akoya_gateway.admission.gate import AccessGate
from akoya_gateway.admission.header_injector import HeaderInjector
from akoya_gateway.admission.request_target import TargetRouter
from akoya_gateway.authentication.principal import Authenticator
from akoya_gateway.authentication.user_identity import build_user_authenticator
from akoya_gateway.clock import Clock
from akoya_gateway.config.model import Config, IdentitySource, InProcess
from akoya_gateway.data_api.service import DataApiObserver, DataApis
from akoya_gateway.endpoints.callback import CallbackEndpoint
from akoya_gateway.endpoints.connect import ConnectEndpoint
from akoya_gateway.endpoints.connections import ConnectionsEndpoint
from akoya_gateway.endpoints.disconnect import DisconnectEndpoint, LogoutEndpoint
from akoya_gateway.endpoints.jwks import JwksEndpoint
from akoya_gateway.endpoints.observer import AuthorizationObserver, NullAuthorizationObserver
from akoya_gateway.endpoints.other_login import OtherLoginEndpoint, OtherLogins
from akoya_gateway.endpoints.rate_limit import RateLimiter
from akoya_gateway.endpoints.rename import RenameEndpoint
from akoya_gateway.endpoints.router import Router
from akoya_gateway.errors import GatewayError
from akoya_gateway.gateway.data_calls import DataCalls
from akoya_gateway.gateway.mount import Mount
from akoya_gateway.gateway.original_request import OriginalRequestCache
from akoya_gateway.gateway.request_id import RequestIds
from akoya_gateway.gateway.response_observer import RequestObserver
from akoya_gateway.gateway.scope_fast_path import ScopeFastPath
from akoya_gateway.grants.manager import GrantManager
from akoya_gateway.grants.observer import GrantObserver, NullGrantObserver
from akoya_gateway.grants.orphan_cleanup import OrphanCleaner
from akoya_gateway.provider import Providers, open_providers
from akoya_gateway.responses.pages import Pages
from akoya_gateway.sessions.authorization_attempts import AuthorizationAttempts
from akoya_gateway.sessions.gateway_cookies import GatewayCookies
from akoya_gateway.sessions.last_access import LastAccess
from akoya_gateway.sessions.recovery import SessionRecovery
from akoya_gateway.sessions.session_store import SessionStore
from akoya_gateway.signing.keys import load_schedule
from akoya_gateway.store import EncryptedStore, Store, open_store
from akoya_gateway.store.encryption import Keyring
from akoya_gateway.trusted_proxies import TrustedProxies


@dataclass(frozen=True, slots=True)
class Observers:
    """Observers of grants, authorizations and requests: metrics and logs in the sidecar, no-ops by default."""

    grants: GrantObserver
    authorizations: AuthorizationObserver
    requests: RequestObserver | None = None
    store_call: Callable[[str, float], None] | None = None
    """Called with the operation and the seconds of each call of the store."""
    keys_failed: Callable[[str], None] = lambda _: None
    """Called with the environment, or `identity`, whose keys (`jwks_uri`) could not be fetched."""
    data_calls: DataApiObserver | None = None


LAST_ACCESS_LIFETIME = 400 * 86_400.0
"""Seconds for which the last access of the app's own users is kept: longer than a consent lasts."""

NO_OBSERVERS = Observers(NullGrantObserver(), NullAuthorizationObserver())


class Runtime:
    """The objects of one configuration; create it with `Runtime.open`.

    `targets` routes requests, `gate` decides them, `router` handles the gateway's own routes and `injector` prepares
    the headers for the upstream.
    """

    def __init__(self, config: Config, store: Store, observers: Observers, clock: Clock) -> None:
        self.config = config
        self.clock = clock
        signs_any = config.signing.in_process is InProcess.HEADERS or any(
            rule.upstream is not None for rule in config.access
        )
        self.digests = config.signing.content_digest if signs_any else 0
        """Maximum size in bytes of a body that gets a Content-Digest; 0 for none."""
        self.body_bytes = config.limits.body_bytes
        self.store = store
        self.pages = Pages(config)
        self.cookies = GatewayCookies(config.sessions.cookie, config.limits.attempt_lifetime, clock)
        self.mount = Mount(config.root_path)
        self.trusted_proxies = TrustedProxies(config.trusted_proxies)
        self.request_ids = RequestIds(config.trusted_proxies)
        self.redirects = RedirectPolicy(config.public_url, config.redirects.allow)
        self.error_responder = ErrorResponder(config, self.pages, self.redirects, self.cookies)
        self.encrypted_store = encrypted_store = EncryptedStore(
            store, Keyring(config.sessions.keys), observers.store_call
        )
        self.providers: Providers = open_providers(config, clock, on_keys_failure=observers.keys_failed)
        self.sessions = SessionStore(encrypted_store, config.sessions.cookie, clock=clock)
        self.last_access = LastAccess(encrypted_store, _owner_lifetime(config) or LAST_ACCESS_LIFETIME)
        self.attempts = AuthorizationAttempts(encrypted_store, config.limits, clock=clock)
        self.grants = GrantManager(
            encrypted_store,
            self.providers,
            config.tokens,
            clock=clock,
            holder=_process_name(),
            observer=observers.grants,
            names_lifetime=_owner_lifetime(config),
            connectors=Counter(connector.client.environment.name for connector in config.connectors.values()),
        )
        self.data_apis = DataApis(config, self.grants, encrypted_store, observers.data_calls, clock)
        self.data_calls = DataCalls(self.data_apis, config.public_url)
        self.orphan_cleaner = OrphanCleaner(encrypted_store, self.grants, self.sessions.for_owner, clock=clock)
        self.signing_keys = load_schedule(config.signing.algorithm, config.signing.keys)
        self.injector = HeaderInjector(config, self.cookies, self.last_access, clock)
        route = config.prefix.encode() + b"/forward-auth"
        self.original_requests = OriginalRequestCache(
            route, self.cookies, self.injector.client_headers, config.identity.header
        )
        jwks_uri = config.identity.jwks_uri
        keys = None if jwks_uri is None else self.providers.keys_of("identity", jwks_uri, clock)
        self.authenticator = Authenticator(self.sessions, self.cookies, build_user_authenticator(config, keys, clock))
        self.policy = AccessPolicy(config.access, config.connectors, config.path_variants)
        self.gate = AccessGate(
            self.policy,
            self.authenticator,
            self.grants,
            self.injector,
            self.error_responder,
            clock,
        )
        self.callback = CallbackEndpoint(
            config,
            self.attempts,
            self.sessions,
            SessionRecovery(encrypted_store, clock),
            self.cookies,
            self.grants,
            self.providers,
            self.redirects,
            self.pages,
            observers.authorizations,
            OtherLogins(config, self.grants, observers.authorizations),
        )
        self.router = self._router(observers.authorizations, clock)
        self.targets = TargetRouter(self.policy, self.router.matches, self.injector.route_facts)
        bodies = not self.digests and not self.body_bytes
        self.scope_fast_path = ScopeFastPath(
            self.targets,
            self.gate,
            self.injector,
            self.request_ids,
            clock,
            bodies=bodies,
            root_path=config.root_path,
        )

    @classmethod
    async def open(
        cls,
        config: Config,
        observers: Observers = NO_OBSERVERS,
        clock: Clock = time.time,
        store: Store | None = None,
    ) -> Runtime:
        """Open a runtime.

        Args:
            config: The configuration.
            observers: Receive reports about grants, authorizations and requests.
            clock: Returns the current time.
            store: An open store to reuse (reload). If None, the configured store is opened.

        Raises:
            GatewayError: The store is permanently unusable.
        """
        used = store or open_store(config.sessions.store, clock)
        try:
            if store is None:
                await used.open()
            runtime = cls(config, used, observers, clock)
        except Exception:
            if store is None:
                await used.close()
            raise
        runtime.grants.start()
        runtime.orphan_cleaner.start()
        runtime.last_access.start()
        return runtime

    async def close(self, *, keep_store: bool = False) -> None:
        """Close everything. Code exchanges and refreshes in progress finish first: their results must be stored."""
        await self.orphan_cleaner.stop()
        await self.grants.stop()
        # Last: an exchange may have started while the others stopped. From here on none can.
        await self.callback.finish()
        await self.last_access.stop()
        await self.data_apis.close()
        await self.providers.close()
        if not keep_store:
            await self.store.close()

    async def check(self) -> list[str]:
        """Return the reasons why this runtime cannot serve, as text; empty when ready."""
        try:
            await self.store.check()
        except GatewayError as error:
            return [f"store: {error.detail or error.title}"]
        return []

    def _router(self, observer: AuthorizationObserver, clock: Clock) -> Router:
        config, redirects = self.config, self.redirects
        shared = (config, self.grants, self.sessions, self.cookies, redirects, self.pages)
        return Router(
            config,
            ConnectionsEndpoint(*shared, clock, self.data_apis.health.is_down),
            ConnectEndpoint(
                config,
                self.attempts,
                redirects,
                self.cookies,
                observer,
                RateLimiter(config.limits.connects_per_minute, clock),
            ),
            self.callback,
            DisconnectEndpoint(*shared, observer),
            OtherLoginEndpoint(*shared, observer),
            RenameEndpoint(*shared),
            LogoutEndpoint(*shared),
            JwksEndpoint(config.signing, clock),
        )


def _owner_lifetime(config: Config) -> float | None:
    """Return for how many seconds an owner can exist: as long as a session, or without limit for the app's own user."""
    return config.sessions.cookie.lifetime if config.identity.source is IdentitySource.SESSION else None


def _process_name() -> str:
    """Return the name of this process for leases: readable in `grants show`, and unique."""
    return f"{os.uname().nodename[:32]}:{os.getpid()}:{os.urandom(6).hex()}"
