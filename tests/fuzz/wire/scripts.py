"""What a hostile client sends on one connection: requests from a grammar, mutated, pipelined and cut."""

from __future__ import annotations

import random
import re
from dataclasses import dataclass

MARK = re.compile(rb"mk[0-9a-f]{16}")
"""Each script marks everything that it sends, so that data of another script's connection is recognized.

A mutation never turns a mark into that of another script.
"""

METHODS = (
    [b"GET"] * 24
    + [b"POST"] * 8
    + [b"HEAD", b"PUT", b"DELETE", b"OPTIONS", b"PATCH", b"TRACE", b"CONNECT", b"get", b"G\0T"]
)
GOOD_PATHS = [
    b"/pub/a", b"/any/a", b"/any/a", b"/bank/mikomo/a", b"/bank/other/a", b"/m/a", b"/notok/a", b"/pass/a", b"/forb/a", b"/other/a", b"/opub/a",
]  # fmt: skip
PATHS = [
    b"/pub/a", b"/pub/a", b"/pub/sse", b"/any/a", b"/any/a", b"/any/sse", b"/bank/mikomo/a", b"/bank/other/a", b"/m/a", b"/notok/a", b"/pass/a",
    b"/forb/a", b"/other/a", b"/opub/a", b"/nowhere", b"/akoya/", b"/akoya/x", b"/akoya/connect/mikomo", b"/akoya/forward-auth", b"/pub/../any/a",
    b"/pub/%2e%2e/any/a", b"/pub//any/a", b"/any%2fa", b"/ANY/a", b"/any/a/", b"/pub/%61", b"/pub/a;b", b"/pub/%zz", b"/pub/\xe9", b"/pub/a#b",
    b"*", b"http://gw/any/a", b"//any/a", b"/pub/a\\..\\any", b"/pub/a%00b", b"/any/.%2e/pub/a", b"",
]  # fmt: skip
HEADERS = [
    b"Accept: */*", b"User-Agent: fuzz", b"X-Own: 1", b"X_Own: 2", b"Connection: keep-alive", b"Connection: close", b"Connection: Akoya-Owner",
    b"Connection: Cookie, X-Own", b"Connection: Upgrade\r\nUpgrade: foo", b"Connection: Upgrade\r\nUpgrade: h2c", b"Upgrade: foo",
    b"Akoya-Owner: evil", b"akoya-id-token: evil", b"AKOYA_ID_TOKEN: evil", b"Akoya.Owner: evil", b"Akoya-Anything: evil", b"Akoya: evil",
    b"Akoya-Connector: mikomo", b"Signature: akoya=:ZXZpbA==:", b'Signature-Input: akoya=();created=1', b"Signature_Input: a=()", b'Signature: x=:YQ==:\r\nSignature-Input: x=("@method");created=1',
    b"Content-Digest: sha-256=:YQ==:", b"X-HTTP-Method-Override: DELETE", b"X-Method-Override: GET", b"X-Original-URL: /any/a", b"X-Rewrite-URL: /pub/a",
    b"SCRIPT_NAME: /pub", b"Daphne-Root-Path: /pub", b"X-Forwarded-For: 1.2.3.4", b"X-Forwarded-Proto: https", b"X-Forwarded-Host: evil", b"Forwarded: for=1.2.3.4",
    b"X-Real-IP: 1.2.3.4", b"Proxy-Connection: keep-alive", b"TE: trailers", b"Trailer: Akoya-Owner", b"Keep-Alive: timeout=5", b"Expect: 100-continue",
    b"Content-Length: 0", b"Transfer-Encoding: chunked", b"Transfer-Encoding: identity", b"Transfer-Encoding : chunked", b"Content-Length: +1",
    b"Origin: http://evil.example", b"Sec-Fetch-Site: cross-site", b"X-Request-Id: abc", b"X-Empty:", b"X-Tab:\ta\t", b"X-High: \xe9\xff", b" folded: yes",
    b"Host: other", b"Range: bytes=0-", b"Authorization: Bearer x", b"X-Long: " + b"v" * 3000, b"Max-Forwards: 0", b"Via: 1.1 x", b"Priority: u=1",
]  # fmt: skip
HANDSHAKE = b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="
BYTES = [
    b"\0", b"\r", b"\n", b"\r\n", b"\r\n\r\n", b" ", b"\t", b":", b",", b";", b"=", b"%", b"%2e", b"%2f", b"/", b"//", b"..", b"?", b"#", b"\xff", b"\x80", b"_", b"-", b"0",
    b"chunked", b"Akoya-Owner: evil\r\n", b"GET /any/a HTTP/1.1\r\nHost: gw\r\n\r\n", b"Content-Length: 5\r\n", b"HTTP/1.0", b"HTTP/1.1", b"a" * 5000, b"x: y\r\n" * 300,
]  # fmt: skip


@dataclass(frozen=True)
class Person:
    """A signed-in user with their cookie."""

    name: str
    cookie: bytes
    secret: bytes
    """The session ID in the cookie."""


