"""Reads environments, clients and connectors, and checks that sandbox and production are not mixed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from akoya_gateway.config.diagnostics import quoted
from akoya_gateway.config.model import (
    Bearer,
    Client,
    ClientAuthentication,
    Connector,
    Dialect,
    Environment,
    ErrorCategory,
    ErrorRule,
    Origin,
    OtherLogin,
)
from akoya_gateway.config.presets import (
    DEFAULT_ERRORS,
    PRESETS,
    PRODUCTION_HOSTS,
    SANDBOX_CONNECTOR,
    SANDBOX_HOSTS,
    Preset,
)
from akoya_gateway.config.reader import Node, reference
from akoya_gateway.config.secrets import read_password
from akoya_gateway.config.value_parsers import Url, is_loopback, parse_url
from akoya_gateway.secret import Secret

ENDPOINTS = (
    "issuer",
    "authorization_endpoint",
    "token_endpoint",
    "revocation_endpoint",
    "jwks_uri",
    "products_url",
)
_RESERVED_PARAMETERS = frozenset(
    {
        "connector",
        "client_id",
        "redirect_uri",
        "response_type",
        "response_mode",
        "scope",
        "state",
        "nonce",
        "code_challenge",
        "code_challenge_method",
        "request",
        "request_uri",
    }
)
_WRONG_HOSTS = {True: SANDBOX_HOSTS, False: PRODUCTION_HOSTS}
"""The hosts that an environment must not use. The key is True for production."""
_RESERVED_CONNECTOR_NAMES = frozenset({"nothing", "any"})


def read_environments(node: Node) -> dict[str, Environment]:
    """Read the environments. Those with errors are included, so that references to them can be checked."""
    return {name: _environment(name, below) for name, below in node.entries()}


def _environment(name: str, node: Node) -> Environment:
    chosen = node.get("preset")
    preset = PRESETS[chosen.value] if chosen else None
    urls: dict[str, str | None] = {key: getattr(preset, key, None) for key in ENDPOINTS}
    for key in ENDPOINTS:
        if node.get(key) is not None:
            found = node.url(key)
            urls[key] = found.text if found else None
    if preset is None:
        _check_endpoints(node)
    production = _is_production(node, preset, urls)
    _check_hosts(node, urls, production)
    return Environment(
        name=name,
        issuer=urls["issuer"],
        authorization_endpoint=urls["authorization_endpoint"] or "",
        token_endpoint=urls["token_endpoint"] or "",
        revocation_endpoint=urls["revocation_endpoint"],
        jwks_uri=urls["jwks_uri"],
        products_url=urls["products_url"],
        dialect=_dialect(node.section("dialect")),
        authorization_parameters=_parameters(node.section("authorization_parameters")),
        timeout=node.seconds("timeout"),
        rate=float(node.plain("rate")),
        production=production,
        data_rate=_data_rate(node, preset),
    )


def _data_rate(node: Node, preset: Preset | None) -> float | None:
    given = node.plain("data_rate")
    if given is not None:
        return float(given)
    return None if preset is None else preset.data_rate


def _check_endpoints(node: Node) -> None:
    """Check that an environment without a preset has the two endpoints that every flow needs."""
    missing = [key for key in ("authorization_endpoint", "token_endpoint") if node.is_missing(key)]
    if missing and node.is_missing("preset"):
        remedy = f"name a preset ({', '.join(PRESETS)}) or give the endpoints"
        node.error(f"neither a preset nor {' and '.join(missing)}", remedy, at_key=True)


def _is_production(node: Node, preset: Preset | None, urls: Mapping[str, str | None]) -> bool:
    setting = node.get("production")
    if setting is not None:
        return bool(setting.value)
    if preset is not None:
        return preset.production
    hosts = {_host_of(text) for text in urls.values()}
    return bool(hosts & PRODUCTION_HOSTS) and not hosts & SANDBOX_HOSTS


def _host_of(text: str | None) -> str:
    try:
        return parse_url(text).origin.host if text else ""
    except ValueError:
        return ""


def _check_hosts(node: Node, urls: Mapping[str, str | None], production: bool) -> None:
    """Check that production users are never sent to the sandbox, and test logins never to real banks."""
    here, there = ("production", "sandbox") if production else ("sandbox", "production")
    wrong = {key: host for key, text in urls.items() if (host := _host_of(text)) in _WRONG_HOSTS[production]}
    remedy = "keep one environment for each; hosts, client_id and connectors all differ"
    if wrong and node.get("production") is not None:
        host = next(iter(wrong.values()))
        node.error(f"not a {here} environment: Akoya's {there} host {host} is in it", remedy, key="production")
        return
    for key, host in wrong.items():
        node.error(f"Akoya's {there} host {host} in a {here} environment", remedy, key=key)


def _dialect(node: Node) -> Dialect:
    rules = node.get("errors")
    own = tuple(found for rule in (rules.items() if rules else ()) if (found := _error_rule(rule)))
    return Dialect(
        code_auth=ClientAuthentication(node.plain("code_auth")),
        refresh_auth=ClientAuthentication(node.plain("refresh_auth")),
        revoke_auth=ClientAuthentication(node.plain("revoke_auth")),
        bearer=Bearer(node.plain("bearer")),
        pkce=node.plain("pkce"),
        nonce=node.plain("nonce"),
        optional_claims=frozenset(node.plain("optional_claims")),
        reuse_grace=node.seconds("reuse_grace", zero=True),
        errors=(*own, *DEFAULT_ERRORS),
    )


def _error_rule(node: Node) -> ErrorRule | None:
    means = node.get("means")
    if node.is_missing("status") and node.is_missing("error"):
        node.error("a rule without status and error would match every response", "give one of them, or both")
    return ErrorRule(ErrorCategory(means.value), node.plain("status"), node.plain("error")) if means else None


def _parameters(node: Node) -> tuple[tuple[str, str], ...]:
    found = []
    for name, below in node.entries():
        if name in _RESERVED_PARAMETERS:
            below.error(f"{name} is set by the gateway itself", "remove it here", at_key=True)
        else:
            found.append((name, str(below.value)))
    return tuple(found)


@dataclass(frozen=True, slots=True)
class RedirectContext:
    """The gateway's origin and prefix, against which redirect URIs are checked."""

    origin: Origin | None
    prefix: str | None


