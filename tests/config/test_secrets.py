"""Secrets from environment variables and files: present, well-formed, long enough, and never shown."""

from __future__ import annotations

import base64
import hashlib
import json
import os
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from joserfc.jwk import OKPKey

from akoya_gateway.config.loader import validate_config
from akoya_gateway.config.model import SigningKey, key_id
from akoya_gateway.config.reader import NO_SECRETS
from akoya_gateway.config.secrets import parse_encryption_key
from akoya_gateway.secret import Secret
from akoya_gateway.signing.keys import load_schedule
from tests.support.config_documents import ENVIRON, RING_KEY, error_lines, validated, warning_lines

RAW = hashlib.sha256(b"a key of the tests").digest()


@pytest.mark.parametrize(
    "text",
    [
        base64.b64encode(RAW).decode(),
        base64.b64encode(RAW).decode().rstrip("="),
        base64.urlsafe_b64encode(RAW).decode(),
        base64.urlsafe_b64encode(RAW).decode().rstrip("="),
        RAW.hex(),
        RAW.hex().upper(),
    ],
)
def test_ring_key_is_32_bytes_in_base64_or_hex(text: str) -> None:
    key = parse_encryption_key(text)
    assert key.key == RAW
    assert key.id == key_id(RAW)
    assert text not in repr(key)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a passphrase of more than thirty-two characters",
        base64.b64encode(RAW[:16]).decode(),
        base64.b64encode(RAW + RAW).decode(),
        RAW.hex()[:-2],
        "A" * 44,
        "00" * 32,
        base64.b64encode(RAW).decode() + "\nAAAA",
        "ü" * 43,
    ],
)
def test_anything_else_is_no_ring_key(text: str) -> None:
    with pytest.raises(ValueError, match=r"32 bytes|not random"):
        parse_encryption_key(text)


@pytest.mark.parametrize(("variable", "key"), [("CLIENT_SECRET", "client_secret"), ("SIGNING_SECRET", "signing.keys")])
def test_secret_in_quotes_is_used_as_it_is_with_a_warning(tmp_path: Path, variable: str, key: str) -> None:
    """A Docker env file keeps the quotes that a shell would remove; the provider then says invalid_client."""
    quoted = "'a secret of more than thirty-two bytes'"
    result = validated(tmp_path, {}, {**ENVIRON, variable: quoted})
    assert result.config is not None
    (line,) = [line for line in warning_lines(result) if "quotation mark" in line]
    assert key in line.partition(": ")[0]
    assert "thirty" not in line
    secret, shared = result.config.clients["demo-app"].client_secret, result.config.signing.keys[0].material
    assert quoted in (secret.reveal(), shared.reveal())


@pytest.mark.parametrize(
    "text", ["$AKOYA_SECRET", "${AKOYA_SECRET}", "$(AKOYA_SECRET)", "{{ .Values.secret }}", "<secret>", "changeme"]
)
def test_secret_that_is_a_placeholder_is_warned_about(tmp_path: Path, text: str) -> None:
    result = validated(tmp_path, {}, {**ENVIRON, "CLIENT_SECRET": text})
    assert result.config is not None
    (line,) = [line for line in warning_lines(result) if "placeholder" in line]
    assert line.startswith("clients.demo-app.client_secret: ")
    assert text not in line


@pytest.mark.parametrize(
    "text", ["a$b", "$b$c", "x<y>", "pa$$word", "<a>b", "$2b$12$abcdefghijklmnopqrstuv", "changemed"]
)
def test_secret_with_characters_of_placeholders_is_not_warned_about(tmp_path: Path, text: str) -> None:
    lines = warning_lines(validated(tmp_path, {}, {**ENVIRON, "CLIENT_SECRET": text}))
    assert [line for line in lines if "client_secret" in line] == []


def test_bad_ring_key_names_the_command_that_makes_one(tmp_path: Path) -> None:
    (line,) = error_lines(
        validated(tmp_path, {}, {**ENVIRON, "GATEWAY_KEY": "hunter2-hunter2-hunter2-hunter2-hunter2"})
    )
    assert line.startswith("sessions.keys[0]: this key cannot be used: it must be exactly 32 bytes, in base64 or hex")
    assert "akoya-gateway keys new" in line
    assert "hunter2" not in line
    (line,) = error_lines(validated(tmp_path, {}, {**ENVIRON, "GATEWAY_KEY": f'"{RING_KEY}"'}))
    assert "in base64 or hex, without quotes" in line