@dataclass(frozen=True)
class Script:
    mark: bytes
    pieces: tuple[bytes, ...]
    pause: float
    """Pause between the pieces in seconds."""
    leaves: str
    """`reads` everything, or disconnects early: `closes` or `resets`."""

    @property
    def data(self) -> bytes:
        return b"".join(self.pieces)


class Maker:
    """Generates scripts from a seed."""

    def __init__(self, seed: int, people: tuple[Person, ...]) -> None:
        self._random = random.Random(seed)
        self._people = people

    def script(self) -> Script:
        rnd = self._random
        mark = b"mk%016x" % rnd.getrandbits(64)
        requests = [self._request(mark) for _ in range(rnd.choice((1, 1, 2, 3, 5, 8)))]
        if rnd.random() < 0.75:
            requests.append(b"GET /pub/end?mk=%b HTTP/1.1\r\nHost: gw\r\nConnection: close\r\n\r\n" % mark)
        pieces = self._cut(requests)
        leaves = rnd.choices(("reads", "closes", "resets"), (8, 1, 1))[0]
        return Script(mark, tuple(pieces), rnd.choice((0.0, 0.0, 0.001, 0.01)), leaves)

    def _request(self, mark: bytes) -> bytes:
        rnd = self._random
        path = rnd.choice(GOOD_PATHS if rnd.random() < 0.8 else PATHS) + b"?mk=" + mark
        lines = [
            b"%b %b %b"
            % (rnd.choice(METHODS), path, rnd.choice([b"HTTP/1.1"] * 12 + [b"HTTP/1.0", b"HTTP/1.2", b"http/1.1"]))
        ]
        fields = [b"Host: gw"] if rnd.random() < 0.95 else []
        fields.append(b"X-Mark: " + mark)
        if rnd.random() < 0.6:
            fields.append(b"Cookie: " + self._cookies())
        if rnd.random() < 0.04:
            fields.append(HANDSHAKE)
        fields += rnd.choices(HEADERS, k=rnd.choice((0, 0, 0, 0, 1, 1, 3)))
        body = b""
        if rnd.random() < 0.3:
            body = rnd.choice(
                (b"body " + mark, b"GET /any/a?mk=%b HTTP/1.1\r\nHost: gw\r\n\r\n" % mark, bytes(70_000), b"")
            )
            if rnd.random() < 0.5:
                fields.append(b"Content-Length: %d" % (len(body) + rnd.choice((0, 0, 0, 0, 1, -1))))
            else:
                fields.append(b"Transfer-Encoding: chunked")
                trailer = rnd.choice((b"", b"", b"Akoya-Owner: evil\r\n", b"X-T: 1\r\n"))
                body = (b"%x\r\n%b\r\n" % (len(body), body) if body else b"") + b"0\r\n" + trailer + b"\r\n"
        if rnd.random() < 0.2:
            rnd.shuffle(fields)
        data = b"\r\n".join([*lines, *fields, b"", b""]) + body
        return self._mutated(data) if rnd.random() < 0.15 else data

    def _cookies(self) -> bytes:
        rnd = self._random
        one = rnd.choice(self._people).cookie
        other = rnd.choice(self._people).cookie
        return rnd.choice((
            one, one, one, one, one, one, one, one, one, one, b"theirs=1; " + one, one + b"; theirs=2", one + b"; " + other, one.upper(), b"x" + one, one + b"x", b"theirs=" + one, b"akoya=", b"akoya",
            one[:-3], one.replace(b"=", b" = "), one.replace(b"=", b'="') + b'"', one + b"\r\nCookie: " + other, one + b"\r\nCookie: theirs=1",
        ))  # fmt: skip

    def _mutated(self, data: bytes) -> bytes:
        rnd = self._random
        changed = bytearray(data)
        for _ in range(rnd.choice((1, 1, 2, 4))):
            at = rnd.randrange(len(changed) + 1)
            # Heads are more interesting than bodies.
            at = min(at, 400)
            what = rnd.randrange(5)
            if what == 0:
                changed[at : at + rnd.choice((0, 1, 2))] = rnd.choice(BYTES)
            elif what == 1:
                del changed[at : at + rnd.choice((1, 2, 10))]
            elif what == 2 and at < len(changed):
                changed[at] ^= 1 << rnd.randrange(8)
            elif what == 3:
                start = rnd.randrange(len(changed) + 1)
                changed[at:at] = changed[start : start + rnd.choice((4, 40))]
            else:
                changed[at : at + 2] = b"\r\n"
        return bytes(changed)

    def _cut(self, requests: list[bytes]) -> list[bytes]:
        rnd = self._random
        way = rnd.randrange(3)
        if way == 0:
            return [b"".join(requests)]
        if way == 1:
            return requests
        data = b"".join(requests)
        cuts = sorted(rnd.randrange(len(data) + 1) for _ in range(rnd.choice((1, 2, 4))))
        return [data[start:end] for start, end in zip([0, *cuts], [*cuts, len(data)], strict=True) if end > start]
