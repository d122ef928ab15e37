"""Requests that were parsed and judged before, found again by their bytes.

A browser, and a proxy in front of us, sends the same header section again and again, and asks for the same paths: the
two halves of a request's head are remembered apart, each as what came of judging it. Finding both takes 1.5 us;
parsing, judging, stripping and writing them anew 22 us (3.11 on the machine of `docs/performance.md`).

Only what can be found safely is kept: a head that arrived alone and whole, whose request line is exactly method, target
and version, and whose every other line is one header. Then the same bytes mean the same, whatever stands beside them.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TypeVar

from akoya_gateway.access.ask import Headers
from akoya_gateway.access.rules import RuleMatch
from akoya_gateway.faces.admission import Admitted
from akoya_gateway.faces.fields import Fields

_Key = TypeVar("_Key")
_Value = TypeVar("_Value")

LINES, SENDERS = 2048, 1024
"""How many of each are kept: first in, first out."""
LONGEST_LINE, LARGEST_SECTION = 512, 4096
"""Bytes of those that are kept."""


class Line:
    """A request line, judged. `start` is what of it goes to the upstream. `public`: it needs no session."""

    __slots__ = ("head_only", "idempotent", "match", "method", "path", "public", "query", "raw_path", "start", "verb")

    def __init__(
        self,
        verb: bytes,
        raw_path: bytes,
        query: bytes,
        path: str,
        match: RuleMatch,
        *,
        public: bool,
        idempotent: bool,
    ) -> None:
        self.verb = verb
        self.method = verb.decode("ascii")
        self.raw_path = raw_path
        self.query = query
        self.path = path
        self.match = match
        self.public = Admitted(match.rule, []) if public else None
        self.start = b"%b %b HTTP/1.1\r\n" % (verb, raw_path + b"?" + query if query else raw_path)
        self.head_only = verb == b"HEAD"
        self.idempotent = idempotent


class Sender:
    """A header section from one address, judged: `before` and `after` stand around what we add for the upstream."""

    __slots__ = ("after", "before", "fields", "headers", "peer")

    def __init__(self, headers: Headers, peer: str | None, fields: Fields, before: bytes, after: bytes) -> None:
        self.headers = headers
        self.peer = peer
        self.fields = fields
        self.before = before
        self.after = after + b"\r\n"


class KnownRequests:
    """Good for one configuration and one scheme; `clear` it for another."""

    def __init__(self) -> None:
        self._lines: OrderedDict[bytes, Line] = OrderedDict()
        self._senders: OrderedDict[tuple[str | None, bytes], Sender] = OrderedDict()

    def find(self, data: bytes, peer: str | None) -> tuple[Line, Sender] | None:
        """What is known of the head that `data` is, if it is one and nothing else."""
        end = data.find(b"\r\n")
        line = self._lines.get(data[:end])
        if line is None:
            return None
        sender = self._senders.get((peer, data[end + 2 :]))
        return None if sender is None else (line, sender)

    def keep(self, data: bytes, line: Line, sender: Sender, url: bytes) -> None:
        """`data` was parsed as this. `url`: the target as the parser saw it."""
        if not is_one_head(data, line.verb, url, len(sender.headers)):
            return
        written, _, section = data.partition(b"\r\n")
        if len(written) <= LONGEST_LINE and len(section) <= LARGEST_SECTION:
            _add(self._lines, written, line, LINES)
            _add(self._senders, (sender.peer, section), sender, SENDERS)

    def clear(self) -> None:
        self._lines.clear()
        self._senders.clear()


def is_one_head(data: bytes, verb: bytes, url: bytes, headers: int) -> bool:
    """`data` holds this request line, then so many lines that are each a header, then the empty line, and no more:
    nothing folded, nothing that ends in a bare LF."""
    line, _, section = data.partition(b"\r\n")
    breaks = headers + 1
    return (
        line == b"%b %b HTTP/1.1" % (verb, url)
        and section.endswith(b"\r\n\r\n")
        and section.count(b"\r\n") == section.count(b"\n") == breaks
    )


def _add(kept: OrderedDict[_Key, _Value], key: _Key, value: _Value, most: int) -> None:
    kept[key] = value
    if len(kept) > most:
        kept.popitem(last=False)
