"""The gateway's own responses, byte for byte: every endpoint, the admin listener and the error responses.

`recorded_responses.txt` is the contract. After a deliberate change, record it again, and read the difference:

    AKOYA_RECORD=1 python -m pytest tests/contract/test_recorded_responses.py && git diff tests/contract
"""

from __future__ import annotations

import difflib
import os
import re
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote, urlsplit

import httpx
import pytest

from akoya_gateway.errors import GatewayError, OperatorError, ProviderError, StoreUnavailable, UpstreamError, UserError
from akoya_gateway.grants.errors import TemporarilyUnavailable, UntrustedResponses
from tests.contract.transcript import DATA, PAGE, Headers, Transcript, load, save
from tests.support.environment import ACCESS, GatewayEnv
from tests.support.upstream_apps import asgi_app
from tests.support.waiting import until

RECORDING = Path(__file__).parent / "recorded_responses.txt"
BEARER = "a-bearer-for-background-jobs-in-tests"
OWNER = "own_of_no_user"
HANDSHAKE: Headers = (
    ("connection", "upgrade"), ("upgrade", "websocket"), ("sec-websocket-version", "13"), ("sec-websocket-key", "MDEyMzQ1Njc4OWFiY2RlZg==")
)  # fmt: skip
SIDECAR = ("admin", "server", "upstream")
"""How the titles of entries begin that only the sidecar has."""
FORM = "application/x-www-form-urlencoded"
ERRORS: dict[str, GatewayError] = {
    "GatewayError": GatewayError(),
    "UserError": UserError("Do this.", facts={"error": "not-shown"}),
    "UserError 401": UserError(status=401),
    "UserError 429": UserError(status=429, retry_after=7),
    "OperatorError": OperatorError("The key is missing.", retry_after=3),
    "StoreUnavailable": StoreUnavailable("/var/lib/grants.db is read-only"),
    "ProviderError": ProviderError(),
    "UpstreamError": UpstreamError(status=504),
    "UntrustedResponses": UntrustedResponses(retry_after=5, reconnect=None),
    "UntrustedResponses with an offer": UntrustedResponses(retry_after=5, reconnect="mikomo"),
    "TemporarilyUnavailable with an offer": TemporarilyUnavailable(retry_after=5, reconnect="mikomo"),
}


async def app(scope: Any, receive: Any, send: Any) -> None:
    """Raise the error that the path names, or respond as the usual upstream."""
    if scope["type"] == "http" and scope["path"].startswith("/public/error/"):
        raise ERRORS[scope["path"].removeprefix("/public/error/")]
    await asgi_app()(scope, receive, send)


