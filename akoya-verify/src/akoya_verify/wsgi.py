"""WSGI middleware: calls the app only with a `Verified` in `environ["akoya"]`, except for exempt paths."""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import Any
from urllib.parse import quote, unquote_to_bytes

from akoya_verify.content_digest import body_matches
from akoya_verify.keys import KeySource
from akoya_verify.message_signatures import authority_of
from akoya_verify.policy import (
    PROBLEM,
    Policy,
    SignedRequest,
    is_gateway_header,
    refusal,
)
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

    The query comes from `QUERY_STRING`, because the app reads that too: a server may have rewritten it.

    An app routes by `PATH_INFO`, and some servers take `SCRIPT_NAME` from a client header. Therefore a `SCRIPT_NAME`
    other than the configured one is rejected, and so is a `PATH_INFO` that is not the rest of the signed path.
    """

    def __init__(
        self,
        app: App,
        keys: KeySource | None = None,
        *,
        required: bool = True,
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
        self._policy = Policy(
            keys,
            required=required,
            issuer=issuer,
            audience=audience,
            skew=skew,
            replay=replay,
            exempt=exempt,
            clock=clock,
            root_path=script_name,
        )
        self._largest_body = largest_body

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        holder = holder_of(environ)
        if self._policy.is_verified(holder):
            return self.app({**environ, "akoya": holder["akoya"]}, start_response)
        try:
            mounted = environ.get("SCRIPT_NAME", "")
            if self._policy.passes_unverified(mounted, mounted + environ.get("PATH_INFO", ""), header_names(environ)):
                environ = unverified(environ, is_checked=self._policy.keys is not None)
            else:
                verified = self._policy.verify(*signed_request(environ))
                if verified.content_digest is not None:
                    environ = {**environ, "wsgi.input": self._verified_body(environ, verified)}
                environ = {**environ, "akoya": verified}
        except NotVerified as fault:
            return _refuse(start_response, fault)
        return self.app(environ, start_response)

    def _verified_body(self, environ: Environ, verified: Verified) -> io.BytesIO:
        length = int(environ.get("CONTENT_LENGTH") or 0)
        if length > self._largest_body:
            raise NotVerified("bad-digest", f"the body is longer than {self._largest_body} bytes")
        body: bytes = environ["wsgi.input"].read(length)
        if not body_matches(verified.content_digest or "", body):
            raise NotVerified("bad-digest", "the body is not the one that was signed")
        return io.BytesIO(body)


def holder_of(environ: Environ) -> Mapping[str, Any]:
    """Return the mapping that `akoya` is in: the environ, or the ASGI scope of which a2wsgi made the environ."""
    scope = environ.get("asgi.scope")
    return scope if "akoya" not in environ and isinstance(scope, Mapping) else environ


def header_names(environ: Environ) -> Iterator[str]:
    """Yield the names of all headers, in upper case and with `_`."""
    return (name[5:] for name in environ if name.startswith("HTTP_"))


def is_gateway_variable(name: str) -> bool:
    """Return whether an environ variable is a header that an app could mistake for a gateway header."""
    return name.startswith("HTTP_") and is_gateway_header(name[5:])


def unverified(environ: Environ, *, is_checked: bool = True) -> Environ:
    """Return the environ for an app that gets an unverified request. See `akoya_verify.asgi.unverified`."""
    left = {name: value for name, value in environ.items() if name != "akoya" and not is_gateway_variable(name)}
    return {**left, "akoya": None} if is_checked else left


def signed_request(environ: Environ) -> SignedRequest:
    """Return the parts of a request that the signature covers. Raises `NotVerified`."""
    headers: list[tuple[bytes | str, bytes | str]] = [
        (name[5:].lower().replace("_", "-"), value) for name, value in environ.items() if name.startswith("HTTP_")
    ]
    authority = authority_of(environ.get("HTTP_HOST", ""), environ.get("wsgi.url_scheme", "http"))
    return environ["REQUEST_METHOD"], authority, _path(environ), environ.get("QUERY_STRING", ""), headers


def _path(environ: Environ) -> str:
    """Return the path as in the request line. Raises `NotVerified` if the app would serve another path."""
    served: str = environ.get("SCRIPT_NAME", "") + environ.get("PATH_INFO", "")
    raw = environ.get("RAW_URI") or environ.get("REQUEST_URI")
    if not raw:
        return quote(served.encode("latin-1"), safe="/:@!$&'()*+,;=~-._")
    path = str(raw).partition("?")[0]
    if not path.startswith("/"):
        # The absolute form of RFC 9112 section 3.2.2: `http://host/path`.
        path = "/" + path.partition("://")[2].partition("/")[2]
    if unquote_to_bytes(path).decode("latin-1") != served:
        raise NotVerified("path-mismatch", "the server gives the app another path than was signed")
    return path


def _refuse(start_response: StartResponse, fault: NotVerified) -> list[bytes]:
    status, problem = refusal(fault)
    line = "401 Unauthorized" if status == 401 else "503 Service Unavailable"
    start_response(line, [("Content-Type", PROBLEM), ("Content-Length", str(len(problem)))])
    return [problem]
