"""The sample app behind the gateway in the demo. It is plain ASGI and knows Akoya only through request headers.

Its three pages show what an app does: link to the connect route, use the id_token and the context from the headers, and
verify that the headers come from the gateway.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import jinja2
import uvicorn

from akoya_gateway.clock import Clock
from akoya_gateway.sandbox.sample_data import DataAccess, NoData, balances
from akoya_verify import KeySource, NotVerified, Verified, authority_of, keys_of, secret_key, verify

Scope = Mapping[str, Any]
_HERE = Path(__file__).parent
_HEADERS = [
    (b"cache-control", b"no-store"),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"same-origin"),
    (b"content-security-policy", b"default-src 'none'; style-src 'self'; base-uri 'none'; frame-ancestors 'none'"),
]


@dataclass(frozen=True, slots=True)
class Row:
    """One account as the page shows it."""

    name: str
    kind: str
    number: str
    balance: str


@dataclass(frozen=True, slots=True)
class Link:
    """The next action that a page offers."""

    href: str
    text: str


_AMOUNTS = ("currentBalance", "principalBalance", "currentValue")
"""The property with the main amount, which depends on the kind of the account."""
_HOME = Link("/", "Home")
_CONNECT = Link("/akoya/connect/mikomo?return_to=/accounts", "Connect Mikomo Bank")
_CONNECTIONS = Link("/akoya/", "Your bank connections")


class SampleApp:
    """The sample app.

    Args:
        products_url: Base URL of the data APIs.
        keys: Finds the gateway's keys.
        http: Client for the data APIs.
        clock: Returns Unix seconds.
    """

    def __init__(self, products_url: str, keys: KeySource, http: httpx.AsyncClient, clock: Clock = time.time) -> None:
        self._products_url = products_url
        self._keys = keys
        self._http = http
        self._clock = clock
        self._style = (_HERE / "assets" / "sandbox.css").read_bytes()
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
        if path == "/assets/sample.css":
            return 200, b"text/css; charset=utf-8", self._style
        verified, problem = await self._verified(scope)
        if path == "/":
            return self._page(200, "home.html", verified=verified)
        if path == "/accounts":
            return await self._accounts(verified, problem)
        if path == "/headers":
            return self._page(
                200, "headers.html", verified=verified, problem=problem, rows=_header_rows(scope), ends=_ends(verified)
            )
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

    async def _accounts(self, verified: Verified | None, problem: str) -> tuple[int, bytes, bytes]:
        if verified is None:
            return self._message(401, "Not from the gateway", f"This request was {problem}.", _HOME)
        access = DataAccess.of_request(verified)
        if access is None:
            return self._message(200, "No bank yet", "Connect a bank to see your accounts.", _CONNECT)
        try:
            accounts = await balances(self._http, self._products_url, access)
        except NoData as error:
            return self._message(502, "No data", str(error), _CONNECTIONS)
        rows = [_row(account) for account in accounts]
        return self._page(200, "accounts.html", access=access, rows=rows, ends=_ends(verified))

    def _message(self, status: int, title: str, text: str, link: Link) -> tuple[int, bytes, bytes]:
        return self._page(status, "message.html", title=title, text=text, link=link)

    def _page(self, status: int, template: str, **facts: Any) -> tuple[int, bytes, bytes]:
        text = self._pages.get_template(template).render(**facts)
        return status, b"text/html; charset=utf-8", text.encode()


def _row(described: dict[str, Any]) -> Row:
    return Row(
        name=described["nickname"],
        kind=described["accountType"],
        number=described["accountNumberDisplay"][-4:],
        balance=f"${next(described[name] for name in _AMOUNTS if name in described):,.2f}",
    )


def _ends(verified: Verified | None) -> str:
    """Format the expiry of the id_token."""
    if verified is None or verified.expires is None:
        return ""
    return datetime.fromtimestamp(verified.expires, UTC).strftime("%d %B %Y, %H:%M:%S UTC")


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

    Environment variables: `AKOYA_PRODUCTS_URL` is the base URL of the data APIs. `AKOYA_GATEWAY_SIGNING_KEY` and
    `AKOYA_GATEWAY_SIGNING_KEY_ID` are the shared secret of `hmac-sha256` signatures and its key ID.
    """
    key_id = os.environ.get("AKOYA_GATEWAY_SIGNING_KEY_ID", "k1")
    app = SampleApp(
        os.environ.get("AKOYA_PRODUCTS_URL", "https://sandbox-products.ddp.akoya.com"),
        keys_of([secret_key(key_id, os.environ["AKOYA_GATEWAY_SIGNING_KEY"])]),
        httpx.AsyncClient(timeout=10.0),
    )
    uvicorn.run(app, host="0.0.0.0", port=3000, lifespan="off")  # noqa: S104 - inside a container


if __name__ == "__main__":
    main()
