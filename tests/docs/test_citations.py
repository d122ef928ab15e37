"""Every page and section of the documentation that code, tests and pages cite exists."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.markdown import ROOT, prose

FOLDERS = ("akoya_gateway", "akoya-verify", "tests", "benchmarks", "docs")
ENDINGS = (".py", ".md", ".yaml", ".yml", ".json", ".conf", ".lua", ".mjs")

# A comment or docstring may break a citation over two lines.
_SPACE = r"`?[\s#]+"
_CITATION = re.compile(
    rf"docs/(?P<page>[a-z-]+)\.md{_SPACE}sections?{_SPACE}(?P<sections>\d+[a-z]?(?:(?:,\s*|{_SPACE}(?:and|or|to){_SPACE})\d+[a-z]?)*)"
)
_PAGE = re.compile(r"(?<![\w/.-])docs/([a-z-]+\.md)\b")
_OLD_FORM = re.compile(r"(?<![\w/(\[.-])(?:design|akoya|peers)\.md\b(?![)#\]])")
"""Pages cited without their folder. A Markdown link such as `[design.md](design.md)` is not a citation."""


def cited_files() -> Iterator[Path]:
    for folder in FOLDERS:
        for path in sorted((ROOT / folder).rglob("*")):
            if path.suffix in ENDINGS and "node_modules" not in path.parts and path != Path(__file__):
                yield path


FILES = [(path, path.read_text("utf-8")) for path in cited_files()]


def headings(page: Path) -> set[str]:
    """Return the numbers of the numbered headings of a page: `4` of `## 4. ...`, `1a` of `### 1a. ...`."""
    return set(re.findall(r"^#{2,3} (\d+[a-z]?)\. ", prose(page.read_text("utf-8")), re.MULTILINE))


def citations(text: str) -> Iterator[tuple[str, str]]:
    """Yield (page, section) of each citation; `sections 1 and 4` cites two."""
    for found in _CITATION.finditer(text):
        for section in re.findall(r"\d+[a-z]?", found["sections"]):
            yield found["page"], section


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("(docs/akoya.md section 4)", [("akoya", "4")]),
        ("`docs/akoya.md` sections 1 and 4).", [("akoya", "1"), ("akoya", "4")]),
        ("docs/akoya.md sections 1, 2 and 1a", [("akoya", "1"), ("akoya", "2"), ("akoya", "1a")]),
        ("see docs/design.md\n# section 7, invariant 4", [("design", "7")]),
        ("RFC 6749 section 4", []),
    ],
)
def test_citation_is_found_in_every_form(text: str, expected: list[tuple[str, str]]) -> None:
    assert list(citations(text)) == expected


def test_every_cited_section_exists() -> None:
    missing, found = [], 0
    for path, text in FILES:
        for name, section in citations(text):
            found += 1
            page = ROOT / "docs" / f"{name}.md"
            if not page.exists() or section not in headings(page):
                missing.append(f"{path.relative_to(ROOT)}: docs/{name}.md section {section}")
    assert missing == []
    assert found > 20


def test_every_cited_page_exists() -> None:
    missing = [
        f"{path.relative_to(ROOT)}: docs/{name}"
        for path, text in FILES
        for name in _PAGE.findall(text)
        if not (ROOT / "docs" / name).exists()
    ]
    assert missing == []


def test_no_page_is_cited_without_its_folder() -> None:
    wrong = [
        f"{path.relative_to(ROOT)}:{text.count(chr(10), 0, found.start()) + 1}: {found[0]}"
        for path, text in FILES
        for found in _OLD_FORM.finditer(text)
    ]
    assert wrong == []
