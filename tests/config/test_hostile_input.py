"""Any input gives a `Config`, or a `ConfigurationError` whose diagnostics are one printable line each."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from akoya_gateway.access.redirect_policy import RedirectPolicy
from akoya_gateway.access.rule_table import RuleTable
from akoya_gateway.config.diagnostics import ConfigurationError
from akoya_gateway.config.document import parse_document
from akoya_gateway.config.loader import ValidationResult, validate_document
from akoya_gateway.config.model import Config
from akoya_gateway.config.value_parsers import parse_duration, parse_listen, parse_size, parse_url
from akoya_gateway.store.encryption import Keyring
from tests.support.config_documents import ENVIRON, SMALL

FAST = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def _validate(content: bytes) -> ValidationResult | None:
    try:
        document = parse_document(content, "g.yaml")
    except ConfigurationError as error:
        assert error.diagnostics
        _all_fine_lines(error.diagnostics)
        return None
    result = validate_document(document, Path("/nonexistent/g.yaml"), ENVIRON)
    _all_fine_lines(result.diagnostics)
    _all_fine_lines(result.warnings)
    assert bool(result.diagnostics) is (result.config is None)
    if result.config is not None:
        _complete(result.config)
    return result


def _complete(config: Config) -> None:
    """Check that a returned configuration is complete and accepted by the code that uses it."""
    assert config.access
    for client in config.clients.values():
        assert client.client_id
        assert client.client_secret
        assert client.callback_path.startswith("/")
        assert client.environment.authorization_endpoint
        assert client.environment.token_endpoint
    assert all(connector.id for connector in config.connectors.values())
    assert config.signing.keys
    assert all(config.audience(rule.upstream) for rule in config.access)
    assert config.sessions.store
    Keyring(config.sessions.keys)
    RuleTable(config.access)
    RedirectPolicy(config.public_url, config.redirects.allow)


def _all_fine_lines(faults: Any) -> None:
    for fault in faults:
        assert fault.line >= 1
        assert fault.column >= 1
        assert fault.message
        assert str(fault).isprintable()


@FAST
@given(st.binary(max_size=300))
def test_bytes(content: bytes) -> None:
    _validate(content)


@FAST
@given(st.text(alphabet=st.sampled_from("ab:-?[]{},&*!|>'\"%@`#~ \n\t\\0\u00e9\u2028\x85<"), max_size=60))
def test_yaml_like_text(text: str) -> None:
    _validate(text.encode())


SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=12) | st.dates()
VALUES = st.recursive(
    SCALARS,
    lambda below: st.lists(below, max_size=4) | st.dictionaries(st.text(max_size=8) | st.integers(), below, max_size=4),
    max_leaves=12,
)
KEYS = st.sampled_from([*SMALL, "upstream", "redirects", "identity", "tokens", "limits", "logging", "trusted_proxies"])


@FAST
@given(st.dictionaries(KEYS, VALUES, max_size=6))
def test_structures_under_known_keys(data: dict[str, Any]) -> None:
    _validate(yaml.safe_dump({**SMALL, **data}, allow_unicode=True).encode())


def _paths(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    below = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(found for key, each in below for found in _paths(each, (*path, key)))]


DESIGN = yaml.safe_load(Path(__file__).with_name("design.yaml").read_text())
NEAR = st.sampled_from(
    [
        *(
            "",
            "/",
            "/*",
            "//",
            "*",
            "{x}",
            "any",
            "0s",
            "5s",
            "1",
            "http://",
            "https://[",
            "https://a:b/",
            "unix:",
            "unix:/x",
        ),
        *(
            "http://[::1%25eth0]/",
            "https://xn--/",
            "https://\u00e9/",
            "sqlite:",
            "sqlite:///",
            "redis://[",
            "::/0",
            "1.2.3.4/99",
        ),
        *(
            {"env": "GATEWAY_KEY"},
            {"file": "\x00"},
            {"file": "/"},
            {"env": ""},
            [[]],
            [None],
            {"": None},
            0,
            -1,
            1e999,
            10**30,
        ),
    ]
)


@FAST
@given(st.sampled_from(_paths(DESIGN)[1:]), VALUES | NEAR)
def test_one_value_of_a_good_configuration_replaced(path: tuple[Any, ...], value: Any) -> None:
    data = copy.deepcopy(DESIGN)
    at = data
    for key in path[:-1]:
        at = at[key]
    at[path[-1]] = value
    _validate(yaml.safe_dump(data, allow_unicode=True).encode())


@FAST
@given(st.sampled_from(_paths(DESIGN)[1:]))
def test_one_value_of_a_good_configuration_removed(path: tuple[Any, ...]) -> None:
    data = copy.deepcopy(DESIGN)
    at = data
    for key in path[:-1]:
        at = at[key]
    del at[path[-1]]
    _validate(yaml.safe_dump(data).encode())


@FAST
@given(
    st.text(max_size=40) | st.text(alphabet="htps:/[]@.%0123456789abcx-?#", max_size=40).map(lambda t: f"https://{t}")
)
def test_values_raise_value_error_only(text: str) -> None:
    for read in (parse_duration, parse_size, parse_url, parse_listen):
        try:
            read(text)
        except ValueError:
            continue
