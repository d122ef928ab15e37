"""Keys in the forms that apps use: env files, and files from editors that write byte order marks."""

from __future__ import annotations

import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from akoya_verify.keys import pem_key, secret_key


@pytest.mark.parametrize("line_end", ["\\n", "\\r\\n", "\n"])
def test_pem_with_line_ends_written_as_backslash_n_is_read(line_end: str) -> None:
    public = ed25519.Ed25519PrivateKey.generate().public_key()
    pem = public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
    assert pem_key(pem.replace("\n", line_end)) == pem_key(pem)


def test_shared_secret_with_a_byte_order_mark_is_refused_as_the_gateway_does() -> None:
    with pytest.raises(ValueError, match="byte order mark"):
        secret_key("k", "\ufeff" + "s" * 32)
