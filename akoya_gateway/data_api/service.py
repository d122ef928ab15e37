"""The data APIs of one configuration: HTTP clients, budgets and the health of banks, shared by all calls."""

from __future__ import annotations

import asyncio
import random as random_module
from collections.abc import Callable, Mapping
from typing import Protocol

import httpx
from starlette.types import Receive, Send

from akoya_gateway.clock import Clock
from akoya_gateway.config.model import Config
from akoya_gateway.data_api.bank_health import BankHealth
from akoya_gateway.data_api.budget import Budget
from akoya_gateway.data_api.call import Call, DataRequest, Outcome
from akoya_gateway.data_api.entitlements import Entitlements
from akoya_gateway.data_api.request_body import ClientMessages
from akoya_gateway.grants.manager import GrantManager
from akoya_gateway.log import logger
from akoya_gateway.provider import http_client
from akoya_gateway.store.encrypted_store import EncryptedStore

log = logger("akoya_gateway.data_api")


class DataApiObserver(Protocol):
    """Receives a report about every call."""

    def data_called(self, connector: str, product: str, result: str, seconds: float) -> None: ...


class DataApis:
    """Calls the data APIs. Makes no request and opens no connection until the first call."""

    def __init__(
        self,
        config: Config,
        grants: GrantManager,
        store: EncryptedStore,
        observer: DataApiObserver | None,
        clock: Clock,
        random: Callable[[], float] = random_module.random,
    ) -> None:
        self._config = config
        self._observer = observer
        self._kept: httpx.AsyncClient | None = None
        self._single: httpx.AsyncClient | None = None
        self.grants = grants
        self.random = random
        self.health = BankHealth(clock)
        self.entitlements = Entitlements(clock, config.tokens.assume_lifetime)
        self._budgets: Mapping[str, Budget] = {
            api.environment.name: Budget(api.environment.name, api.environment.data_rate, store, clock, random)
            for api in config.data_apis.values()
            if api.environment.data_rate is not None
        }

    def provider_id(self, connector: str) -> str:
        """Return Akoya's ID of a connector's provider."""
        return self._config.connectors[connector].id

    def budget(self, environment: str) -> Budget | None:
        """Return the budget of an environment, or None if it has no `data_rate`."""
        return self._budgets.get(environment)

    def client(self, *, keep_alive: bool) -> httpx.AsyncClient:
        """Return the HTTP client.

        Without `keep_alive`, each call has a connection of its own. That is for requests which must not be repeated:
        the server may close an idle connection just when a request is sent on it.
        """
        if self._kept is None or self._single is None:
            environment = self._config.process_environment
            self._kept = http_client(process_environment=environment, keep_alive=True)
            self._single = http_client(process_environment=environment)
        return self._kept if keep_alive else self._single

    async def serve(self, request: DataRequest, receive: Receive, send: Send) -> None:
        """Make one call and stream the response to the client. If the client disconnects, the call is cancelled.

        Raises `GatewayError`. Before the response has started, the caller turns it into the client's response.
        """
        began = asyncio.get_running_loop().time()
        call = Call(self, request, ClientMessages(receive, has_body=request.may_have_body))
        try:
            await call.messages.until_disconnected(call.run(send))
        finally:
            self._report(request, call, asyncio.get_running_loop().time() - began)

    def _report(self, request: DataRequest, call: Call, seconds: float) -> None:
        outcome = call.outcome
        if outcome in (Outcome.BANK_UNAVAILABLE, Outcome.BANK_TIMEOUT):
            self.health.failed(request.connector)
        elif call.interaction_id or outcome is Outcome.OK:
            self.health.record_response(request.connector)
        if self._observer is not None:
            self._observer.data_called(request.connector, call.product, outcome.value, seconds)
        log.info(
            "data api called",
            request_id=request.request_id,
            connector=request.connector,
            product=call.product,
            grant=request.grant.public_id,
            status=call.status,
            result=outcome.value,
            interaction=call.interaction_id,
            attempts=call.attempts,
            duration_ms=round(seconds * 1000, 2),
        )

    async def close(self) -> None:
        """Close the connections. Calls in flight fail as if the network had failed."""
        for budget in self._budgets.values():
            await budget.close()
        for client in (self._kept, self._single):
            if client is not None:
                await client.aclose()
