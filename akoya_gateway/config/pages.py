"""Reads `pages`: what users see on the gateway's own pages."""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator
from pathlib import Path as FilePath

from akoya_gateway.config.diagnostics import Diagnostic, did_you_mean, quoted
from akoya_gateway.config.model import PageColors, PageLinks, PageSettings
from akoya_gateway.config.reader import Node
from akoya_gateway.config.secrets import existing_file
from akoya_gateway.config.value_parsers import parse_url

MAX_LOGO_BYTES = 64 * 1024
"""The logo is a part of every page."""
MAX_TEMPLATE_BYTES = 256 * 1024
MAX_TEMPLATES = 50

_IMAGES = (
    (b"\x89PNG\r\n\x1a\n", "image/png"),
    (b"\xff\xd8\xff", "image/jpeg"),
    (b"GIF8", "image/gif"),
)
_SVG = re.compile(r"\s*(<\?xml[^>]*>\s*)?(<!--.*?-->\s*)*<svg[\s>]", re.DOTALL)
_LINK_PATH = re.compile(r"/(?![/\\])[A-Za-z0-9\-._~!$&'()*+,;=:@%/?#]*")

_LIGHT_BACKGROUNDS = ("#ffffff", "#f4f6f9")
"""Backgrounds of the built-in style sheet: the card and the page."""
_DARK_BACKGROUNDS = ("#171d2a", "#0e131d")
_LIGHT_INK, _DARK_INK = "#ffffff", "#000000"
MIN_CONTRAST = 4.5
"""WCAG 2.2 success criterion 1.4.3, level AA, for text."""


def read_pages(top: Node) -> PageSettings:
    """Read the settings of the pages, the logo and the templates, and render all pages if there are templates."""
    node = top.section("pages")
    settings = PageSettings(
        app_name=(node.plain("app_name") or "").strip(),
        logo=_logo(node.get("logo")),
        colors=_colors(node.section("colors")),
        links=_links(node.section("links")),
        language=node.plain("language"),
        templates=_templates(node.get("templates")),
    )
    if settings.templates:
        _check_templates(node, settings)
    return settings


def _logo(node: Node | None) -> str | None:
    """Return the image as a `data:` URL, or None."""
    path = existing_file(node)
    if node is None or path is None:
        return None
    try:
        content = path.read_bytes()
    except OSError as error:
        node.error(f"{quoted(str(path))} cannot be read: {error.strerror}")
        return None
    if len(content) > MAX_LOGO_BYTES:
        node.error("the logo is larger than 64KiB, and every page contains it", "make the image smaller")
        return None
    media_type = _media_type(content)
    if media_type is None:
        node.error("the logo is not a PNG, JPEG, GIF, WebP or SVG image")
        return None
    return f"data:{media_type};base64,{base64.b64encode(content).decode()}"


def _media_type(content: bytes) -> str | None:
    """Return the media type of an image by its content, because its name may be wrong, or None if it is unknown."""
    if content[:4] == b"RIFF" and content[8:12] == b"WEBP":
        return "image/webp"
    if _SVG.match(content.decode("utf-8-sig", "replace")):
        return "image/svg+xml"
    return next((type_ for magic, type_ in _IMAGES if content.startswith(magic)), None)


def _colors(node: Node) -> PageColors | None:
    """Return the colors. A missing dark accent is the accent, lightened until it is legible on dark backgrounds."""
    accent, dark = node.get("accent"), node.get("accent_dark")
    if accent is None:
        if dark is not None:
            node.error("accent_dark without accent", "add accent", key="accent_dark")
        return None
    light_color = accent.value.lower()
    dark_color = dark.value.lower() if dark else _lightened(light_color)
    for key, color, backgrounds in (
        ("accent", light_color, _LIGHT_BACKGROUNDS),
        ("accent_dark", dark_color, _DARK_BACKGROUNDS),
    ):
        ratio = min(contrast(color, background) for background in backgrounds)
        if ratio < MIN_CONTRAST:
            remedy = f"choose a {'darker' if key == 'accent' else 'lighter'} color"
            where = "light" if key == "accent" else "dark"
            node.warn(f"links have a contrast of {ratio:.1f} on {where} pages; WCAG AA requires 4.5", remedy, key=key)
    return PageColors(light_color, _ink(light_color), dark_color, _ink(dark_color))


