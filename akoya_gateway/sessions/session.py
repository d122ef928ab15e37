"""What a session is: who the browser stands for, and no token."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from typing import Any

from akoya_gateway.config.model import Cookie
from akoya_gateway.errors import OperatorError, UserError
from akoya_gateway.secret import Secret
from akoya_gateway.sessions.random_tokens import digest

FORMAT = 1


class UnreadableSession(OperatorError):
    """The record is of a newer format, or not a session at all. Says nothing of what is in it."""

    code = "session-unreadable"


class SessionGone(UserError):
    """It was renewed or ended by somebody else in this moment."""

    code = "other-owner"
    title = "Your session has changed meanwhile"


@dataclass(frozen=True, slots=True)
class Session:
    """`id` is the digest of the cookie's value, never the value. Times are Unix seconds.

    `created_at` is when the first of its ids was given out: a renewed session does not live longer for it. `csrf` is
    what our own forms carry and our POST routes compare.
    """

    id: str
    owner: str
    created_at: float
    seen_at: float
    csrf: Secret = field(repr=False)
    version: int = 1

    def ends_at(self, cookie: Cookie) -> float:
        """By idleness or by age, whichever is sooner."""
        return min(self.seen_at + cookie.idle, self.created_at + cookie.lifetime)

    def csrf_matches(self, text: str) -> bool:
        """Constant-time."""
        return self.csrf == Secret(text)


def id_of(cookie_value: str) -> str:
    """The id of the session that this cookie names."""
    return digest("akoya-gateway session", cookie_value)


def encode(session: Session) -> bytes:
    document = {
        "format": FORMAT,
        "owner": session.owner,
        "created_at": session.created_at,
        "seen_at": session.seen_at,
        "csrf": session.csrf.reveal(),
    }
    return json.dumps(document, separators=(",", ":")).encode()


def decode(session_id: str, version: int, body: bytes) -> Session:
    """Raises `UnreadableSession`."""
    try:
        document: Any = json.loads(body)
        if document["format"] == FORMAT:
            return Session(
                id=session_id,
                owner=document["owner"],
                created_at=document["created_at"],
                seen_at=document["seen_at"],
                csrf=Secret(document["csrf"]),
                version=version,
            )
    except (ValueError, KeyError, TypeError):
        raise UnreadableSession("a session in the store cannot be read") from None
    raise UnreadableSession("a session in the store was written by a newer release: run that release")


def touch(session: Session, now: float) -> Session:
    """The next version of the session, with this sign of life."""
    return replace(session, seen_at=now, version=session.version + 1)
