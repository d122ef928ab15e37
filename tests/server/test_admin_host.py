"""Tests that the admin listener refuses host names that a web page could use (DNS rebinding)."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest

from akoya_gateway.observability.admin_host import is_rebound
from tests.support.sidecar import Running

BROWSER = [(b"user-agent", b"Mozilla/5.0"), (b"accept-language", b"en")]
MONITOR = [(b"user-agent", b"Prometheus/2.53"), (b"accept-encoding", b"gzip")]
PRIVATE = ["10.1.2.3:9090", "127.0.0.1", "[::1]:9090", "localhost:9090", "gateway:9090", "gateway.bank.svc", "gateway.bank.svc.cluster.local:9090",
           "x.localhost", "gw.internal", "", "GW.LOCAL."]  # fmt: skip
PUBLIC = [
    "evil.example:9090",
    "127.0.0.1.evil.example",
    "localhost.evil.example",
    "evil.example.",
    "local.com",
    "10.1.2.3.nip.io",
    "notlocal.xlocal",
]


@pytest.mark.parametrize("local", ["127.0.0.1", "::1", "10.1.2.3", "/run/admin.sock", None])
def test_private_names_and_addresses_are_accepted_from_all(local: str | None) -> None:
    for sender in (BROWSER, MONITOR):
        assert [host for host in PRIVATE if is_rebound([(b"host", host.encode()), *sender], local)] == []


def test_public_names_are_refused_on_loopback_and_from_browsers() -> None:
    for host in PUBLIC:
        for local, sender, refused in (
            ("127.0.0.1", MONITOR, True),
            ("10.1.2.3", BROWSER, True),
            ("10.1.2.3", MONITOR, False),
        ):
            assert is_rebound([(b"host", host.encode()), *sender], local) is refused, (host, local)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with Running(tmp_path_factory.mktemp("gateway")) as run:
        yield run


@pytest.mark.parametrize(
    ("path", "status"), [("/metrics", 421), ("/readyz", 421), ("/livez", 200), ("/akoya/tokens", 421)]
)
def test_admin_listener_shows_nothing_to_a_page_with_a_name_of_its_own(run: Running, path: str, status: int) -> None:
    response = httpx.get(run.admin + path, headers={"host": "evil.example"}, trust_env=False, timeout=60)
    assert response.status_code == status
    assert "akoya_gateway_" not in response.text
    assert run.fetch_admin("/metrics").status_code == 200