def test_key_ring_holds_no_key_twice(tmp_path: Path) -> None:
    (line,) = error_lines(validated(tmp_path, {"sessions.keys": [{"env": "GATEWAY_KEY"}, {"env": "GATEWAY_KEY"}]}))
    assert line.startswith("sessions.keys[1]: the same key is already in the list")


def test_first_ring_key_stays_first(tmp_path: Path) -> None:
    environ = {**ENVIRON, "NEW": RAW.hex()}
    config = validated(tmp_path, {"sessions.keys": [{"env": "NEW"}, {"env": "GATEWAY_KEY"}]}, environ).config
    assert config is not None
    assert [key.key for key in config.sessions.keys] == [RAW, base64.b64decode(RING_KEY)]


@pytest.mark.parametrize(
    ("environ", "message"),
    [
        ({}, "clients.demo-app.client_secret.env: the environment variable CLIENT_SECRET is not set (set it)"),
        ({"CLIENT_SECRET": ""}, "clients.demo-app.client_secret.env: the environment variable CLIENT_SECRET is empty"),
        (
            {"CLIENT_SECRET": " \n"},
            "clients.demo-app.client_secret.env: the environment variable CLIENT_SECRET is empty",
        ),
        ({"CLIENT_SECRET": "hunter2\n"}, "clients.demo-app.client_secret: the secret begins or ends with a space"),
        ({"CLIENT_SECRET": "hun\rter2"}, "clients.demo-app.client_secret: the secret contains a line end, a tab or"),
        ({"CLIENT_SECRET": "hunter2\0"}, "clients.demo-app.client_secret: the secret contains a line end, a tab or"),
    ],
)
def test_secret_must_be_there_and_clean(tmp_path: Path, environ: dict[str, str], message: str) -> None:
    others = {name: value for name, value in ENVIRON.items() if name != "CLIENT_SECRET"}
    (line,) = error_lines(validated(tmp_path, {}, {**others, **environ}))
    assert line.startswith(message)
    assert "hunter2" not in line


def test_misspelt_gateway_variable_gets_a_suggestion(tmp_path: Path) -> None:
    changes = {"clients.demo-app.client_id": {"env": "AKOYA_CLIENT_DI"}}
    (line,) = error_lines(validated(tmp_path, changes, {**ENVIRON, "AKOYA_CLIENT_ID": "x"}))
    assert line.endswith('the environment variable AKOYA_CLIENT_DI is not set (did you mean "AKOYA_CLIENT_ID"?)')


def _with_file(tmp_path: Path, name: str = "secret") -> dict[str, Any]:
    return {"clients.demo-app.client_secret": {"file": name}}


def test_secret_file_is_relative_to_the_configuration_and_loses_one_line_end(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.write_text("s3cret\r\n")
    file.chmod(0o600)
    result = validated(tmp_path, _with_file(tmp_path))
    assert result.config is not None
    assert result.config.clients["demo-app"].client_secret.reveal() == "s3cret"
    assert not any("others may read" in line for line in warning_lines(result))


@pytest.mark.parametrize("mode", [0o604, 0o640, 0o644, 0o666])
def test_secret_file_that_others_may_read_is_warned_of(tmp_path: Path, mode: int) -> None:
    file = tmp_path / "secret"
    file.write_text("s3cret")
    file.chmod(mode)
    result = validated(tmp_path, _with_file(tmp_path))
    assert result.config is not None
    (line,) = [line for line in warning_lines(result) if "others may read" in line]
    assert f"(mode {mode:04o})" in line
    assert "s3cret" not in line


def test_unusable_secret_files_are_reported(tmp_path: Path) -> None:
    (tmp_path / "empty").write_text("\n")
    (tmp_path / "binary").write_bytes(b"\xfd\x00")
    (tmp_path / "big").write_bytes(b"x" * 70_000)
    (tmp_path / "folder").mkdir()
    expected = {
        "missing": "there is no file",
        "empty": "is empty",
        "binary": "is not text in UTF-8",
        "big": "is larger than 64 KiB",
        "folder": "is not a file",
        "x" * 3000: "cannot be read",
        "secret/x": "there is no file",
    }
    for name, message in expected.items():
        (line,) = error_lines(validated(tmp_path, _with_file(tmp_path, name)))
        assert line.startswith("clients.demo-app.client_secret.file: "), line
        assert message in line


def test_pipe_or_device_is_no_secret_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for name in ("pipe", "/dev/zero"):
        (line,) = error_lines(validated(tmp_path, _with_file(tmp_path, name)))
        assert "is not a file" in line


def test_null_secret_is_reported(tmp_path: Path) -> None:
    (line,) = error_lines(validated(tmp_path, {"clients.demo-app.client_secret": {"env": None}}))
    assert line.startswith("clients.demo-app.client_secret: expected {env: NAME} or {file: path}")


def _pem(key: Any, password: bytes | None = None) -> str:
    how = BestAvailableEncryption(password) if password else NoEncryption()
    return str(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, how).decode())


