"""Detects RSA keys that can be factored: ROCA, CVE-2017-15361.

Infineon's library generated primes of the form k * M + (65537 ** a mod M), where M is the product of the first primes.
The modulus of such a key is a power of 65537 modulo each of these primes (Nemec, Sys, Svenda, Klinec, Matyas: The
Return of Coppersmith's Attack, CCS 2017, section 2.2). Other moduli have this property by chance in about one of
2 ** 27 cases.
"""

from __future__ import annotations

_GENERATOR = 65537
_PRIMES = (
    3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37, 41, 43, 47, 53, 59, 61, 67, 71, 73, 79, 83, 89, 97, 101, 103, 107, 109,
    113, 127, 131, 137, 139, 149, 151, 157, 163, 167,
)  # fmt: skip
"""The primes of the smallest M (for 512-bit keys), which divides all larger ones."""


def _powers(prime: int) -> frozenset[int]:
    found, power = set[int](), 1
    while power not in found:
        found.add(power)
        power = power * _GENERATOR % prime
    return frozenset(found)


_SUBGROUPS = tuple((prime, _powers(prime)) for prime in _PRIMES)


def has_roca_fingerprint(modulus: int) -> bool:
    """Return True if the modulus has the structure of the weak keys."""
    return all(modulus % prime in powers for prime, powers in _SUBGROUPS)
