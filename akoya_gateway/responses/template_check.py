"""Checks templates that replace built-in ones: renders every page in every language and inspects the result.

A page must keep what users need: a way back to the app, the forms with their CSRF tokens, and the language of the text.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from html.parser import HTMLParser
from types import TracebackType

from jinja2 import TemplateError, TemplateNotFound, TemplateSyntaxError

from akoya_gateway.config.model import PageSettings
from akoya_gateway.responses.languages import LANGUAGES, load_language
from akoya_gateway.responses.page_samples import SAMPLES
from akoya_gateway.responses.page_templates import BUILT_IN, PageTemplates
from akoya_gateway.responses.pages import page_values


@dataclass(frozen=True, slots=True)
class TemplateFault:
    """A fault in a template. `file` is the name of the file in the directory, `line` starts at 1."""

    file: str
    line: int
    message: str
    is_warning: bool = False


def check_templates(settings: PageSettings) -> tuple[TemplateFault, ...]:
    """Return the faults of the operator's templates. Each is reported once."""
    return tuple(dict.fromkeys(_faults(settings)))


def _faults(settings: PageSettings) -> Iterator[TemplateFault]:
    files = settings.templates
    for tag in LANGUAGES:
        language = load_language(tag)
        app = settings.app_name or "-"
        values = {**page_values(settings, "/akoya", "/"), "style": "", "language": tag, "app": app}
        ours = PageTemplates(BUILT_IN, language, values)
        try:
            theirs = PageTemplates({**BUILT_IN, **files}, language, values)
        except TemplateError as error:
            yield _located(error, files)
            return
        for name, sample in SAMPLES:
            try:
                html = theirs.render(name, sample)
            except Exception as error:  # a template can raise any exception
                yield _located(error, files)
                continue
            file = next((each for each in (f"{name}.html", "base.html") if each in files), "")
            if file:
                expected = _parse(ours.render(name, sample))
                for message, is_warning in _differences(_parse(html), expected, tag):
                    yield TemplateFault(file, 1, f"{name}: {message}", is_warning)


def _located(error: Exception, files: Mapping[str, str]) -> TemplateFault:
    """Return the fault for an exception, at the last line of these files that its traceback passes through."""
    if isinstance(error, TemplateSyntaxError):
        return TemplateFault(error.name or "", error.lineno, error.message or "syntax error")
    file, line = "", 1
    trace: TracebackType | None = error.__traceback__
    while trace is not None:
        if (name := trace.tb_frame.f_code.co_filename) in files:
            file, line = name, trace.tb_lineno
        trace = trace.tb_next
    text = f"there is no template {error.name!r}" if isinstance(error, TemplateNotFound) else str(error)
    return TemplateFault(file, line, text or type(error).__name__)


@dataclass(slots=True)
class _Page:
    lang: str | None = None
    targets: set[str] = field(default_factory=set)
    forms: dict[str, bool] = field(default_factory=dict)
    """Whether each form that is sent by POST has a CSRF token, by its action."""
    blocked: set[str] = field(default_factory=set)


class _Parser(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.page = _Page()
        self._action: str | None = None

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = {name: value or "" for name, value in attrs}
        page = self.page
        if tag == "html":
            page.lang = found.get("lang")
        elif tag == "a":
            page.targets.add(found.get("href", ""))
        elif tag == "form":
            self._action = found.get("action", "") if found.get("method", "").lower() == "post" else None
            if self._action is not None:
                page.forms.setdefault(self._action, False)
        elif tag == "input" and found.get("name") == "csrf" and found.get("value") and self._action is not None:
            page.forms[self._action] = True
        page.blocked.update(_blocked(tag, found))

    def handle_endtag(self, tag: str) -> None:
        if tag == "form":
            self._action = None


def _blocked(tag: str, attributes: Mapping[str, str]) -> Iterator[str]:
    """Yield the parts of an element that the Content-Security-Policy blocks."""
    if tag in ("script", "iframe", "object", "embed", "video", "audio"):
        yield f"<{tag}>"
    if tag == "link" and "href" in attributes:
        yield "<link>"
    if tag == "img" and not attributes.get("src", "").startswith("data:"):
        yield "<img> of a file"
    for name in attributes:
        if name == "style" or name.startswith("on"):
            yield f"the attribute {name}"


def _parse(html: str) -> _Page:
    parser = _Parser()
    parser.feed(html)
    parser.close()
    return parser.page


def _differences(page: _Page, expected: _Page, tag: str) -> Iterator[tuple[str, bool]]:
    """Yield each thing of the built-in page that this page lacks, and True if that is only a warning."""
    if "/" not in page.targets:
        yield "there is no link back to the app (href={{ home }} or {{ back }})", False
    for action in expected.forms.keys() - page.forms.keys():
        yield f"there is no form for {action}", False
    for action, has_token in page.forms.items():
        if not has_token:
            yield f"the form for {action} has no field csrf", False
    if page.lang != tag:
        yield 'the language is not declared: write <html lang="{{ language }}">', True
    for what in sorted(page.blocked):
        yield f"the browser blocks {what} (Content-Security-Policy)", True
