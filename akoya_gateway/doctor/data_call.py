"""Calls one product of a data API with the token of a grant that the operator names. Does not refresh the token."""

from __future__ import annotations

import time

import httpx

from akoya_gateway.clock import Clock
from akoya_gateway.config.model import Config, DataApi
from akoya_gateway.data_api.headers import context_headers, interaction_id
from akoya_gateway.data_api.paths import target_path
from akoya_gateway.data_api.responses import Meaning, error_code, meaning_of
from akoya_gateway.doctor.check_result import CheckResult, fault, fine, warning
from akoya_gateway.errors import GatewayError
from akoya_gateway.grants.grant import Grant, to_record_id
from akoya_gateway.grants.repository import GrantRepository
from akoya_gateway.provider import http_client
from akoya_gateway.store import EncryptedStore, Keyring, open_store

_REMEDIES = {
    Meaning.TOKEN_REJECTED: "the gateway would refresh the token now; if that does not help, the consent has ended or "
    "does not include this product",
    Meaning.LIMITED: "lower data_rate of the environment",
    Meaning.UNAVAILABLE: "Akoya or the bank is down: give Akoya's support the interaction ID",
    Meaning.TIMED_OUT: "the bank is slow: give Akoya's support the interaction ID",
    Meaning.REDIRECT: "correct products_url of the environment",
}


async def check_data_call(config: Config, grant_id: str, product: str, clock: Clock = time.time) -> CheckResult:
    """Return the result of one call, with Akoya's interaction ID.

    Args:
        config: The configuration.
        grant_id: The ID of the grant, in either form.
        product: The product, and what follows it in the path.
        clock: Returns Unix seconds.
    """
    about = f"data API {product}"
    try:
        grant = await _grant(config, grant_id)
        if grant is None:
            return fault(about, f"there is no grant {grant_id}", "list them with `akoya-gateway grants list`")
        api = next((one for one in config.data_apis.values() if one.environment.name == grant.key.environment), None)
        connector = config.connectors.get(grant.connector)
        if api is None or connector is None:
            says = f"no upstream has `data_api: {grant.key.environment}`"
            return fault(about, says, "add one, or name a grant of another environment")
        path = target_path(api, connector.id, product)
    except GatewayError as error:
        return fault(about, error.detail or error.title)
    if not grant.usable(clock()):
        return warning(
            about, "the grant's token has expired", "name a grant that is in use, or let the gateway refresh it"
        )
    async with http_client(process_environment=config.process_environment) as http:
        return await _call(http, about, api, path, grant)


async def _grant(config: Config, grant_id: str) -> Grant | None:
    store = open_store(config.sessions.store)
    await store.open()
    try:
        repository = GrantRepository(EncryptedStore(store, Keyring(config.sessions.keys)))
        return await repository.get(to_record_id(grant_id))
    finally:
        await store.close()


async def _call(http: httpx.AsyncClient, about: str, api: DataApi, path: str, grant: Grant) -> CheckResult:
    last_access = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(grant.connected_at))
    headers = context_headers(api, grant.tokens.bearer, "batch", last_access)
    began = time.perf_counter()
    try:
        response = await http.get(api.base_url + path, headers=headers, timeout=api.timeout)
    except httpx.TimeoutException:
        return fault(about, f"no response within {api.timeout:g} s", _REMEDIES[Meaning.TIMED_OUT])
    except httpx.TransportError as error:
        return fault(about, f"the connection failed ({type(error).__name__})", "check products_url and the network")
    took = round((time.perf_counter() - began) * 1000, 1)
    code = error_code(response.content)
    number = interaction_id(response.headers.raw)
    says = f"{response.status_code}{'' if code is None else f', code {code}'}, interaction ID {number or '-'}"
    if response.status_code < 300:
        return fine(about, says, took)
    return fault(about, says, _REMEDIES.get(meaning_of(response.status_code, response.content), ""))
