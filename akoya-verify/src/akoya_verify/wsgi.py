"""WSGI middleware: calls the app only with a `Verified` in `environ["akoya"]`, except for exempt paths."""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Collection, Iterable
from typing import Any
from urllib.parse import quote, unquote_to_bytes, urlsplit

from akoya_verify.content_digest import body_matches
from akoya_verify.keys import KeySource
from akoya_verify.message_signatures import authority_of
from akoya_verify.policy import PROBLEM, Exempt, Policy, is_gateway_header, refusal
from akoya_verify.replay_cache import ReplayCache
from akoya_verify.result import NotVerified, Verified

Environ = dict[str, Any]
StartResponse = Callable[..., Any]
App = Callable[[Environ, StartResponse], Iterable[bytes]]


class WsgiVerifier:
    """Verifies every request and puts the `Verified` into `environ["akoya"]`. See `AsgiVerifier` for the settings.

    WSGI servers pass header names in upper case with `_`, join repeated headers with commas, and decode the path. The
    first two do not allow forged requests, because the app sees the same values that are verified.

    The raw path comes from `RAW_URI` or `REQUEST_URI` (gunicorn, uWSGI, mod_wsgi, waitress, Werkzeug). On other servers
    `PATH_INFO` is encoded again, and requests whose path was encoded in an unusual way are rejected.

    An app routes by `PATH_INFO`, and some servers take `SCRIPT_NAME` from a client header. Therefore a `SCRIPT_NAME`
    other than the configured one is rejected, and so is a `PATH_INFO` that is not the rest of the signed path.
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
        script_name: str = "",
    ) -> None:
        """Wrap `app`.

        Args:
            script_name: Where the app is mounted (the variable SCRIPT_NAME of gunicorn, a mount of uWSGI).

        The other arguments are those of `AsgiVerifier`.
        """
        self.app = app
        self._script_name = script_name
        self._policy = Policy(keys, issuer, audience, skew, replay, clock)
        self._exempt = Exempt(exempt)
        self._largest_body = largest_body

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        named = environ.get("SCRIPT_NAME", "")
        if named != self._script_name:
            fault = NotVerified("root-path", f"the server says {named!r}, configured is {self._script_name!r}")
            return _refuse(start_response, fault)
        if named + environ.get("PATH_INFO", "") in self._exempt:
            left = {name: value for name, value in environ.items() if not is_gateway_header(name.removeprefix("HTTP_"))}
            return self.app({**left, "akoya": None}, start_response)
        try:
            verified = self._policy.verify(*_request(environ))
            if verified.content_digest is not None:
                environ = {**environ, "wsgi.input": self._verified_body(environ, verified)}
        except NotVerified as fault:
            return _refuse(start_response, fault)
        return self.app({**environ, "akoya": verified}, start_response)

    def _verified_body(self, environ: Environ, verified: Verified) -> io.BytesIO:
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
    """Return path and query as in the request line. Raises `NotVerified` if the app would serve another path."""
    served: str = environ.get("SCRIPT_NAME", "") + environ.get("PATH_INFO", "")
    raw = environ.get("RAW_URI") or environ.get("REQUEST_URI")
    if not raw:
        return quote(served.encode("latin-1"), safe="/:@!$&'()*+,;=~-._"), environ.get("QUERY_STRING", "")
    if not raw.startswith("/"):
        parts = urlsplit(raw)
        raw = parts.path + (f"?{parts.query}" if parts.query else "")
    path, _, query = raw.partition("?")
    if unquote_to_bytes(path).decode("latin-1") != served:
        raise NotVerified("path-mismatch", "the server gives the app another path than was signed")
    return path, query


def _refuse(start_response: StartResponse, fault: NotVerified) -> list[bytes]:
    status, problem = refusal(fault)
    line = "401 Unauthorized" if status == 401 else "503 Service Unavailable"
    start_response(line, [("Content-Type", PROBLEM), ("Content-Length", str(len(problem)))])
    return [problem]
