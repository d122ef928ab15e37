"""`akoya-gateway keys` as a user runs it."""

from __future__ import annotations

import base64
import json
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from akoya_gateway.cli import main
from tests.support.tiny_disk import fill, free, tiny_disk

__all__ = ["tiny_disk"]

CONFIG = """\
version: 1
public_url: http://localhost:8080
upstream: {url: http://127.0.0.1:3000}
environments: {sandbox: {preset: akoya-sandbox}}
clients:
  app:
    environment: sandbox
    client_id: {env: CLIENT_ID}
    client_secret: {env: CLIENT_SECRET}
    redirect_uri: http://localhost:8080/akoya/callback
connectors: {mikomo: {client: app}}
redirects: {after_connect: /, allow: [/]}
access: [{path: /*, require: nothing}]
sessions: {store: "memory://", keys: [{env: STORE_KEY}]}
signing:
  algorithm: ALGORITHM
  keys: KEYS
"""


class Shell:
    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder = folder
        self._monkeypatch = monkeypatch
        self._capsys = capsys
        monkeypatch.chdir(folder)
        monkeypatch.setenv("CLIENT_ID", "client")
        monkeypatch.setenv("CLIENT_SECRET", "a-secret-that-is-long-enough")
        monkeypatch.setenv("STORE_KEY", base64.b64encode(bytes(range(32))).decode())
        monkeypatch.setenv("COLUMNS", "200")

    def forget(self, name: str) -> None:
        self._monkeypatch.delenv(name)

    def keys(self, *arguments: str, code: int = 0) -> str:
        self._monkeypatch.setattr(sys, "argv", ["akoya-gateway", "keys", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        printed = self._capsys.readouterr()
        assert (ended.value.code or 0) == code, printed
        return str(printed.out + (printed.err if code else ""))

    def config(self, keys: str, algorithm: str = "ed25519") -> None:
        text = CONFIG.replace("ALGORITHM", algorithm).replace("KEYS", keys)
        (self.folder / "gateway.yaml").write_text(text, encoding="utf-8")

    def read(self, name: str) -> Any:
        return json.loads((self.folder / name).read_text(encoding="utf-8"))


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Shell:
    return Shell(tmp_path, monkeypatch, capsys)


def test_key_file_is_private_and_never_overwritten(shell: Shell) -> None:
    shell.keys("new", "--out", "k.pem")
    file = shell.folder / "k.pem"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    before = file.read_text()
    assert "PRIVATE KEY" in before
    assert "never overwritten" in shell.keys("new", "--out", "k.pem", code=1)
    assert file.read_text() == before
    assert "cannot be written" in shell.keys("new", "--out", "no/such/folder/k.pem", code=1)


def test_store_key_is_32_bytes_in_base64(shell: Shell) -> None:
    one, other = shell.keys("new", "--store"), shell.keys("new", "--store")
    assert len(base64.b64decode(one, validate=False)) == 32
    assert one != other


def test_wrong_usage_is_exit_code_2(shell: Shell) -> None:
    shell.keys("new", "--algorithm", "rsa", code=2)


@pytest.mark.parametrize("algorithm", ["ed25519", "ecdsa-p256-sha256", "hmac-sha256"])
def test_set_is_listed_published_and_rotated_in_place(shell: Shell, algorithm: str) -> None:
    shell.config("[{file: keys.json}]", algorithm)
    shell.keys("new", "--set", "-a", algorithm, "-o", "keys.json")
    (first,) = (jwk["kid"] for jwk in shell.read("keys.json")["keys"])
    assert f"signing  {first}  {algorithm}  signs" in shell.keys("list")

    output = shell.keys("rotate", "--in", "5h")
    second = shell.read("keys.json")["keys"][0]["kid"]
    assert second in output
    assert stat.S_IMODE((shell.folder / "keys.json").stat().st_mode) == 0o600
    listed = shell.keys("list")
    assert f"{first}  {algorithm}  signs" in listed
    assert f"{second}  {algorithm}  next, in 5 h" in listed

    published = [jwk["kid"] for jwk in json.loads(shell.keys("public"))["keys"]]
    assert published == ([] if algorithm == "hmac-sha256" else [first, second])
    secrets = [jwk.get("d") or jwk.get("k") for jwk in shell.read("keys.json")["keys"]]
    for command in (("public",), ("public", "--pem"), ("list",)):
        printed = shell.keys(*command)
        assert not any(secret in printed for secret in secrets)

    shell.keys("rotate", "--if-older-than", "30d")
    assert len(shell.read("keys.json")["keys"]) == 2
    shell.keys("rotate", "--in", "0s", "--if-older-than", "0s", code=0)
    assert len(shell.read("keys.json")["keys"]) == 3


def test_plain_keys_are_rotated_by_hand_with_the_lines_to_write(shell: Shell) -> None:
    shell.config("[{id: k1, file: k1.pem}]")
    shell.keys("new", "--out", "k1.pem")
    output = shell.keys("rotate")
    (made,) = shell.folder.glob("signing-*.pem")
    assert f"file: {made.name}" in output
    assert stat.S_IMODE(made.stat().st_mode) == 0o600
    line = next(line.strip() for line in output.splitlines() if line.strip().startswith("- {id:"))
    shell.config("\n    " + line + "\n    - {id: k1, file: k1.pem}")
    listed = shell.keys("list").splitlines()
    assert "signs" in listed[0]
    assert "k1" in listed[1]
    assert "published" in listed[1]
    assert shell.keys("public", "--pem").count("BEGIN PUBLIC KEY") == 2


def test_faulty_configuration_is_exit_code_1_with_one_line_for_each_fault(shell: Shell) -> None:
    shell.config("[{id: k1, file: gone.pem}]")
    assert "gateway.yaml:" in shell.keys("list", code=1)
    shell.keys("rotate", "--in", "soon", code=1)
    shell.config("[{id: k1, file: k1.pem}]")
    shell.keys("new", "--out", "k1.pem")
    shell.keys("rotate", "--in", "soon", code=2)


def test_two_rotations_at_once_make_two_keys(shell: Shell) -> None:
    shell.config("[{file: keys.json}]")
    shell.keys("new", "--set", "-o", "keys.json")
    command = [sys.executable, "-c", "from akoya_gateway.cli import main; main()", "keys", "rotate"]
    running = [subprocess.Popen(command, cwd=shell.folder, stdout=subprocess.DEVNULL) for _ in range(2)]
    assert [one.wait(60) for one in running] == [0, 0]
    assert len({jwk["kid"] for jwk in shell.read("keys.json")["keys"]}) == 3


def test_keys_on_a_full_disk_are_not_written_in_part_and_the_old_ones_stay(shell: Shell, tiny_disk: Path) -> None:
    """A key file that was left empty would keep the next attempt from creating it: keys are never overwritten."""
    keys, new = tiny_disk / "keys.json", tiny_disk / "new.pem"
    shell.config(f"[{{file: {keys}}}]")
    shell.keys("new", "--set", "--out", str(keys))
    before = keys.read_bytes()
    fill(tiny_disk)
    shell.forget("STORE_KEY")  # only the signing keys are needed
    assert "No space left on device" in shell.keys("rotate", code=1)
    assert "No space left on device" in shell.keys("new", "--out", str(new), code=1)
    assert keys.read_bytes() == before
    assert {path.name for path in tiny_disk.iterdir()} <= {"keys.json", "ballast", ".keys.json.lock"}
    free(tiny_disk)
    shell.keys("rotate")
    shell.keys("new", "--out", str(new))
    assert keys.read_bytes() != before
    before = keys.read_bytes()
    subprocess.run(["mount", "-o", "remount,ro", str(tiny_disk)], check=True)
    assert "Read-only file system" in shell.keys("rotate", code=1)
    assert keys.read_bytes() == before
