from __future__ import annotations

import base64
import json
import threading
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

import akoya_verify as v
from akoya_verify.keys import verifies
from tests.support.signing import KEYS
from tests.support.waiting import until

JWKS = {name: json.dumps({"keys": [KEYS[name]["public_jwk"]]}).encode() for name in ("ed25519", "ecdsa-p256-sha256")}
URL = "https://app.example.com/akoya/jwks.json"


class Server:
    """Serves the key set and counts fetches. A fetch fails while `down` is set."""

    def __init__(self) -> None:
        self.document = JWKS["ed25519"]
        self.down = False
        self.fetches = 0
        self.gate: threading.Event | None = None
        self.now = 1000.0

    def fetch(self, url: str) -> bytes:
        assert url == URL
        self.fetches += 1
        if self.gate is not None:
            assert self.gate.wait(60)
        if self.down:
            raise OSError("down")
        return self.document

    def keys(self, **options: Any) -> v.RemoteKeys:
        return v.RemoteKeys(URL, fetch=self.fetch, clock=lambda: self.now, **options)


@pytest.fixture
def server() -> Server:
    return Server()


def test_key_set_is_fetched_once_and_cached(server: Server) -> None:
    keys = server.keys()
    assert keys.peek("ed") is None
    assert server.fetches == 0
    for _ in range(5):
        assert keys.get("ed") is not None
    assert server.fetches == 1


def test_unknown_key_forces_a_fetch_but_not_often(server: Server) -> None:
    keys = server.keys(throttle=10)
    assert keys.get("ed")
    server.now += 11
    assert keys.get("ec") is None
    assert server.fetches == 2
    for _ in range(50):
        assert keys.get("ec") is None
    assert server.fetches == 2
    server.document = JWKS["ecdsa-p256-sha256"]
    server.now += 11
    assert keys.get("ec")
    assert server.fetches == 3


def test_many_callers_share_one_fetch(server: Server) -> None:
    keys = server.keys()
    server.gate = threading.Event()
    found: list[v.Key | None] = []
    threads = [threading.Thread(target=lambda: found.append(keys.get("ed"))) for _ in range(8)]
    for thread in threads:
        thread.start()
    until(lambda: server.fetches == 1)
    server.gate.set()
    for thread in threads:
        thread.join(60)
    assert len(found) == 8
    assert all(found)
    assert server.fetches == 1


def test_cached_key_does_not_wait_for_a_refresh(server: Server) -> None:
    keys = server.keys(max_age=300)
    assert keys.get("ed")
    server.now += 301
    server.gate = threading.Event()
    server.document = JWKS["ecdsa-p256-sha256"]
    assert keys.get("ed")
    assert keys.peek("ed")
    until(lambda: server.fetches == 2)
    server.gate.set()
    until(lambda: keys.peek("ec") is not None)
    assert keys.peek("ed") is None


def test_old_key_set_is_used_for_a_bounded_time_while_the_new_one_cannot_be_fetched(server: Server) -> None:
    keys = server.keys(max_age=300, stale=3600)
    assert keys.get("ed")
    server.down = True
    server.now += 600
    assert keys.get("ed")
    until(lambda: server.fetches == 2)
    server.now += 3000
    with pytest.raises(v.NotVerified) as refused:
        keys.get("ed")
    assert refused.value.reason == "keys-unavailable"


@pytest.mark.parametrize(
    "garbage", [b"", b"[]", b"{}", b'{"keys": 1}', b"\xff", b'{"keys": ["x", null, {"kty": 1}]}', b"[" * 100_000]
)
def test_document_other_than_a_key_set_contains_no_key(server: Server, garbage: bytes) -> None:
    server.document = garbage
    try:
        assert server.keys().get("ed") is None
    except v.NotVerified as refused:
        assert refused.reason == "keys-unavailable"


def test_garbage_does_not_replace_a_good_set(server: Server) -> None:
    keys = server.keys(max_age=300)
    assert keys.get("ed")
    server.document = b"<html>"
    server.now += 301
    assert keys.get("ed")
    until(lambda: server.fetches == 2)
    server.now += 11
    assert keys.get("ed")


