"""The command `akoya-gateway init`: writes a first configuration with keys and secrets."""

from __future__ import annotations

import json
import os
import re
import shlex
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from akoya_gateway.cli.new_files import PUBLIC, SECRET, write_new

if TYPE_CHECKING:
    from akoya_gateway.config.model import Config, Origin

LOCAL_URL = "http://localhost:8080"
STORES = {"sqlite": "sqlite:./var/grants.db", "redis": "redis://127.0.0.1:6379/0"}
STORE_VARIABLE = "AKOYA_GATEWAY_STORE"
KEYS = ("store.key", "signing-key.pem")
_PLAIN_YAML = re.compile(r"https?://[\w.:/-]+|[A-Za-z]+ Bank", re.ASCII)
_PLAIN_VALUE = re.compile(r"[\w@%+=:,./-][\w@%+=:,./~-]*", re.ASCII)


@dataclass(frozen=True, slots=True)
class ConnectorChoice:
    """A bank: its name in the file, its ID at Akoya, and the name that users see."""

    key: str
    id: str
    name: str


@click.command()
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False), default=Path())
@click.option(
    "--environment",
    type=click.Choice(["emulator", "sandbox", "production"]),
    help="Which Akoya: the emulator on this machine, Akoya's sandbox, or production.  [default: sandbox]",
)
@click.option(
    "--mode",
    type=click.Choice(["sidecar", "middleware"]),
    help="A process in front of the app, or inside a Python app.  [default: sidecar]",
)
@click.option("--public-url", metavar="URL", help=f"The origin that browsers see.  [default: {LOCAL_URL}]")
@click.option("--upstream", metavar="URL", help="The app behind the sidecar.  [default: http://127.0.0.1:3000]")
@click.option("--store", metavar="STORE", help="sqlite, redis, or the URL of a store.  [default: sqlite]")
@click.option("--connector", metavar="ID[=NAME]", multiple=True, help="A bank; may be repeated. By default mikomo.")
@click.option("--client-id", metavar="ID", help="The app's client id, from the Data Recipient Hub.")
@click.option("--client-secret", metavar="SECRET", envvar="AKOYA_CLIENT_SECRET", show_envvar=True, help="Its secret.")
@click.option("--force", is_flag=True, help="Replace files that exist. Keys are kept.")
def init(folder: Path, force: bool, client_secret: str | None, **given: Any) -> None:
    """Write a commented gateway.yaml, its keys and a .env file into FOLDER, the current one by default.

    On a terminal it asks for what no option says. Otherwise it takes the defaults; production needs --public-url and
    --connector. The files with secrets can be read by their owner only.

    Exit codes: 0 written, 1 a file exists or cannot be written, 2 wrong usage.
    """
    ask = _ask if _is_terminal() else _use_default
    values = _values(ask, given)
    emulated = values["environment"] == "emulator"
    secrets = _secrets(ask, values, client_secret, emulated=emulated)
    files = _files(values, secrets)
    existing = [name for name in (*files, *KEYS) if (folder / name).exists()]
    if existing and not force:
        listed = ", ".join(str(folder / name) for name in existing)
        click.echo(f"{listed}: already there (--force replaces files, but never keys)", err=True)
        raise SystemExit(1)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        written = _write(folder, files, existing)
    except OSError as error:
        click.echo(f"{error.filename}: {error.strerror}", err=True)
        raise SystemExit(1) from None
    click.echo(f"wrote {', '.join(str(folder / name) for name in written)}", err=True)
    _report(folder, secrets)


