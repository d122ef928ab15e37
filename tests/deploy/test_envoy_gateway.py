"""deploy/kubernetes/envoy-gateway.yaml at a real Envoy, with the filters that Envoy Gateway makes of it.

Envoy Gateway itself needs a cluster. It translates the lists of the manifest one by one (`internal/xds/translator` of
version 1.7), and this test does the same with deploy/envoy/envoy.yaml as the rest of the configuration.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from akoya_gateway.client_header_names import FROM_PROXIES, MOVES_THE_REQUEST
from akoya_gateway.signing.header_names import ASSERTION, PASSED_NAMES, REQUEST_ID, SIGNATURE, SIGNATURE_INPUT
from tests.support import proxies
from tests.support.client_header_lists import envoy_gateway
from tests.support.forward_auth import ProxiedEnv, cookies, get
from tests.support.proxies import ProxyMissing

FILE = Path(__file__).parents[2] / "deploy" / "kubernetes" / "envoy-gateway.yaml"
SPOOFED = "6.6.6.6"
KNOWN = sorted(name.decode() for name in MOVES_THE_REQUEST | FROM_PROXIES)
MUTATION = "type.googleapis.com/envoy.extensions.http.early_header_mutation.header_mutation.v3.HeaderMutation"


def spec(kind: str) -> Any:
    return next(one["spec"] for one in yaml.safe_load_all(FILE.read_text()) if one["kind"] == kind)


def key_matcher(match: dict[str, str]) -> dict[str, Any]:
    """Return Envoy's StringMatcher for a StringMatch of Envoy Gateway."""
    values = {"Prefix": {"prefix": match["value"]}, "Exact": {"exact": match["value"]}}
    return values.get(match["type"]) or {"safe_regex": {"regex": match["value"]}}


def translated(text: str) -> str:
    """Return the configuration of Envoy with the lists of the manifest in place of its own."""
    config = yaml.safe_load(text)
    manager = config["static_resources"]["listeners"][0]["filter_chains"][0]["filters"][0]["typed_config"]
    headers, auth = spec("ClientTrafficPolicy")["headers"], spec("SecurityPolicy")["extAuth"]
    removed = [
        {"remove_on_match": {"key_matcher": key_matcher(one)}}
        for one in headers["earlyRequestHeaders"]["removeOnMatch"]
    ]
    manager["early_header_mutation_extensions"] = [
        {"name": "early", "typed_config": {"@type": MUTATION, "mutations": removed}},
    ]
    manager["normalize_path"] = True
    mutation, authorization, _ = manager["http_filters"]
    late = [
        {"remove_on_match": {"key_matcher": key_matcher(one)}}
        for one in headers["lateResponseHeaders"]["removeOnMatch"]
    ]
    mutation["typed_config"]["mutations"] = {"response_mutations": late}
    authorizer = authorization["typed_config"]
    authorizer["allowed_headers"] = {
        "patterns": [{"exact": name, "ignore_case": True} for name in auth["headersToExtAuth"]]
    }
    del authorizer["disallowed_headers"]
    authorizer["http_service"]["path_prefix"] = auth["http"]["path"]
    patterns = [{"exact": name, "ignore_case": True} for name in auth["http"]["headersToBackend"]]
    authorizer["http_service"]["authorization_response"]["allowed_upstream_headers"] = {"patterns": patterns}
    # Envoy Gateway leaves X-Forwarded-For to Envoy, and the client's own is gone by then.
    del manager["route_config"]["virtual_hosts"][0]["request_headers_to_add"]
    # As in the bootstrap configuration of Envoy Gateway: the default is too small for these expressions.
    runtime = {"re2.max_program_size.error_level": 4294967295, "re2.max_program_size.warn_level": 1000}
    config["layered_runtime"] = {"layers": [{"name": "global_config", "static_layer": runtime}]}
    return yaml.safe_dump(config)


@pytest.fixture(scope="module")
def env(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ProxiedEnv]:
    original = proxies.substituted
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(proxies, "substituted", lambda source, changes: translated(original(source, changes)))
        try:
            env = ProxiedEnv(tmp_path_factory.mktemp("envoy-gateway"), "envoy")
        except ProxyMissing as missing:
            pytest.skip(str(missing))
    with env:
        yield env


def test_lists_of_the_manifest_are_complete() -> None:
    headers, auth = spec("ClientTrafficPolicy")["headers"], spec("SecurityPolicy")["extAuth"]
    assert headers["earlyRequestHeaders"]["removeOnMatch"] == envoy_gateway(), (
        "run python -m tests.support.client_header_lists"
    )
    assert len(envoy_gateway()) <= 64
    assert max(len(one["value"]) for one in envoy_gateway()) <= 1024
    assert headers["withUnderscoresAction"] == "DropHeader"
    sent = {name.decode() for name in (*PASSED_NAMES, ASSERTION, SIGNATURE, SIGNATURE_INPUT, REQUEST_ID)} | {"cookie"}
    assert set(auth["http"]["headersToBackend"]) == sent
    assert auth["failOpen"] is False


def test_bank_is_connected_and_the_app_gets_a_signed_token(env: ProxiedEnv) -> None:
    with env.browser() as browser:
        refused = browser.go("/mikomo?tab=2")
        assert (refused.status_code, refused.headers["location"].partition("?")[0]) == (302, "/akoya/connect/mikomo")
        landed = browser.connect(return_to="/mikomo?tab=2")
        assert (landed.status_code, landed.headers["location"]) == (302, "/mikomo?tab=2")
        seen = browser.go("/mikomo?tab=2").json()
        headers = dict(seen["headers"])
        assert headers["akoya-connector"] == "mikomo"
        assert seen["signature"].startswith("valid: ")
        # Envoy names its own address for a client on loopback.
        assert "," not in headers["x-forwarded-for"]
        assert headers["x-forwarded-proto"] == "http"
        assert browser.fetch("/mikomo").status_code == 200
        assert browser.go("/akoya/forward-auth").status_code == 404


def test_headers_of_a_client_do_not_reach_the_app(env: ProxiedEnv) -> None:
    own = [
        "Akoya-Owner",
        "Akoya-Id-Token",
        "Signature-Input",
        "Akoya.Owner",
        "Akoya_Owner",
        "SCRIPT_NAME",
        "X-Forwarded-User",
    ]
    with env.browser() as browser:
        browser.connect()
        for path in ("/public/x", "/accounts"):
            for names in (*(KNOWN[start::5] for start in range(5)), own):
                lines = [f"{name}: {SPOOFED}" for name in names]
                status, seen = get(env.port, path, f"Cookie: {cookies(browser)}", *lines)
                assert status == 200, seen
                assert [name for name, value in seen["headers"] if SPOOFED in value] == []
