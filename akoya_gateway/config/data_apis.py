"""Reads the upstreams that are Akoya's data API, and checks the access rules that lead to them."""

from __future__ import annotations

from collections.abc import Mapping

from akoya_gateway.config.diagnostics import quoted
from akoya_gateway.config.model import AccessRule, Connector, DataApi, Environment, Intent, Otherwise, Require
from akoya_gateway.config.presets import PRODUCTS
from akoya_gateway.config.reader import Node, reference

_PAYMENTS = "payments"
"""The product that requires `intent: payments`."""


def read_data_apis(names: Node, environments_node: Node, environments: Mapping[str, Environment]) -> dict[str, DataApi]:
    """Read the entries of `upstreams` that have `data_api`. Those with an unknown environment are skipped."""
    found: dict[str, DataApi] = {}
    for name, node in names.entries():
        if "data_api" not in node.value:
            continue
        environment = environments.get(reference(node, "data_api", environments_node, "environment") or "")
        if environment is None:
            continue
        other = next((each for each in found.values() if each.environment is environment), None)
        if other is not None:
            message = f"environment {quoted(environment.name)} is already used by {other.address}"
            node.error(message, "keep one, and use it in all access rules", key="data_api")
        _check_url(node, environment)
        intent = Intent(node.plain("intent"))
        found[name] = DataApi(
            name=name,
            environment=environment,
            version=node.plain("version"),
            intent=intent,
            products=_products(node, intent),
            timeout=node.seconds("timeout"),
        )
    return found


def _check_url(node: Node, environment: Environment) -> None:
    if environment.products_url is None:
        message = f"environment {quoted(environment.name)} has no products_url"
        node.error(message, "set it to the base URL of its data APIs", key="data_api")
    elif "?" in environment.products_url:
        message = f"products_url of environment {quoted(environment.name)} has a query"
        node.error(message, "remove what follows ?", key="data_api")


def _products(node: Node, intent: Intent) -> frozenset[str]:
    listed = node.get("products")
    if listed is None:
        return PRODUCTS if intent is Intent.PAYMENTS else PRODUCTS - {_PAYMENTS}
    products = frozenset(item.value for item in listed.items())
    if _PAYMENTS in products and intent is not Intent.PAYMENTS:
        message = "Akoya's v3 API accepts requests for payments only with intent: payments"
        listed.error(message, "set intent: payments, or remove payments")
    return products


def check_data_rules(access: Node | None, rules: tuple[AccessRule, ...], connectors: Mapping[str, Connector]) -> None:
    """Check the access rules that lead to a data API, and warn about other rules that pass tokens to apps."""
    if access is None or not any(rule.data_api is not None for rule in rules):
        return
    nodes = {node.path[-1]: node for node in access.items()}
    for rule in rules:
        node = nodes[rule.index]
        if rule.data_api is not None:
            _check_rule(node, rule, rule.data_api, connectors)
        elif rule.pass_token and rule.require is not Require.NOTHING:
            remedy = "set pass_token: false where the app calls the data APIs through the gateway"
            node.warn("this rule passes tokens to the app, although there is a data_api upstream", remedy)


def _check_rule(node: Node, rule: AccessRule, data_api: DataApi, connectors: Mapping[str, Connector]) -> None:
    if not rule.path.endswith("/*"):
        node.error("the path of a rule for a data API must end in /*", "the * stands for the product", key="path")
    if rule.require not in (Require.CONNECTORS, Require.PARAMETER) or len(rule.connectors) > 1:
        remedy = 'name one, or a parameter of the path: "{connector}"'
        node.error("a data API call needs exactly one connector", remedy, key="require")
        return
    if rule.otherwise is Otherwise.PASS:
        node.error("a call without a token is not possible", "use unauthorized or connect", key="otherwise")
    if node.value.get("pass_token"):
        node.error("the gateway uses the token itself and passes it to no app", "remove pass_token", key="pass_token")
    required = rule.connectors or tuple(connectors)
    for each in (connectors[name] for name in required if name in connectors):
        _check_connector(node, each, data_api)


def _check_connector(node: Node, connector: Connector, data_api: DataApi) -> None:
    environment = connector.client.environment
    if environment.name != data_api.environment.name:
        message = (
            f"connector {quoted(connector.key)} is of environment {quoted(environment.name)}, "
            f"and {data_api.address} of {quoted(data_api.environment.name)}"
        )
        node.error(message, "use a data API of the connector's environment, and a rule for each", key="require")
    if connector.id in (".", ".."):
        node.error(f"connector {quoted(connector.key)} cannot be a segment of a path", key="require")
