"""Runs the gateway with the packages that an installation has, not with those of the benchmarks and the tests.

Several libraries import others if they are installed: structlog imports rich and twisted, httpcore imports h2. With
these, an idle worker takes 8 MB more.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Collection, Iterator
from importlib.metadata import Distribution, distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import akoya_gateway
import akoya_verify

EXTRAS = frozenset({"redis", "codings"})
"""The extras that the container image has."""
OPTIONS = ("-S", "-P")
"""Options of Python that leave only the packages on PYTHONPATH and the standard library."""
COMMAND = (sys.executable, *OPTIONS, "-m", "akoya_gateway")


def link_packages(folder: Path) -> dict[str, str]:
    """Create `folder` with a link to each required package, and return the variables to set.

    The gateway itself and akoya_verify are those of this tree. Bytecode is cached, as in an installation: the first
    start compiles the modules that have no bytecode yet.
    """
    folder.mkdir()
    for found in required("akoya-gateway", EXTRAS).values():
        for name in {file.parts[0] for file in found.files or ()} - {"..", "__pycache__", "akoya_gateway"}:
            (folder / name).symlink_to(Path(str(found.locate_file(name))))
    trees = [str(Path(str(package.__file__)).parents[1]) for package in (akoya_gateway, akoya_verify)]
    return {"PYTHONPATH": os.pathsep.join([*trees, str(folder)]), "PYTHONDONTWRITEBYTECODE": ""}


def required(name: str, extras: Collection[str] = ()) -> dict[str, Distribution]:
    """Return the distribution and all that it requires, directly or indirectly, by name."""
    found: dict[str, Distribution] = {}
    pending = [(name, frozenset(extras))]
    while pending:
        name, wanted = pending.pop()
        if (name := canonicalize_name(name)) not in found:
            found[name] = distribution(name)
            pending += _requirements(found[name], wanted)
    return found


def _requirements(of: Distribution, extras: frozenset[str]) -> Iterator[tuple[str, frozenset[str]]]:
    for text in of.requires or ():
        one = Requirement(text)
        if one.marker is None or any(one.marker.evaluate({"extra": extra}) for extra in extras | {""}):
            yield one.name, frozenset(one.extras)
