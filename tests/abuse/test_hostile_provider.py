"""A misbehaving token endpoint or key set causes one clear error, uses bounded memory and affects no other user."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from tests.abuse.hostile import ANSWERS, Hostile
from tests.support.environment import Browser, GatewayEnv
from tests.support.processes import GatewayProcess

GROWTH = 64 * 1024
"""How much the gateway's peak memory may grow during all of these tests, in KiB."""


class HostileProviderEnv(GatewayEnv):
    """Configure, per misbehaviour, one environment with that token endpoint and one with that key set."""

    def __init__(self, folder: Path, hostile: Hostile) -> None:
        super().__init__(folder)
        self._hostile = hostile

    def config(self) -> dict[str, Any]:
        config = super().config()
        good = self.akoya.environment()
        client = config["clients"]["test-app"]
        for name in ANSWERS:
            for part, key in (("token", "token_endpoint"), ("keys", "jwks_uri")):
                label = f"{part}-{name}"
                config["environments"][label] = {**good, key: f"{self._hostile.url}/{name}", "timeout": "1s"}
                config["clients"][label] = {**client, "environment": label}
                config["connectors"][label] = {"client": label, "name": label, "connector": "mikomo"}
        return config


@pytest.fixture(scope="module")
def hostile() -> Iterator[Hostile]:
    with Hostile() as hostile:
        yield hostile


@pytest.fixture(scope="module")
def env(hostile: Hostile, tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayEnv]:
    with HostileProviderEnv(tmp_path_factory.mktemp("besieged"), hostile) as env:
        yield env


@pytest.fixture(scope="module")
def bystander(env: GatewayEnv) -> Iterator[Browser]:
    with env.browser() as browser:
        browser.connect()
        yield browser


@pytest.fixture(scope="module")
def peak_before(env: GatewayEnv, bystander: Browser) -> int:
    for _ in range(20):
        bystander.passed()
    return peak(env)


def peak(env: GatewayEnv) -> int:
    """Return the gateway's peak resident set size in KiB (proc(5))."""
    assert isinstance(env.gateway, GatewayProcess)
    assert env.gateway.process is not None
    status = Path(f"/proc/{env.gateway.process.pid}/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1])


@pytest.mark.parametrize("name", ANSWERS)
@pytest.mark.parametrize("part", ["token", "keys"])
def test_misbehaving_provider_gives_one_user_an_error(
    env: GatewayEnv, hostile: Hostile, bystander: Browser, peak_before: int, part: str, name: str
) -> None:
    before = hostile.counts.get(name, 0)
    with env.browser() as browser:
        callback = env.akoya.consent(browser.begin(f"{part}-{name}"), "mikomo_1")
        response = browser.go(callback)
        assert response.status_code == 302, response.text
        error = parse_qs(urlsplit(response.headers["location"]).query)["error"][0]
        expected = ("outcome-unknown", "temporarily_unavailable", "untrusted-id-token", "provider-redirects")
        assert error in expected, error
        page = browser.go(response.headers["location"])
        assert page.status_code == 200
        assert "bank" in page.text
        assert browser.fetch("/accounts").status_code == 401, "no grant was created"
    requests = hostile.counts.get(name, 0) - before
    assert requests == 1 if part == "token" else requests >= 1, "the code is sent once and redirects are not followed"
    assert bystander.passed()["akoya-connector"] == "mikomo"
    assert peak(env) - peak_before < GROWTH


def test_other_users_are_served_while_a_provider_misbehaves(env: GatewayEnv, bystander: Browser) -> None:
    """Ten users wait for a token endpoint that never responds; another user is not delayed."""
    import threading

    def person() -> None:
        with env.browser() as browser:
            browser.go(env.akoya.consent(browser.begin("token-never"), "mikomo_1"))

    people = [threading.Thread(target=person) for _ in range(10)]
    for one in people:
        one.start()
    served = 0
    while any(one.is_alive() for one in people):
        assert bystander.fetch("/accounts").status_code == 200
        served += 1
    assert served >= 3
    with env.browser() as other:
        assert other.connect("other").status_code == 302
        assert other.fetch("/accounts").status_code == 200
