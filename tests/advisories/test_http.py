"""Attacks on HTTP itself: framing, upgrades, hosts, resources."""

from __future__ import annotations

import contextlib
import gzip
import json
import socket
import ssl
import threading
import time
from pathlib import Path

import httpx
import pytest

from akoya_gateway.config.model import Origin, Upstream
from akoya_gateway.config.schema_validation import load_schema
from akoya_gateway.provider.factory import http_client
from akoya_gateway.provider.transport import FetchFailed, get
from akoya_gateway.upstream.http.connection_pool import ConnectionPool
from akoya_gateway.upstream.http.tls import client_context
from tests.advisories.advisory import advisory
from tests.support.environment import GatewayEnv
from tests.support.scripted_server import reply, serve
from tests.support.target import Target, parse


def talk(target: Target, *pieces: bytes, pause: float = 0.0, wait: float = 0.3) -> bytes:
    """Send these bytes and return everything that comes back."""
    data = b""
    with target.open() as connection, contextlib.suppress(TimeoutError, ConnectionError):
        connection.settimeout(wait)
        for piece in pieces:
            connection.sendall(piece)
            time.sleep(pause)
        while chunk := connection.recv(65536):
            data += chunk
    return data


def responses(data: bytes) -> int:
    return data.count(b"HTTP/1.1 ")


def reached(data: bytes, path: str) -> bool:
    """Return True if the test app reports that it received this path."""
    return f'"path": "{path}"'.encode() in data


FRAMINGS = {
    "both": "Content-Length: 4\r\nTransfer-Encoding: chunked",
    "both-other-order": "Transfer-Encoding: chunked\r\nContent-Length: 4",
    "two-lengths": "Content-Length: 4\r\nContent-Length: 40",
    "list-of-lengths": "Content-Length: 4, 40",
    "plus": "Content-Length: +4",
    "blank-in-name": "Transfer-Encoding : chunked\r\nContent-Length: 4",
    "folded": "Transfer-Encoding:\r\n chunked\r\nContent-Length: 4",
    "odd-coding": "Transfer-Encoding: xchunked\r\nContent-Length: 4",
    "two-codings": "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\nContent-Length: 4",
    "tab": "Transfer-Encoding:\tchunked\r\nContent-Length: 4",
    "vertical-tab": "Transfer-Encoding: \x0bchunked\r\nContent-Length: 4",
    "underscore": "Transfer_Encoding: chunked\r\nContent-Length: 4",
    "bare-lf": "X: y\nTransfer-Encoding: chunked\r\nContent-Length: 4",
}


@pytest.mark.parametrize("framing", FRAMINGS)
@advisory("CVE-2025-43859", attack="Lenient parsing of lengths and chunk ends allows a request to be hidden in the body of another.",
          ours="Ambiguous framing is refused, and forwarded bodies are framed again by the gateway, so no hidden request reaches the app.")  # fmt: skip
def test_cve_2025_43859_request_smuggling(target: Target, framing: str) -> None:
    hidden = f"GET {target.protected} HTTP/1.1\r\nHost: {target.authority}\r\n\r\n"
    body = f"0\r\n\r\n{hidden}".encode()
    head = f"POST {target.public} HTTP/1.1\r\nHost: {target.authority}\r\n{FRAMINGS[framing]}\r\n\r\n".encode("latin-1")
    data = talk(target, head + body)
    assert not reached(data, target.protected)
    for part in data.split(b"HTTP/1.1 ")[1:]:
        # A visible request of its own is handled as one: it is refused without a session.
        assert (
            target.protected.encode() not in part
            or not part.startswith(b"200")
            or reached(b"HTTP/1.1 " + part, target.public)
        )


@pytest.mark.parametrize("chunk", [b"5\r\nhelloXX0\r\n\r\n", b"5\nhello\n0\n\n", b"5;a=\r\n\x00\r\nhello\r\n0\r\n\r\n", b"0x5\r\nhello\r\n0\r\n\r\n", b"-5\r\nhello\r\n0\r\n\r\n",
                                   b"5 \r\nhello\r\n0\r\n\r\n", b"FFFFFFFFFFFFFFFFF\r\nhello", b"5\r\nhello\r\n0\r\nAkoya-Owner: me\r\n\r\n", b"5" * 5000 + b"\r\n"])  # fmt: skip
@advisory("CVE-2025-69229", attack="Chunked bodies are malformed or expensive to parse.",
          ours="llhttp parses chunks in strict mode, and the gateway frames the body again. Invalid chunks close the connection.")  # fmt: skip
