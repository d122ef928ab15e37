"""The templates of the pages, compiled for one language. All values are escaped, and templates run in a sandbox."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib import resources
from typing import Any

from jinja2 import BytecodeCache, FunctionLoader, StrictUndefined, Template, nodes
from jinja2.bccache import Bucket
from jinja2.exceptions import TemplateSyntaxError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from akoya_gateway.responses.languages import Language

BUILT_IN_PREFIX = "built-in/"
"""Prefix of the name under which a built-in template can be extended by the one that replaces it."""


def _read_built_in() -> dict[str, str]:
    folder = resources.files("akoya_gateway.responses") / "templates"
    return {entry.name: entry.read_text("utf-8") for entry in folder.iterdir() if entry.is_file()}


BUILT_IN: Mapping[str, str] = _read_built_in()
"""The built-in files by name: a template for each page, `base.html` and `style.css`."""


class _CompiledTemplates(BytecodeCache):
    """Caches compiled templates, so that each is compiled once for all languages and reloads."""

    def __init__(self) -> None:
        self._codes: dict[tuple[str, str], Any] = {}

    def load_bytecode(self, bucket: Bucket) -> None:
        bucket.code = self._codes.get((bucket.key, bucket.checksum))

    def dump_bytecode(self, bucket: Bucket) -> None:
        self._codes[bucket.key, bucket.checksum] = bucket.code


_COMPILED = _CompiledTemplates()


_UNESCAPED = ("safe", "tojson")
"""Filters that mark values as escaped. Removed, because `map("safe")` names one as a value."""
_MESSAGES = {"_": 1, "gettext": 1, "ngettext": 2, "pgettext": 2, "npgettext": 3}
"""Functions that return their messages unescaped, and how many of their first arguments are texts."""


class _Environment(ImmutableSandboxedEnvironment):
    """A sandbox in which no value can be left unescaped."""

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        template = super()._parse(source, name, filename)
        for node in _unescaped(template):
            raise TemplateSyntaxError("values cannot be left unescaped here", node.lineno, name, filename)
        return template


def _unescaped(template: nodes.Template) -> Iterator[nodes.Node]:
    """Yield what could leave a value unescaped."""
    yield from template.find_all(nodes.EvalContextModifier)  # `{% autoescape false %}`
    yield from (node for node in template.find_all(nodes.Filter) if node.name in _UNESCAPED)
    with_constants = {
        id(call.node)
        for call in template.find_all(nodes.Call)
        if isinstance(call.node, nodes.Name) and _has_constant_messages(call, _MESSAGES.get(call.node.name, 0))
    }
    for name in template.find_all(nodes.Name):
        if name.name in _MESSAGES and name.ctx == "load" and id(name) not in with_constants:
            yield name


def _has_constant_messages(call: nodes.Call, count: int) -> bool:
    return len(call.args) >= count and all(isinstance(each, nodes.Const) for each in call.args[:count])


class PageTemplates:
    """Compiled templates. `values` are available in all of them."""

    def __init__(self, files: Mapping[str, str], language: Language, values: Mapping[str, object]) -> None:
        """Compile the files that are templates: those whose name ends in `.html`. Raises `jinja2.TemplateError`."""
        built_in = {BUILT_IN_PREFIX + name: text for name, text in BUILT_IN.items()}
        sources = {**built_in, **files}

        def load(name: str) -> tuple[str, str, None] | None:
            # The name of the template is that of the file in tracebacks, where `template_check` finds it.
            return (sources[name], name, None) if name in sources else None

        environment = _Environment(
            loader=FunctionLoader(load),
            bytecode_cache=_COMPILED,
            extensions=["jinja2.ext.i18n"],
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        for name in _UNESCAPED:
            del environment.filters[name]
        translations: Any = environment  # The extension adds its methods at run time.
        translations.install_gettext_translations(language.translations, newstyle=True)
        environment.globals.update(values)
        names = [name for name in files if name.endswith(".html")]
        self._templates: dict[str, Template] = {name: environment.get_template(name) for name in names}

    def render(self, name: str, values: Mapping[str, object]) -> str:
        """Return the page from the template `name` (without `.html`)."""
        return self._templates[f"{name}.html"].render(values)
