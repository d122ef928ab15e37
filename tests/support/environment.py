"""Emulator, upstream and gateway put together, and a client that navigates like a browser."""

from __future__ import annotations

import base64
import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Self

import httpx
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from akoya_gateway.sandbox.server import SandboxServer
from akoya_gateway.sandbox.settings import SandboxClient, SandboxConnector, SandboxSettings
from akoya_gateway.sandbox.signing_keys import Key, SigningKeys, new_key
from akoya_gateway.secret import Secret
from tests.support.logs import complete_lines
from tests.support.ports import free_port
from tests.support.processes import AnyServerProcess, AppServer, GatewayProcess, MiddlewareServer
from tests.support.upstream_apps import asgi_app

CLIENT_ID = "test-client"
CLIENT_SECRET = "a~client~secret~of~the~emulator"
HMAC_SECRET = "an-hmac-secret-of-more-than-32-bytes-for-tests"
STORE_KEY = base64.b64encode(bytes(range(7, 231, 7))).decode()

ACCESS: list[dict[str, Any]] = [
    {"path": "/", "require": "nothing"},
    {"path": "/public/admin", "methods": ["GET"], "require": "any", "otherwise": "unauthorized"},
    {"path": "/public/*", "require": "nothing"},
    {"path": "/api/banks/{connector}/*", "methods": ["GET"], "require": "{connector}", "otherwise": "unauthorized"},
    {"path": "/both", "require": ["mikomo", "other"], "otherwise": "connect"},
    {"path": "/closed", "require": "mikomo", "otherwise": "forbidden"},
    {"path": "/optional", "require": "any", "otherwise": "pass"},
    {"path": "/accounts", "require": "any", "otherwise": "connect"},
    {"path": "/accounts/*", "require": "any", "otherwise": "connect"},
    {"path": "/mikomo", "require": "mikomo", "otherwise": "connect"},
]


class GatewayEnv:
    """A complete environment: `with GatewayEnv(tmp_path) as env:`.

    Args:
        algorithm: of the signature.
        settings: of the emulator.
        changes: to the configuration, merged at the top level.
        entrypoint: `sidecar` (a process), `app` (the same under uvicorn) or `middleware` (inside the app's
            server; below `mount` of another app).
    """

    def __init__(
        self,
        folder: Path,
        *,
        algorithm: str = "ed25519",
        settings: Mapping[str, Any] | None = None,
        changes: Mapping[str, Any] | None = None,
        upstream: Any = None,
        options: tuple[str, ...] = (),
        entrypoint: str = "sidecar",
        app: Any = None,
        token_bearer: str | None = None,
        signing: Mapping[str, Any] | None = None,
        upstream_settings: Mapping[str, Any] | None = None,
        mount: str = "",
    ) -> None:
        self.folder = folder
        self.port = free_port()
        self.admin_port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.admin_url = f"http://127.0.0.1:{self.admin_port}"
        self.mount = mount
        self.redirect_uri = f"{self.url}{mount}/akoya/callback"
        self.key, self.verification_key = keys(folder, algorithm)
        emulated = SandboxSettings(
            clients=(SandboxClient(CLIENT_ID, Secret(CLIENT_SECRET), (self.redirect_uri,)),),
            connectors=(SandboxConnector(), SandboxConnector("other", "Other Bank")),
            **(settings or {}),
        )
        self.akoya = SandboxServer(emulated, keys=SigningKeys(emulated.alg, first_key(emulated.alg)))
        self.upstream: Any = upstream or AppServer(asgi_app(self.verification_key))
        self.algorithm = algorithm
        self._changes = dict(changes or {})
        self._options = options
        self.entrypoint = entrypoint
        self._app = app
        self._upstream_settings = dict(upstream_settings or {})
        self._signing = dict(signing or {})
        self._admin = {"token_bearer": {"env": "AKOYA_TOKEN_BEARER"}} if token_bearer else {}
        self.environ = {
            "AKOYA_CLIENT_ID": CLIENT_ID,
            "AKOYA_CLIENT_SECRET": CLIENT_SECRET,
            "AKOYA_GATEWAY_KEY": STORE_KEY,
            "AKOYA_SIGNING_SECRET": HMAC_SECRET,
            "AKOYA_TOKEN_BEARER": token_bearer or "",
        }
        self.gateway: GatewayProcess | MiddlewareServer

    def config(self) -> dict[str, Any]:
        return {
            "version": 1,
            "public_url": self.url,
            "listen": f"127.0.0.1:{self.port}",
            "admin": {"listen": f"127.0.0.1:{self.admin_port}", **self._admin},
            "upstream": {"url": self.upstream.url, **self._upstream_settings},
            "environments": {"double": self.akoya.environment()},
            "clients": {
                "test-app": {
                    "environment": "double",
                    "client_id": {"env": "AKOYA_CLIENT_ID"},
                    "client_secret": {"env": "AKOYA_CLIENT_SECRET"},
                    "redirect_uri": self.redirect_uri,
                    "scopes": ["openid", "profile", "offline_access"],
                }
            },
            "connectors": {
                "mikomo": {"client": "test-app", "name": "Mikomo Bank"},
                "other": {"client": "test-app", "name": "Other Bank"},
            },
            "redirects": {"after_connect": "/accounts", "allow": ["/accounts", "/accounts/*", "/mikomo", "/both"]},
            "access": ACCESS,
            "sessions": {
                "store": f"sqlite://{self.folder}/grants.db",
                "keys": [{"env": "AKOYA_GATEWAY_KEY"}],
            },
            "signing": {"algorithm": self.algorithm, "keys": [self.key], **self._signing},
            # All test browsers share one IP address.
            "limits": {"connects_per_minute": 0},
            **self._changes,
        }

    def __enter__(self) -> Self:
        self.akoya.start()
        self.upstream.__enter__()
        try:
            if self.entrypoint == "middleware":
                app = self._app or asgi_app(self.verification_key)
                self.gateway = MiddlewareServer(self.folder, self.config(), self.environ, app, self.mount).start()
            else:
                process = AnyServerProcess if self.entrypoint == "app" else GatewayProcess
                self.gateway = process(self.folder, self.config(), self.environ, *self._options).start()
        except BaseException:
            self.akoya.stop()
            self.upstream.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.gateway.__exit__()
        self.upstream.__exit__()
        self.akoya.stop()

    def browser(self) -> Browser:
        return Browser(self)

    def log(self) -> str:
        return complete_lines(self.gateway.log)


