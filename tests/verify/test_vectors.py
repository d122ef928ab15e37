from __future__ import annotations

import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

import akoya_verify as v
from tests.verify.mutations import every_byte_changed
from tests.verify.vectors import ASSERTIONS, MESSAGES, VECTORS, keys_in, verify_message


def check_claims(verified: v.Verified, expected: dict[str, Any]) -> None:
    claims = asdict(verified)
    claims["scope"] = list(claims["scope"])
    claims["connections"] = list(claims["connections"])
    assert {name: claims[name] for name in expected} == expected


def judge_assertion(one: dict[str, Any]) -> v.Verified:
    return v.verify_assertion(
        [(name, value) for name, value in one["headers"]],
        keys_in(ASSERTIONS),
        ASSERTIONS["issuer"],
        ASSERTIONS["audience"],
        one["now"],
        skew=ASSERTIONS["skew"],
    )


@pytest.mark.parametrize("case", MESSAGES["cases"], ids=lambda one: one["name"])
def test_signed_request_verifies_and_returns_the_signed_claims(case: dict[str, Any]) -> None:
    check_claims(verify_message(case), case["says"])


@pytest.mark.parametrize("attack", MESSAGES["attacks"], ids=lambda one: one["name"])
def test_forged_request_is_refused(attack: dict[str, Any]) -> None:
    with pytest.raises(v.NotVerified) as refused:
        verify_message(attack)
    assert refused.value.reason == attack["reason"]


@pytest.mark.parametrize("case", MESSAGES["cases"][:9], ids=lambda one: one["name"])
def test_no_byte_can_be_changed(case: dict[str, Any]) -> None:
    attacks = list(every_byte_changed(case))
    assert len(attacks) > 300
    for attack in attacks:
        with pytest.raises(v.NotVerified):
            verify_message(attack)


@pytest.mark.parametrize("case", ASSERTIONS["cases"], ids=lambda one: one["name"])
def test_assertion_verifies(case: dict[str, Any]) -> None:
    check_claims(judge_assertion(case), case["says"])


@pytest.mark.parametrize("attack", ASSERTIONS["attacks"], ids=lambda one: one["name"])
def test_forged_assertion_is_refused(attack: dict[str, Any]) -> None:
    with pytest.raises(v.NotVerified) as refused:
        judge_assertion(attack)
    assert refused.value.reason == attack["reason"]


def test_vectors_equal_the_output_of_the_generator(tmp_path: Path) -> None:
    source = (VECTORS / "generate.py").read_text(encoding="utf-8")
    (tmp_path / "generate.py").write_text(source, encoding="utf-8")
    subprocess.run([sys.executable, str(tmp_path / "generate.py")], check=True)
    for name in ("messages.json", "assertions.json"):
        assert (tmp_path / name).read_bytes() == (VECTORS / name).read_bytes(), name