def test_cve_2025_69229_malformed_chunks(target: Target, chunk: bytes) -> None:
    head = f"POST {target.public} HTTP/1.1\r\nHost: {target.authority}\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n".encode()
    data = talk(target, head + chunk)
    reply = parse(data)
    if reply.seen is not None:
        assert reply.seen["body"] in ("hello", "")
        assert "akoya-owner" not in dict(reply.seen["headers"])
    assert responses(data) <= 1
    assert target.fetch(target.public).let_in


@advisory(
    "CVE-2026-34525",
    attack="Two `Host` headers: one is checked, the other is used.",
    ours="Exactly one valid `Host` is required. Otherwise nothing is signed and the response is 400.",
)
def test_cve_2026_34525_two_hosts(target: Target, session: str) -> None:
    for second in ("evil.example", target.authority):
        reply = target.fetch(target.protected, session, f"Host: {second}")
        assert not reply.let_in
    head = f"GET {target.protected} HTTP/1.1\r\n{session}\r\nConnection: close\r\n\r\n".encode()
    assert not parse(talk(target, head)).let_in


@pytest.mark.parametrize(
    "upgrade", ["h2c", "H2C", "websocket, h2c", "h2c, websocket", "TLS/1.0", "x", "http/2", "websocket"]
)
@advisory("CVE-2026-88008", "GHSA-w4v4", "CVE-2026-69243", attack="`Upgrade` (h2c) turns the connection into a tunnel past the proxy's rules.",
          ours="WebSocket with a complete handshake is the only upgrade. All others are dropped, and no byte is forwarded unparsed.")  # fmt: skip
def test_cve_2026_88008_upgrade_smuggling(target: Target, upgrade: str) -> None:
    head = (f"GET {target.public} HTTP/1.1\r\nHost: {target.authority}\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: {upgrade}\r\n"
            "HTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n\r\n").encode()  # fmt: skip
    hidden = f"GET {target.protected} HTTP/1.1\r\nHost: {target.authority}\r\n\r\n".encode()
    data = talk(target, head, hidden, pause=0.05)
    assert b"HTTP/1.1 101" not in data
    assert not reached(data, target.protected)
    assert b"PRI * HTTP/2" not in data
    body = parse(data).seen
    if body is not None and upgrade != "websocket" and target.entrypoint != "middleware":
        assert "upgrade" not in dict(body["headers"])


@advisory("CVE-2026-71324", "GHSA-3ccp", attack="A response of one user is delivered to another over a reused connection.",
          ours="A connection to the app serves one exchange at a time and is closed after any irregularity.")  # fmt: skip
def test_cve_2026_71324_responses_stay_with_their_users(target: Target) -> None:
    if target.env is None:
        pytest.skip("needs the emulator")
    lines: list[str] = []
    for user in ("mikomo_1", "mikomo_4"):
        with target.env.browser() as browser:
            browser.connect(user=user)
            lines.append("Cookie: " + "; ".join(f"{name}={value}" for name, value in browser.http.cookies.items()))
    wrong: list[str] = []
    owners: list[set[str]] = [set(), set()]

    def person(number: int) -> None:
        for count in range(25):
            mark = f"/accounts/of-{number}-{count}"
            if count % 5 == 0:  # a client that disconnects in the middle
                with target.open() as gone:
                    gone.sendall(
                        f"POST {mark}/gone HTTP/1.1\r\nHost: {target.authority}\r\n{lines[number]}\r\nContent-Length: 9\r\n\r\nhalf".encode()
                    )
            seen = target.fetch(mark, lines[number]).seen
            if seen is None or seen["path"] != mark:
                wrong.append(f"{mark}: {seen}")
            else:
                owners[number].add(dict(seen["headers"])["akoya-owner"])

    people = [threading.Thread(target=person, args=(number,)) for number in (0, 1)]
    for one in people:
        one.start()
    for one in people:
        one.join(100)
        assert not one.is_alive(), "a request got no response"
    assert wrong == []
    assert [len(names) for names in owners] == [1, 1]
    assert owners[0] != owners[1]


@advisory("CVE-2026-54273", attack="Pipelined requests queue without a limit, or their responses are swapped.",
          ours="Pipelined requests are authorized separately, and their responses are sent in order. Reading pauses while requests are waiting.")  # fmt: skip
def test_cve_2026_54273_pipelining(target: Target) -> None:
    folder = target.public.rpartition("/")[0]
    requests = "".join(f"GET {folder}/{number} HTTP/1.1\r\nHost: {target.authority}\r\n\r\n" for number in range(30))
    requests += f"GET {target.protected} HTTP/1.1\r\nHost: {target.authority}\r\nConnection: close\r\n\r\n"
    data = talk(target, requests.encode(), wait=30)
    assert not reached(data, target.protected)
    if target.env is not None:
        paths = [
            json.JSONDecoder().raw_decode(part[part.index(b"{") :].decode())[0]["path"]
            for part in data.split(b"HTTP/1.1 200")[1:]
            if b'"path"' in part
        ]
        assert paths == [f"{folder}/{number}" for number in range(len(paths))]
        assert len(paths) == 30


