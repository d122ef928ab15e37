"""Assemble the root file system of the final stage: Python, the gateway, and the shared libraries that they need.

    python3 rootfs.py /opt/akoya-gateway /rootfs        as root, in the build stage

The result has no shell, no package manager and no other program, so that an attacker who can run code in the gateway
finds no tools. It runs with the standard library alone, before anything of it is copied.
"""

from __future__ import annotations

import os
import re
import shutil
import ssl
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

USER = 10001
LEFT_OUT = ("test", "idlelib", "ensurepip", "tkinter", "turtledemo", "lib2to3", "pydoc_data", "venv",
            "site-packages", "dist-packages", "__pycache__", "config-*", "activate*", "Activate*")  # fmt: skip


def main(venv: Path, root: Path) -> None:
    """Copy the virtual environment `venv` and all that it needs to `root`."""
    stdlib = Path(sysconfig.get_path("stdlib"))
    interpreter = venv / "bin" / "python"
    shutil.copytree(
        venv, root / venv.relative_to("/"), symlinks=True, ignore=shutil.ignore_patterns("activate*", "Activate*")
    )
    shutil.copytree(
        stdlib, root / stdlib.relative_to("/"), ignore=shutil.ignore_patterns(*LEFT_OUT), dirs_exist_ok=True
    )
    for program in links(interpreter):
        place(program, root)
    extensions = [*stdlib.rglob("*.so"), *venv.rglob("*.so")]
    for library in sorted(libraries([interpreter.resolve(), *extensions])):
        place(library, root)
    # For https upstreams with a certificate of a public authority. Akoya's are verified with certifi's list.
    authorities = Path(ssl.get_default_verify_paths().openssl_capath)
    if authorities.is_dir():
        shutil.copytree(authorities, root / authorities.relative_to("/"))
    for file in (Path("/etc/ld.so.cache"), Path("/etc/nsswitch.conf")):
        if file.exists():
            place(file, root)
    accounts(root)


def links(path: Path) -> Iterator[Path]:
    """Yield a path and all paths that its symbolic links lead to."""
    yield path
    while path.is_symlink():
        path = Path(os.path.normpath(path.parent / path.readlink()))
        yield path


def libraries(files: list[Path]) -> set[Path]:
    """Return the shared libraries that these programs and libraries load, with the dynamic loader itself."""
    # A library that is not for the dynamic loader makes ldd fail for that file alone.
    command = [shutil.which("ldd") or "ldd", *map(str, files)]
    shown = subprocess.run(command, capture_output=True, text=True, check=False).stdout  # noqa: S603 - paths of the image
    bundled = {path.name for path in files}
    found = {Path(name) for name in re.findall(r"(?:=> |^\s+)(/\S+) \(0x", shown, re.MULTILINE)}
    return {path for path in found if path.name not in bundled}


def place(file: Path, root: Path) -> None:
    """Copy a file or a symbolic link to the same path below `root`."""
    target = root / file.relative_to("/")
    target.parent.mkdir(parents=True, exist_ok=True)
    if not (target.exists() or target.is_symlink()):
        follow = not file.is_symlink() or "/lib" in str(file.parent)
        shutil.copy2(file, target, follow_symlinks=follow)


def accounts(root: Path) -> None:
    """Create the user, and the directories that the gateway writes to."""
    (root / "etc" / "passwd").write_text(
        f"root:x:0:0:root:/:/nonexistent\nakoya:x:{USER}:{USER}:Akoya Gateway:/var/lib/akoya-gateway:/nonexistent\n"
    )
    (root / "etc" / "group").write_text(f"root:x:0:\nakoya:x:{USER}:\n")
    for folder, mode, owner in (
        ("etc/akoya-gateway", 0o755, 0),
        ("run/secrets/akoya-gateway", 0o755, 0),
        ("tmp", 0o1777, 0),
        ("var/lib/akoya-gateway", 0o700, USER),
    ):
        path = root / folder
        path.mkdir(parents=True, exist_ok=True)
        path.chmod(mode)
        os.chown(path, owner, owner)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
