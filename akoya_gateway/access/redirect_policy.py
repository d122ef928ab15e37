"""Restricts `return_to` and all redirects of the gateway to the targets in `redirects.allow`.

A target that a browser and a parser could parse differently is rejected. An accepted target is rebuilt from its
validated parts (docs/design.md section 7, invariant 3). Each part keeps the characters that browsers leave unescaped
(WHATWG URL), although RFC 3986 requires some of them to be escaped, so that the URL comes back as the browser sent it.
Characters that browsers would percent-encode are percent-encoded here.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import quote, unquote

from akoya_gateway.access.path_normalization import PathRefused, normalize_path
from akoya_gateway.config.model import Origin
from akoya_gateway.errors import UserError

MAX_REDIRECT_BYTES = 8192
"""Maximum length of a redirect target, once encoded. The same as for a path. Each pending authorization attempt stores
one target.
"""

# Only this form is accepted: no userinfo, no IPv6 zones, no empty port. Case does not matter (RFC 3986 section
# 6.2.2.1). The classes are spelled out because `re.IGNORECASE` lets U+017F match an s and U+212A a k.
_ABSOLUTE = re.compile(
    r"(?P<scheme>[hH][tT][tT][pP][sS]?)://"
    r"(?P<host>[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?|\[[0-9A-Fa-f:.]+\])"
    r"(?::(?P<port>[1-9][0-9]{0,4}))?"
)
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_PARAMETERS = re.compile(r";[^/]*")

# The characters, besides letters and digits, that browsers leave unescaped: the complement of the percent-encode sets
# of path, query and fragment (https://url.spec.whatwg.org/#percent-encoded-bytes). Browsers treat a backslash as a
# slash before the query and as an ordinary character in it.
_IN_PATH = "/-._~!$&'()*+,;=:@%[]|"
_IN_QUERY = _IN_PATH + "?{}^`\\"
_IN_FRAGMENT = _IN_PATH + "?{}^#\\"


class RedirectRefused(UserError):
    """Raised if `redirects.allow` does not cover the target. `detail` is the reason and never contains the target."""

    code = "redirect-refused"
    title = "That address cannot be returned to"


@dataclass(frozen=True, slots=True)
class _Pattern:
    """An allowed target. `origin` is `scheme://authority`; `path` is decoded, and a prefix if `open_ended`."""

    origin: str
    path: str
    open_ended: bool

    def covers(self, origin: str, path: str) -> bool:
        return origin == self.origin and (path.startswith(self.path) if self.open_ended else path == self.path)


class RedirectPolicy:
    """Validates redirect targets. `allow` lists path patterns on our own origin and `https://host/path*` patterns."""

    def __init__(self, public_url: Origin, allow: tuple[str, ...]) -> None:
        self._own_origin = f"{public_url.scheme}://{public_url.authority}"
        self._patterns = tuple(self._pattern(text) for text in allow)

    def _pattern(self, text: str) -> _Pattern:
        if text.startswith("/"):
            return _pattern(self._own_origin, text)
        scheme, _, rest = text.partition("://")
        authority, slash, path = rest.partition("/")
        return _pattern(f"{scheme}://{authority}", slash + path or "/*")

    def validate(self, target: str) -> str:
        """Return the redirect target to use: a path on our own origin, or an absolute URL.

        Raises:
            RedirectRefused: The target is not allowed, ambiguous or too long.
        """
        if len(target) > MAX_REDIRECT_BYTES:
            raise RedirectRefused(_TOO_LONG)
        if _CONTROL.search(target):
            # Browsers remove tabs and newlines anywhere in a URL.
            raise RedirectRefused("It contains a control character.")
        origin, rest = self._origin(target)
        path, query, fragment = _split(rest)
        try:
            encoded = quote(path, _IN_PATH)
            after = quote(query, _IN_QUERY) + quote(fragment, _IN_FRAGMENT)
        except UnicodeEncodeError:  # half of a surrogate pair
            raise RedirectRefused("It contains a character that cannot be encoded.") from None
        if len(encoded) + len(after) > MAX_REDIRECT_BYTES:
            raise RedirectRefused(_TOO_LONG)
        readings = _readings(path, encoded)
        if not all(any(pattern.covers(origin, reading) for pattern in self._patterns) for reading in readings):
            raise RedirectRefused("The link asks to return to an address that is not allowed here (redirects.allow).")
        return encoded + after if origin == self._own_origin else origin + encoded + after

    def validate_or(self, target: str | None, default: str) -> str:
        """Return `validate(target)`, or `default` (from the configuration) if `target` is None or rejected."""
        if target is None:
            return default
        try:
            return self.validate(target)
        except RedirectRefused:
            return default

    def _origin(self, target: str) -> tuple[str, str]:
        if target.startswith("/"):
            return self._own_origin, target
        match = _ABSOLUTE.match(target)
        if match is None:
            raise RedirectRefused("It is neither a path nor a plain http(s) URL.")
        rest = target[match.end() :]
        if rest and rest[0] not in "/?#":
            raise RedirectRefused("Its host or port has an unsupported form.")
        scheme, host, port = match["scheme"].lower(), match["host"].lower(), match["port"]
        default = {"http": "80", "https": "443"}[scheme]
        authority = host if port is None or port == default else f"{host}:{port}"
        # Always add a slash after the host: some parsers do not end the host before `?@`.
        return f"{scheme}://{authority}", rest if rest.startswith("/") else "/" + rest


_TOO_LONG = f"It is longer than {MAX_REDIRECT_BYTES} characters."


def _pattern(origin: str, path: str) -> _Pattern:
    return _Pattern(origin, unquote(path.removesuffix("*")), path.endswith("*"))


def _split(rest: str) -> tuple[str, str, str]:
    """Return the path, the query including its `?`, and the fragment including its `#`."""
    before, hash_sign, fragment = rest.partition("#")
    path, mark, query = before.partition("?")
    return path, mark + query, hash_sign + fragment


def _readings(path: str, encoded: str) -> tuple[str, ...]:
    """Return the decoded path in each way that servers interpret it.

    Servlet containers drop the text between a semicolon and the next slash: they treat `/a/..;/b` as `/b`. Such a path
    has two interpretations, and both must be allowed. A backslash in `path` is rejected because browsers treat it as a
    slash.

    Raises:
        RedirectRefused: The path is ambiguous.
    """
    if "\\" in path:
        raise RedirectRefused("Its path is ambiguous.")
    try:
        if ";" not in encoded:
            return (normalize_path(encoded.encode()),)
        first, *others = encoded.split(";")
        as_written = ";".join(
            [normalize_path(first.encode()), *(normalize_path(b"/" + each.encode())[1:] for each in others)]
        )
        return as_written, normalize_path(_PARAMETERS.sub("", encoded).encode())
    except PathRefused:
        raise RedirectRefused("Its path is ambiguous.") from None
