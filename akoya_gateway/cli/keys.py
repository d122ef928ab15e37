"""The command `akoya-gateway keys`."""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from akoya_gateway.cli.group import Group
from akoya_gateway.cli.new_files import write_new_or_exit
from akoya_gateway.cli.options import config_option
from akoya_gateway.config.model import SigningAlgorithm

if TYPE_CHECKING:
    from akoya_gateway.config.model import Config


@click.group(cls=Group, no_args_is_help=True)
def keys() -> None:
    """Make, show and rotate keys.

    Signing keys (signing.keys) sign the headers to the app; store keys (sessions.keys) encrypt grants at rest.

    To rotate signing keys without changing the configuration, keep them in one JWK Set. Create it with
    `akoya-gateway keys new --set --out signing-keys.json`, and refer to it with
    `signing: {keys: [{file: signing-keys.json}]}`. Then run `akoya-gateway keys rotate --if-older-than 30d` from cron.
    The next key is published before it signs, and all replicas that read the file switch to it at the same time.
    """


@keys.command()
@click.option(
    "--algorithm",
    "-a",
    type=click.Choice([each.value for each in SigningAlgorithm]),
    default=SigningAlgorithm.ED25519.value,
    show_default=True,
    help="Must be signing.algorithm.",
)
@click.option(
    "--out",
    "-o",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Write to this file (mode 0600) instead of standard output.",
)
@click.option("--set", "as_set", is_flag=True, help="Make a JWK Set, which `keys rotate` maintains.")
@click.option("--store", is_flag=True, help="Make a key for sessions.keys: 32 random bytes in base64.")
def new(algorithm: str, out: Path | None, as_set: bool, store: bool) -> None:
    """Make a key and print it, or write it to a new file."""
    from akoya_gateway.signing import key_generation  # noqa: PLC0415
    from akoya_gateway.store.encryption import new_key_text  # noqa: PLC0415

    if store:
        text = new_key_text()
    else:
        private = key_generation.generate_private_key(SigningAlgorithm(algorithm))
        text = (
            key_generation.as_set([key_generation.as_jwk(private, time.time())])
            if as_set
            else key_generation.as_text(private)
        )
    if out is None:
        click.echo(text, nl=False)
        return
    write_new_or_exit(out, text)
    click.echo(f"wrote {out}", err=True)


@keys.command("list")
@config_option
def list_keys(config: Path) -> None:
    """List the signing keys with ID, algorithm and state (signing, waiting or retired), and the store keys."""
    from akoya_gateway.signing import key_generation  # noqa: PLC0415

    loaded = _load(config, ("signing",), ("sessions",))
    schedule, now = _schedule(loaded), time.time()
    for key in schedule.keys:
        click.echo(f"signing  {key.id}  {key.algorithm.value}  {key_generation.state(schedule, key, now)}")
    for index, ring_key in enumerate(loaded.sessions.keys):
        click.echo(f"store    {ring_key.id}  aes-256-gcm  {'encrypts' if index == 0 else 'decrypts'}")


@keys.command()
@config_option
@click.option("--in", "lead", metavar="TIME", default="1h", show_default=True, help="Time until the new key signs.")
@click.option("--if-older-than", metavar="TIME", help="Do nothing while the newest key is younger.")
def rotate(config: Path, lead: str, if_older_than: str | None) -> None:
    """Make the next signing key.

    If signing.keys is a JWK Set file, the key is added to it with the time at which it begins to sign. The gateway
    reads the file again on reload. If the configuration lists the keys one by one, the key is written to a new file
    beside the first, and the necessary changes are printed.
    """
    _load(config, ("signing",))
    wait = _duration(lead, "--in")
    age = None if if_older_than is None else _duration(if_older_than, "--if-older-than")
    files = _key_files(config)
    if len(files) == 1 and files[0] is not None and files[0].read_text("utf-8-sig").lstrip().startswith("{"):
        _rotate_set(files[0], config, wait, age)
    else:
        _rotate_list(config, files)


@keys.command()
@config_option
@click.option("--pem", is_flag=True, help="Print PEM, one block for each key, instead of a JWK Set.")
def public(config: Path, pem: bool) -> None:
    """Print the public keys, for verifiers that do not fetch them. Shared secrets are never printed."""
    from akoya_gateway.signing import jwks  # noqa: PLC0415

    loaded = _load(config, ("signing",))
    if not pem:
        click.echo(jwks(loaded.signing).decode())
        _warn_if_shared(loaded)
        return
    for key in _schedule(loaded).keys:
        if (block := key.public_pem()) is not None:
            click.echo(f"# kid: {key.id}\n{block}", nl=False)
    _warn_if_shared(loaded)


