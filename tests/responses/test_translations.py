"""The texts of the pages: every one is marked for translation, and every catalogue is complete and compiled."""

from __future__ import annotations

import re
from collections.abc import Iterator
from gettext import NullTranslations
from html.parser import HTMLParser
from pathlib import Path

import pytest
from babel.messages.catalog import Message
from jinja2 import Environment, nodes

from akoya_gateway.config.model import PageLinks, PageSettings
from akoya_gateway.responses.languages import LANGUAGES, Language
from akoya_gateway.responses.page_samples import SAMPLES
from akoya_gateway.responses.page_templates import BUILT_IN, PageTemplates
from akoya_gateway.responses.pages import page_values
from tests.support.translations import CATALOGUES, compiled, extract, messages, read

TEXT_ATTRIBUTES = {"alt", "title", "aria-label", "placeholder"}
each_catalogue = pytest.mark.parametrize("path", CATALOGUES, ids=lambda path: path.parts[-3])


def test_every_language_but_english_has_a_catalogue() -> None:
    assert {path.parts[-3] for path in CATALOGUES} == set(LANGUAGES) - {"en"}


@each_catalogue
def test_catalogue_has_every_message_and_no_other(path: Path) -> None:
    wanted, found = ({message.id for message in catalog if message.id} for catalog in (extract(), read(path)))
    assert wanted - found == set(), "run scripts/translations and translate them"
    assert found - wanted == set(), "no page uses them: run scripts/translations"


@each_catalogue
def test_every_message_is_translated(path: Path) -> None:
    for message in read(path):
        texts = [message.string] if isinstance(message.string, str) else list(message.string or [""])
        assert all(texts), message.id
        assert not message.fuzzy, message.id
        assert list(message.check()) == [], message.id


@each_catalogue
def test_translations_have_the_values_and_the_markup_of_the_message(path: Path) -> None:
    def parts(text: str) -> set[str]:
        return set(re.findall(r"%\(\w+\)[sd]|</?\w+>", text))

    def of(message: Message) -> Iterator[tuple[str, str]]:
        if isinstance(message.id, str):
            yield message.id, str(message.string)
        else:
            yield from ((message.id[1], text) for text in message.string or ())

    for message in read(path):
        if message.id:
            for original, text in of(message):
                assert parts(text) == parts(original), text
                assert (text[-1] in ".?:") == (original[-1] in ".?:"), text


@each_catalogue
def test_compiled_catalogue_fits_its_source(path: Path) -> None:
    assert messages(path.with_suffix(".mo").read_bytes()) == messages(compiled(path)), "run scripts/translations"


class Marked(NullTranslations):
    """Puts each message in brackets that nothing else has."""

    def gettext(self, message: str) -> str:
        return f"⟦{message}⟧"

    def ngettext(self, msgid1: str, msgid2: str, n: int) -> str:
        return f"⟦{msgid1}⟧"


class Texts(HTMLParser):
    """Collects what a user reads: texts, titles and labels."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self._open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._open.append(tag)
        self.found += [value or "" for name, value in attrs if name in TEXT_ATTRIBUTES]

    def handle_endtag(self, tag: str) -> None:
        while self._open and self._open.pop() != tag:
            pass

    def handle_data(self, data: str) -> None:
        if not {"style", "code"} & set(self._open):
            self.found.append(data)


def texts_of(markup: str) -> str:
    parser = Texts()
    parser.feed(markup)
    return " ".join(parser.found)


def test_rendered_pages_have_no_text_that_is_not_marked() -> None:
    """The sample values have no letters, apart from the names, which are the operator's."""
    language = Language("en", Marked())
    links = PageLinks("/help", "/privacy", "/terms")
    for name in ("", "Example Budget"):
        settings = PageSettings(app_name=name, logo="data:,", links=links)
        values = {**page_values(settings, "/akoya", "/"), "style": "", "language": "en", "app": name or "-"}
        templates = PageTemplates(BUILT_IN, language, values)
        for page, sample in SAMPLES:
            text = re.sub("⟦.*?⟧", "", texts_of(templates.render(page, sample)), flags=re.DOTALL)
            plain = text.replace("Example Bank", "").replace("Example Budget", "")
            assert not re.search(r"[^\W\d_]", plain), (page, plain.split())


@pytest.mark.parametrize("name", [name for name in BUILT_IN if name.endswith(".html")])
def test_template_has_no_text_that_is_not_marked(name: str) -> None:
    """Unlike the samples, this covers every branch."""
    template = Environment(extensions=["jinja2.ext.i18n"], autoescape=True).parse(BUILT_IN[name])
    markup, literals = [], []
    for output in template.find_all(nodes.Output):
        for node in output.nodes:
            if isinstance(node, nodes.TemplateData):
                markup.append(node.data)
            else:
                markup.append("-")
                literals += list(unmarked(node))
    assert set(literals) <= {"", " main"}
    assert not re.search(r"[^\W\d_]", texts_of("".join(markup))), name


def unmarked(node: nodes.Node) -> Iterator[str]:
    """Yield the strings in an expression that are not arguments of a translating function."""
    if isinstance(node, nodes.Call) and isinstance(node.node, nodes.Name) and node.node.name in ("_", "gettext"):
        return
    if isinstance(node, nodes.Const) and isinstance(node.value, str):
        yield node.value
    for child in node.iter_child_nodes(exclude=("key",)):  # of the values that a message contains
        yield from unmarked(child)
