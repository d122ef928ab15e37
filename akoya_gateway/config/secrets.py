"""Reads secrets from environment variables and files, and checks their form and length.

No message ever contains a part of a secret. About the length of a secret, a message states only that it violates the
rule.
"""

from __future__ import annotations

import base64
import binascii
import codecs
import json
import re
import stat
import unicodedata
import warnings
from pathlib import Path as FilePath

from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePrivateKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from joserfc.jwk import JWKRegistry, OctKey

from akoya_gateway.config import CONFIG_VARIABLE
from akoya_gateway.config.diagnostics import did_you_mean, quoted
from akoya_gateway.config.model import EncryptionKey, SigningAlgorithm, SigningKey, key_id
from akoya_gateway.config.reader import Node
from akoya_gateway.secret import Secret

_MAX_FILE_BYTES = 64 * 1024
_BYTE_ORDER_MARK = "\ufeff"
"""The byte order mark that some editors add at the beginning of a file."""
_PLACEHOLDER = re.compile(r"\$\w+|\$\{[^}]*\}|\$\([^)]*\)|\{\{.*\}\}|<[^>]*>|change[-_]?me", re.ASCII | re.IGNORECASE)
_HEX = re.compile(r"[0-9a-fA-F]{64}")


def read_secret(node: Node | None) -> Secret | None:
    """Return the secret that `{env: NAME}` or `{file: path}` refers to, or None.

    A leading byte order mark is removed with a warning. Every secret passes through this check, so no other code has to
    expect invisible characters.

    Returns:
        The secret. None if `node` is None, if the reader does not read this secret, or after an error was reported.
    """
    text = _written(node)
    return None if node is None or text is None else _cleaned(node, text)


def _cleaned(node: Node, text: str) -> Secret | None:
    if text.startswith(_BYTE_ORDER_MARK):
        text = text.removeprefix(_BYTE_ORDER_MARK)
        node.warn("a byte order mark before the secret is dropped", "save it as UTF-8 without BOM")
    if any("\ud800" <= each <= "\udfff" for each in text):
        node.error("the secret is not UTF-8", "save it as UTF-8, or set it in a UTF-8 environment")
        return None
    if unseen := _invisible(text):
        node.error(f"the secret contains the invisible character {unseen}", "type it again, or copy it from its source")
        return None
    return Secret(text)


def _invisible(text: str) -> str | None:
    """Return the first format character (zero-width space, direction mark, byte order mark) as U+XXXX, or None."""
    found = next((each for each in text if unicodedata.category(each) == "Cf"), None) if not text.isascii() else None
    return None if found is None else f"U+{ord(found):04X}"


def _written(node: Node | None) -> str | None:
    """Return the text of a secret as it is in the environment or file, or None as `read_secret` does.

    One line end at the end of a file is removed.
    """
    if node is None or not node.reader.reads(node.path):
        return None
    if (variable := node.get("env")) is not None:
        return _from_environment(variable)
    if (file := node.get("file")) is not None:
        return _from_file(file)
    if node.is_missing("env") and node.is_missing("file"):
        node.error("expected {env: NAME} or {file: path}, but nothing is given")
    return None


def _from_environment(node: Node) -> str | None:
    name: str = node.value
    text = node.reader.environ.get(name)
    if text is None:
        remedy = did_you_mean(name, _same_secret(node)) or _with_hint(node, "set it")
        node.error(f"the environment variable {name} is not set", remedy)
        return None
    if not text.removeprefix(_BYTE_ORDER_MARK).strip():
        node.error(f"the environment variable {name} is empty", _with_hint(node, "set it"))
        return None
    return text


def _with_hint(node: Node, remedy: str) -> str:
    """Add the command that generates the key, if the secret is one of the gateway's own keys.

    Other secrets come from Akoya.
    """
    maker = _maker(node)
    return f"{remedy}; {maker}" if maker else remedy


def _maker(node: Node) -> str | None:
    """Return the command that generates the key at or above the node. None if the secret is not one of our keys."""
    written = f" --out {node.value}" if node.path[-1] == "file" else ""
    if node.path[:2] == ("sessions", "keys"):
        return f"`akoya-gateway keys new --store{written}` makes one"
    if node.path[:2] == ("signing", "keys"):
        algorithm = node.reader.top().section("signing").plain("algorithm")
        wanted = "" if algorithm == SigningAlgorithm.ED25519.value else f" --algorithm {algorithm}"
        return f"`akoya-gateway keys new{wanted}{written}` makes one"
    return None


def _same_secret(node: Node) -> list[str]:
    return [name for name in node.reader.environ if name.startswith("AKOYA") and name != CONFIG_VARIABLE]