def read_clients(
    node: Node, environments: Node, built: Mapping[str, Environment], redirect_context: RedirectContext
) -> dict[str, Client]:
    """Read the clients. Those with errors are included, so that connectors can be checked.

    If the reader does not read secrets, the client secrets are empty.
    """
    found: dict[str, Client] = {}
    ids: dict[str, list[tuple[str, Environment]]] = {}
    for name, below in node.entries():
        environment = built.get(reference(below, "environment", environments, "environment") or "")
        redirect = _redirect_uri(below, redirect_context, environment)
        client_id = _client_id(below)
        secret = read_password(below.get("client_secret"))
        scopes = _scopes(below)
        if environment is None:
            continue
        if client_id:
            users = ids.setdefault(client_id, [])
            _check_client_id(below, environment, users)
            users.append((name, environment))
        found[name] = Client(
            name=name,
            environment=environment,
            client_id=client_id or "",
            client_secret=secret or Secret(""),
            redirect_uri=redirect.text if redirect else "",
            callback_path=redirect.path if redirect else "",
            scopes=scopes,
        )
    return found


def _client_id(node: Node) -> str | None:
    below = node.get("client_id")
    if below is None or isinstance(below.value, str):
        return below.value if below else None
    secret = read_password(below)
    return secret.reveal() if secret else None


def _scopes(node: Node) -> tuple[str, ...]:
    below = node.get("scopes")
    scopes: list[Any] = [item.value for item in below.items()] if below else node.plain("scopes")
    if below is not None:
        if "openid" not in scopes and len(scopes) == len(below.value):
            below.error('"openid" is missing', "without it Akoya returns invalid_scope and there is no id_token")
        if "offline_access" not in scopes:
            below.warn("without offline_access there is no refresh token", "users will have to reconnect every day")
    return tuple(scopes)


def _redirect_uri(node: Node, redirect_context: RedirectContext, environment: Environment | None) -> Url | None:
    found = node.url("redirect_uri")
    below = node.get("redirect_uri")
    if found is None or below is None:
        return None
    if "?" in found.text:
        below.error("a redirect URI has no query here", "register one without at Akoya")
        return None
    if redirect_context.origin is not None and found.origin != redirect_context.origin:
        below.error(
            f"it is not on the origin of public_url, {redirect_context.origin}", "browsers come back to public_url only"
        )
        return None
    if problem := _path_problem(found.path, redirect_context.prefix):
        below.error(problem, f"such as {redirect_context.origin or ''}{redirect_context.prefix or '/akoya'}/callback")
        return None
    if environment is not None and environment.production and is_loopback(found.origin.host):
        below.error("Akoya takes loopback redirect URIs in the sandbox only", "register a public https URL")
        return None
    return found


def _path_problem(path: str, prefix: str | None) -> str | None:
    segments = path.split("/")[1:]
    if not path or segments == [""]:
        return "a redirect URI needs a path of its own"
    if "" in segments[:-1] or "." in segments or ".." in segments or "%" in path:
        return "its path has empty or dot segments or escapes, which browsers and servers read differently"
    if prefix is None or not (path + "/").startswith(prefix + "/"):
        return None
    below = path.removeprefix(prefix)
    first = below.removeprefix("/").split("/")[0]
    if below in ("", "/") or first in ("connect", "disconnect", "logout", "forward-auth", "jwks.json", "token"):
        return f"its path is a route of the gateway itself ({prefix}/{first})"
    return None


def _check_client_id(node: Node, environment: Environment, users: list[tuple[str, Environment]]) -> None:
    """Report a client_id that is used both in production and elsewhere.

    Akoya gives an app a separate client_id for each environment. `users` are the earlier clients with this client_id.
    """
    for other, its in users:
        if its.production != environment.production:
            message = f"the same client_id as client {quoted(other)}, one in production and one not"
            node.error(message, "Akoya gives each app its own client_id per environment", key="client_id")
            return


def read_connectors(node: Node, clients: Node, built: Mapping[str, Client]) -> dict[str, Connector]:
    """Read the connectors. Those with errors are left out."""
    found: dict[str, Connector] = {}
    for key, below in node.entries():
        if key in _RESERVED_CONNECTOR_NAMES:
            below.error(f"{quoted(key)} has a meaning of its own in access rules", "choose another name", at_key=True)
            continue
        client = built.get(reference(below, "client", clients, "client") or "")
        identifier = below.plain("connector") or key
        if client is None:
            continue
        if client.environment.production and identifier.lower() == SANDBOX_CONNECTOR:
            where = below if below.get("connector") is None else below.get("connector")
            assert where is not None
            message = f"{SANDBOX_CONNECTOR} exists in the sandbox only, and client {quoted(client.name)} is production"
            where.error(message, "use a provider id from the Data Recipient Hub", at_key=where is below)
            continue
        other_login = OtherLogin(below.plain("other_login"))
        found[key] = Connector(key, identifier, below.plain("name") or key, client, other_login)
    return found
