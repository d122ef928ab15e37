"""Editors that use yaml-language-server complete every key of gateway.yaml from the schema."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from akoya_gateway.config.schema_validation import load_schema

SCHEMA = load_schema()
NODE = shutil.which("node")
SERVER = Path(sys.prefix) / "node" / "node_modules" / "yaml-language-server" / "bin" / "yaml-language-server"


def mappings(
    node: Mapping[str, Any], lines: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], Mapping[str, Any]]]:
    """Yield each mapping with fixed keys, with the YAML lines that lead to it; a list item begins with `- `."""
    if "$ref" in node:
        node = SCHEMA["$defs"][node["$ref"].rpartition("/")[2]]
    for branch in node.get("anyOf", ()):
        yield from mappings(branch, lines)
    if node.get("type") == "array":
        yield from mappings(node["items"], (*lines, "- "))
    for name, below in node.get("patternProperties", {}).items():
        if not name.startswith("^x-"):
            yield from mappings(below, (*lines, "a:"))
    if "properties" in node:
        yield lines, node
        for key, below in node["properties"].items():
            yield from mappings(below, (*lines, f"{key}:"))


def document(lines: tuple[str, ...]) -> tuple[str, int, int]:
    """Return a text in which the next thing to type is a key of the mapping, and its line and column (from 0)."""
    text, indent, prefix = "", 0, ""
    for line in lines:
        if line == "- ":
            prefix = "- "
        else:
            text += f"{' ' * indent}{prefix}{line}\n"
            indent, prefix = indent + len(prefix) + 2, ""
    last = " " * indent + prefix
    return text + last, text.count("\n") + 1, len(last)


class Editor:
    """A client of the language server: LSP 3.17 over standard input and output."""

    def __init__(self, folder: Path) -> None:
        assert NODE is not None
        self._process = subprocess.Popen(
            [NODE, SERVER, "--stdio"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=folder
        )
        self._number = 0
        self.request("initialize", {"processId": None, "rootUri": folder.as_uri(), "capabilities": {}})
        self._send({"method": "initialized", "params": {}})

    def stop(self) -> None:
        self._process.kill()
        self._process.communicate(timeout=30)

    def request(self, method: str, params: Any) -> Any:
        self._number += 1
        self._send({"id": self._number, "method": method, "params": params})
        while True:
            message = self._receive()
            if message.get("id") == self._number and "method" not in message:
                assert "error" not in message, message
                return message["result"]
            if "id" in message:  # A request of the server: for settings, or to register a capability.
                items = message.get("params", {}).get("items", [])
                self._send({"id": message["id"], "result": [{} for _ in items] or None})

    def notify(self, method: str, params: Any) -> None:
        self._send({"method": method, "params": params})

    def _send(self, message: dict[str, Any]) -> None:
        body = json.dumps({"jsonrpc": "2.0", **message}).encode()
        assert self._process.stdin is not None
        self._process.stdin.write(b"Content-Length: %d\r\n\r\n%b" % (len(body), body))
        self._process.stdin.flush()

    def _receive(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        length = 0
        while (line := self._process.stdout.readline()) != b"\r\n":
            assert line, "the language server has exited"
            if line.lower().startswith(b"content-length:"):
                length = int(line.split(b":")[1])
        message: dict[str, Any] = json.loads(self._process.stdout.read(length))
        return message

    def completions(self, uri: str, text: str, line: int, column: int) -> set[str]:
        self.notify(
            "textDocument/didOpen", {"textDocument": {"uri": uri, "languageId": "yaml", "version": 1, "text": text}}
        )
        found = self.request(
            "textDocument/completion", {"textDocument": {"uri": uri}, "position": {"line": line, "character": column}}
        )
        items = found["items"] if isinstance(found, dict) else found or []
        return {item["label"] for item in items}


@pytest.fixture
def editor(tmp_path: Path) -> Iterator[Editor]:
    if NODE is None or not SERVER.exists():
        pytest.skip("yaml-language-server is not installed (scripts/install test)")
    editor = Editor(tmp_path)
    yield editor
    editor.stop()


def test_every_key_is_completed(editor: Editor, tmp_path: Path) -> None:
    schema = tmp_path / "gateway.schema.json"
    schema.write_text(json.dumps(SCHEMA))
    missing = {}
    checked = 0
    for number, (lines, node) in enumerate(mappings(SCHEMA)):
        text, line, column = document(lines)
        modeline = f"# yaml-language-server: $schema={schema.as_uri()}\n"
        offered = editor.completions((tmp_path / f"{number}.yaml").as_uri(), modeline + text, line, column)
        checked += len(node["properties"])
        if left_out := set(node["properties"]) - offered:
            missing["/".join(lines)] = sorted(left_out)
    assert missing == {}
    assert checked > 100
