"""The setting `AKOYA`, and its system checks."""

from __future__ import annotations

import sys
from typing import Any

from django.apps import AppConfig, apps
from django.conf import settings
from django.core import checks
from django.core.exceptions import ImproperlyConfigured

from akoya_verify.policy import Policy
from akoya_verify.remote_keys import RemoteKeys

MIDDLEWARE = "akoya_verify.django.AkoyaMiddleware"
NEEDED = 'AKOYA needs either "KEYS" (the URL of the key set), or "IN_PROCESS": True if Gateway wraps the app.'


def setting() -> dict[str, Any]:
    """Return the setting. Its keys are the upper-case arguments of `AsgiVerifier`, `IN_PROCESS` and `PREFIX`."""
    return dict(getattr(settings, "AKOYA", {}))


def prefix() -> str:
    """Return the gateway's `prefix`."""
    return str(setting().get("PREFIX", "/akoya"))


def policy_of_settings() -> Policy:
    """Return the verification policy from the settings. Raises ImproperlyConfigured."""
    given = {name.lower(): value for name, value in setting().items() if name not in {"IN_PROCESS", "PREFIX"}}
    keys = given.pop("keys", None)
    if bool(keys) == bool(setting().get("IN_PROCESS")):
        raise ImproperlyConfigured(NEEDED)
    try:
        return Policy(RemoteKeys(keys) if isinstance(keys, str) else keys, **given)
    except (TypeError, ValueError) as fault:
        raise ImproperlyConfigured(f"AKOYA: {fault}") from fault


class AkoyaConfig(AppConfig):
    """The Django app. Registers the checks."""

    name = "akoya_verify.django"
    label = "akoya_verify"

    def ready(self) -> None:
        checks.register(check_settings, checks.Tags.security)


def check_settings(**_: Any) -> list[checks.CheckMessage]:
    """Report settings that cause requests to be refused or to reach views unverified."""
    found: list[checks.CheckMessage] = []
    try:
        policy_of_settings()
    except ImproperlyConfigured as fault:
        found.append(checks.Error(str(fault), id="akoya.E001"))
    if list(settings.MIDDLEWARE)[:1] != [MIDDLEWARE]:
        level = checks.Warning if MIDDLEWARE in settings.MIDDLEWARE else checks.Error
        text = "AkoyaMiddleware is not the first middleware: whatever runs without it gets unverified headers."
        found.append(level(text, hint=f"Put {MIDDLEWARE!r} first in MIDDLEWARE.", id="akoya.E002"))
    is_wsgi = sys.argv[1:2] == ["runserver"] and not apps.is_installed("daphne")
    if is_wsgi and setting().get("IN_PROCESS"):
        text = "runserver serves WSGI, where no gateway checks requests: each of them would get 503."
        hint = 'Put "daphne" first in INSTALLED_APPS and set ASGI_APPLICATION, or run uvicorn asgi:application.'
        found.append(checks.Error(text, hint=hint, id="akoya.E003"))
    return found
