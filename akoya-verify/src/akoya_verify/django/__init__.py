"""Django: `AkoyaMiddleware` sets `request.akoya`, and `requires_connection` decorates views.

    INSTALLED_APPS = ["akoya_verify.django", ...]  # system checks
    MIDDLEWARE = ["akoya_verify.django.AkoyaMiddleware", ...]
    AKOYA = {"KEYS": "https://app.example.com/akoya/jwks.json", "EXEMPT": ["/healthz", "/static/*"]}

With `AKOYA = {"IN_PROCESS": True}` the app is wrapped in `akoya_gateway.Gateway`, and runs as ASGI.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from asgiref.sync import iscoroutinefunction, markcoroutinefunction
from django.http import HttpRequest, HttpResponse

from akoya_verify import asgi, wsgi
from akoya_verify.connection import ConnectionMissing, connection_of
from akoya_verify.content_digest import body_matches
from akoya_verify.django.apps import policy_of_settings, prefix
from akoya_verify.policy import PROBLEM, SignedRequest, refusal
from akoya_verify.result import NotVerified, Verified

View = Callable[..., Any]


class AkoyaMiddleware:
    """Sets `request.akoya` to the verified claims. Refuses unverified requests.

    It is None on exempt paths, and for requests that a gateway in the same process has admitted without an owner.
    """

    sync_capable = async_capable = True

    def __init__(self, get_response: View) -> None:
        """Raises ImproperlyConfigured if the setting `AKOYA` is missing or wrong."""
        self.get_response = get_response
        self._policy = policy_of_settings()
        self._is_async = iscoroutinefunction(get_response)
        if self._is_async:
            markcoroutinefunction(self)

    def __call__(self, request: HttpRequest) -> Any:
        """Return the response, or a coroutine that returns it."""
        if self._is_async:
            return self._call_async(request)
        try:
            if (signed := self._signed(request)) is not None:
                _accept(request, self._policy.verify(*signed))
        except NotVerified as fault:
            return _refuse(fault)
        return self.get_response(request)

    async def _call_async(self, request: HttpRequest) -> HttpResponse:
        try:
            if (signed := self._signed(request)) is not None:
                _accept(request, await self._policy.verify_without_blocking(signed))
        except NotVerified as fault:
            return _refuse(fault)
        return await self.get_response(request)

    def _signed(self, request: HttpRequest) -> SignedRequest | None:
        """Return the request to verify, or None if it has been verified already or is exempt."""
        scope = getattr(request, "scope", None)
        holder = wsgi.holder_of(request.environ) if scope is None else scope
        if self._policy.is_verified(holder):
            request.akoya = holder["akoya"]
            return None
        mounted = request.environ.get("SCRIPT_NAME", "") if scope is None else scope.get("root_path") or ""
        if not self._policy.passes_unverified(mounted, request.path, wsgi.header_names(request.META)):
            return wsgi.signed_request(request.environ) if scope is None else asgi.signed_request(scope)
        request.akoya = None
        for name in [name for name in request.META if wsgi.is_gateway_variable(name)]:
            del request.META[name]  # META of a WSGI request is its environ.
        if scope is not None:
            request.scope = asgi.unverified(scope)
        return None


def _accept(request: HttpRequest, verified: Verified) -> None:
    if verified.content_digest is not None and not body_matches(verified.content_digest, request.body):
        raise NotVerified("bad-digest", "the body is not the one that was signed")
    request.akoya = verified


def _refuse(fault: NotVerified) -> HttpResponse:
    status, problem = refusal(fault)
    return HttpResponse(problem, status=status, content_type=PROBLEM)


def requires_connection(connector: str | None = None) -> Callable[[View], View]:
    """Run a view only for requests with a connection to this bank (or any bank), which is then in `request.akoya`.

    Other requests get a problem document with status 401 or 409 (see `ConnectionMissing`).
    """

    def decorate(view: View) -> View:
        @functools.wraps(view)
        def checked(request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
            try:
                request.akoya = connection_of(request.akoya, connector, prefix=prefix())
            except ConnectionMissing as missing:
                return HttpResponse(missing.body(), status=missing.status, content_type=PROBLEM)
            return view(request, *args, **kwargs)

        @functools.wraps(view)
        async def checked_async(request: HttpRequest, *args: Any, **kwargs: Any) -> Any:
            response = checked(request, *args, **kwargs)
            return response if isinstance(response, HttpResponse) else await response

        return checked_async if iscoroutinefunction(view) else checked

    return decorate
