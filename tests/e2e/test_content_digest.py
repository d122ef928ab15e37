"""Bodies up to `signing.content_digest` are digested, and the digest is signed (RFC 9530, RFC 9421)."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterator

import pytest

from tests.support.environment import Browser, GatewayEnv

LARGEST = 100


@pytest.fixture(scope="module", params=["sidecar", "middleware"])
def env(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[GatewayEnv]:
    with GatewayEnv(
        tmp_path_factory.mktemp("env"), entrypoint=request.param, signing={"content_digest": LARGEST}
    ) as env:
        yield env


def post(browser: Browser, body: bytes, **headers: str) -> dict[str, object]:
    response = browser.fetch("/accounts", "POST", content=body, headers=headers)
    assert response.status_code == 200, response.text
    return dict(response.json())


def digest_of(seen: dict[str, object]) -> list[str]:
    headers: list[list[str]] = seen["headers"]  # type: ignore[assignment]
    return [value for name, value in headers if name == "content-digest"]


def test_small_body_arrives_with_a_signed_digest(browser: Browser) -> None:
    browser.connect()
    seen = post(browser, b"amount=1")
    assert seen["body"] == "amount=1"
    assert digest_of(seen) == [f"sha-256=:{base64.b64encode(hashlib.sha256(b'amount=1').digest()).decode()}:"]
    assert "content-digest" in str(seen["signature"])
    assert str(seen["signature"]).startswith("valid: ")


def test_digest_of_a_client_is_replaced_by_the_gateways(browser: Browser) -> None:
    browser.connect()
    seen = post(browser, b"x", **{"content-digest": "sha-256=:AAAA:"})
    assert len(digest_of(seen)) == 1
    assert "AAAA" not in digest_of(seen)[0]


@pytest.mark.parametrize("body", [b"", b"x" * (LARGEST + 1)])
def test_empty_or_large_body_streams_on_without(browser: Browser, body: bytes) -> None:
    browser.connect()
    seen = post(browser, body)
    assert digest_of(seen) == []
    assert seen["body"] == body.decode()
    assert str(seen["signature"]).startswith("valid: ")