def test_secret_in_a_key_set_is_ignored() -> None:
    oct_key = {"kty": "oct", "k": "A" * 43, "kid": "evil", "alg": "HS256"}
    assert list(v.jwks_keys(json.dumps({"keys": [oct_key, KEYS["ed25519"]["public_jwk"]]}))) == ["ed"]


@pytest.mark.parametrize("url", ["http://app.example.com/jwks", "ftp://x/y", "file:///etc/passwd", "http://10.0.0.1/"])
def test_keys_are_not_fetched_in_plain_from_elsewhere(url: str) -> None:
    with pytest.raises(ValueError, match="https"):
        v.RemoteKeys(url)


@pytest.mark.parametrize("url", ["https://x/y", "http://127.0.0.1:1/x", "http://[::1]/x", "http://localhost/x"])
def test_keys_are_fetched_by_https_or_from_this_machine(url: str) -> None:
    v.RemoteKeys(url)
    v.RemoteKeys("http://gateway.internal/x", allow_plain_http=True)


def test_nonce_is_accepted_once_until_it_has_expired() -> None:
    cache = v.ReplayCache(capacity=2)
    cache.admit("a", 100.0, 50.0)
    with pytest.raises(v.NotVerified, match="replayed"):
        cache.admit("a", 100.0, 51.0)
    cache.admit("b", 101.0, 51.0)
    with pytest.raises(v.NotVerified, match="replay-cache-full"):
        cache.admit("c", 102.0, 52.0)
    with pytest.raises(v.NotVerified, match="no-nonce"):
        cache.admit(None, 102.0, 52.0)
    cache.admit("c", 160.0, 100.0)


@pytest.mark.parametrize(
    "bad",
    [
        {},
        {"kty": "oct", "k": "AAAA"},
        {"kty": "OKP", "crv": "X25519", "x": "AAAA"},
        {"kty": "OKP", "crv": "Ed25519", "x": "AAAA"},
        {"kty": "OKP", "crv": "Ed25519", "x": "***"},
        {"kty": "EC", "crv": "P-256", "x": "A" * 43, "y": "A" * 43},
        {"kty": "EC", "crv": "P-384", "x": "A" * 64, "y": "A" * 64},
        {**KEYS["ed25519"]["public_jwk"], "use": "enc"},
        {**KEYS["ed25519"]["public_jwk"], "alg": "HS256"},
    ],
)
def test_jwk_for_another_use_is_refused(bad: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        v.jwk_key(bad)


def test_short_text_or_public_key_is_refused_as_a_secret() -> None:
    with pytest.raises(ValueError, match="32"):
        v.secret_key("k", "short")
    with pytest.raises(ValueError, match="PEM"):
        v.secret_key("k", KEYS["ed25519"]["public_pem"])


def _published(private: Ed25519PrivateKey) -> bytes:
    raw = private.public_key().public_bytes_raw()
    x = base64.urlsafe_b64encode(raw).rstrip(b"=").decode()
    return json.dumps({"keys": [{"kty": "OKP", "crv": "Ed25519", "kid": "same", "x": x}]}).encode()


def test_key_that_is_replaced_under_its_id_is_fetched_and_forgeries_fetch_once_in_ten_seconds(server: Server) -> None:
    old, new = Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate()
    server.document = _published(old)
    keys = server.keys()
    key = keys.get("same")
    assert key is not None and verifies(keys, key, old.sign(b"text"), b"text")
    assert server.fetches == 1
    server.document = _published(new)
    assert not verifies(keys, key, new.sign(b"text"), b"text"), "the last fetch was less than 10 s ago"
    assert not keys.may_renew()
    server.now += 10.0
    assert keys.may_renew()
    assert verifies(keys, key, new.sign(b"text"), b"text")
    assert server.fetches == 2
    forged = Ed25519PrivateKey.generate().sign(b"text")
    for _ in range(20):
        server.now += 0.4
        assert not verifies(keys, key, forged, b"text")
    assert server.fetches == 2
    server.now += 10.0
    server.down = True
    assert not verifies(keys, key, forged, b"text")
    assert keys.get("same") is not None, "a failed fetch keeps the current set"