def _values(ask: Callable[..., Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values for the template: those given as options, and the answers to the remaining questions."""
    environment = given["environment"] or ask(
        "Which Akoya (emulator: on this machine, without credentials)", "sandbox", ["emulator", "sandbox", "production"]
    )
    mode = given["mode"] or ask("A sidecar in front of the app, or middleware in a Python app", "sidecar",
                                ["sidecar", "middleware"])  # fmt: skip
    production = environment == "production"
    public = given["public_url"] or ask("The origin that browsers see", None if production else LOCAL_URL)
    origin = _origin(public)
    upstream = given["upstream"]
    if mode == "sidecar" and upstream is None:
        upstream = ask("The URL of the app", "http://127.0.0.1:3000")
    connectors = given["connector"]
    if not connectors:
        connectors = (
            ask("The IDs of the banks, separated by spaces", None).split() if production else ("mikomo=Mikomo Bank",)
        )
    return {
        "environment": environment,
        "middleware": mode == "middleware",
        "public_url": str(origin),
        "port": origin.port if origin.scheme == "http" else 8080,
        "upstream": upstream,
        "store": given["store"] or ask("The store: sqlite, redis, or a URL", "sqlite"),
        "connectors": [_connector(text) for text in connectors],
        "client_id": given["client_id"],
    }


def _secrets(ask: Callable[..., Any], values: dict[str, Any], secret: str | None, *, emulated: bool) -> dict[str, str]:
    """Return the variables of .env, and replace `values["store"]` by its text in gateway.yaml."""
    from akoya_gateway.sandbox.settings import DEFAULT_CLIENT_ID, DEFAULT_CLIENT_SECRET  # noqa: PLC0415

    client_id = values["client_id"]
    if emulated:
        client_id, secret = client_id or DEFAULT_CLIENT_ID, secret or DEFAULT_CLIENT_SECRET
    if client_id is None:
        client_id = ask("The app's client id (empty: fill in .env later)", "")
    if secret is None:
        secret = ask("Its client secret (empty: fill in .env later)", "", hide=True)
    found = {"AKOYA_CLIENT_ID": client_id, "AKOYA_CLIENT_SECRET": secret}
    store = STORES.get(values["store"], values["store"])
    if not store.startswith(("sqlite:", "memory:")):  # Such a URL may have a password.
        found[STORE_VARIABLE] = store
        store = f"{{env: {STORE_VARIABLE}}}"
    values["store"] = store
    return found


def _files(values: Mapping[str, Any], secrets: Mapping[str, str]) -> dict[str, tuple[str, int]]:
    """Return the files without the keys: their names with text and mode. gateway.yaml is the last."""
    from akoya_gateway.config.schema_file import schema_text  # noqa: PLC0415

    env = "# Secrets that gateway.yaml names. In a shell: set -a; . ./.env; set +a\n"
    env += "# systemd: EnvironmentFile=/path/.env   Compose: env_file: .env\n"
    env += "".join(f"{name}={_quoted(value)}\n" for name, value in secrets.items())
    return {
        ".env": (env, SECRET),
        "gateway.schema.json": (schema_text(), PUBLIC),
        "gateway.yaml": (_render(values), PUBLIC),
    }


def _render(values: Mapping[str, Any]) -> str:
    import yaml  # noqa: PLC0415
    from jinja2 import Environment, PackageLoader, StrictUndefined  # noqa: PLC0415

    from akoya_gateway.sandbox.gateway_environment import environment  # noqa: PLC0415
    from akoya_gateway.sandbox.settings import SandboxSettings  # noqa: PLC0415

    emulator = environment(SandboxSettings(base_url="http://127.0.0.1:9100"))
    templates = Environment(
        loader=PackageLoader("akoya_gateway.cli"),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,  # noqa: S701 - the output is YAML; texts go through the filter `yaml`.
    )
    templates.filters["yaml"] = lambda text: text if _PLAIN_YAML.fullmatch(text) else json.dumps(text)
    return templates.get_template("gateway.yaml.j2").render(
        **values, emulator=yaml.safe_dump(emulator, sort_keys=False).rstrip()
    )


def _write(folder: Path, files: Mapping[str, tuple[str, int]], existing: list[str]) -> list[str]:
    """Write the keys that do not exist and all files. Return the names of what was written."""
    from akoya_gateway.config.model import SigningAlgorithm  # noqa: PLC0415
    from akoya_gateway.signing import key_generation  # noqa: PLC0415
    from akoya_gateway.store.encryption import new_key_text  # noqa: PLC0415

    store_key, signing_key = KEYS
    private = key_generation.generate_private_key(SigningAlgorithm.ED25519)
    keys = {store_key: new_key_text(), signing_key: key_generation.as_text(private)}
    new = {name: (text, SECRET) for name, text in keys.items() if name not in existing} | dict(files)
    for name, (text, mode) in new.items():
        if name in existing:
            (folder / name).unlink()
        write_new(folder / name, text, mode)
    return list(new)


def _report(folder: Path, secrets: Mapping[str, str]) -> None:
    """Check what was written, as `check` does, and print the next steps."""
    from akoya_gateway.config.loader import validate_config  # noqa: PLC0415
    from akoya_gateway.config.reader import ALL_SECRETS, NO_SECRETS  # noqa: PLC0415

    config = folder / "gateway.yaml"
    missing = [name for name, value in secrets.items() if not value]
    result = validate_config(config, {**os.environ, **secrets}, secrets=NO_SECRETS if missing else ALL_SECRETS)
    for diagnostic in result.diagnostics:
        click.echo(str(diagnostic))
    for warning in result.warnings:
        click.echo(f"warning: {warning}", err=True)
    if result.diagnostics:
        raise SystemExit(1)
    steps = [f"cd {shlex.quote(str(folder))}"] if folder != Path() else []
    steps += [f"edit .env                     # {' and '.join(missing)}"] if missing else []
    steps += ["set -a; . ./.env; set +a      # secrets into the environment", "akoya-gateway check"]
    if result.config:
        steps += _start_steps(result.config)
    click.echo("Next:\n" + "".join(f"  {step}\n" for step in steps), err=True)
    click.echo("Keep .env, *.key and *.pem out of git.", err=True)


def _start_steps(config: Config) -> list[str]:
    from akoya_gateway.sandbox.settings import DEFAULT_REDIRECT_URIS, SandboxConnector  # noqa: PLC0415

    steps = []
    if "emulator" in config.environments:
        uri = config.clients["app"].redirect_uri
        options = [] if uri in DEFAULT_REDIRECT_URIS else ["--redirect-uri", uri]
        for each in config.connectors.values():
            options += [] if each.id == SandboxConnector().id else ["--connector", f"{each.id}={each.name}"]
        steps.append(f"{shlex.join(['akoya-gateway', 'sandbox', *options]):<29} # in another terminal")
    if config.upstream is not None:
        return [*steps, "akoya-gateway run"]
    return [*steps, f'start the app, wrapped in Gateway(app, "gateway.yaml"), for requests to {config.public_url}']


def _ask(question: str, default: str | None, choices: list[str] | None = None, *, hide: bool = False) -> Any:
    kind = click.Choice(choices) if choices else str
    return click.prompt(question, default=default, type=kind, hide_input=hide, show_default=bool(default), err=True)


def _use_default(question: str, default: str | None, *_: object, **__: object) -> Any:
    if default is None:
        raise click.UsageError(f"production needs --public-url and --connector ({question})")
    return default


def _origin(text: str) -> Origin:
    from akoya_gateway.config.value_parsers import parse_url  # noqa: PLC0415

    try:
        url = parse_url(text)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--public-url") from None
    if url.path not in ("", "/") or url.query or not url.secure:
        message = "an origin such as https://app.example.com; plain http is for loopback"
        raise click.BadParameter(message, param_hint="--public-url")
    return url.origin


def _connector(text: str) -> ConnectorChoice:
    identifier, _, name = text.partition("=")
    key = re.sub(r"[^a-z0-9_.-]", "-", identifier.lower())
    if not re.match(r"[a-z]", key):
        raise click.BadParameter(f"{text!r}: write ID or ID=NAME", param_hint="--connector")
    return ConnectorChoice(key, identifier, name or identifier)


def _quoted(value: str) -> str:
    """Quote a value only if necessary: `docker run --env-file` takes quotes literally."""
    if not value.isprintable():
        raise click.UsageError("a secret contains a line break or control character")
    plain = not value or (_PLAIN_VALUE.fullmatch(value) and ":~" not in value)
    return value if plain else shlex.quote(value)


def _is_terminal() -> bool:
    return sys.stdin.isatty()
