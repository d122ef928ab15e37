"""The message catalogues of the pages: extraction, update and compilation with Babel.

`scripts/translations` runs this module: it adds new messages to each catalogue, removes those that no page uses any
more, and compiles the catalogues.
"""

from __future__ import annotations

import io
import re
from gettext import GNUTranslations
from pathlib import Path

from babel.messages.catalog import Catalog
from babel.messages.extract import extract_from_file
from babel.messages.mofile import write_mo
from babel.messages.pofile import read_po, write_po

PACKAGE = Path(__file__).parents[2] / "akoya_gateway"
LOCALE = PACKAGE / "responses" / "locale"
TEMPLATES = PACKAGE / "responses" / "templates"
CATALOGUES = sorted(LOCALE.glob("*/LC_MESSAGES/pages.po"))

_PYTHON = {"gettext": None, "gettext_noop": None, "ngettext_noop": (1, 2)}
_TEMPLATE = {"_": None, "gettext": None, "ngettext": (1, 2)}


def extract() -> Catalog:
    """Return all messages of the pages, in the order of files and lines."""
    catalog = Catalog()
    for path in (*sorted(PACKAGE.rglob("*.py")), *sorted(TEMPLATES.glob("*.html"))):
        html = path.suffix == ".html"
        if not html and "gettext" not in path.read_text():
            continue
        found = extract_from_file(
            "jinja2" if html else "python",
            path,
            keywords=_TEMPLATE if html else _PYTHON,
            options={"encoding": "utf-8"},
        )
        for _, message, _, _ in found:
            if message:
                catalog.add(message, locations=[(path.relative_to(PACKAGE).as_posix(), 0)])
    return catalog


def read(path: Path) -> Catalog:
    with path.open("rb") as file:
        return read_po(file, locale=path.parts[-3])


def compiled(path: Path) -> bytes:
    buffer = io.BytesIO()
    write_mo(buffer, read(path))
    return buffer.getvalue()


def messages(compiled_catalogue: bytes) -> dict[object, str]:
    """Return what a program finds in a compiled catalogue, without the header, which names Babel's version and a date."""
    found = dict(vars(GNUTranslations(io.BytesIO(compiled_catalogue)))["_catalog"])
    del found[""]
    return found


def update(path: Path) -> None:
    """Add the messages that the catalogue lacks, with an empty translation, drop unused ones, and compile it."""
    old = read(path)
    new = Catalog(locale=old.locale, charset="utf-8", fuzzy=False, header_comment=old.header_comment)
    for message in extract():
        if message.id:
            known = old.get(message.id)
            new.add(message.id, known.string if known else "", locations=message.locations, flags=message.flags)
    save(path, new)


def save(path: Path, catalog: Catalog) -> None:
    buffer = io.BytesIO()
    write_po(buffer, catalog, width=120, include_lineno=False)
    # Without these lines, which say when and by whom, the file changes only with its messages.
    text = re.sub(
        r'(?m)^"(?!Language:|Plural-Forms|MIME|Content)[A-Z][A-Za-z-]+: .*\\n"\n', "", buffer.getvalue().decode()
    )
    path.write_text(text, encoding="utf-8")
    binary, new = path.with_suffix(".mo"), compiled(path)
    if not binary.exists() or messages(binary.read_bytes()) != messages(new):
        binary.write_bytes(new)


if __name__ == "__main__":
    for each in CATALOGUES:
        update(each)
