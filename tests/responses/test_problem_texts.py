"""The pages of errors."""

from __future__ import annotations

from akoya_gateway.responses.problem_texts import _TEXTS, NOT_POSSIBLE, UNAVAILABLE, problem_text
from tests.support.error_codes import possible_codes


def test_every_text_belongs_to_a_code_that_exists() -> None:
    assert set(_TEXTS) <= possible_codes()


def test_error_without_a_text_of_its_own_gets_that_of_its_kind() -> None:
    assert problem_text("store-unavailable", 503) == UNAVAILABLE
    assert problem_text("method-override", 400) == NOT_POSSIBLE


def test_pages_have_no_jargon() -> None:
    words = (
        "upstream",
        "gateway",
        "connector",
        "redirect",
        "rule",
        "token",
        "segment",
        "parameter",
        "grant",
        "request",
    )
    texts = [text.lower() for pair in _TEXTS.values() for text in pair]
    assert not [(text, word) for text in texts for word in words if word in text]
