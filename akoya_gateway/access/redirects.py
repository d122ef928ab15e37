"""Where a browser may be sent: `return_to` and every redirect of ours stay inside `redirects.allow`.

What a browser and a parser could read differently is refused, and what is accepted is put together anew from the
judged parts (design.md section 9, invariant 3).
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from akoya_gateway.access.paths import PathRefused, judge
from akoya_gateway.config.model import Origin
from akoya_gateway.errors import UserError

LONGEST_REDIRECT = 2048

# One shape, no others: no userinfo, no upper case in the host, no IPv6 zones, no empty port.
_ABSOLUTE = re.compile(r"(?P<scheme>https?)://(?P<host>[a-z0-9](?:[a-z0-9.-]*[a-z0-9])?|\[[0-9a-f:.]+\])(?::(?P<port>[1-9][0-9]{0,4}))?")
_AFTER_PATH = re.compile(r"(?:\?[A-Za-z0-9\-._~!$&'()*+,;=:@/?%\[\]|]*)?(?:#[A-Za-z0-9\-._~!$&'()*+,;=:@/?%]*)?")


class RedirectRefused(UserError):
    """The target is not one that `redirects.allow` lists; `detail` says why, never the target itself."""

    code = "redirect-refused"
    title = "That address cannot be returned to"


@dataclass(frozen=True, slots=True)
class _Pattern:
    """`origin` is `scheme://authority`; `path` ends in `*` for everything that begins so."""

    origin: str
    path: str

    def covers(self, origin: str, path: str) -> bool:
        if origin != self.origin:
            return False
        if self.path.endswith("*"):
            return path.startswith(self.path[:-1])
        return path == self.path


class RedirectPolicy:
    """`allow` holds path patterns on our own origin and `https://host/path*` patterns."""

    def __init__(self, public_url: Origin, allow: tuple[str, ...]) -> None:
        self._own = f"{public_url.scheme}://{public_url.authority}"
        self._patterns = tuple(self._pattern(text) for text in allow)

    def _pattern(self, text: str) -> _Pattern:
        if text.startswith("/"):
            return _Pattern(self._own, text)
        scheme, _, rest = text.partition("://")
        authority, slash, path = rest.partition("/")
        return _Pattern(f"{scheme}://{authority}", slash + path or "/*")

    def judge(self, target: str) -> str:
        """The redirect target to use: a path on our own origin, or an absolute URL.

        Raises `RedirectRefused` for anything outside the list and anything ambiguous.
        """
        if len(target) > LONGEST_REDIRECT:
            raise RedirectRefused(f"It is longer than {LONGEST_REDIRECT} characters.")
        origin, rest = self._origin(target)
        path, after = _split(rest)
        try:
            judged = judge(path.encode("ascii"))
        except (PathRefused, UnicodeEncodeError):
            raise RedirectRefused("Its path is ambiguous.") from None
        if not _AFTER_PATH.fullmatch(after):
            raise RedirectRefused("Its query or fragment holds characters that must be escaped.")
        if not any(pattern.covers(origin, judged) for pattern in self._patterns):
            raise RedirectRefused("The link asks to return to an address that is not allowed here (redirects.allow).")
        return path + after if origin == self._own else origin + path + after

    def judged_or(self, target: str | None, default: str) -> str:
        """`judge(target)`, or `default` (an operator's own text) where there is none or it is refused."""
        if target is None:
            return default
        try:
            return self.judge(target)
        except RedirectRefused:
            return default

    def _origin(self, target: str) -> tuple[str, str]:
        if target.startswith("/"):
            return self._own, target
        match = _ABSOLUTE.match(target)
        if match is None:
            raise RedirectRefused("It is neither a path nor an http(s) URL of the plain shape.")
        scheme, host, port = match["scheme"], match["host"], match["port"]
        default = {"http": "80", "https": "443"}[scheme]
        authority = host if port is None or port == default else f"{host}:{port}"
        return f"{scheme}://{authority}", target[match.end() :] or "/"


def _split(rest: str) -> tuple[str, str]:
    for position, character in enumerate(rest):
        if character in "?#":
            return rest[:position], rest[position:]
    return rest, ""