@pytest.fixture(scope="module")
def refusing() -> Iterator[int]:
    """A port that refuses connections: it is taken, but nothing listens on it."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1]


@pytest.fixture(scope="module", params=["sidecar", "middleware"])
def env(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, refusing: int
) -> Iterator[GatewayEnv]:
    changes: dict[str, Any] = {
        "trusted_proxies": ["127.0.0.1"],
        "forward_auth": True,
        "limits": {"connects_per_minute": 1, "body_bytes": 20_000},
    }
    if request.param == "sidecar":
        changes["upstreams"] = {"refusing": {"url": f"http://127.0.0.1:{refusing}"}}
        changes["access"] = [{"path": "/refusing", "require": "nothing", "upstream": "refusing"}, *ACCESS]
    folder = tmp_path_factory.mktemp("env")
    with GatewayEnv(folder, entrypoint=request.param, changes=changes, app=app, token_bearer=BEARER) as env:
        yield env


def test_own_responses_equal_the_recording(env: GatewayEnv) -> None:
    # Only after these characters, which random values do not contain.
    names = {f"{before}{env.port}": f"{before}PORT" for before in (":", "%3A", "akoya-")}
    names[env.akoya.url] = "http://akoya"
    transcript = Transcript(env.port, names)
    record_without_session(transcript)
    record_for_errors(transcript)
    connect(transcript, env)
    record_with_session(transcript)
    record_forward_auth(transcript)
    if env.entrypoint == "sidecar":
        record_admin(transcript, env)
        record_server(transcript)
        both(transcript, "upstream that refuses connections", "GET", "/refusing")
    else:
        for name in ERRORS:
            both(transcript, f"app raises {name}", "GET", f"/public/error/{quote(name)}")
    leave(transcript)
    compare(transcript.entries, env.entrypoint)


def compare(entries: dict[str, str], entrypoint: str) -> None:
    """Compare with the recording, or record.

    The two entry points respond equally, but uvicorn adds headers to the middleware's responses, and each has entries
    of its own.
    """
    recorded = load(RECORDING) if RECORDING.exists() else {}
    if entrypoint == "middleware":
        entries = {
            title: without_lines(text, "date: <date>", "Date: <date>", "Server: uvicorn", "server: uvicorn")
            for title, text in entries.items()
        }
    if os.environ.get("AKOYA_RECORD"):
        sidecar = (
            entries if entrypoint == "sidecar" else {title: recorded[title] for title in recorded if not own(title)}
        )
        raised = {title: text for title, text in {**recorded, **entries}.items() if own(title)}
        save(RECORDING, sidecar | raised)
        return
    expected = {title: text for title, text in recorded.items() if not own(title)}
    if entrypoint == "middleware":
        expected = {
            t: without_lines(recorded[t], "date: <date>", "Date: <date>") for t in recorded if not t.startswith(SIDECAR)
        }
    differences = [
        difflib.unified_diff(
            expected.get(title, "").split("\n"), entries.get(title, "").split("\n"), title, title, lineterm="", n=20
        )
        for title in {**expected, **entries}
    ]
    assert not (text := "\n".join(line for difference in differences for line in difference)), text


def own(title: str) -> bool:
    """Return True if only the middleware has this entry."""
    return title.startswith("app raises")


def without_lines(text: str, *lines: str) -> str:
    return "\n".join(line for line in text.split("\n") if line not in lines)


def both(transcript: Transcript, title: str, method: str, target: str, **options: Any) -> None:
    """Send the request as a browser's navigation and as a script."""
    transcript.request(f"{title}, page", method, target, PAGE, **options)
    transcript.request(f"{title}, data", method, target, DATA, **options)


