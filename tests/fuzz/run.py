"""Fuzz one target with Atheris, coverage-guided: `python -m tests.fuzz.run TARGET CORPUS [libFuzzer options]`."""

from __future__ import annotations

import sys
from pathlib import Path


def main() -> None:
    import atheris

    name, corpus = sys.argv[1], Path(sys.argv[2])
    with atheris.instrument_imports(include=["akoya_gateway"]):
        from tests.fuzz.targets import FOUND, SEEDS, TARGETS
    corpus.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate([*SEEDS[name], *FOUND.get(name, [])]):
        (corpus / f"seed-{number}").write_bytes(seed)
    atheris.Setup([sys.argv[0], str(corpus), f"-artifact_prefix={corpus}/crash-", *sys.argv[3:]], TARGETS[name])
    atheris.Fuzz()


if __name__ == "__main__":
    main()