@pytest.mark.parametrize("method", ["__init__", "__class__", "get", "Get", "dispatch", "_method", "PRI", "CONNECT"])
@advisory("CVE-2026-48817", "CVE-2026-48818", attack="The method name selects an attribute of the endpoint that was not meant to be called.",
          ours="Routes are functions with a list of methods. Other methods result in 405 on gateway routes, and elsewhere match no rule.")  # fmt: skip
def test_cve_2026_48817_method_names(target: Target, method: str) -> None:
    for path in (target.protected, "/akoya/", "/akoya/callback", "/akoya/connect/mikomo"):
        reply = target.fetch(path, method=method)
        assert reply.status in (0, 400, 401, 403, 404, 405, 501), (path, reply.status)
    assert target.fetch(target.public).let_in


@pytest.mark.parametrize(
    "kind",
    ["multipart/form-data; boundary=x", "multipart/form-data", "application/x-www-form-urlencoded", "text/plain", ""],
)
@advisory("CVE-2026-54283", "CVE-2024-47874", "CVE-2025-54121", attack="Form parsing without limits: endless parts, endless fields, blocking writes.",
          ours="The gateway parses only urlencoded forms of at most 16 KiB and 64 fields. Bodies for the app are streamed.")  # fmt: skip
def test_cve_2026_54283_form_limits(target: Target, kind: str) -> None:
    lines = (f"Content-Type: {kind}",) if kind else ()
    bodies = [
        b"a=b&" * 20_000,
        b"&" * 20_000,
        b"a" * 300_000,
        b"--x\r\nContent-Disposition: form-data; name=a\r\n\r\n" * 4000,
    ]
    for route in ("/akoya/logout", "/akoya/disconnect/mikomo"):
        for body in bodies:
            reply = target.fetch(route, *lines, method="POST", body=body)
            assert reply.status in (0, 400, 401, 403, 404, 405, 413, 415), reply.status
    assert target.fetch(target.public).let_in


@pytest.mark.parametrize("value", ["bytes=" + "0-," * 2000, "bytes=0-18446744073709551615", "bytes=-1-2", "a" * 3000])
@advisory("CVE-2025-62727", attack="A `Range` header with very many ranges takes quadratic time.",
          ours="The gateway serves no files. `Range` is forwarded to the app unparsed.")  # fmt: skip
def test_cve_2025_62727_ranges(target: Target, value: str) -> None:
    assert not target.fetch(target.protected, f"Range: {value}").let_in
    assert target.fetch("/akoya/jwks.json", f"Range: {value}").status in (200, 403, 404)
    assert target.fetch(target.public, f"Range: {value}").let_in


@advisory("CVE-2022-29228", "CVE-2026-26311", attack="Data that arrives after the gateway's own response or after a reset is processed on a closed stream.",
          ours="After a refusal the rest of the request is discarded or the connection is closed. A client that disconnects ends only its own exchange.")  # fmt: skip
def test_cve_2022_29228_late_data(target: Target) -> None:
    head = f"POST {target.protected} HTTP/1.1\r\nHost: {target.authority}\r\nContent-Length: 200000\r\n\r\n".encode()
    talk(target, head, *[b"x" * 10_000] * 20)
    for number in range(20):
        with target.open() as connection:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\x00\x00\x00\x00\x00\x00\x00")
            path = target.public if number % 2 else target.protected
            connection.sendall(
                f"POST {path} HTTP/1.1\r\nHost: {target.authority}\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel".encode()
            )
    reply = target.fetch(target.public)
    assert reply.let_in
    assert not target.fetch(target.protected).let_in


@pytest.mark.parametrize(
    "kind", ["application/x-www-form-urlencoded", "", "text/html; charset=\xff", "multipart/form-data"]
)
@advisory("CVE-2025-31492", "GHSA-59jp", "CVE-2025-3891",
          attack="A POST without a session receives the protected content with the login form, and one without Content-Type crashes the gateway.",
          ours="A POST is never preserved or replayed: the response is 401 and the app does not receive the request.")  # fmt: skip
def test_cve_2025_31492_post_without_a_session(target: Target, kind: str) -> None:
    lines = ("Accept: text/html", "Sec-Fetch-Mode: navigate", *((f"Content-Type: {kind}",) if kind else ()))
    for body in (b"", b"a=b", b"\x00" * 1000):
        reply = target.fetch(target.protected, *lines, method="POST", body=body)
        assert not reply.let_in
        assert reply.status not in (500, 502)
        assert reply.after == b""
        assert b'"path"' not in reply.body
    assert target.fetch(target.public).let_in


