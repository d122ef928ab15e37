"""RFC 9421 Appendix B.2: the vectors of the three algorithms that the gateway uses."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization

import akoya_verify as v
from akoya_gateway.signing.algorithms import begin_signature
from akoya_verify import message_signatures, structured_fields

DOCUMENT: dict[str, Any] = json.loads(
    (Path(__file__).parent.parent / "vectors" / "rfc9421.json").read_text(encoding="utf-8")
)
VECTORS = DOCUMENT["vectors"]


def verifying_key(vector: dict[str, Any]) -> v.Key:
    text = DOCUMENT["keys"][vector["key"]]
    if vector["algorithm"] == "hmac-sha256":
        return v.secret_key(vector["key"], base64.b64decode(text))
    return v.pem_key(text, vector["key"])


@pytest.mark.parametrize("vector", VECTORS, ids=lambda one: one["name"])
def test_signature_of_the_rfc_verifies(vector: dict[str, Any]) -> None:
    key = verifying_key(vector)
    assert key.algorithm == vector["algorithm"]
    assert key.verifies(base64.b64decode(vector["signature"]), vector["base"].encode())
    assert not key.verifies(base64.b64decode(vector["signature"]), vector["base"].encode() + b" ")


@pytest.mark.parametrize("vector", [one for one in VECTORS if "input" in one], ids=lambda one: one["name"])
def test_signature_base_of_the_rfc_is_built(vector: dict[str, Any]) -> None:
    covered = structured_fields.parse_dictionary(f"sig={vector['input']}", "Signature-Input")["sig"]
    assert isinstance(covered, structured_fields.InnerList)
    names = tuple(str(item.value) for item in covered.items)
    request = DOCUMENT["request"]
    target = {"@method": request["method"], "@authority": request["authority"], "@path": request["path"]}
    headers = {name.lower(): [value] for name, value in request["headers"]}
    assert message_signatures.signature_base(names, target, headers, covered).decode() == vector["base"]


@pytest.mark.parametrize(
    "vector", [one for one in VECTORS if one["algorithm"] != "ecdsa-p256-sha256"], ids=lambda one: one["name"]
)
@pytest.mark.parametrize("split", [0, 1, 64, 100])
def test_gateway_makes_the_signature_of_the_rfc(vector: dict[str, Any], split: int) -> None:
    if "private" in vector:
        pem = DOCUMENT["keys"][vector["private"]].encode()
        private: Any = serialization.load_pem_private_key(pem, password=None)
    else:
        private = base64.b64decode(DOCUMENT["keys"][vector["key"]])
    base = vector["base"].encode()
    assert begin_signature(private, base[:split]).finish(base[split:]) == base64.b64decode(vector["signature"])