def _ink(color: str) -> str:
    """Return the color of text on a button of this color: one of the two always has a contrast of 4.5."""
    return max(_LIGHT_INK, _DARK_INK, key=lambda ink: contrast(ink, color))


def _lightened(color: str) -> str:
    channels = _channels(color)
    for step in range(21):
        mixed = "#" + "".join(f"{round(each + (255 - each) * step / 20):02x}" for each in channels)
        if min(contrast(mixed, background) for background in _DARK_BACKGROUNDS) >= MIN_CONTRAST:
            return mixed
    raise AssertionError("white is legible on dark backgrounds")


def contrast(one: str, other: str) -> float:
    """Return the contrast ratio of two colors `#rrggbb`, from 1 to 21 (WCAG 2.2, definition of contrast ratio)."""
    lighter, darker = sorted((_luminance(one), _luminance(other)), reverse=True)
    return (lighter + 0.05) / (darker + 0.05)


def _luminance(color: str) -> float:
    red, green, blue = (
        value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4
        for value in (channel / 255 for channel in _channels(color))
    )
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def _channels(color: str) -> tuple[int, ...]:
    return tuple(bytes.fromhex(color[1:]))


def _links(node: Node) -> PageLinks:
    return PageLinks(*(_link(node.get(key)) for key in ("help", "privacy", "terms")))


def _link(node: Node | None) -> str | None:
    """Return the link if it is an https URL or an absolute path on the app's own origin."""
    if node is None:
        return None
    text: str = node.value
    if text.startswith("/"):
        if not _LINK_PATH.fullmatch(text):
            node.error("is not a path on this origin", "such as /help")
            return None
        return text
    try:
        url = parse_url(text)
    except ValueError as error:
        node.error(str(error), "write https://... or a path such as /help")
        return None
    if url.origin.scheme != "https":
        node.error("a link to another origin must use https")
        return None
    return text


def _templates(node: Node | None) -> dict[str, str]:
    """Return the templates and the style sheet in the directory, by name."""
    if node is None:
        return {}
    folder: FilePath = node.reader.folder / node.value
    try:
        names = sorted(path for path in folder.iterdir() if path.suffix == ".html" or path.name == "style.css")
    except (OSError, ValueError):
        node.error(
            f"there is no directory {quoted(str(folder))}", "names are relative to the folder of this configuration"
        )
        return {}
    if len(names) > MAX_TEMPLATES:
        node.error(f"more than {MAX_TEMPLATES} templates")
        return {}
    if not names:
        node.warn("no *.html and no style.css in this directory")
    return {path.name: text for path in names if (text := _template(node, path)) is not None}


def _template(node: Node, path: FilePath) -> str | None:
    try:
        content = path.read_bytes()
        text = content.decode("utf-8-sig")
    except OSError as error:
        node.error(f"{quoted(str(path))} cannot be read: {error.strerror}")
        return None
    except UnicodeDecodeError:
        node.error(f"{quoted(str(path))} is not UTF-8")
        return None
    if len(content) > MAX_TEMPLATE_BYTES:
        node.error(f"{quoted(str(path))} is larger than 256KiB")
        return None
    if path.name == "style.css" and "</" in text:
        node.error(f"{quoted(str(path))} contains </, which would end the style sheet")
        return None
    return text


def _check_templates(node: Node, settings: PageSettings) -> None:
    """Report the faults of the templates, with the file and the line."""
    # Import lazily: only a configuration with templates needs Jinja.
    from akoya_gateway.responses.page_templates import BUILT_IN  # noqa: PLC0415
    from akoya_gateway.responses.template_check import check_templates  # noqa: PLC0415

    path = (*node.path, "templates")
    folder: FilePath = node.reader.folder / node.value["templates"]
    for fault in check_templates(settings):
        file = str(folder / fault.file) if fault.file else str(folder)
        found = Diagnostic(file, fault.line, 1, path, fault.message)
        (node.reader.warnings if fault.is_warning else node.reader.diagnostics).append(found)
    for name in _unknown(settings, BUILT_IN):
        node.warn(f"{quoted(name)} is not the name of a page", did_you_mean(name, BUILT_IN), key="templates")


def _unknown(settings: PageSettings, known: object) -> Iterator[str]:
    """Yield the files that replace no built-in one and that no other file mentions."""
    assert isinstance(known, dict)
    texts = list(settings.templates.values())
    for name in settings.templates:
        if name not in known and not any(name in text for text in texts):
            yield name
