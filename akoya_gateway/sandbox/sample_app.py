"""The sample app behind the gateway in the demo. It is plain ASGI and knows Akoya only through request headers.

Its three pages show what an app does: link to the connect route, load the bank's data from a path of the gateway, and
verify that the headers come from the gateway. It gets no token.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import uvicorn

from akoya_gateway.clock import Clock
from akoya_verify import KeySource, NotVerified, Verified, authority_of, keys_of, secret_key, verify

Scope = Mapping[str, Any]
_HERE = Path(__file__).parent
_HEADERS = [
    (b"cache-control", b"no-store"),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"same-origin"),
    (
        b"content-security-policy",
        b"default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; base-uri 'none'; "
        b"frame-ancestors 'none'",
    ),
]


@dataclass(frozen=True, slots=True)
class Link:
    """The next action that a page offers."""

    href: str
    text: str


_HOME = Link("/", "Home")
_CONNECT = Link("/akoya/connect/mikomo?return_to=/accounts", "Connect Mikomo Bank")


class SampleApp:
    """The sample app.

    Args:
        keys: Finds the gateway's keys.
        clock: Returns Unix seconds.
    """

    def __init__(self, keys: KeySource, clock: Clock = time.time) -> None:
        self._keys = keys
        self._clock = clock
        self._assets = {
            "/assets/sample.css": (b"text/css; charset=utf-8", (_HERE / "assets" / "sandbox.css").read_bytes()),
            "/assets/accounts.js": (b"text/javascript; charset=utf-8", (_HERE / "assets" / "accounts.js").read_bytes()),
        }
        self._pages = jinja2.Environment(
            loader=jinja2.FileSystemLoader(_HERE / "templates" / "sample"),
            autoescape=True,
            undefined=jinja2.StrictUndefined,
        )

    async def __call__(self, scope: Scope, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        status, kind, body = await self._respond(scope)
        headers = [*_HEADERS, (b"content-type", kind), (b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})

    async def _respond(self, scope: Scope) -> tuple[int, bytes, bytes]:
        path = scope["path"]
        if path in self._assets:
            return 200, *self._assets[path]
        verified, problem = await self._verified(scope)
        if path == "/":
            return self._page(200, "home.html", verified=verified)
        if path == "/accounts":
            return self._accounts(verified, problem)
        if path == "/headers":
            return self._page(200, "headers.html", verified=verified, problem=problem, rows=_header_rows(scope))
        return self._message(404, "Page not found", "There is nothing at this address.", _HOME)

    async def _verified(self, scope: Scope) -> tuple[Verified | None, str]:
        """Verify the request. Returns the result and "", or None and the reason if it is not verified."""
        headers = list(scope["headers"])
        host = next((value.decode("latin-1") for name, value in headers if name == b"host"), "")
        request = (
            scope["method"],
            authority_of(host, scope["scheme"]),
            scope["raw_path"].decode("latin-1").partition("?")[0],
            scope["query_string"].decode("latin-1"),
            headers,
        )
        try:
            return await asyncio.to_thread(verify, *request, self._keys, self._clock()), ""
        except NotVerified as fault:
            return None, str(fault)

    def _accounts(self, verified: Verified | None, problem: str) -> tuple[int, bytes, bytes]:
        if verified is None:
            return self._message(401, "Not from the gateway", f"This request was {problem}.", _HOME)
        banks = sorted({connection.connector for connection in verified.connections if connection.state == "live"})
        if not banks:
            return self._message(200, "No bank yet", "Connect a bank to see your accounts.", _CONNECT)
        return self._page(200, "accounts.html", banks=banks)

    def _message(self, status: int, title: str, text: str, link: Link) -> tuple[int, bytes, bytes]:
        return self._page(status, "message.html", title=title, text=text, link=link)

    def _page(self, status: int, template: str, **facts: Any) -> tuple[int, bytes, bytes]:
        text = self._pages.get_template(template).render(**facts)
        return status, b"text/html; charset=utf-8", text.encode()


def _header_rows(scope: Scope) -> list[tuple[str, str]]:
    """Return the gateway's headers, with tokens shortened."""
    rows = []
    for raw_name, raw_value in scope["headers"]:
        name, value = raw_name.decode("latin-1").title(), raw_value.decode("latin-1")
        if name.startswith("Akoya-") or name in ("Signature", "Signature-Input"):
            secret = name in ("Akoya-Id-Token", "Akoya-Assertion")
            rows.append((name, f"{value[:16]}… ({len(value)} characters)" if secret else value))
    return sorted(rows)


def main() -> None:
    """Run only the app, on 0.0.0.0:3000, for the compose file (`python -m akoya_gateway.sandbox.sample_app`).

    The environment variables `AKOYA_GATEWAY_SIGNING_KEY` and `AKOYA_GATEWAY_SIGNING_KEY_ID` are the shared secret of
    `hmac-sha256` signatures and its key ID.
    """
    key_id = os.environ.get("AKOYA_GATEWAY_SIGNING_KEY_ID", "k1")
    app = SampleApp(keys_of([secret_key(key_id, os.environ["AKOYA_GATEWAY_SIGNING_KEY"])]))
    uvicorn.run(app, host="0.0.0.0", port=3000, lifespan="off")  # noqa: S104 - inside a container


if __name__ == "__main__":
    main()
