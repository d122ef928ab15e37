"""The wheel contains the schema, and no development files."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    ignore = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "akoya_gateway", source / "akoya_gateway", ignore=ignore)
    shutil.copytree(ROOT / "schema", source / "schema")
    for ours in ("benchmarks", "tests"):
        (source / ours).mkdir()
        (source / ours / "__init__.py").touch()
    code = "from hatchling.build import build_wheel; print(build_wheel(__import__('sys').argv[1]))"
    done = subprocess.run(
        [sys.executable, "-c", code, str(out)], cwd=source, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    (built,) = out.glob("*.whl")
    return built


def test_the_wheel_holds_the_schema_as_it_is(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        shipped = archive.read("akoya_gateway/config/gateway.schema.json")
    assert shipped == (ROOT / "schema" / "gateway.schema.json").read_bytes()


def test_the_wheel_holds_the_package_alone(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        tops = {name.partition("/")[0] for name in archive.namelist()}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"akoya_gateway"}


def test_an_installed_wheel_checks_a_file(wheel: Path, tmp_path: Path) -> None:
    """The wheel is unpacked elsewhere, where no checkout can be imported."""
    site = tmp_path / "site"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]);"
        "import akoya_gateway; assert akoya_gateway.__file__.startswith(sys.argv[1]);"
        "from akoya_gateway.config.loader import validate_config;"
        "from akoya_gateway.config.reader import NO_SECRETS;"
        "print(*validate_config(sys.argv[2], {}, secrets=NO_SECRETS).diagnostics)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(site), str(ROOT / "gateway.yaml")],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout.strip()) == (0, ""), done.stderr


def test_an_installed_wheel_writes_a_configuration_outside_of_a_clone(wheel: Path, tmp_path: Path) -> None:
    site = tmp_path / "site"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    code = "import sys; sys.path.insert(0, sys.argv.pop(1)); from akoya_gateway.cli import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code, str(site), "init", "new", "--environment", "emulator"],
        cwd=tmp_path, capture_output=True, stdin=subprocess.DEVNULL, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "new" / "gateway.schema.json").read_bytes() == (
        ROOT / "schema" / "gateway.schema.json"
    ).read_bytes()
    assert (tmp_path / "new" / "gateway.yaml").is_file()