@advisory(
    "CVE-2020-7695",
    attack="CR LF in reflected text splits the response.",
    ours="Text of a request is written to a header only after each character has been validated.",
)
@pytest.mark.parametrize(
    "text", ["%0d%0aX-Evil:%201", "%0aX-Evil:1", "%0d%0a%0d%0a<html>evil", "%E5%98%8A%E5%98%8DX-Evil:1", "\rX-Evil:1"]
)
def test_cve_2020_7695_response_splitting(target: Target, text: str) -> None:
    paths = (f"{target.protected}/{text}", f"{target.protected}?x={text}", f"/akoya/connect/mikomo?return_to=/accounts{text}", f"/akoya/connect/{text}",
             f"/akoya/callback?state={text}&code={text}&error={text}")  # fmt: skip
    for path in paths:
        reply = target.navigate(path)
        assert reply.header("x-evil") == ""
        assert not reply.body.startswith(b"<html>evil")


@advisory("CVE-2020-7694", "CVE-2021-32785", "CVE-2025-65015", attack="Log injection: line breaks, escape sequences, format directives or megabytes of text reach the log.",
          ours="Each log line is one JSON object of bounded size. Paths are logged as normalized, never as sent, and input is never used as a format string.")  # fmt: skip
def test_cve_2020_7694_log_injection(tmp_path: Path) -> None:
    nasty = ["%0a{%22forged%22:1}", "%1b[31m", "%25n%25s%25x", "%7B0%7D", "\x1b[2J", "x" * 6000]
    with GatewayEnv(tmp_path, changes={"logging": {"format": "json", "level": "debug"}}) as env:
        target = Target("sidecar", env.url, "/accounts", "/public/x", "/akoya/connect/mikomo", "/akoya/callback", env)
        for text in nasty:
            target.fetch(f"/public/{text}")
            target.navigate(f"/akoya/callback?error={text}&state={text}&code={text}")
            target.fetch(
                "/accounts", f"User-Agent: {text}", f"X-Request-Id: {text}", f"Referer: {text}", f"Cookie: akoya={text}"
            )
    lines = env.log().splitlines()
    assert len(lines) > 5
    for line in lines:
        assert isinstance(json.loads(line), dict), line
        assert "\x1b" not in line
        assert len(line) < 4000
    assert not any("forged" in json.loads(line) for line in lines)


@advisory("CVE-2025-69223", "CVE-2026-54274", attack="A WebSocket message or a compressed response expands to gigabytes in memory.",
          ours="The proxy forwards frames and bodies in pieces and never decompresses them. Akoya's responses are decompressed up to a limit.")  # fmt: skip
async def test_cve_2025_69223_decompression_bomb() -> None:
    bomb = gzip.compress(b"\x00" * 50_000_000)

    def respond(_: httpx.Request) -> httpx.Response:
        return httpx.Response(200, headers={"content-encoding": "gzip"}, stream=httpx.ByteStream(bomb))

    async with httpx.AsyncClient(transport=httpx.MockTransport(respond)) as http:
        with pytest.raises(FetchFailed, match="more than 65536 bytes"):
            await get(http, "http://test/", 65_536, 10.0)


@advisory("CVE-2026-47265", attack="The client keeps cookies, or sends them to another origin when it follows a redirect.",
          ours="Neither hop follows redirects or keeps cookies.")  # fmt: skip
async def test_cve_2026_47265_no_redirects_and_no_cookies() -> None:
    async with (
        serve(a=reply(307, headers="Location: /b\r\nSet-Cookie: a=b\r\n"), b=reply(200)) as server,
        http_client() as http,
    ):
        first = await http.get(f"{server.url}/a")
        second = await http.get(f"{server.url}/a")
        assert first.status_code == second.status_code == 307
        assert server.to("/b") == []
        assert all("cookie" not in request.headers for request in server.received)


@advisory("CVE-2025-66491", attack="The setting that verifies TLS certificates is inverted.",
          ours="Certificates and host names are verified on both hops. No setting disables this.")  # fmt: skip
def test_cve_2025_66491_tls_is_verified() -> None:
    upstream = Upstream((Origin("https", "app.internal", 443),))
    context = client_context(upstream.tls)
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.check_hostname
    assert ConnectionPool(upstream) is not None
    text = json.dumps(load_schema()).lower()
    for word in ("skip_verify", "insecure_skip", "verify_tls", "tls_verify", "ssl_verify"):
        assert word not in text
