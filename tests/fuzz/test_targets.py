"""Run each target briefly with valid inputs that are cut, joined and mutated. For longer runs: `scripts/fuzz`."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fuzz.targets import FOUND, SEEDS, TARGETS

HOSTILE = [b"\x00", b"\xff", b"\r\n", b"%00", b"%2e", b"%25", b"/../", b"//", b"\\", b"..", b";", b"=", b",", b'"', b"{", b"[" * 300, b"}", b":", b" ", b"\t",
           b"akoya", b"Akoya-Owner", b"A" * 43, b"9" * 30, b"-1", b"1e999", b"NaN", b"\xc3\x28", b"\xed\xa0\x80", b"null", b"true", b"\n"]  # fmt: skip


@st.composite
def mutated(draw: st.DrawFn, seeds: list[bytes]) -> bytes:
    data = bytearray(draw(st.sampled_from(seeds)))
    for _ in range(draw(st.integers(0, 6))):
        at = draw(st.integers(0, len(data)))
        end = min(at + draw(st.integers(0, 12)), len(data))
        data[at:end] = draw(st.sampled_from(HOSTILE) | st.binary(max_size=8) | st.just(bytes(data[:40])))
    return bytes(data)


@pytest.mark.parametrize("name", TARGETS)
def test_target_holds(name: str) -> None:
    @settings(max_examples=settings().max_examples if settings._current_profile == "fuzz" else 120, deadline=None,
              suppress_health_check=list(HealthCheck))  # fmt: skip
    @given(mutated(SEEDS[name]) | st.binary(max_size=300))
    def holds(data: bytes) -> None:
        TARGETS[name](data)

    holds()


CASES = [(name, data) for name in TARGETS for data in [*SEEDS[name], *FOUND.get(name, [])]]


@pytest.mark.parametrize(("name", "data"), CASES, ids=[f"{name} {at}" for at, (name, _) in enumerate(CASES)])
def test_seeds_and_what_was_found_before(name: str, data: bytes) -> None:
    TARGETS[name](data)
    for end in range(0, len(data), max(len(data) // 40, 1)):
        TARGETS[name](data[:end])
