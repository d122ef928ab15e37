"""`pages`: names, logo, colors, links, language and templates."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import pytest

from akoya_gateway.config.model import PageColors, PageLinks, PageSettings
from akoya_gateway.config.pages import MIN_CONTRAST, contrast
from akoya_gateway.responses.page_templates import BUILT_IN
from akoya_gateway.responses.pages import Pages
from akoya_gateway.server.config_watcher import named_files
from tests.support.config_documents import validated

PNG = b"\x89PNG\r\n\x1a\n" + b"0" * 20
SVG = b'<?xml version="1.0"?>\n<!-- a logo -->\n<svg xmlns="http://www.w3.org/2000/svg"></svg>'


def faults(folder: Path, pages: dict[str, Any]) -> list[str]:
    return [f"{fault.location}: {fault.message}" for fault in validated(folder, {"pages": pages}).diagnostics]


def settings(folder: Path, pages: dict[str, Any]) -> PageSettings:
    result = validated(folder, {"pages": pages})
    assert result.config is not None, result.diagnostics
    return result.config.pages


def test_without_settings_the_pages_are_neutral(tmp_path: Path) -> None:
    assert settings(tmp_path, {}) == PageSettings()
    result = validated(tmp_path, {})
    assert result.config is not None
    page = Pages(result.config).localized(b"").problem("no-rule", 403, "n", []).body
    assert b"<header>" not in page
    assert (
        b"img-src"
        not in dict(Pages(result.config).localized(b"").problem("no-rule", 403, "n", []).raw_headers)[
            b"content-security-policy"
        ]
    )


def test_logo_is_embedded_by_its_content(tmp_path: Path) -> None:
    images = {"a.svg": SVG, "b.png": PNG, "c.jpg": b"\xff\xd8\xff0", "d.gif": b"GIF89a", "e.webp": b"RIFF0000WEBP"}
    types = {}
    for name, content in images.items():
        (tmp_path / name).write_bytes(content)
        logo = settings(tmp_path, {"logo": name}).logo or ""
        types[name], _, data = logo.partition(";base64,")
        assert base64.b64decode(data) == content
    assert list(types.values()) == [
        "data:image/svg+xml", "data:image/png", "data:image/jpeg", "data:image/gif", "data:image/webp",
    ]  # fmt: skip
    result = validated(tmp_path, {"pages": {"logo": "b.png", "app_name": "<Budget>"}})
    assert result.config is not None
    page = Pages(result.config).localized(b"es").problem("no-rule", 403, "n", [])
    assert b"img-src data:; " in dict(page.raw_headers)[b"content-security-policy"]
    assert b'<img src="data:image/png;base64,' in page.body
    assert b"<span>&lt;Budget&gt;</span>" in page.body


def test_faulty_settings_are_reported_with_their_key(tmp_path: Path) -> None:
    (tmp_path / "big.svg").write_bytes(SVG + b" " * 65_536)
    (tmp_path / "page.html").write_text("<svg>")
    table: dict[str, dict[str, Any]] = {
        "pages.logo: there is no file": {"logo": "absent.svg"},
        "pages.logo: the logo is larger": {"logo": "big.svg"},
        "pages.logo: the logo is not a PNG": {"logo": "gateway.yaml"},
        "pages.colors.accent: expected a color": {"colors": {"accent": "blue"}},
        "pages.colors.accent_dark: accent_dark without": {"colors": {"accent_dark": "#ffffff"}},
        "pages.links.help: the URL must begin": {"links": {"help": "javascript:alert(1)"}},
        "pages.links.privacy: a link to another origin": {"links": {"privacy": "http://example.com/"}},
        "pages.links.terms: is not a path": {"links": {"terms": "//evil.example"}},
        "pages.links.help: is not a path": {"links": {"help": "/\\evil.example"}},
        "pages.language: expected": {"language": "fr"},
        "pages.app_name: expected": {"app_name": ""},
        "pages.templates: there is no directory": {"templates": "absent"},
    }
    for wanted, pages in table.items():
        found = faults(tmp_path, pages)
        assert len(found) == 1, (wanted, found)
        assert found[0].startswith(wanted), found


def test_links_may_be_https_or_paths(tmp_path: Path) -> None:
    links = {"help": "/help?topic=banks#top", "privacy": "https://www.example.com/privacy"}
    assert settings(tmp_path, {"links": links}).links == PageLinks(links["help"], links["privacy"], None)


def test_contrast_is_that_of_wcag() -> None:
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert contrast("#767676", "#ffffff") == pytest.approx(4.54, abs=0.01)
    assert contrast("#ffffff", "#ffffff") == 1


def test_accent_gets_legible_text_and_a_dark_variant(tmp_path: Path) -> None:
    result = validated(tmp_path, {"pages": {"colors": {"accent": "#0A3D91"}}})
    assert result.config is not None
    assert not [warning for warning in result.warnings if warning.location.startswith("pages")]
    colors = result.config.pages.colors
    assert colors is not None
    assert (colors.accent, colors.accent_ink) == ("#0a3d91", "#ffffff")
    for background in ("#171d2a", "#0e131d"):
        assert contrast(colors.accent_dark, background) >= MIN_CONTRAST
    for value in range(0, 256, 5):
        grey = f"#{value:02x}{value:02x}{value:02x}"
        found = settings(tmp_path, {"colors": {"accent": grey}}).colors if value % 25 == 0 else None
        if found is not None:
            assert contrast(found.accent, found.accent_ink) >= MIN_CONTRAST
            assert contrast(found.accent_dark, found.accent_dark_ink) >= MIN_CONTRAST


def test_accent_with_little_contrast_is_a_warning(tmp_path: Path) -> None:
    result = validated(tmp_path, {"pages": {"colors": {"accent": "#ffd400", "accent_dark": "#202020"}}})
    assert result.config is not None
    assert result.config.pages.colors == PageColors("#ffd400", "#000000", "#202020", "#ffffff")
    warnings = [str(warning) for warning in result.warnings if warning.location.startswith("pages")]
    assert len(warnings) == 2
    assert "pages.colors.accent: links have a contrast of 1.3 on light pages; WCAG AA requires 4.5" in warnings[0]
    assert "pages.colors.accent_dark: links have a contrast of 1.0 on dark pages" in warnings[1]


def templates(folder: Path, **files: str) -> dict[str, str]:
    there = folder / "pages"
    there.mkdir(exist_ok=True)
    for old in there.iterdir():
        old.unlink()
    for name, text in files.items():
        (there / name.replace("__", ".")).write_text(text)
    return {"templates": "pages"}


OWN_PROBLEM = '{% extends "built-in/problem.html" %}\n{% block content %}<p>Call us.</p>{{ super() }}{% endblock %}\n'


def test_templates_replace_extend_and_style_the_built_in_ones(tmp_path: Path) -> None:
    own = templates(tmp_path, problem__html=OWN_PROBLEM, style__css="h1 { color: red }", notes__txt="no template")
    result = validated(tmp_path, {"pages": own})
    assert result.config is not None, result.diagnostics
    assert set(result.config.pages.templates) == {"problem.html", "style.css"}
    page = bytes(Pages(result.config).localized(b"es").problem("no-rule", 403, "n", []).body).decode()
    assert "<p>Call us.</p>" in page
    assert "Esta página no está disponible" in page
    assert "h1 { color: red }" in page
    watched = {path.name for path in named_files(tmp_path / "gateway.yaml")}
    assert {"pages", "problem.html", "style.css"} <= watched


def test_faulty_template_is_reported_with_file_and_line(tmp_path: Path) -> None:
    table = {
        "3:1: pages.templates: Encountered unknown tag": "<p>\n</p>\n{% unheard of %}",
        "2:1: pages.templates: 'unheard' is undefined": "<p>\n{{ unheard }}</p>",
        "2:1: pages.templates: access to attribute '__class__'": "\n{{ ().__class__ }}",
        "1:1: pages.templates: values cannot be left unescaped": "{{ title|safe }}",
        "4:1: pages.templates: values cannot be left unescaped": "\n\n\n{% autoescape false %}{{ title }}{% endautoescape %}",
        "5:1: pages.templates: values cannot be left unescaped": "\n\n\n\n{{ _(title) }}",
        "6:1: pages.templates: values cannot be left unescaped": "\n\n\n\n\n{% set translated = _ %}{{ translated(title) }}",
        "7:1: pages.templates: No filter named 'safe'": "\n\n\n\n\n\n{{ [title]|map('safe')|first }}",
        "1:1: pages.templates: there is no template 'absent.html'": '{% include "absent.html" %}',
        "1:1: pages.templates: problem: there is no link back to the app": '<html lang="{{ language }}"><p>{{ title }}',
    }
    for wanted, text in table.items():
        found = [
            str(fault) for fault in validated(tmp_path, {"pages": templates(tmp_path, problem__html=text)}).diagnostics
        ]
        assert len(found) == 1, (wanted, found)
        assert found[0].startswith(f"{tmp_path}/pages/problem.html:{wanted}"), found


def test_template_that_fails_in_one_language_only_is_found(tmp_path: Path) -> None:
    text = OWN_PROBLEM + '{% if language == "es" %}{{ unheard }}{% endif %}'
    text = text.replace("<p>Call us.</p>", '{% if language == "es" %}{{ unheard }}{% endif %}')
    assert "'unheard' is undefined" in faults(tmp_path, templates(tmp_path, problem__html=text))[0]


def test_built_in_pages_pass_the_check_themselves(tmp_path: Path) -> None:
    """They have a way back to the app, and their forms."""
    own = templates(tmp_path, **{name.replace(".", "__"): text for name, text in BUILT_IN.items()})
    for settings in ({}, {"app_name": "Example"}):
        result = validated(tmp_path, {"pages": {**own, **settings}})
        assert result.diagnostics == ()
        assert not [each for each in result.warnings if each.location.startswith("pages")]


def test_page_without_its_forms_is_refused(tmp_path: Path) -> None:
    head = '<html lang="{{ language }}"><a href="{{ home }}">-</a>'
    assert faults(tmp_path, templates(tmp_path, disconnect__html=head)) == [
        "pages.templates: disconnect: there is no form for /akoya/disconnect/example"
    ]
    form = '<form method="post" action="{{ action }}"><button>-</button></form>'
    assert faults(tmp_path, templates(tmp_path, disconnect__html=head + form)) == [
        "pages.templates: disconnect: the form for /akoya/disconnect/example has no field csrf"
    ]


def test_what_the_browser_would_block_and_unused_files_are_warnings(tmp_path: Path) -> None:
    text = '{% extends "built-in/problem.html" %}{% block content %}<p style="color: red"><script>1</script>{{ super() }}{% endblock %}'
    own = templates(tmp_path, problem__html=text, conections__html="<p>", style__css="")
    result = validated(tmp_path, {"pages": own})
    assert result.config is not None, result.diagnostics
    warnings = " ".join(str(each) for each in result.warnings if each.location.startswith("pages"))
    assert "the browser blocks <script> (Content-Security-Policy)" in warnings
    assert "the browser blocks the attribute style" in warnings
    assert '"conections.html" is not the name of a page (did you mean "connections.html"?)' in warnings


def test_style_that_ends_the_element_is_refused(tmp_path: Path) -> None:
    assert "contains </" in faults(tmp_path, templates(tmp_path, style__css="</style><script>"))[0]


def test_template_that_fails_for_a_user_is_replaced_by_the_built_in_page(tmp_path: Path) -> None:
    text = OWN_PROBLEM.replace("<p>Call us.</p>", "{{ {}['x'] if title != '-' }}")
    result = validated(tmp_path, {"pages": templates(tmp_path, problem__html=text)})
    assert result.config is not None, result.diagnostics
    page = Pages(result.config).localized(b"").problem("no-rule", 403, "n", [])
    assert b"You do not have access to this page." in page.body