@keys.command("rotate-store")
@config_option
def rotate_store(config: Path) -> None:
    """Re-encrypt every stored record with the first of sessions.keys, so that the other keys can be removed."""
    from akoya_gateway.cli import rotate_store as command  # noqa: PLC0415

    if code := command.rotate_store(config):
        raise SystemExit(code)


def _warn_if_shared(config: Config) -> None:
    if config.signing.algorithm is SigningAlgorithm.HMAC_SHA256:
        click.echo("hmac-sha256 has no public keys: give verifiers the secret itself", err=True)


def _load(config: Path, *secrets: tuple[str, ...]) -> Config:
    """Load the configuration with the secrets below these keys.

    Others, such as those of clients, may be out of reach of the operator's shell.
    """
    from akoya_gateway.config.loader import load_config  # noqa: PLC0415

    return load_config(config, secrets=secrets)


def _schedule(config: Config) -> Any:
    from akoya_gateway.signing.keys import InvalidSigningKey, load_schedule  # noqa: PLC0415

    try:
        return load_schedule(config.signing.algorithm, config.signing.keys)
    except InvalidSigningKey as fault:
        click.echo(f"{config.source}: {fault}", err=True)
        raise SystemExit(1) from None


def _duration(text: str, option: str) -> float:
    from akoya_gateway.config.value_parsers import parse_duration  # noqa: PLC0415

    try:
        return parse_duration(text)
    except ValueError:
        raise click.BadParameter(f"{text!r} is not a duration such as 90s, 1h or 30d", param_hint=option) from None


def _key_files(config: Path) -> list[Path | None]:
    """Return the files of signing.keys in order, with None for a key from the environment.

    The configuration must have been validated.
    """
    import yaml  # noqa: PLC0415

    entries = yaml.safe_load(config.read_text("utf-8-sig"))["signing"]["keys"]
    return [config.parent / entry["file"] if entry.get("file") else None for entry in entries]


def _rotate_set(file: Path, config: Path, lead: float, age: float | None) -> None:
    from akoya_gateway.signing import key_generation  # noqa: PLC0415

    algorithm = _load(config, ("signing",)).signing.algorithm
    with _locked(file):
        text, now = file.read_text("utf-8-sig"), time.time()
        if '"keys"' not in text:
            click.echo(f"{file} is a single JWK; `keys rotate` needs a JWK Set (`keys new --set`)", err=True)
            raise SystemExit(1)
        if age is not None and now - key_generation.newest_key_time(text) < age:
            click.echo("nothing to do: the newest key is young enough", err=True)
            return
        rotation = key_generation.rotate(text, algorithm, now, lead)
        _replace(file, rotation.text)
    begins = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(rotation.begins_at))
    click.echo(f"{file}: key {rotation.next_id} is published on reload and signs from {begins}")
    for key_id in rotation.dropped:
        click.echo(f"{file}: key {key_id} dropped, nothing signed by it is still valid")


def _rotate_list(config: Path, files: list[Path | None]) -> None:
    from akoya_gateway.signing import key_generation  # noqa: PLC0415
    from akoya_gateway.signing.keys import thumbprint  # noqa: PLC0415

    algorithm = _load(config, ("signing",)).signing.algorithm
    private = key_generation.generate_private_key(algorithm)
    key_id = thumbprint(private)[:12]
    suffix = ".txt" if isinstance(private, bytes) else ".pem"
    folder = next((file.parent for file in files if file is not None), config.parent)
    file = folder / f"signing-{key_id}{suffix}"
    write_new_or_exit(file, key_generation.as_text(private))
    click.echo(f"""wrote {file}

1. Publish it: add this as the last of signing.keys and reload.

    - {{id: {key_id}, file: {os.path.relpath(file, config.parent)}}}

2. After an hour, when every verifier has seen it: move that line to the front and reload. It signs now.
3. After another hour take the old key's line out.""")


@contextlib.contextmanager
def _locked(file: Path) -> Iterator[None]:
    """Allow only one rotation at a time, also between replicas that share the folder."""
    lock = file.with_name(f".{file.name}.lock")
    try:
        held = lock.open("w")
    except OSError as fault:
        click.echo(f"{lock} cannot be written: {fault.strerror}", err=True)
        raise SystemExit(1) from None
    with held:
        fcntl.flock(held, fcntl.LOCK_EX)
        yield


def _replace(file: Path, text: str) -> None:
    """Replace the file atomically, and keep its mode and, if permitted, its owner."""
    before = file.stat()
    temporary = file.with_name(f".{file.name}.{os.getpid()}.new")
    write_new_or_exit(temporary, text)
    temporary.chmod(before.st_mode & 0o777)
    with contextlib.suppress(PermissionError):
        os.chown(temporary, before.st_uid, before.st_gid)
    temporary.replace(file)
