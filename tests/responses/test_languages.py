from __future__ import annotations

import pytest

from akoya_gateway.responses.languages import LANGUAGES, MAX_HEADER_LENGTH, choose_language, load_language


@pytest.mark.parametrize(
    ("header", "chosen"),
    [
        (b"", "en"),
        (b"es", "es"),
        (b"ES-mx", "es"),
        (b"es-419,es;q=0.9,en;q=0.8", "es"),
        (b"en-US,en;q=0.9,es;q=0.8", "en"),
        (b"en;q=0.1, es;q=0.2", "es"),
        (b"es;q=0.2, en;q=0.1", "es"),
        (b"fr, de;q=0.9, es;q=0.001", "es"),
        (b"fr", "en"),
        (b"*", "en"),
        (b"es;q=0, *", "en"),
        (b"en;q=0, *;q=0.5", "es"),
        (b"es;q=0", "en"),
        (b"en;q=0", "en"),  # the default is better than 406
        (b"es ; q = 0.7 , en;q=0.6", "es"),
        (b"es;q=1.5, en", "en"),
        (b"es;q=-1, en", "en"),
        (b"es_MX", "en"),
        (b"\xff\xfe, es", "es"),
        (b", ,es,,", "es"),
        (b"fr," * MAX_HEADER_LENGTH + b"es", "en"),
    ],
)
def test_language_follows_the_weights_of_accept_language(header: bytes, chosen: str) -> None:
    assert choose_language(header, LANGUAGES, "en") == chosen


def test_default_language_is_used_for_browsers_that_accept_no_supported_one() -> None:
    assert [choose_language(header, LANGUAGES, "es") for header in (b"", b"fr", b"*", b"en")] == [
        "es",
        "es",
        "es",
        "en",
    ]


def test_dates_and_numbers_follow_the_language() -> None:
    moments = (1_767_225_600, 1_801_439_999)  # 1 January 2026, 31 January 2027
    dates = {tag: [load_language(tag).date(moment) for moment in moments] for tag in LANGUAGES}
    assert dates == {
        "en": ["January 1, 2026", "January 31, 2027"],
        "es": ["1 de enero de 2026", "31 de enero de 2027"],
    }
    accounts = [load_language("es").ngettext("%(num)d account", "%(num)d accounts", number) for number in (1, 3)]
    assert accounts == ["1 cuenta", "3 cuentas"]