ED25519 = _pem(ed25519.Ed25519PrivateKey.generate())
PUBLIC_PEM = (
    ed25519.Ed25519PrivateKey.generate()
    .public_key()
    .public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    .decode()
)
P256 = _pem(ec.generate_private_key(ec.SECP256R1()))
P384 = _pem(ec.generate_private_key(ec.SECP384R1()))
RSA = _pem(rsa.generate_private_key(65537, 2048))
JWK = json.dumps(OKPKey.generate_key("Ed25519").as_dict(private=True))
PUBLIC_JWK = json.dumps(OKPKey.generate_key("Ed25519").as_dict(private=False))


@pytest.mark.parametrize(
    ("algorithm", "text"),
    [("ed25519", ED25519), ("ed25519", JWK), ("ecdsa-p256-sha256", P256), ("hmac-sha256", "x" * 32)],
)
def test_signing_key_that_fits_is_taken(tmp_path: Path, algorithm: str, text: str) -> None:
    result = validated(tmp_path, {"signing.algorithm": algorithm}, {**ENVIRON, "SIGNING_SECRET": text})
    assert result.config is not None, error_lines(result)
    (key,) = result.config.signing.keys
    assert (key.id, key.material.reveal()) == ("k1", text)
    assert text not in repr(result.config)


@pytest.mark.parametrize(
    ("algorithm", "text", "message"),
    [
        ("hmac-sha256", "x" * 31, "it is shorter than 32 bytes"),
        ("hmac-sha256", ED25519, "it is a PEM, not a shared secret"),
        ("ed25519", "x" * 64, "it is not a PEM or JWK of an unencrypted private key"),
        ("ed25519", "{}", "it is not a PEM or JWK of an unencrypted private key"),
        ("ed25519", "{" * 1000, "it is not a PEM or JWK of an unencrypted private key"),
        ("ed25519", '{"a":' * 9000, "it is not a PEM or JWK of an unencrypted private key"),
        ("ed25519", PUBLIC_JWK, "it is not an Ed25519 private key"),
        ("ed25519", P256, "it is not an Ed25519 private key"),
        ("ecdsa-p256-sha256", P384, "it is not a P-256 private key"),
        ("ecdsa-p256-sha256", RSA, "it is not a P-256 private key"),
        ("ecdsa-p256-sha256", ED25519, "it is not a P-256 private key"),
        ("ed25519", _pem(ed25519.Ed25519PrivateKey.generate(), b"pw"), "it is an encrypted PEM"),
        ("ed25519", PUBLIC_PEM, "it is a public key"),
        ("ed25519", ED25519.replace("PRIVATE KEY", "CERTIFICATE"), "it is a certificate"),
        ("ed25519", ED25519.replace("PRIVATE KEY", "OPENSSH PRIVATE KEY"), "it is an OpenSSH key"),
        ("ed25519", '{"keys": []}', "the JWK Set has no key"),
        ("hmac-sha256", '{"kty": "oct", "k": "c2hvcnQ"}', "it is shorter than 32 bytes"),
        ("hmac-sha256", JWK, "it is not a shared secret"),
    ],
    ids=[f"case {number}" for number in range(18)],
)
def test_signing_key_that_does_not_fit_is_refused(tmp_path: Path, algorithm: str, text: str, message: str) -> None:
    (line,) = error_lines(validated(tmp_path, {"signing.algorithm": algorithm}, {**ENVIRON, "SIGNING_SECRET": text}))
    assert line.startswith(f"signing.keys[0]: this key cannot be used for {algorithm}: {message}")
    assert "akoya-gateway keys new" in line