def record_without_session(transcript: Transcript) -> None:
    for path in ("/akoya", "/akoya/", "/akoya/jwks.json", "/akoya/nothing", "/akoya/connect", "/akoya/connect/", "/akoya/connect/mikomo/x"):  # fmt: skip
        transcript.request(f"GET {path}", "GET", path, PAGE)
        transcript.request(f"HEAD {path}", "HEAD", path, DATA)
    transcript.request("HEAD /akoya/ page", "HEAD", "/akoya/", PAGE)
    transcript.request("GET /akoya/ data", "GET", "/akoya/")
    transcript.request("GET /akoya/nothing data", "GET", "/akoya/nothing")
    transcript.request("GET /akoya/%6a%77ks.json", "GET", "/akoya/%6a%77ks.json")
    for method, path in (
        ("POST", "/akoya/"), ("DELETE", "/akoya/"), ("OPTIONS", "/akoya/"), ("POST", "/akoya/jwks.json"), ("POST", "/akoya/connect/mikomo"),
        ("HEAD", "/akoya/connect/mikomo"), ("PUT", "/akoya/disconnect/mikomo"), ("PUT", "/akoya/logout"),
        ("HEAD", "/akoya/callback"), ("POST", "/akoya/callback"), ("POST", "/akoya"), ("POST", "/akoya/nothing"),
    ):  # fmt: skip
        transcript.request(f"wrong method: {method} {path}", method, path)
    transcript.request("wrong method: POST /akoya/, page", "POST", "/akoya/", PAGE)
    for query in ("error=access_denied&connector=mikomo&request_id=r1&return_to=/accounts", "error=unheard-of", "done=signed-out", "done=disconnected&return_to=/accounts"):  # fmt: skip
        transcript.request(f"connections page ?{query}", "GET", f"/akoya/?{query}", PAGE)
    for title, path in (
        ("callback without parameters", "/akoya/callback"),
        ("callback of an unknown attempt", "/akoya/callback?code=c&state=unheard-of"),
        ("callback with two states", "/akoya/callback?code=c&state=a&state=b"),
        ("connect with an unknown bank", "/akoya/connect/nothing"),
        ("connect with a refused return_to", "/akoya/connect/mikomo?return_to=https://evil.example/"),
        ("connect with an unknown parameter", "/akoya/connect/mikomo?return_to=/accounts&month=7"),
        ("connect with a parameter twice", "/akoya/connect/mikomo?return_to=/accounts&return_to=/mikomo"),
        ("connect with bytes that are not UTF-8", "/akoya/connect/mikomo?return_to=%ff"),
    ):
        both(transcript, title, "GET", path)
    transcript.request("connect ahead of time", "GET", "/akoya/connect/mikomo", (*PAGE, ("sec-purpose", "prefetch")))
    both(transcript, "question of disconnect without a session", "GET", "/akoya/disconnect/mikomo")
    transcript.request("question of logout without a session", "GET", "/akoya/logout", PAGE)
    transcript.request("disconnect without a session", "POST", "/akoya/disconnect/mikomo", body={"csrf": "x"})
    transcript.request("logout without a session", "POST", "/akoya/logout", body={"csrf": "x"})
    transcript.request("logout from another site", "POST", "/akoya/logout", (*DATA, ("origin", "https://evil.example")), body={})  # fmt: skip
    transcript.request("logout with JSON", "POST", "/akoya/logout", (*DATA, ("content-type", "application/json")), body=b"{}")  # fmt: skip
    transcript.request("logout with a long form", "POST", "/akoya/logout", (*DATA, ("content-type", FORM)), body=b"a" * 16_385)  # fmt: skip
    transcript.request("logout with a field twice", "POST", "/akoya/logout", (*DATA, ("content-type", FORM)), body=b"a=1&a=2")  # fmt: skip
    title = "connect too often"
    while " 429 " not in transcript.request(title, "GET", "/akoya/connect/mikomo", source="127.0.0.7"):
        del transcript.entries[title]  # one attempt a minute is allowed
    entry = transcript.entries[title]
    transcript.entries[title] = re.sub(r"(?m)^retry-after: \d+$", "retry-after: <seconds>", entry)
    transcript.cookies.clear()


def record_for_errors(transcript: Transcript) -> None:
    for path in ("/accounts?year=2026", "/both", "/closed", "/nowhere", "/api/banks/mikomo/x", "/api/banks/nothing/x", "/ACCOUNTS", "/a%2fb", "/" + "a" * 9000):  # fmt: skip
        both(transcript, f"denied {path[:30]}", "GET", path)
    transcript.request("denied HEAD /closed", "HEAD", "/closed")
    transcript.request("denied POST /accounts", "POST", "/accounts", body={"a": "b"})
    transcript.request("denied with an own request id", "GET", "/closed", (*DATA, ("x-request-id", "r-from-the-proxy")))
    both(transcript, "method override", "POST", "/public/admin?_method=GET", body=b"")
    both(transcript, "body too large", "POST", "/public/x", body=b"a" * 20_001)
    twice = ("cookie", "akoya-session=a; akoya-session=b")
    both(transcript, "no connection to an upstream host", "GET", "/accounts", host="a b")
    transcript.request("cookie twice", "GET", "/accounts", (*DATA, twice))
    transcript.request("cookie twice at connect", "GET", "/akoya/connect/mikomo", (*PAGE, twice))
    for path in ("/accounts", "/closed", "/akoya/"):
        transcript.request(f"WebSocket {path}", "GET", path, HANDSHAKE)
    transcript.request("WebSocket of another site", "GET", "/public/ws", (*HANDSHAKE, ("origin", "https://evil.example")))  # fmt: skip


