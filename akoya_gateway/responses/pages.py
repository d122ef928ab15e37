"""HTML pages for users, in their language. Templates are compiled at startup, and all values are escaped.

Pages contain no scripts and load nothing: their only style sheet is inline and allowed by its hash, and the logo is a
`data:` URL. The Content-Security-Policy forbids everything else.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping

from markupsafe import Markup

from akoya_gateway.config.model import Config, PageSettings
from akoya_gateway.log import logger
from akoya_gateway.responses.languages import LANGUAGES, Language, choose_language, load_language
from akoya_gateway.responses.page_templates import BUILT_IN, PageTemplates
from akoya_gateway.responses.problem_texts import problem_text
from akoya_gateway.responses.response import Response

_log = logger("akoya_gateway.responses")


class Pages:
    """The pages of a gateway, in all languages."""

    def __init__(self, config: Config) -> None:
        """Compile the templates."""
        settings = config.pages
        self._default = settings.language
        style = style_sheet(settings)
        headers = _headers(style, images=bool(settings.logo or settings.templates))
        values = {
            **page_values(settings, config.prefix, f"{config.root_path}/"),
            "style": Markup(style),  # noqa: S704  # The CSP allows exactly this text.
        }
        self._localized = {
            tag: LocalizedPages(load_language(tag), settings.templates, headers, values) for tag in LANGUAGES
        }

    def localized(self, accept_language: bytes) -> LocalizedPages:
        """Return the pages in the language that the header `Accept-Language` asks for; empty if there is none."""
        return self._localized[choose_language(accept_language, LANGUAGES, self._default)]


class LocalizedPages:
    """The pages in one language."""

    def __init__(
        self,
        language: Language,
        files: Mapping[str, str],
        headers: tuple[tuple[bytes, bytes], ...],
        values: Mapping[str, object],
    ) -> None:
        """Compile the templates. `files` replace built-in ones, `values` are available in all."""
        self.language = language
        self._headers = (*headers, (b"content-language", language.tag.encode()))
        values = {**values, "language": language.tag, "app": values["app_name"] or language.gettext("this app")}
        self._failed: set[str] = set()
        self._built_in = PageTemplates(BUILT_IN, language, values)
        self._templates = PageTemplates({**BUILT_IN, **files}, language, values) if files else self._built_in

    def render(self, name: str, status: int = 200, **values: object) -> Response:
        """Return the page from the template `name` (without `.html`). `values` are escaped.

        If a template of the operator fails, the user gets the built-in page.
        """
        try:
            html = self._templates.render(name, values)
        except Exception as error:
            if self._templates is self._built_in:
                raise
            if name not in self._failed:
                # Once for each page: clients can request it as often as they like.
                self._failed.add(name)
                _log.error("template failed", page=name, exc_info=error)
            html = self._built_in.render(name, values)
        return Response(status, self._headers, html.encode())

    def reload(self, redirect: Response) -> Response:
        """Return a page that goes where `redirect` goes, with its other headers, for a navigation of another site.

        A redirect continues that navigation, so browsers send no `SameSite=Strict` cookies with the next request. The
        page begins a navigation of its own (HTML, section "Refresh").
        """
        location = redirect.headers["location"]
        kept = (pair for pair in redirect.raw_headers if pair[0] not in (b"location", b"content-length"))
        page = self.render("continue", href=location)
        return page.with_headers(*kept, (b"refresh", b"0; url=" + location.encode("ascii")))

    def problem(
        self,
        code: str,
        status: int,
        request_id: str,
        ways: list[dict[str, str]],
        text: str | None = None,
    ) -> Response:
        """Return the page of an error.

        Args:
            code: The error's code, which determines title and text.
            status: The response's status.
            request_id: The number that the user can mention.
            ways: Where the user can go from here: `href` and `text`.
            text: Replaces the text of the code. It is already translated.
        """
        title, usual = map(self.language.gettext, problem_text(code, status))
        return self.render(
            "problem",
            status,
            title=title,
            detail=usual if text is None else text,
            ways=ways,
            request_id=request_id,
        )


def page_values(settings: PageSettings, prefix: str, home: str) -> dict[str, object]:
    """Return the values that every template has, apart from the language and the style."""
    return {
        "prefix": prefix,
        "home": home,
        "back": home,
        "app_name": settings.app_name,
        "logo": settings.logo,
        "links": settings.links,
    }


def style_sheet(settings: PageSettings) -> str:
    """Return the built-in style sheet with the configured colors, followed by the operator's own."""
    parts = [BUILT_IN["style.css"]]
    if (colors := settings.colors) is not None:
        parts.append(
            f":root {{ --accent: {colors.accent}; --accent-ink: {colors.accent_ink}; }}\n"
            f"@media (prefers-color-scheme: dark) {{ :root {{ --accent: {colors.accent_dark}; "
            f"--accent-ink: {colors.accent_dark_ink}; }} }}\n"
        )
    parts.append(settings.templates.get("style.css", ""))
    return "".join(parts)


def _headers(style: str, *, images: bool) -> tuple[tuple[bytes, bytes], ...]:
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    policy = f"default-src 'none'; style-src 'sha256-{digest}'; {'img-src data:; ' if images else ''}"
    policy += "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    return (
        (b"content-type", b"text/html; charset=utf-8"),
        (b"content-security-policy", policy.encode()),
        (b"x-frame-options", b"DENY"),
        (b"cross-origin-opener-policy", b"same-origin"),
        (b"permissions-policy", b"camera=(), geolocation=(), microphone=()"),
        (b"vary", b"accept, accept-language"),
    )