class Browser:
    """Cookies and navigations of one user. Not a real browser: for that see test_browser.py."""

    NAVIGATION: ClassVar = {"accept": "text/html,*/*;q=0.8", "sec-fetch-mode": "navigate", "sec-fetch-dest": "document"}

    def __init__(self, env: GatewayEnv) -> None:
        self.env = env
        self.http = httpx.Client(base_url=env.url, trust_env=False, timeout=60)

    def __enter__(self) -> Browser:
        return self

    def __exit__(self, *_: object) -> None:
        self.http.close()

    def go(self, path: str, **options: Any) -> httpx.Response:
        """Navigate without following redirects."""
        return self.http.get(path, headers=self.NAVIGATION, **options)

    def fetch(self, path: str, method: str = "GET", **options: Any) -> httpx.Response:
        """Send a request as a script in a page does."""
        headers = {"accept": "application/json", "sec-fetch-mode": "cors", **options.pop("headers", {})}
        return self.http.request(method, path, headers=headers, **options)

    def cookie_header(self) -> bytes:
        """Return the line of a request head with the cookies of this browser."""
        pairs = "; ".join(f"{name}={value}" for name, value in self.http.cookies.items())
        return f"Cookie: {pairs}\r\n".encode()

    def begin(self, connector: str = "mikomo", return_to: str | None = None) -> str:
        """Start connecting and return the authorization URL that the gateway redirects to."""
        query = {"return_to": return_to} if return_to else {}
        response = self.go(f"{self.env.mount}/akoya/connect/{connector}", params=query)
        assert response.status_code == 302, response.text
        return response.headers["location"]

    def connect(
        self, connector: str = "mikomo", user: str = "mikomo_1", return_to: str | None = None
    ) -> httpx.Response:
        """Complete the whole flow and return the response to the callback."""
        callback = self.env.akoya.consent(self.begin(connector, return_to), user)
        return self.go(callback)

    def passed(self, path: str = "/accounts") -> dict[str, str]:
        """Return the gateway headers that the upstream received."""
        response = self.fetch(path)
        assert response.status_code == 200, response.text
        return {n: v for n, v in response.json()["headers"] if n.startswith(("akoya-", "signature"))}

    def connections(self) -> dict[str, Any]:
        response = self.fetch("/akoya/")
        assert response.status_code == 200, response.text
        return dict(response.json())


@functools.cache
def first_key(alg: str) -> Key:
    """Return the key that all emulators of a test process start with: generating an RSA key takes 50 ms."""
    return new_key(alg)


def keys(folder: Path, algorithm: str) -> tuple[dict[str, Any], bytes]:
    """Return the `signing.keys` entry and the key that the upstream verifies with."""
    if algorithm == "hmac-sha256":
        return {"id": "k1", "env": "AKOYA_SIGNING_SECRET"}, HMAC_SECRET.encode()
    key = Ed25519PrivateKey.generate()
    path = folder / "signing-key.pem"
    path.touch(0o600)
    path.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return {"id": "k1", "file": str(path)}, key.public_key().public_bytes(
        Encoding.PEM, PublicFormat.SubjectPublicKeyInfo
    )
