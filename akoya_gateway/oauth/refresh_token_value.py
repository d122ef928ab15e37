"""Reads the value of `refresh_token`, as tolerantly as is safe, because the token cannot be requested again."""

from __future__ import annotations

import re

from akoya_gateway.secret import Secret

MAX_BYTES = 256 * 1024
"""As many as a response may have (`token_messages.MAX_BODY_BYTES`)."""
CONTROLS = "\ufeff\u200b\u200c\u200d\u2060\0\t\r\n"
"""Invisible characters that are removed around a token."""
_NOT_ALPHANUMERIC = re.compile(r"[\W_]+")
_PLACEHOLDERS = frozenset(
    {"", "null", "none", "nil", "undefined", "nan", "false", "redacted", "masked", "hidden", "removed"}
)
_MASK = re.compile("[*\u2022]{3}|\u2026")
_MIN_MASK = 4
"""Minimum length of a text of one repeated character, such as "xxxx", that counts as masked."""


def read_refresh_token(value: object) -> Secret | None:
    """Return the refresh token, or None if it is unreadable.

    RFC 6749 appendix A.17 allows printable ASCII only. Some servers send a number, a list or an object with one text,
    blanks around the token or other letters. These are accepted, because the token cannot be requested again, and
    because it is only ever sent form-encoded. A text such as "null" or "********" counts as no refresh token: it must
    not replace the one that was sent, which is still valid if the provider does not rotate it.
    """
    if isinstance(value, dict):
        value = [text for text in value.values() if isinstance(text, str)]
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    if isinstance(value, int) and not isinstance(value, bool) and value > 0:
        value = str(value)
    if not isinstance(value, str) or len(value) > MAX_BYTES:
        return None
    value = value.strip(CONTROLS)
    if not value.isprintable() or not value or "\ufffd" in value or is_placeholder(value):
        return None
    return Secret(value)


def is_placeholder(value: object) -> bool:
    """Return True for a text that stands for a missing or masked value."""
    if not isinstance(value, str) or "\ufffd" in value or not value.isprintable():
        return False
    word = _NOT_ALPHANUMERIC.sub("", value).lower()
    is_mask = _MASK.search(value) is not None or (len(value) >= _MIN_MASK and len(set(value)) == 1)
    return is_mask or word in _PLACEHOLDERS