def test_disfigured_signing_key_is_refused_with_what_has_happened_to_it(tmp_path: Path) -> None:
    lines = ED25519.splitlines()
    damaged = {
        "it is a PEM in base64; decode it once": [base64.b64encode(ED25519.encode()).decode()],
        "it is a PEM without its first and last line": [lines[1], base64.b64encode(base64.b64decode(lines[1])).decode()],
        "it is a PEM without its first or last line": ["\n".join(lines[:-1]), "\n".join(lines[1:])],
        "it is a PEM with characters that are not ASCII": [ED25519.replace("-----", "\u2014" * 5), ED25519.replace(" ", "\u00a0")],
        "it is a PEM whose lines are damaged": [ED25519.replace("\n", "%0A"), ED25519.replace(lines[1], lines[1][:-9])],
        "it is the path of a file; name the file with `file`": ["/run/secrets/key.pem", "./key.pem", "~/key.pem", "file:///k"],
    }  # fmt: skip
    for message, texts in damaged.items():
        for text in texts:
            environ = {**ENVIRON, "SIGNING_SECRET": text}
            (line,) = error_lines(validated(tmp_path, {"signing.algorithm": "ed25519"}, environ))
            assert line.startswith(f"signing.keys[0]: this key cannot be used for ed25519: {message}")
            assert lines[1][5:] not in line
    for text in (ED25519.replace("\n", "\\\\n"), ED25519.replace("\n", "\\r\\n")):
        environ = {**ENVIRON, "SIGNING_SECRET": text}
        assert validated(tmp_path, {"signing.algorithm": "ed25519"}, environ).config is not None


def test_two_signing_keys_of_one_id_are_refused(tmp_path: Path) -> None:
    (line,) = error_lines(validated(tmp_path, {"signing.keys": [{"id": "k", "env": "SIGNING_SECRET"}] * 2}))
    assert line.startswith("signing.keys[1].id: the same key id is already in the list")


def test_check_without_secrets_validates_only_the_file(tmp_path: Path) -> None:
    validated(tmp_path, {})
    result = validate_config(tmp_path / "gateway.yaml", {}, secrets=NO_SECRETS)
    assert result.diagnostics == ()
    assert result.config is not None
    assert (result.config.sessions.keys, result.config.signing.keys) == ((), ())
    assert result.config.clients["demo-app"].client_secret.reveal() == ""


def test_no_secret_is_in_any_text_of_a_loaded_configuration(tmp_path: Path) -> None:
    result = validated(
        tmp_path, {"sessions.store": {"env": "STORE"}}, {**ENVIRON, "STORE": "redis://:a-store-password@cache/0"}
    )
    assert result.config is not None
    shown = repr(result) + str(result.config) + repr(result.config.clients["demo-app"])
    for secret in (*ENVIRON.values(), "a-store-password"):
        assert secret not in shown
    assert repr(bytes(range(32))) not in shown


@pytest.mark.parametrize(
    ("variable", "command"),
    [
        ("GATEWAY_KEY", "`akoya-gateway keys new --store`"),
        ("SIGNING_SECRET", "`akoya-gateway keys new --algorithm hmac-sha256`"),
    ],
)
def test_key_that_is_not_there_comes_with_the_command_that_makes_one(
    tmp_path: Path, variable: str, command: str
) -> None:
    environ = {name: value for name, value in ENVIRON.items() if name != variable}
    [diagnostic] = validated(tmp_path, {}, environ).diagnostics
    assert str(diagnostic).endswith(f"the environment variable {variable} is not set (set it; {command} makes one)")


MARK = "\ufeff"


def test_byte_order_mark_before_a_secret_is_dropped_with_a_warning(tmp_path: Path) -> None:
    for name, text in (("secret", "s3cret\r\n"), ("ring", RAW.hex()), ("jwk", JWK)):
        (tmp_path / name).write_text(MARK + text, "utf-8")
    changes = {
        "clients.demo-app.client_secret": {"file": "secret"},
        "sessions.keys": [{"file": "ring"}, {"env": "GATEWAY_KEY"}],
        "sessions.store": {"env": "STORE"},
        "signing": {"algorithm": "ed25519", "keys": [{"file": "jwk"}]},
        "admin": {"listen": "127.0.0.1:9090", "token_bearer": {"env": "BEARER"}},
    }
    environ = {**ENVIRON, "GATEWAY_KEY": MARK + RING_KEY, "STORE": MARK + "redis://cache/0", "BEARER": MARK + "b" * 32}
    result = validated(tmp_path, changes, environ)
    config = result.config
    assert config is not None, error_lines(result)
    assert config.clients["demo-app"].client_secret.reveal() == "s3cret"
    assert [key.key for key in config.sessions.keys] == [RAW, base64.b64decode(RING_KEY)]
    assert config.sessions.store == "redis://cache/0"
    assert config.signing.keys[0].material.reveal() == JWK
    assert config.token_bearer is not None
    assert config.token_bearer.reveal() == "b" * 32
    assert sum("a byte order mark before the secret is dropped" in line for line in warning_lines(result)) == 6


