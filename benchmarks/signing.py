"""Measures the cost of signing per request and of verifying in the app, for every algorithm and scheme.

    python benchmarks/signing.py                      a table, in microseconds
    python benchmarks/signing.py --json signing.json  the table, and the numbers as JSON

Runs in one thread, without a network. It measures `PreparedHeaders.headers`, which the gateway calls for each request
(new nonce and signature); `Signer.prepare` with its first signature, which happens once per grant;
`akoya_verify` as an app calls it; and the stripping of a browser's headers. Each number is the median of
several rounds. `spread` is how much slower the slowest round was. The JWT is verified as if it were new each time.
Signing reuses it, as the gateway does.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

from cryptography.hazmat.backends.openssl import backend

import akoya_verify as v
from akoya_gateway.config.model import Signing, SigningAlgorithm, SigningKey, SigningScheme
from akoya_gateway.secret import Secret
from akoya_gateway.signing import ConnectionClaim, UpstreamClaims, jwks, key_generation, signer
from akoya_gateway.signing.header_names import strip

NOW = time.time()
BROWSER = [
    (b"host", b"app.example.com"),
    (b"connection", b"keep-alive"),
    (b"sec-ch-ua-platform", b'"Linux"'),
    (b"user-agent", b"Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 Chrome/142.0 Safari/537.36"),
    (b"accept", b"application/json"),
    (b"sec-fetch-site", b"same-origin"),
    (b"sec-fetch-mode", b"cors"),
    (b"referer", b"https://app.example.com/accounts"),
    (b"accept-encoding", b"gzip, deflate, br, zstd"),
    (b"accept-language", b"en-GB,en;q=0.9"),
    (b"cookie", b"theme=dark; __Host-akoya=0123456789abcdef0123456789abcdef"),
    (b"content-type", b"application/json"),
]


@dataclass
class Row:
    """The results of one scheme and algorithm."""

    scheme: str
    algorithm: str
    token_bytes: int
    added_bytes: int
    prepare_us: float
    sign_us: float
    verify_us: float
    spread_percent: float


def measure(work: Callable[[], object], rounds: int, seconds: float) -> tuple[float, float]:
    """Return the median microseconds per call, and by how many percent the slowest round exceeds it."""
    work()
    number = 1
    while (taken := _timed(work, number)) < seconds / 20:
        number *= 2
    number = max(1, int(number * seconds / taken))
    found = [_timed(work, number) / number * 1e6 for _ in range(rounds)]
    median = statistics.median(found)
    return median, (max(found) / median - 1) * 100


def _timed(work: Callable[[], object], number: int) -> float:
    began = time.perf_counter()
    for _ in range(number):
        work()
    return time.perf_counter() - began


def passed(token_bytes: int) -> UpstreamClaims:
    return UpstreamClaims(
        owner="3Jd9Qm1Zx0bYw8KfT2aVhQ",
        connections=(
            ConnectionClaim("mikomo", "live", int(NOW) + 900, "g_3q2-7wQBAgMEBQYHCAkKCw"),
            ConnectionClaim("second", "live", int(NOW) + 60, "g_AAECAwQFBgcICQoLDA0ODw"),
        ),
        rule="access[1] /api/banks/{connector}/*",
        connector="mikomo",
        environment="production",
        bearer=Secret("e" * token_bytes),
        expires_at=int(NOW) + 900,
        scope=("openid", "profile", "offline_access"),
    )


def row(scheme: SigningScheme, algorithm: SigningAlgorithm, token_bytes: int, rounds: int, seconds: float) -> Row:
    private = key_generation.generate_private_key(algorithm)
    config = Signing(scheme, algorithm, (SigningKey("k1", Secret(key_generation.as_text(private))),))
    made = signer(config, "https://app.example.com", "http://127.0.0.1:3000")
    facts = passed(token_bytes)
    prepared = made.prepare(facts)
    request = (b"GET", b"app.example.com", b"/api/banks/mikomo/balances", b"page=2&size=50")
    method, authority, path, query = (part.decode() for part in request)
    headers = [*BROWSER, *prepared.headers(*request, NOW)]
    keys = v.keys_of([v.secret_key("k1", private)]) if isinstance(private, bytes) else v.jwks_keys(jwks(config))
    issuer, audience = "https://app.example.com", "http://127.0.0.1:3000"

    def verifying() -> object:
        if scheme is SigningScheme.JWT:
            return v.verify_assertion(headers, keys, issuer, audience, NOW)
        return v.verify(method, authority, path, query, headers, keys, NOW)

    prepare = measure(lambda: made.prepare(facts).headers(*request, NOW), rounds, seconds)
    sign = measure(lambda: prepared.headers(*request, NOW), rounds, seconds)
    verify = measure(verifying, rounds, seconds)
    spread = max(prepare[1], sign[1], verify[1])
    return Row(scheme.value, algorithm.value, token_bytes, prepared.size, prepare[0], sign[0], verify[0], spread)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--token", type=int, nargs="+", default=[1200, 3000], metavar="BYTES", help="sizes of the id_token"
    )
    parser.add_argument("--rounds", type=int, default=7, help="rounds a number; the median is shown (7)")
    parser.add_argument("--seconds", type=float, default=0.2, help="length of a round (0.2)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the numbers there")
    chosen = parser.parse_args()

    machine = {
        "date": time.strftime("%Y-%m-%d"),
        "cpu": _cpu(),
        "cores": os.cpu_count(),
        "load": round(os.getloadavg()[0], 2),
        "python": platform.python_version(),
        "cryptography": version("cryptography"),
        "openssl": backend.openssl_version_text(),
    }
    print("  ".join(f"{name}: {value}" for name, value in machine.items()), end="\n\n")
    print(
        f"{'scheme':<24}{'algorithm':<20}{'token':>6}{'added':>7}{'once/grant':>12}{'sign':>8}{'verify':>9}{'spread':>8}"
    )
    rows = []
    for token_bytes in chosen.token:
        for scheme in SigningScheme:
            for algorithm in SigningAlgorithm:
                one = row(scheme, algorithm, token_bytes, chosen.rounds, chosen.seconds)
                rows.append(one)
                print(
                    f"{one.scheme:<24}{one.algorithm:<20}{one.token_bytes:>6}{one.added_bytes:>7}{one.prepare_us:>10.1f}us"
                    f"{one.sign_us:>6.1f}us{one.verify_us:>7.1f}us{one.spread_percent:>7.0f}%"
                )
    stripped, spread = measure(lambda: strip(BROWSER), chosen.rounds, chosen.seconds)
    print(f"\nstripping {len(BROWSER)} headers of a browser: {stripped:.2f}us (spread {spread:.0f}%)")
    if chosen.json:
        document = {"machine": machine, "rows": [asdict(one) for one in rows], "strip_us": stripped}
        chosen.json.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")


def _cpu() -> str:
    with Path("/proc/cpuinfo").open(encoding="utf-8") as lines:
        return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "unknown")


if __name__ == "__main__":
    main()
