"""The languages of the pages: their message catalogues (gettext), and the choice by `Accept-Language`.

Messages are in English in the code and in the templates. Each other language has a catalogue in
`locale/LANGUAGE/LC_MESSAGES`, which `scripts/translations` updates and compiles. Dates are formatted by messages of the
catalogue as well: Babel would do it, but takes 30 MB for the only two formats that the pages need.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime
from gettext import GNUTranslations, NullTranslations
from importlib import resources

LANGUAGES = ("en", "es")
DOMAIN = "pages"

MAX_HEADER_LENGTH = 1000
"""Maximum number of characters of `Accept-Language` that are parsed. Browsers send about 40."""

_RANGE = re.compile(r"([a-z]{1,8}(?:-[a-z0-9]{1,8})*|\*)(?:\s*;\s*q\s*=\s*(0(?:\.[0-9]{0,3})?|1(?:\.0{0,3})?))?")


def gettext_noop(message: str) -> str:
    """Mark a message for translation and return it unchanged. `Language.gettext` translates it when it is shown."""
    return message


def ngettext_noop(singular: str, plural: str) -> tuple[str, str]:
    """Mark a message for translation that depends on a number. `Language.ngettext` translates it when it is shown."""
    return singular, plural


_MONTHS = (
    gettext_noop("January"),
    gettext_noop("February"),
    gettext_noop("March"),
    gettext_noop("April"),
    gettext_noop("May"),
    gettext_noop("June"),
    gettext_noop("July"),
    gettext_noop("August"),
    gettext_noop("September"),
    gettext_noop("October"),
    gettext_noop("November"),
    gettext_noop("December"),
)
_DATE = gettext_noop("%(month)s %(day)d, %(year)d")


class Language:
    """One language. `tag` is its BCP 47 tag, such as `es`."""

    def __init__(self, tag: str, translations: NullTranslations) -> None:
        self.tag = tag
        self.translations = translations

    def gettext(self, message: str, **values: object) -> str:
        """Return the message in this language, with `values` in place of `%(name)s`."""
        text = self.translations.gettext(message) if message else ""
        return text % values if values else text

    def ngettext(self, singular: str, plural: str, number: int) -> str:
        """Return the message for a number in this language, with the number in place of `%(num)d`."""
        return self.translations.ngettext(singular, plural, number) % {"num": number}

    def date(self, seconds: float) -> str:
        """Return the day of a Unix time in UTC, such as `November 28, 2026`."""
        day = datetime.fromtimestamp(seconds, UTC)
        return self.gettext(_DATE, month=self.gettext(_MONTHS[day.month - 1]), day=day.day, year=day.year)


def load_language(tag: str) -> Language:
    """Load the catalogue of one of `LANGUAGES`. English has none: its texts are the messages themselves."""
    if tag == "en":
        return Language(tag, NullTranslations())
    catalogue = resources.files("akoya_gateway.responses") / "locale" / tag / "LC_MESSAGES" / f"{DOMAIN}.mo"
    with catalogue.open("rb") as file:
        return Language(tag, GNUTranslations(file))


def choose_language(accept_language: bytes, languages: Sequence[str], default: str) -> str:
    """Choose one of `languages` by the header `Accept-Language` (RFC 9110 section 12.5.4).

    A range matches by lookup (RFC 4647 section 3.4): `es-MX` finds `es`. Ranges with a syntax error are ignored.

    Args:
        accept_language: The header's value; several headers are joined by commas. Empty if there is none.
        languages: The tags to choose from, in lower case.
        default: The one of them to use if the header names none, or for `*`.
    """
    wanted: list[tuple[float, str]] = []
    refused = set()
    for part in accept_language[:MAX_HEADER_LENGTH].decode("latin-1").lower().split(","):
        match = _RANGE.fullmatch(part.strip())
        if match is None:
            continue
        weight = 1.0 if match[2] is None else float(match[2])
        if weight:
            wanted.append((weight, match[1]))
        else:
            refused.add(match[1])
    for _, range_ in sorted(wanted, key=lambda each: -each[0]):
        for tag in (default, *languages) if range_ == "*" else _lookup(range_):
            if tag in languages and tag not in refused:
                return tag
    return default


def _lookup(range_: str) -> list[str]:
    """Return the range and its prefixes, the longest first: `zh-hant-cn`, `zh-hant`, `zh`."""
    subtags = range_.split("-")
    return ["-".join(subtags[:length]) for length in range(len(subtags), 0, -1)]