def connect(transcript: Transcript, env: GatewayEnv) -> None:
    """Connect a bank, after two attempts that fail."""
    for title, query in (("refused by the user", "error=access_denied"), ("with a wrong code", "code=wrong"), ("of another issuer", "code=c&iss=https%3A%2F%2Fevil.example")):  # fmt: skip
        state = parse_qs(urlsplit(begin(transcript, f"connect {title}")).query)["state"][0]
        transcript.request(f"callback {title}", "GET", f"/akoya/callback?{query}&state={state}", PAGE)
    callback = urlsplit(env.akoya.consent(begin(transcript, "connect"), "mikomo_1"))
    transcript.request("callback", "GET", f"{callback.path}?{callback.query}", PAGE)
    transcript.request("callback again", "GET", f"{callback.path}?{callback.query}", PAGE)


def begin(transcript: Transcript, title: str) -> str:
    """Begin an attempt from an address of its own, because of the rate limit, and return the authorization URL."""
    source = f"127.0.1.{len(transcript.entries) % 250}"
    response = transcript.request(title, "GET", "/akoya/connect/mikomo?return_to=/accounts", PAGE, source=source)
    return response.partition("location: ")[2].partition("\n")[0]


def record_with_session(transcript: Transcript) -> None:
    transcript.request("GET /akoya/ connected, page", "GET", "/akoya/?return_to=/accounts", PAGE)
    transcript.request("GET /akoya/ connected, data", "GET", "/akoya/")
    transcript.request("HEAD /akoya/ connected", "HEAD", "/akoya/")
    transcript.request("denied with a session", "GET", "/both", PAGE)
    spanish = (*PAGE, ("accept-language", "es-MX,es;q=0.9,en;q=0.5"))
    transcript.request("GET /akoya/ in Spanish", "GET", "/akoya/", spanish)
    transcript.request("denied in Spanish", "GET", "/nowhere", spanish)
    transcript.request("denied in Spanish, data", "GET", "/nowhere", (*DATA, *spanish[-1:]))
    for path in ("/akoya/disconnect/mikomo?return_to=/accounts", "/akoya/disconnect/nothing", "/akoya/logout"):
        transcript.request(f"question of {path}", "GET", path, PAGE)
    for path in ("/akoya/disconnect/mikomo", "/akoya/logout"):
        transcript.request(f"POST {path} with a wrong token", "POST", path, PAGE, body={"csrf": "wrong"})


def record_forward_auth(transcript: Transcript) -> None:
    route = "/akoya/forward-auth"

    def original(path: str, *more: tuple[str, str], accept: Headers = PAGE) -> Headers:
        return (*accept, ("x-original-method", "GET"), ("x-original-uri", path), *more)

    for path in ("/public/x", "/accounts", "/accounts?a=b", "/both", "/closed", "/nowhere", "/akoya/", "/a%2fb"):
        for round_ in ("first", "second"):
            transcript.request(f"forward-auth {path} {round_}", "GET", route, original(path))
        transcript.request(f"forward-auth {path} data", "GET", route, original(path, accept=DATA))
    for path in ("/both", "/accounts"):
        transcript.request(f"forward-auth {path} for the client", "GET", route, original(path, ("x-akoya-answer", "client")))  # fmt: skip
    forwarded = (*DATA, ("x-forwarded-method", "GET"), ("x-forwarded-host", "127.0.0.1"))
    transcript.request("forward-auth like Traefik", "GET", route, (*forwarded, ("x-forwarded-uri", "/both")))
    transcript.request("forward-auth like Envoy", "GET", f"{route}/both", PAGE)
    transcript.request("forward-auth without a request", "GET", route)
    transcript.request("forward-auth HEAD", "HEAD", route, original("/both"))
    transcript.request("forward-auth of a client", "GET", route, original("/accounts"), source="127.0.0.2")
    transcript.request("forward-auth in another spelling", "GET", "/akoya/%66orward-auth", original("/accounts"))