def _from_file(node: Node) -> str | None:
    path: FilePath = node.reader.folder / node.value
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):  # Reading a pipe could block forever.
            node.error(f"{quoted(str(path))} is not a file", "name a file that holds the secret")
            return None
        with path.open("rb") as file:
            content = file.read(_MAX_FILE_BYTES + 1)
        text = content.decode()
    except FileNotFoundError:
        remedy = _with_hint(node, "names are relative to the folder of this configuration")
        node.error(f"there is no file {quoted(str(path))}", remedy)
        return None
    except UnicodeDecodeError:
        if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
            node.error(f"{quoted(str(path))} is UTF-16", "save it as UTF-8")
        else:
            node.error(f"{quoted(str(path))} is not text in UTF-8", "store the secret as text (keys in base64)")
        return None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "not a usable file name"
        node.error(f"{quoted(str(path))} cannot be read: {reason}", "check owner and mode")
        return None
    if len(content) > _MAX_FILE_BYTES:
        node.error(f"{quoted(str(path))} is larger than 64 KiB", "is it the right file?")
        return None
    mode = stat.S_IMODE(status.st_mode)
    if mode & 0o077:
        node.warn(f"others may read the secret file {quoted(str(path))} (mode {mode:04o})", "chmod 0600")
    text = text.removesuffix("\n").removesuffix("\r")
    if not text.removeprefix(_BYTE_ORDER_MARK).strip():
        node.error(f"{quoted(str(path))} is empty", "put the secret there")
        return None
    return text


def read_password(node: Node | None) -> Secret | None:
    """Read a secret that is sent in a header or form. It must have no surrounding spaces and no control characters."""
    secret = read_secret(node)
    if node is None or secret is None:
        return None
    text = secret.reveal()
    if text != text.strip():
        node.error("the secret begins or ends with a space or line end", "store it without")
        return None
    if not text.isprintable():
        node.error("the secret contains a line end, a tab or another control character", "store it without")
        return None
    _warn_of_form(node, text)
    return secret


def _warn_of_form(node: Node, text: str) -> None:
    """Warn about a secret in quotes, or a placeholder. Both are used as they are.

    A shell removes quotes; a Docker env file and a mounted file keep them. Kubernetes keeps `$(NAME)` if there is no
    such variable, and a Docker env file keeps `$NAME`.
    """
    if len(text) > 2 and text[0] == text[-1] and text[0] in "\"'":
        node.warn("the secret begins and ends with a quotation mark, which is used as part of it", "remove the quotes")
    elif _PLACEHOLDER.fullmatch(text):
        node.warn("the secret looks like a placeholder that was not replaced", "set the secret itself")


def parse_encryption_key(text: str) -> EncryptionKey:
    """Parse a 32-byte key from 64 hex digits or from base64 (either alphabet, padding optional).

    Raises:
        ValueError: the text is not such a key, or the key is obviously not random.
    """
    raw = bytes.fromhex(text) if _HEX.fullmatch(text) else _base64(text)
    if len(raw) != 32:
        raise ValueError("it must be exactly 32 bytes, in base64 or hex")
    if len(set(raw)) < 8:
        raise ValueError("it is not random")
    return EncryptionKey(key_id(raw), raw)


def _base64(text: str) -> bytes:
    plain = text.rstrip("=").replace("-", "+").replace("_", "/")
    try:
        return base64.b64decode(plain + "=" * (-len(plain) % 4), validate=True)
    except (binascii.Error, ValueError):
        raise ValueError("it must be exactly 32 bytes, in base64 or hex") from None


def read_encryption_key(node: Node) -> EncryptionKey | None:
    """Read a key of `sessions.keys`."""
    secret = read_secret(node)
    if secret is None:
        return None
    try:
        return parse_encryption_key(secret.reveal().strip())
    except ValueError as error:
        written_in = ", without quotes" if secret.reveal().strip()[:1] in ("'", '"') else ""
        node.error(f"this key cannot be used: {error}{written_in}", _maker(node))
        return None


def read_signing_key(node: Node, algorithm: SigningAlgorithm) -> SigningKey | None:
    """Read a key of `signing.keys`, and check that it suits the algorithm.

    A key without an `id` is identified by its thumbprint (see the `signing.keys` module).
    """
    identifier = node.get("id")
    written = _written(node)
    if written is None:
        return None
    if _is_shared(written, algorithm) and written.startswith(_BYTE_ORDER_MARK):
        # The app reads the same text. If it does not remove the mark as well, the two have different keys.
        remedy = "save it as UTF-8 without BOM, here and in the app"
        node.error("the shared secret begins with a byte order mark", remedy)
        return None
    secret = _cleaned(node, written)
    if secret is None:
        return None
    text = _with_line_ends(secret.reveal())
    if problem := _key_text_problem(text, algorithm):
        node.error(f"this key cannot be used for {algorithm.value}: {problem}", _maker(node))
        return None
    if _is_shared(text, algorithm):
        _warn_of_form(node, text.strip())
    return SigningKey(identifier.value if identifier else "", Secret(text))


def _is_shared(text: str, algorithm: SigningAlgorithm) -> bool:
    """Return True if the text is itself the shared secret, not a JWK that contains it."""
    return algorithm is SigningAlgorithm.HMAC_SHA256 and not text.removeprefix(_BYTE_ORDER_MARK).lstrip().startswith(
        "{"
    )


