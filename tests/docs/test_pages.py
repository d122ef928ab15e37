"""Everything that the documentation shows or names exists: configurations, links, anchors, options, settings."""

from __future__ import annotations

import ast
import importlib
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import click
import pytest
import yaml

from akoya_gateway.cli import app
from akoya_gateway.config.loader import validate_config
from akoya_gateway.config.reader import NO_SECRETS
from akoya_gateway.config.schema_validation import load_schema
from tests.support.markdown import ROOT, Block, blocks, commands, pages, pattern, prose, trimmed

PAGES = pages()
SCHEMA = load_schema()

each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))


def configurations() -> Iterator[tuple[Path, Block]]:
    for page in PAGES:
        for block in blocks(page.read_text()):
            if block.language == "yaml" and re.search("^version: 1$", block.text, re.MULTILINE):
                yield page, block


@pytest.mark.parametrize(
    ("page", "block"), list(configurations()), ids=lambda each: str(each.line if isinstance(each, Block) else each.name)
)
def test_every_whole_configuration_is_fine(page: Path, block: Block, tmp_path: Path) -> None:
    file = tmp_path / "gateway.yaml"
    file.write_text(block.text)
    assert validate_config(file, {}, secrets=NO_SECRETS).diagnostics == ()


def test_there_are_configurations_to_look_at() -> None:
    assert {page.name for page, _ in configurations()} >= {"README.md", "tutorial.md"}


@each_page
def test_every_part_of_a_configuration_has_keys_of_the_schema(page: Path) -> None:
    """Fragments begin with a top-level key, or belong to another program."""
    for block in blocks(page.read_text()):
        if block.language != "yaml" or "apiVersion" in block.text:
            continue
        part = yaml.safe_load(block.text)
        if isinstance(part, dict) and set(part) & set(SCHEMA["properties"]):
            assert set(part) <= set(SCHEMA["properties"]), f"{page.name}:{block.line}"


def shown_commands() -> list[tuple[str, str]]:
    """Return the commands of all pages but the tutorial (test_tutorial.py); they use gateway.yaml as it is."""
    texts = [page.read_text() for page in PAGES if page.name != "tutorial.md"]
    return [
        pair for text in texts for block in blocks(text) if block.language == "console" for pair in commands(block.text)
    ]


@pytest.mark.parametrize(("command", "shown"), shown_commands())
def test_command_prints_what_is_shown(command: str, shown: str) -> None:
    environ = {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "COLUMNS": "120"}
    done = subprocess.run(
        ["bash", "-c", command], cwd=ROOT, env=environ, capture_output=True, text=True, timeout=60, check=False
    )
    assert pattern(shown).fullmatch(trimmed(done.stdout)), done.stdout + done.stderr


def test_readme_links_every_page_of_the_documentation() -> None:
    readme = (ROOT / "README.md").read_text()
    links = {link.partition("#")[0] for link in re.findall(r"\]\(([^)\s]+)\)", readme)}
    assert {f"docs/{page.name}" for page in (ROOT / "docs").glob("*.md")} - links == set()


def slug(heading: str) -> str:
    """Return the anchor that GitHub generates for a heading."""
    plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).replace("`", "")
    return re.sub(r"[^\w\- ]", "", plain.strip().lower()).replace(" ", "-")


def anchors(page: Path) -> set[str]:
    return {slug(heading) for heading in re.findall(r"^#{1,6} (.+)$", prose(page.read_text()), re.MULTILINE)}


@each_page
def test_every_link_leads_somewhere(page: Path) -> None:
    lost = []
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(page.read_text())):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = unquote(target).partition("#")
        file = (page.parent / name).resolve() if name else page
        if not file.exists() or (anchor and anchor not in anchors(file)):
            lost.append(target)
    assert not lost


@each_page
def test_python_examples_parse_and_import_what_is_there(page: Path) -> None:
    for block in blocks(page.read_text()):
        if block.language != "python":
            continue
        for node in ast.walk(ast.parse(block.text, f"{page.name}:{block.line}")):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(("akoya_gateway", "akoya_verify")):
                module = importlib.import_module(node.module or "")
                assert [alias.name for alias in node.names if not hasattr(module, alias.name)] == []


def options() -> Mapping[str, set[str]]:
    """Return the options of each command, such as `keys new`."""
    found: dict[str, set[str]] = {}

    def visit(command: Any, path: str) -> None:
        found[path] = {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)}
        found[path].add("--help")
        if hasattr(command, "list_commands"):
            context = click.Context(command)
            for name in command.list_commands(context):
                visit(command.get_command(context, name), f"{path} {name}".strip())

    visit(app, "")
    return found


OPTIONS = options()


def mentions(text: str) -> Iterator[str]:
    """Yield the `akoya-gateway` command lines in blocks and in the prose."""
    for block in blocks(text):
        if block.language not in ("python", "yaml"):
            yield from re.findall(r"(?:^|[\s;&|(])(akoya-gateway [a-z][^\n#|&;)]*)", block.text.replace("\\\n", " "))
    yield from re.findall(r"`(akoya-gateway [a-z][^`]*)`", prose(text))


@each_page
def test_every_command_and_option_exists(page: Path) -> None:
    for line in mentions(page.read_text()):
        words = shlex.split(line.replace("'", "").replace("…", ""))[1:]
        deepest = " ".join(words[:2]) if " ".join(words[:2]) in OPTIONS else words[0]
        assert deepest in OPTIONS, line
        named = {word.partition("=")[0] for word in words if re.match(r"--?[a-z]", word)}
        assert named <= OPTIONS[deepest], line


@each_page
def test_options_mentioned_in_prose_exist(page: Path) -> None:
    ours = set().union(*OPTIONS.values())
    others = {
        "--limit-request-field-size",
        "--max-http-header-size",
        "--no-access-log",
        "--no-proxy-headers",
        "--root-path",
    }
    alone = re.findall(r"`(--[a-z][a-z-]*)(?:[ =][^`]*)?`", prose(page.read_text()))
    assert set(alone) - others <= ours


def settings(schema: Mapping[str, Any], path: str = "") -> Iterator[str]:
    """Yield the path of each setting, without user-chosen names: `sessions.cookie.name`, `environments.dialect`."""
    if "$ref" in schema:
        schema = {**SCHEMA["$defs"][schema["$ref"].rpartition("/")[2]], **schema}
    for choice in (*schema.get("anyOf", ()), *schema.get("oneOf", ())):
        yield from settings(choice, path)
    for key, below in schema.get("properties", {}).items():
        yield f"{path}.{key}".lstrip(".")
        yield from settings(below, f"{path}.{key}".lstrip("."))
    for below in (schema.get("items"), schema.get("additionalProperties")):
        if isinstance(below, dict):
            yield from settings(below, path)


SETTINGS = set(settings(SCHEMA))


@each_page
def test_every_setting_named_in_the_text_exists(page: Path) -> None:
    top = "|".join(SCHEMA["properties"])
    for named in re.findall(rf"`((?:{top})(?:\.[a-z_]+)+)`", prose(page.read_text())):
        assert named in SETTINGS or is_module(named), named


def is_module(named: str) -> bool:
    """Return True if a prefix of the dotted name is a module: `upstream.http.connection_pool.ConnectionPool`."""
    parts = named.split(".")
    return any(
        (ROOT / "akoya_gateway" / Path(*parts[:end])).with_suffix(".py").is_file() for end in range(2, len(parts) + 1)
    )
