"""Forward-auth in the fast lane: a question that was asked before, about a session whose admission stands.

The ASGI path answers it the first time; when the same bytes come again from the same proxy, what was read of them is
at hand (`Known`), and only the standing admission is looked at and the answer signed: 6 us instead of 34 us, uvicorn's
part included (on the machine of `docs/performance.md`). Anything but a yes is left to the ASGI path.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

from akoya_gateway.access.path_normalization import judge
from akoya_gateway.access.request import Ask, names_a_method_in
from akoya_gateway.access.rule_table import RuleMatch
from akoya_gateway.authentication.principal import trusts
from akoya_gateway.errors import GatewayError
from akoya_gateway.gateway.date_header import Dates
from akoya_gateway.gateway.forward_auth import ANSWER
from akoya_gateway.gateway.original_request import Question
from akoya_gateway.gateway.runtime import Engine
from akoya_gateway.responses.response import Answer
from akoya_gateway.signing.header_values import lines

REMEMBERED = 1024
LARGEST = 4096

_OK = b"HTTP/1.1 200 OK\r\n"
_WITH_MORE = frozenset({b"content-length", b"transfer-encoding", b"expect", b"upgrade"})


class Known:
    """One question as it was read. `rest`: the lines of the answer that stand behind ours, but for the date."""

    __slots__ = ("ask", "authority", "match", "public", "question", "rest", "session", "verb")

    def __init__(
        self,
        ask: Callable[[], Ask],
        question: Question,
        match: RuleMatch,
        session: str | None,
        authority: bytes,
        *,
        public: bool,
    ) -> None:
        """`ask` makes the proxy's own request anew, each with a name of its own."""
        self.ask = ask
        self.question = question
        self.match = match
        self.session = session
        self.authority = authority
        self.public = public
        self.verb = question.method.encode()
        self.rest = lines(Answer(200, tuple(question.answered([]))).all_headers())


class Reply:
    """A yes, in the bytes of an HTTP/1.1 response."""

    __slots__ = ("_known", "content", "rule")

    def __init__(self, known: Known, content: bytes) -> None:
        self._known = known
        self.rule = known.match.rule.label
        self.content = content

    @property
    def ask(self) -> Ask:
        """The request that was meant; for whoever logs it (`gateway.response_observer.Asked`)."""
        return self._known.question.original(self._known.ask())


class FastQuestions:
    """A bounded memory, first in, first out, good for one configuration."""

    def __init__(self, dates: Dates) -> None:
        self._dates = dates
        self._kept: OrderedDict[tuple[str | None, bytes], Known] = OrderedDict()

    def keep(self, engine: Engine, peer: str | None, data: bytes, ask: Callable[[], Ask]) -> None:
        """`data` is one head and nothing else, and `ask` makes what it says."""
        try:
            known = _read(engine, ask) if len(data) <= LARGEST else None
        except GatewayError:
            return
        if known is not None:
            self._kept[peer, data] = known
            if len(self._kept) > REMEMBERED:
                self._kept.popitem(last=False)

    def reply(self, engine: Engine, data: bytes, peer: str | None, now: float) -> Reply | None:
        """None: not known, or not now. Raises `GatewayError` as `Desk.admit_now` does."""
        known = self._kept.get((peer, data))
        if known is None:
            return None
        ours = b""
        if not known.public:
            standing = engine.desk.standings.of(known.session, known.match, now)
            if standing is None:
                return None
            question = known.question
            ours = standing.prepared.lines(known.verb, known.authority, question.raw_path, question.query, now)
        return Reply(known, b"%b%b%b%b: %b\r\n\r\n" % (_OK, ours, known.rest, *self._dates.header()))

    def clear(self) -> None:
        self._kept.clear()


def _read(engine: Engine, again: Callable[[], Ask]) -> Known | None:
    """As `forward_auth` does, None for whatever is not plain. Raises `GatewayError`."""
    ask = again()
    if not engine.desk.standings.serve or not trusts(engine.trusted, ask):
        return None
    if not _WITH_MORE.isdisjoint(name for name, _ in ask.headers):
        return None
    if not ask.raw_path.startswith(engine.questions.route) or ask.header(ANSWER) is not None:
        return None
    question = engine.questions.read(ask)
    path = judge(question.raw_path)
    match = None if engine.routes.own(path) else engine.desk.match(question.method, path)
    fields = engine.passing.read(question.headers)
    if match is None or question.websocket or not question.plain or fields.override:
        return None
    if names_a_method_in(question.query) and engine.desk.minds_method(path):
        return None
    authority = fields.authorities[engine.passing.secure(match.rule)]
    if not authority:
        return None
    return Known(again, question, match, fields.session, authority, public=not engine.desk.needs_owner(match))


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
