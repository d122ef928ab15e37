"""The fixture `akoya_flow`: whole flows of an app in a few lines."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from akoya_gateway import Gateway
from akoya_gateway.config import ConfigurationError
from tests.frameworks.apps import ASGI, WSGI

CONFIG = """
version: 1
public_url: https://app.example.com
listen: 0.0.0.0:8080
admin: {listen: 127.0.0.1:9090}
upstream: {url: http://127.0.0.1:3000}
environments: {production: {preset: akoya-production}}
clients:
  shop:
    environment: production
    client_id: {env: SHOP_ID}
    client_secret: {file: /run/secrets/shop}
    redirect_uri: https://app.example.com/akoya/callback
    scopes: [openid, profile, offline_access]
connectors:
  mikomo: {client: shop, connector: bank-1, name: Mikomo Bank}
  other: {client: shop, name: Other Bank}
redirects: {after_connect: /seen, allow: [/seen]}
access:
  - {path: /seen, require: nothing}
  - {path: /mikomo, require: mikomo, otherwise: unauthorized}
sessions: {store: "sqlite:///var/lib/grants.db", keys: [{file: /run/secrets/store.key}]}
signing: {algorithm: ed25519, keys: [{file: /run/secrets/signing.pem}], in_process: scope}
"""


def test_flow_connects_a_bank_and_the_app_sees_it(akoya_flow: Any) -> None:
    """The framework pages have such a test for every framework."""
    with akoya_flow(ASGI["flask-a2wsgi"](None)) as browser:
        assert browser.get("/mikomo").status_code == 401
        browser.connect("mikomo")
        assert browser.get("/mikomo").json()["token"].count(".") == 2


def test_flow_uses_the_rules_and_banks_of_a_file(akoya_flow: Any, tmp_path: Path) -> None:
    path = tmp_path / "gateway.yaml"
    path.write_text(CONFIG)
    with akoya_flow(ASGI["starlette"](None), path) as browser:
        assert browser.get("/seen", headers={"Akoya-Owner": "mallory"}).json() == {"owner": None, "user": ""}
        browser.connect("other")
        assert browser.get("/mikomo").status_code == 401
        browser.connect("mikomo")
        assert browser.get("/mikomo").status_code == 200
        assert browser.get("/seen", headers={"Akoya-Owner": "mallory"}).json()["owner"] is None
        assert browser.akoya.counters()["token.issued"] == 2


@pytest.mark.parametrize("name", WSGI)
def test_gateway_around_a_wsgi_app_raises_with_the_way_to_wrap_it(name: str) -> None:
    app = WSGI[name](None)
    for wsgi in (app, app.wsgi_app) if hasattr(app, "wsgi_app") else (app,):
        with pytest.raises(TypeError, match="is a WSGI app"):
            Gateway(wsgi, "gateway.yaml")


def test_flow_with_a_faulty_configuration_raises(akoya_flow: Any) -> None:
    faulty = {"access": [{"path": "/", "requires": "any"}]}
    with pytest.raises(ConfigurationError, match="did you mean"), akoya_flow(ASGI["starlette"](None), faulty):
        pass
