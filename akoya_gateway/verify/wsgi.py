"""WSGI middleware: `environ["akoya"]` is a `Verified`, or the app is never reached."""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Collection, Iterable
from typing import Any
from urllib.parse import quote, urlsplit

from akoya_gateway.verify.digest import body_matches
from akoya_gateway.verify.keys import KeySource
from akoya_gateway.verify.message import authority_of
from akoya_gateway.verify.outcome import NotVerified, Verified
from akoya_gateway.verify.policy import PROBLEM, Exempt, Policy, is_ours, refusal
from akoya_gateway.verify.replay import ReplayCache

Environ = dict[str, Any]
StartResponse = Callable[..., Any]
App = Callable[[Environ, StartResponse], Iterable[bytes]]


class WsgiVerifier:
    """Verifies every request and puts the `Verified` into `environ["akoya"]`; see `AsgiVerifier` for the settings.

    WSGI hands over header names upper case with `_`, repeated headers joined by commas, and the path decoded. The first
    two cannot make a forged request pass: what the app reads is what is verified. The path is taken raw from `RAW_URI`
    or `REQUEST_URI` (gunicorn, uWSGI, mod_wsgi, waitress, Werkzeug) and otherwise encoded again from `PATH_INFO`: then
    paths that were encoded in an unusual way are refused.
    """

    def __init__(
        self,
        app: App,
        keys: KeySource,
        *,
        issuer: str | None = None,
        audience: str | None = None,
        skew: float = 5.0,
        replay: ReplayCache | None = None,
        exempt: Collection[str] = (),
        largest_body: int = 1_048_576,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.app = app
        self._policy = Policy(keys, issuer, audience, skew, replay, clock)
        self._exempt = Exempt(exempt)
        self._largest_body = largest_body

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        if environ.get("SCRIPT_NAME", "") + environ.get("PATH_INFO", "") in self._exempt:
            left = {name: value for name, value in environ.items() if not is_ours(name.removeprefix("HTTP_"))}
            return self.app({**left, "akoya": None}, start_response)
        try:
            verified = self._policy.judge(*_request(environ))
            if verified.content_digest is not None:
                environ = {**environ, "wsgi.input": self._judged_body(environ, verified)}
        except NotVerified as fault:
            return _refuse(start_response, fault)
        return self.app({**environ, "akoya": verified}, start_response)

    def _judged_body(self, environ: Environ, verified: Verified) -> io.BytesIO:
        length = int(environ.get("CONTENT_LENGTH") or 0)
        if length > self._largest_body:
            raise NotVerified("bad-digest", f"the body is longer than {self._largest_body} bytes")
        body: bytes = environ["wsgi.input"].read(length)
        if not body_matches(verified.content_digest or "", body):
            raise NotVerified("bad-digest", "the body is not the one that was signed")
        return io.BytesIO(body)


def _request(environ: Environ) -> tuple[str, str, str, str, list[tuple[bytes | str, bytes | str]]]:
    path, query = _target(environ)
    headers: list[tuple[bytes | str, bytes | str]] = [
        (name[5:].lower().replace("_", "-"), value) for name, value in environ.items() if name.startswith("HTTP_")
    ]
    authority = authority_of(environ.get("HTTP_HOST", ""), environ.get("wsgi.url_scheme", "http"))
    return environ["REQUEST_METHOD"], authority, path, query, headers


def _target(environ: Environ) -> tuple[str, str]:
    """Path and query as they were on the request line."""
    raw = environ.get("RAW_URI") or environ.get("REQUEST_URI")
    if not raw:
        decoded = (environ.get("SCRIPT_NAME", "") + environ.get("PATH_INFO", "")).encode("latin-1")
        return quote(decoded, safe="/:@!$&'()*+,;=~-._"), environ.get("QUERY_STRING", "")
    if not raw.startswith("/"):
        parts = urlsplit(raw)
        raw = parts.path + (f"?{parts.query}" if parts.query else "")
    path, _, query = raw.partition("?")
    return path, query


def _refuse(start_response: StartResponse, fault: NotVerified) -> list[bytes]:
    status, problem = refusal(fault)
    line = "401 Unauthorized" if status == 401 else "503 Service Unavailable"
    start_response(line, [("Content-Type", PROBLEM), ("Content-Length", str(len(problem)))])
    return [problem]
