"""The wheels contain the schema and the types, no development files, and no file twice."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from email import message_from_bytes
from email.message import Message
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
    return build(source, out)


@pytest.fixture(scope="module")
def verify_wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    ignore = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "akoya-verify", source, ignore=ignore, dirs_exist_ok=True)
    return build(source, out)


def build(source: Path, out: Path) -> Path:
    code = "from hatchling.build import build_wheel; print(build_wheel(__import__('sys').argv[1]))"
    done = subprocess.run(
        [sys.executable, "-c", code, str(out)], cwd=source, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    (built,) = out.glob("*.whl")
    return built


def metadata(wheel: Path) -> Message:
    with zipfile.ZipFile(wheel) as archive:
        [name] = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
        return message_from_bytes(archive.read(name))


def test_wheel_holds_the_schema_as_it_is(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        shipped = archive.read("akoya_gateway/config/gateway.schema.json")
    assert shipped == (ROOT / "schema" / "gateway.schema.json").read_bytes()


def test_wheel_holds_the_package_alone(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        tops = {name.partition("/")[0] for name in archive.namelist()}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"akoya_gateway"}


def test_wheel_holds_the_templates_catalogues_and_assets(wheel: Path) -> None:
    folders = ("cli/templates", "responses/templates", "responses/locale", "sandbox/assets", "sandbox/templates")
    files = {
        path.relative_to(ROOT).as_posix()
        for folder in folders
        for path in (ROOT / "akoya_gateway" / folder).rglob("*")
        if path.is_file()
    }
    assert {Path(name).suffix for name in files} >= {".html", ".css", ".js", ".mo", ".j2"}
    with zipfile.ZipFile(wheel) as archive:
        assert files - set(archive.namelist()) == set()


def test_wheels_share_no_file_and_have_types_and_licenses(wheel: Path, verify_wheel: Path) -> None:
    names = [set(zipfile.ZipFile(built).namelist()) for built in (wheel, verify_wheel)]
    assert names[0] & names[1] == set()
    assert {"akoya_gateway/py.typed", "akoya_verify/py.typed"} <= names[0] | names[1]
    assert all(any(name.endswith("/licenses/LICENSE") for name in each) for each in names)
    assert (ROOT / "akoya-verify" / "LICENSE").read_bytes() == (ROOT / "LICENSE").read_bytes()


def test_gateway_requires_the_verifier_of_its_own_version(wheel: Path, verify_wheel: Path) -> None:
    gateway, verifier = metadata(wheel), metadata(verify_wheel)
    assert verifier["Version"] == gateway["Version"]
    assert f"akoya-verify=={gateway['Version']}" in gateway.get_all("Requires-Dist", [])
    assert [name for name in verifier.get_all("Requires-Dist", []) if "extra ==" not in name] == ["cryptography>=44"]


def test_installed_wheel_checks_a_file(wheel: Path, tmp_path: Path) -> None:
    """The wheel is unpacked elsewhere, where no checkout can be imported."""
    site = tmp_path / "site"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]);"
        "import akoya_gateway; assert akoya_gateway.__file__.startswith(sys.argv[1]);"
        "from akoya_gateway.config.loader import validate_config;"
        "from akoya_gateway.config.reader import NO_SECRETS;"
        "from akoya_gateway.responses.languages import load_language;"
        "assert load_language('es').gettext('Help') == 'Ayuda';"
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


def test_installed_wheel_writes_a_configuration_outside_of_a_clone(wheel: Path, tmp_path: Path) -> None:
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
