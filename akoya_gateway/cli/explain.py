"""The command `akoya-gateway explain`."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from akoya_gateway.cli.options import complete_names, config_option, format_option

if TYPE_CHECKING:
    from akoya_gateway.config.model import AccessRule, Config
    from akoya_gateway.gateway.explain import Explanation


@click.command()
@click.argument("method")
@click.argument("path")
@config_option
@click.option(
    "--connected",
    metavar="CONNECTOR",
    multiple=True,
    shell_complete=complete_names("connectors"),
    help="A connected connector; may be repeated. By default all.",
)
@format_option("Text for people, or one JSON object.")
def explain(method: str, path: str, config: Path, connected: tuple[str, ...], form: str) -> None:
    """Show which access rule decides a request, what happens, and what the upstream would get.

    Contacts nothing and reads no secret: the user's token, the key and the signature are placeholders.

    Exit codes: 0 explained, 1 a fault in the configuration, 2 wrong usage.
    """
    import time  # noqa: PLC0415

    from akoya_gateway.config.diagnostics import ConfigurationError  # noqa: PLC0415
    from akoya_gateway.config.loader import validate_config  # noqa: PLC0415
    from akoya_gateway.config.reader import NO_SECRETS  # noqa: PLC0415
    from akoya_gateway.gateway.explain import Explainer  # noqa: PLC0415

    result = validate_config(config, secrets=NO_SECRETS)
    if result.config is None:
        raise ConfigurationError(result.diagnostics)
    loaded = result.config
    unknown = [name for name in connected if name not in loaded.connectors]
    if unknown:
        click.echo(f"no connector named {unknown[0]!r}; known: {', '.join(loaded.connectors)}", err=True)
        raise SystemExit(2)
    wanted = connected or tuple(loaded.connectors)
    method = method.upper()  # Methods are case-sensitive (RFC 9110 section 9.1), but often typed in lower case.
    found = Explainer(loaded, wanted, time.time()).explain(method, path)
    if form == "json":
        click.echo(json.dumps(_document(found), indent=2))
    else:
        for line in _lines(found, loaded, method):
            click.echo(line)


def _lines(found: Explanation, config: Config, method: str) -> list[str]:
    lines = [f"{method} {found.path}"]
    if found.refusal:
        return [*lines, f"  refused      {found.refusal} It never reaches the upstream."]
    if found.own_route:
        return [*lines, f"  route        the gateway's own: {found.own_route}"]
    if found.rule is None:
        lines.append("  rule         none matches: 403. Add one to `access`.")
        return lines
    lines.append(f"  rule         {found.rule.label}   ({config.source}:{found.rule.line})")
    lines.append(f"  requires     {_requires(found.rule)}")
    lines += [f"  without it   {text}" for text in found.without_grants]
    lines.append(f"  with it      {found.with_grants}")
    lines += [f"    {name.title()}: {value}" for name, value in found.headers]
    return lines


def _requires(rule: AccessRule) -> str:
    if rule.parameter is not None:
        return f"a live grant of the connector in {{{rule.parameter}}}{_choice(rule)}"
    if rule.connectors:
        return "a live grant of " + " and ".join(rule.connectors) + _choice(rule)
    return {"nothing": "nothing", "any": "at least one live grant"}[rule.require.value]


def _choice(rule: AccessRule) -> str:
    """Describe which of several logins at the bank is meant."""
    selector = rule.grant
    if selector is None:
        return ", a token for each" if rule.pass_all else ""
    if selector.source.value == "single":
        return ", the only login there"
    where = {"query": "query parameter", "header": "header", "path": "path parameter"}[selector.source.value]
    return f", the login in the {where} {selector.name}"


def _document(found: Explanation) -> dict[str, Any]:
    document = asdict(found)
    if found.rule is not None:
        upstream = found.rule.upstream or found.rule.data_api
        document["rule"] = {
            "label": found.rule.label,
            "line": found.rule.line,
            "requires": _requires(found.rule),
            "upstream": None if upstream is None else upstream.address,
        }
    document["headers"] = dict(found.headers)
    return document
