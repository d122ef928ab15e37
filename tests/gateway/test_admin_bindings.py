"""The admin listener's routes use only grants of the connector's own client and environment, as the access gate does."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from akoya_gateway.gateway.admin_data import AdminApps
from akoya_gateway.secret import Secret
from tests.support.gateway_in_process import InProcessEnv, Person

BEARER = "a-bearer-for-background-jobs-in-tests"


@pytest.mark.parametrize(("client", "environment"), [("old-app", "sandbox"), ("demo-app", "production")])
async def test_grant_of_another_client_or_environment_is_unknown_to_jobs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, client: str, environment: str
) -> None:
    """The connector moved there. The data API of its new environment must not see the token."""
    env = InProcessEnv(tmp_path, "memory://")
    runtime = await env.startup()
    monkeypatch.setattr(runtime, "config", replace(runtime.config, token_bearer=Secret(BEARER)))
    person = Person(env)
    bound = await env.grant(await person.connect())
    assert bound is not None and (bound.key.client, bound.key.environment) == ("demo-app", "sandbox")
    configured = runtime.config.clients["demo-app"]
    before = replace(configured, name=client, environment=replace(configured.environment, name=environment))
    other = await runtime.grants.connect(bound.key.owner, before, "mikomo", replace(bound.tokens, sub="older"))
    assert [each.id for each in (await runtime.grants.for_owner(bound.key.owner)).grants] == [other.id, bound.id]
    http = httpx.AsyncClient(
        transport=httpx.ASGITransport(AdminApps(lambda: runtime)),
        base_url="http://127.0.0.1",
        headers={"authorization": f"Bearer {BEARER}"},
    )
    route = f"/akoya/token/mikomo?owner={bound.key.owner}"
    assert (await http.get(route)).json()["grant"] == bound.public_id
    for path in (f"{route}&grant={other.public_id}", f"{route}&grant={'g_' + 'x' * 22}"):
        refused = await http.get(path)
        assert (refused.status_code, refused.json()["type"]) == (404, "urn:akoya-gateway:problem:unknown-grant")
    await runtime.grants.disconnect(bound)
    refused = await http.get(route)
    assert (refused.status_code, refused.json()["type"]) == (404, "urn:akoya-gateway:problem:not-connected")
    await http.aclose()
    await env.gateway.shutdown()