@pytest.mark.parametrize("text", [MARK, MARK + "\n"])
def test_secret_of_a_byte_order_mark_alone_is_empty(tmp_path: Path, text: str) -> None:
    (line,) = error_lines(validated(tmp_path, {}, {**ENVIRON, "CLIENT_SECRET": text}))
    assert line.startswith("clients.demo-app.client_secret.env: the environment variable CLIENT_SECRET is empty")


def test_secret_in_the_environment_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    """POSIX allows any bytes there. Python shows them as surrogates, which cannot be encoded."""
    environ = {
        **ENVIRON,
        "STORE": "redis://:s\udcff@cache/0",
        "CLIENT_SECRET": "s3cr\udcfft",
        "SIGNING_SECRET": "\udcfe" * 40,
    }
    lines = error_lines(validated(tmp_path, {"sessions.store": {"env": "STORE"}}, environ))
    assert sorted(line.split(": ")[0] for line in lines) == [
        "clients.demo-app.client_secret",
        "sessions.store",
        "signing.keys[0]",
    ]
    assert all("the secret is not UTF-8" in line for line in lines)


@pytest.mark.parametrize("character", ["\u200b", "\u2060", "\u00ad", "\u202e", MARK])
def test_invisible_character_in_a_secret_is_named(tmp_path: Path, character: str) -> None:
    for variable, path in (("CLIENT_SECRET", "clients.demo-app.client_secret"), ("SIGNING_SECRET", "signing.keys[0]")):
        (line,) = error_lines(validated(tmp_path, {}, {**ENVIRON, variable: ENVIRON[variable] + character}))
        assert line.startswith(f"{path}: the secret contains the invisible character U+{ord(character):04X}")


def test_shared_secret_with_a_byte_order_mark_is_refused_because_the_app_may_keep_it(tmp_path: Path) -> None:
    (line,) = error_lines(validated(tmp_path, {}, {**ENVIRON, "SIGNING_SECRET": MARK + ENVIRON["SIGNING_SECRET"]}))
    assert line.startswith("signing.keys[0]: the shared secret begins with a byte order mark")


def test_secret_file_in_utf_16_is_named(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("s3cret", "utf-16")
    (line,) = error_lines(validated(tmp_path, _with_file(tmp_path)))
    assert line.endswith("is UTF-16 (save it as UTF-8)")


@pytest.mark.parametrize(
    "written",
    [
        ED25519.strip().replace("\n", "\\n"),
        ED25519.replace("\n", "\\n") + "\n",
        ED25519.replace("\n", "\\r\\n"),
        '"' + ED25519.replace("\n", "\\n") + '"',
        "'" + ED25519 + "'",
        MARK + ED25519.replace("\n", "\\n"),
    ],
)
def test_pem_with_line_ends_written_as_backslash_n_is_read(tmp_path: Path, written: str) -> None:
    result = validated(tmp_path, {"signing.algorithm": "ed25519"}, {**ENVIRON, "SIGNING_SECRET": written})
    assert result.config is not None, error_lines(result)
    (key,) = load_schedule(result.config.signing.algorithm, result.config.signing.keys).keys
    (plain,) = load_schedule(result.config.signing.algorithm, (SigningKey("k1", Secret(ED25519)),)).keys
    assert key.public_jwk() == plain.public_jwk()


@pytest.mark.parametrize(
    "changes",
    [
        {"clients.demo-app.client_secret": "hunter2"},
        {"sessions.keys": ["hunter2"]},
        {"sessions.keys": "hunter2"},
        {"signing.keys": "hunter2"},
        {"sessions.store": "redis://:hunter2/x@h"},
        {"sessions.store": "hunter2://x"},
        {"public_url": "https://u:hunter2@h"},
        {"public_url": "ftp://u:hunter2/x@h"},
        {"environments.sandbox.jwks_uri": "https://u:hunter2#@h/k"},
        {"environments.sandbox.jwks_uri": "https//u:hunter2/@h/k"},
        {"upstream": {"url": "http://u:hunter2@127.0.0.1"}},
        {"upstream": {"url": "x://u:hunter2?@127.0.0.1"}},
        {"redirects.allow": ["https://u:hunter2@h/*"]},
        {"clients.demo-app.redirect_uri": "https://u:hunter2/@app.example.com/cb"},
        {"identity": {"jwt": {"jwks_uri": "https://u:hunter2@h", "issuer": "i", "audience": "a"}}},
    ],
)
def test_fault_shows_no_secret_that_stands_where_it_does_not_belong(tmp_path: Path, changes: dict[str, Any]) -> None:
    result = validated(tmp_path, changes)
    assert result.diagnostics
    assert not [line for line in (*error_lines(result), *warning_lines(result)) if "hunter2" in line]
