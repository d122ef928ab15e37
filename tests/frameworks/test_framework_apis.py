"""What each framework's users expect: OpenAPI and overrides, `request.user`, settings and checks, test clients.

`test_oldest_releases.py` runs this file again with the oldest supported frameworks.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import sys
import warnings
from base64 import b64encode
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import pytest
from django.core.checks import run_checks
from django.core.exceptions import ImproperlyConfigured
from django.core.handlers.wsgi import WSGIHandler
from django.test import Client, RequestFactory, override_settings
from fastapi import Depends, FastAPI
from flask import Flask

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # With httpx instead of httpx2.
    from starlette.testclient import TestClient

from akoya_verify import NotVerified, Verified, keys_of
from akoya_verify.django import AkoyaMiddleware
from akoya_verify.fastapi import add_akoya, current_connection
from akoya_verify.flask import current_connection as current_flask_connection
from akoya_verify.testing import (
    TEST_KEY,
    connected,
    django_async_client,
    django_client,
    flask_client,
    signed_headers,
    starlette_client,
)
from tests.frameworks.apps import fastapi_app, flask_app, starlette_app

KEYS = keys_of([TEST_KEY])
ALICE = connected("mikomo", "alice")
TOLD = {"owner": "alice", "token": "test-id-token"}

pytestmark = pytest.mark.filterwarnings("ignore:Using `httpx` with `starlette.testclient` is deprecated")


def test_openapi_of_fastapi_has_the_scheme_and_the_responses_of_required_connections() -> None:
    app = fastapi_app(KEYS)
    for document in (app.openapi(), app.openapi()):
        paths, schemes = document["paths"], document["components"]["securitySchemes"]
        assert (schemes["AkoyaGateway"]["in"], schemes["AkoyaGateway"]["name"]) == ("cookie", "__Host-akoya")
        assert paths["/mikomo"]["get"]["security"] == [{"AkoyaGateway": []}]
        assert set(paths["/mikomo"]["get"]["responses"]) == {"200", "401", "409"}
        assert set(paths["/optional"]["get"]["responses"]) == {"200"}
        assert "security" not in paths["/optional"]["get"]


@pytest.mark.parametrize("keys", [None, KEYS])
def test_dependency_override_of_fastapi_replaces_the_connection(keys: Any) -> None:
    app = fastapi_app(keys)
    app.dependency_overrides[current_connection("mikomo")] = lambda: ALICE
    assert TestClient(app).get("/mikomo").json() == TOLD


@pytest.mark.filterwarnings("ignore:The `root_path` parameter is deprecated")
def test_fastapi_app_below_a_root_path_verifies_signatures() -> None:
    app = FastAPI(root_path="/api")
    add_akoya(app, KEYS)

    @app.get("/mikomo")
    def mikomo(bank: Annotated[Verified, Depends(current_connection("mikomo"))]) -> str:
        return bank.owner

    client = TestClient(app)
    assert (
        client.get("/mikomo", headers=signed_headers("GET", "http://testserver/mikomo", owner="alice")).status_code
        == 200
    )
    assert client.get("/mikomo").status_code == 401


def test_fastapi_dependency_without_anything_that_verifies_raises() -> None:
    app = FastAPI()

    @app.get("/mikomo")
    def mikomo(bank: Annotated[Verified, Depends(current_connection("mikomo"))]) -> str:
        return bank.owner

    with pytest.raises(NotVerified, match="no-gateway"):
        TestClient(app).get("/mikomo", headers={"akoya-owner": "mallory"})


@pytest.mark.parametrize("app", [starlette_app, fastapi_app])
def test_starlette_client_gets_the_given_connection(app: Any) -> None:
    for keys in (None, KEYS):
        with starlette_client(app(keys), ALICE) as client:
            assert client.get("/mikomo").json() == TOLD
            with client.websocket_connect("/socket") as socket:
                assert socket.receive_json() == TOLD
            assert starlette_client(app(keys), connected("other", "bob")).get("/mikomo").status_code == 401
            assert starlette_client(app(keys), None).get("/mikomo").status_code == 401


def test_starlette_user_is_the_owner() -> None:
    assert starlette_client(starlette_app(None), ALICE).get("/seen").json() == {"owner": None, "user": "alice"}
    assert starlette_client(starlette_app(None), None).get("/seen").json() == {"owner": None, "user": ""}


def test_flask_client_gets_the_given_connection() -> None:
    for keys in (None, KEYS):
        assert flask_client(flask_app(keys), ALICE).get("/mikomo").get_json() == TOLD
    other = flask_client(flask_app(KEYS), connected("other", "bob")).get("/mikomo")
    assert (other.status_code, other.content_type) == (401, "application/problem+json")
    assert flask_client(flask_app(None), None).get("/optional").get_json() == {"owner": None, "token": None}
    assert flask_client(flask_app(KEYS), None).get("/optional").status_code == 401


def test_signed_headers_pass_the_verification_of_each_test_client() -> None:
    for app in (starlette_app(KEYS), fastapi_app(KEYS)):
        headers = signed_headers("GET", "http://testserver/mikomo?a=1", owner="alice")
        assert TestClient(app).get("/mikomo?a=1", headers=headers).json() == TOLD
        assert TestClient(app).get("/mikomo?a=2", headers=headers).status_code == 401
    headers = signed_headers("GET", "http://localhost/mikomo", owner="alice")
    assert flask_app(KEYS).test_client().get("/mikomo", headers=headers).get_json() == TOLD
    headers = {**signed_headers("GET", "http://testserver/mikomo", owner="alice"), "Host": "testserver"}
    with override_settings(AKOYA={"KEYS": KEYS}):
        assert Client(headers=headers).get("/mikomo").json() == TOLD
        assert Client(headers={**headers, "Akoya-Owner": "bob"}).get("/mikomo").status_code == 401


def test_flask_view_without_the_extension_raises() -> None:
    app = Flask("bare")
    app.testing = True

    @app.get("/mikomo")
    def mikomo() -> str:
        return current_flask_connection("mikomo").owner

    with pytest.raises(NotVerified, match="no-gateway"):
        app.test_client().get("/mikomo", headers={"Akoya-Owner": "mallory"})


@pytest.mark.parametrize("setting", [{"IN_PROCESS": True}, {"KEYS": KEYS}])
@pytest.mark.parametrize("path", ["/mikomo", "/mikomo/async"])
async def test_django_clients_get_the_given_connection(setting: Any, path: str) -> None:
    with override_settings(AKOYA=setting):
        asynchronous = await django_async_client(ALICE).get(path)
        assert asynchronous.json() == TOLD
        refused = await django_async_client(connected("other", "bob")).get(path)
        assert (refused.status_code, json.loads(refused.content)["type"]) == (
            401,
            "urn:akoya-gateway:problem:not-connected",
        )


def test_django_client_gets_the_given_connection() -> None:
    with override_settings(AKOYA={"IN_PROCESS": True, "PREFIX": "/bank"}):
        assert django_client(ALICE).get("/mikomo").json() == TOLD
        refused = django_client(None).get("/mikomo")
        assert (refused.status_code, json.loads(refused.content)["connect_url"]) == (401, "/bank/connect/mikomo")
        assert Client().get("/mikomo").status_code == 503


def test_django_body_other_than_the_signed_one_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    digest = f"sha-256=:{b64encode(hashlib.sha256(b'signed').digest()).decode()}:"
    verified = connected(content_digest=digest)
    calls: list[bytes] = []
    with override_settings(AKOYA={"KEYS": KEYS}):
        middleware = AkoyaMiddleware(lambda request: calls.append(request.body))
        monkeypatch.setattr(middleware._policy, "verify", lambda *_: verified)
        for body in (b"signed", b"forged"):
            middleware(RequestFactory().post("/seen", body, content_type="text/plain"))
    assert calls == [b"signed"]


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({}, 'either "KEYS"'),
        ({"KEYS": KEYS, "IN_PROCESS": True}, 'either "KEYS"'),
        ({"KEYS": KEYS, "EXEMPTS": []}, "exempts"),
        ({"KEYS": KEYS, "EXEMPT": ["static"]}, "neither a path"),
        ({"KEYS": "http://app.example.com/akoya/jwks.json"}, "https"),
    ],
)
def test_django_with_a_faulty_setting_does_not_start_and_fails_its_check(setting: Any, message: str) -> None:
    with override_settings(AKOYA=setting):
        with pytest.raises(ImproperlyConfigured, match=message):
            WSGIHandler()
        [error] = [one for one in run_checks() if one.id == "akoya.E001"]
        assert message in error.msg


def test_django_check_finds_missing_middleware_and_runserver(monkeypatch: pytest.MonkeyPatch) -> None:
    def found() -> list[tuple[str, int]]:
        return [(str(one.id), one.level) for one in run_checks() if str(one.id).startswith("akoya.")]

    own, other = "akoya_verify.django.AkoyaMiddleware", "django.middleware.common.CommonMiddleware"
    assert found() == []
    with override_settings(MIDDLEWARE=[other]):
        assert found() == [("akoya.E002", 40)]
    with override_settings(MIDDLEWARE=(other, own)):
        assert found() == [("akoya.E002", 30)]
    monkeypatch.setattr(sys, "argv", ["manage.py", "runserver"])
    assert found() == [("akoya.E003", 40)]
    with override_settings(AKOYA={"KEYS": KEYS}):
        assert found() == []


def test_frameworks_are_the_installed_ones_or_the_oldest_ones() -> None:
    """With PYTHONPATH, which test_oldest_releases.py sets, Python must not have found the newer ones first."""
    oldest = dict(re.findall(r"(?m)^(\S+)==(\S+)$", (Path(__file__).parent / "oldest.txt").read_text()))
    for name in ("starlette", "fastapi", "Django", "Flask"):
        assert (version(name) == oldest[name]) == ("oldest-frameworks" in os.environ.get("PYTHONPATH", ""))
