"""SIGTERM while a callback exchanges its code: the code is spent, so its tokens must reach the store and the user."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import threading
from pathlib import Path

import httpx
import pytest

from akoya_gateway.config import load_config
from akoya_gateway.grants import GrantRepository, GrantState
from akoya_gateway.store import EncryptedStore, Keyring, open_store
from tests.support.environment import GatewayEnv
from tests.support.processes import GatewayProcess
from tests.support.waiting import until


async def states(env: GatewayEnv) -> list[GrantState]:
    """Return the states of the grants in the store."""
    sessions = load_config(env.folder / "gateway.yaml", env.environ).sessions
    store = EncryptedStore(open_store(sessions.store), Keyring(sessions.keys))
    await store.open()
    try:
        return [grant.state async for grant in GrantRepository(store).scan()]
    finally:
        await store.close()


@pytest.mark.parametrize(
    ("patience", "takes", "options"),
    [(20.0, 2.0, ("--workers", "2")), (0.5, 5.0, ("--grace", "0"))],
    ids=["a_user_who_waits", "a_user_who_left_and_a_grace_that_is_over"],
)
def test_callback_in_progress_completes(
    tmp_path: Path, patience: float, takes: float, options: tuple[str, ...]
) -> None:
    with GatewayEnv(tmp_path, options=options) as env, env.browser() as browser:
        callback = env.akoya.consent(browser.begin(), "mikomo_1")
        # The code is redeemed at once, but the response is delayed.
        env.akoya.fault("slow_after", "token.authorization_code", seconds=takes, times=1)
        responses: list[httpx.Response] = []

        def go() -> None:
            with contextlib.suppress(httpx.ReadTimeout):
                responses.append(browser.go(callback, timeout=patience))

        trip = threading.Thread(target=go, daemon=True)
        trip.start()
        until(lambda: bool(env.akoya.events("token")), "the code is being exchanged")
        if patience < 1:
            trip.join(60)
            browser.http.close()
        assert isinstance(env.gateway, GatewayProcess)
        assert env.gateway.stop(signal.SIGTERM) == 0
        trip.join(60)
        assert [response.headers["location"] for response in responses] == ["/accounts"] * (patience > 1)
        assert asyncio.run(states(env)) == [GrantState.LIVE]