def _with_line_ends(text: str) -> str:
    r"""Restore the line breaks of a PEM in which they are written as the two characters `\n`.

    Docker env files and many dashboards store a PEM in this form, some of them in quotes. Neither backslashes nor
    quotes occur in a PEM. Other texts are returned unchanged.
    """
    plain = text.strip().strip("\"'")
    if not plain.startswith("-----BEGIN") or not ("\\" in plain or plain != text.strip()):
        return text
    return re.sub(r"\\+n", "\n", re.sub(r"\\+r", "", plain))


def _key_text_problem(text: str, algorithm: SigningAlgorithm) -> str | None:
    """Return the reason why the key does not suit the algorithm, or None if it does."""
    if _is_shared(text, algorithm):
        if text.lstrip().startswith("-----BEGIN"):
            return "it is a PEM, not a shared secret"
        return "it is shorter than 32 bytes" if len(text.strip().encode()) < 32 else None
    try:
        keys = _private_keys(text)
    except Exception:  # The parsers raise many types of exceptions for invalid text.
        return _unreadable_key_problem(text.strip())
    if not keys:
        return "the JWK Set has no key"
    return next((fault for key in keys if (fault := _key_problem(key, algorithm))), None)


def _unreadable_key_problem(text: str) -> str:
    """Return what is wrong with a text that no parser accepts as a private key. Quotes nothing of it."""
    if (other := _OTHER_PEM.get(_label(text))) is not None:
        return other
    if "PRIVATE" in text and "KEY" in text:
        if not text.isascii():
            return "it is a PEM with characters that are not ASCII; an editor has replaced its hyphens or spaces"
        if "-----END" not in text or "-----BEGIN" not in text:
            return "it is a PEM without its first or last line"
        return "it is a PEM whose lines are damaged"
    if re.fullmatch(r"(?:file:|~?/|\.\.?/)\S{1,500}", text):
        return "it is the path of a file; name the file with `file` instead of `env`"
    packed = _BASE64_OF.get(text[:3]) if re.fullmatch(r"[A-Za-z0-9+/=\s]{40,}", text) else None
    return packed or "it is not a PEM or JWK of an unencrypted private key"


_BASE64_OF = {
    "LS0": "it is a PEM in base64; decode it once",
    "MC4": "it is a PEM without its first and last line",
    "MIG": "it is a PEM without its first and last line",
    "MHc": "it is a PEM without its first and last line",
}
"""What a text in base64 is, by its first characters: `---` of a PEM, and the DER of PKCS #8 and SEC 1 keys."""

_OTHER_PEM = {
    "ENCRYPTED PRIVATE KEY": "it is an encrypted PEM, and no password can be given",
    "PUBLIC KEY": "it is a public key; the private one signs",
    "CERTIFICATE": "it is a certificate, not a private key",
    "OPENSSH PRIVATE KEY": "it is an OpenSSH key; convert it to PKCS #8 (ssh-keygen -p -m PKCS8)",
}


def _label(text: str) -> str:
    """Return the label of a PEM (RFC 7468 section 2), or an empty string if the text is not a PEM."""
    found = re.match(r"\s*-----BEGIN ([A-Z0-9 ]{1,40})-----", text)
    return found[1] if found else ""


def _key_problem(key: object, algorithm: SigningAlgorithm) -> str | None:
    if algorithm is SigningAlgorithm.HMAC_SHA256:
        if not isinstance(key, bytes):
            return "it is not a shared secret"
        return "it is shorter than 32 bytes" if len(key) < 32 else None
    if algorithm is SigningAlgorithm.ED25519:
        return None if isinstance(key, Ed25519PrivateKey) else "it is not an Ed25519 private key"
    fits = isinstance(key, EllipticCurvePrivateKey) and isinstance(key.curve, SECP256R1)
    return None if fits else "it is not a P-256 private key"


def _private_keys(text: str) -> list[object]:
    """Return the keys in a PEM, a JWK or a JWK Set (RFC 7517 section 5).

    A shared secret is returned as bytes, a public key as None.
    """
    if not text.lstrip().startswith("{"):
        return [load_pem_private_key(text.encode(), password=None)]
    document = json.loads(text)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # joserfc warns about short secrets, which are reported as errors here.
        keys = [JWKRegistry.import_key(jwk) for jwk in document.get("keys", [document])]
    return [key.raw_value if isinstance(key, OctKey) else key.private_key for key in keys]


def existing_file(node: Node | None) -> FilePath | None:
    """Return the path of a file, such as a certificate. Report an error and return None if there is no such file."""
    if node is None:
        return None
    path: FilePath = node.reader.folder / node.value
    try:
        there = path.is_file()
    except (OSError, ValueError):
        there = False
    if not there:
        node.error(f"there is no file {quoted(str(path))}", "names are relative to the folder of this configuration")
        return None
    return path