def record_admin(transcript: Transcript, env: GatewayEnv) -> None:
    # While the checks take long, on a slow disk, /readyz has a note. Its response is cached for half a second.
    until(lambda: httpx.get(f"{env.admin_url}/readyz", trust_env=False).json()["notes"] == [], "the checks are done")
    for method in ("GET", "HEAD", "POST", "OPTIONS"):
        for path in ("/livez", "/readyz", "/nothing", "/"):
            if (method, path) == ("HEAD", "/readyz"):
                continue  # its length depends on the process ID
            transcript.request(f"admin {method} {path}", method, path, port=env.admin_port)
    metrics = transcript.request("admin GET /metrics", "GET", "/metrics", port=env.admin_port)
    entry = transcript.entries["admin GET /metrics"]
    transcript.entries["admin GET /metrics"] = entry.replace(metrics.partition("\n\n")[2].strip(), "<metrics>")
    transcript.request("admin POST /metrics", "POST", "/metrics", port=env.admin_port)
    for path in ("/livez", "/readyz", "/akoya/token/mikomo"):
        transcript.request(f"admin rebound {path}", "GET", path, port=env.admin_port, host="rebound.example.com")
    bearer = (*DATA, ("authorization", f"Bearer {BEARER}"))
    for title, method, target, headers in (
        ("without a bearer", "GET", "/akoya/token/mikomo?owner=x", DATA),
        ("with a wrong bearer", "GET", "/akoya/token/mikomo?owner=x", (*DATA, ("authorization", "Bearer wrong"))),
        ("without an owner", "GET", "/akoya/token/mikomo", bearer),
        ("of an unknown owner", "GET", f"/akoya/token/mikomo?owner={OWNER}", bearer),
        ("of an unknown bank", "GET", f"/akoya/token/no%2Fthing?owner={OWNER}", bearer),
        ("by POST", "POST", "/akoya/token/mikomo?owner=x", bearer),
        ("by HEAD", "HEAD", "/akoya/token/mikomo?owner=x", bearer),
    ):
        transcript.request(f"admin token {title}", method, target, headers, port=env.admin_port)
    response = transcript.request("server own owner", "GET", "/accounts")
    owner = response.partition('"akoya-owner", "')[2].partition('"')[0]
    del transcript.entries["server own owner"]
    transcript.request("admin token", "GET", f"/akoya/token/mikomo?owner={owner}", bearer, port=env.admin_port)


def record_server(transcript: Transcript) -> None:
    """Record the responses of the HTTP server itself, which the gateway never sees."""
    for title, data in (
        ("a line that is no request", b"what\r\n\r\n"),
        ("HTTP/2.0", b"GET / HTTP/2.0\r\nhost: a\r\n\r\n"),
        ("a large head", b"GET / HTTP/1.1\r\nhost: a\r\na: " + b"a" * 70_000 + b"\r\n\r\n"),
        (
            "two hosts",
            b"GET /accounts HTTP/1.1\r\nhost: a\r\nhost: b\r\nx-request-id: r-1\r\nconnection: close\r\n\r\n",
        ),
    ):
        transcript.raw(f"server: {title}", data, shown=title)


def leave(transcript: Transcript) -> None:
    """Disconnect the bank and sign out, with the token of the page."""
    form = {"csrf": transcript.request("GET /akoya/ last", "GET", "/akoya/").partition('"csrf":"')[2].partition('"')[0]}
    transcript.request("POST /akoya/disconnect/mikomo", "POST", "/akoya/disconnect/mikomo", PAGE, body={**form, "return_to": "/accounts"})  # fmt: skip
    transcript.request("POST /akoya/disconnect/mikomo again", "POST", "/akoya/disconnect/mikomo", DATA, body=form)
    transcript.request("POST /akoya/logout", "POST", "/akoya/logout", PAGE, body={**form, "return_to": "https://evil.example/"})  # fmt: skip
