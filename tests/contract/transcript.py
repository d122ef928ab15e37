"""Sends raw requests to a gateway and writes down the responses, with the values that vary replaced by names."""

from __future__ import annotations

import re
import socket
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlencode

TIMEOUT = 30.0
Headers = tuple[tuple[str, str], ...]

PAGE: Headers = (("accept", "text/html"), ("sec-fetch-mode", "navigate"), ("sec-fetch-dest", "document"))
DATA: Headers = (("accept", "application/json"),)

_VARYING = (
    (r"(?im)^(date): .+$", r"\1: <date>"),
    (r"(?m)^(set-cookie: [\w-]+)=[\w-]{20,}", r"\1=<value>"),
    (r"(?<=akoya=:)[^:]+(?=:)", "<signature>"),
    (r"\bown_[\w-]{30,}", "<owner>"),
    (r"\b(created|expires)=\d+", r"\1=<time>"),
    (r"(?m)^akoya-expires: .+$", "akoya-expires: <time>"),
    (r"\bg_[\w-]{22}(?![\w-])", "<grant>"),
    (r'(?m)(?<=^akoya-consent: ).+$|(?<="consent":")[^"]+', "<consent>"),
    (r"eyJ[\w.-]+", "<JWT>"),
    (r'(?<=nonce=")[0-9a-f]{32}', "<nonce>"),
    (r'(?<=<code>)[0-9a-f]{16}|(?<="request_id":")[0-9a-f]{16}|(?<=x-request-id: )[0-9a-f]{16}', "<request ID>"),
    (r"Max-Age=259\d{4}", "Max-Age=<30 days>"),
    (r"\b(code|state|nonce|code_challenge)=[\w-]{20,}", r"\1=<\1>"),
    (r'(?<=name="csrf" value=")[^"]+', "<csrf>"),
    (r'(?<=name="grant" value=")[^"]+', "<grant>"),
    (r'(?<="csrf":")[^"]+', "<csrf>"),
    (r'(?<="id":")[^"]+', "<grant>"),
    (r'(?<="x":")[\w-]+', "<key>"),
    (r'(?<="expires":)\d+', "<time>"),
    (r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?Z", "<time>"),
    (r"\b[A-Z][a-z]+ \d{1,2}, \d{4}", "<day>"),
    (r'(?<="pid": )\d+', "<pid>"),
    (r"<style>.*?</style>", "<style>...</style>"),  # its hash is in the Content-Security-Policy
)
_SAME = "as the response to: "


def send(port: int, data: bytes, source: str = "127.0.0.1") -> bytes:
    """Send `data` on a connection of its own, and return all bytes until the server closes it."""
    with socket.create_connection(("127.0.0.1", port), TIMEOUT, source_address=(source, 0)) as connection:
        connection.sendall(data)
        received = b""
        while chunk := connection.recv(65_536):
            received += chunk
    return received


class Transcript:
    """The responses of one gateway by the title of their request.

    Args:
        port: of the gateway.
        names: what to write instead of a text of this run, such as a port number.
    """

    def __init__(self, port: int, names: Mapping[str, str]) -> None:
        self.entries: dict[str, str] = {}
        self.cookies: dict[str, str] = {}
        self._port = port
        self._names = names

    def request(
        self,
        title: str,
        method: str,
        target: str,
        headers: Headers = DATA,
        *,
        body: bytes | Mapping[str, str] | None = None,
        port: int | None = None,
        source: str = "127.0.0.1",
        host: str | None = None,
    ) -> str:
        """Send a request with the cookies so far, record its response and return it as it was received."""
        fields = [("host", host or f"127.0.0.1:{port or self._port}"), ("connection", "close")]
        names = {name for name, _ in headers}
        if "x-request-id" not in names:
            fields.append(("x-request-id", "r-1"))
        if self.cookies and "cookie" not in names:
            fields.append(("cookie", "; ".join(f"{name}={value}" for name, value in self.cookies.items())))
        if isinstance(body, Mapping):
            fields.append(("content-type", "application/x-www-form-urlencoded"))
            body = urlencode(body).encode()
        if body is not None and "content-length" not in names:
            fields.append(("content-length", str(len(body))))
        head = "".join(f"{name}: {value}\r\n" for name, value in (*fields, *headers))
        data = f"{method} {target} HTTP/1.1\r\n{head}\r\n".encode("latin-1") + (body or b"")
        return self.raw(title, data, port=port, source=source, shown=f"{method} {target[:80]}")

    def raw(self, title: str, data: bytes, *, shown: str, port: int | None = None, source: str = "127.0.0.1") -> str:
        """Send these bytes, record the response as the response to `shown` and return it."""
        assert title not in self.entries, f"two requests are called {title!r}"
        received = send(port or self._port, data, source).decode().replace("\r\n", "\n")
        for name, value in re.findall(r"(?m)^set-cookie: ([^=]+)=([^;]*)", received):
            self.cookies[name] = value
            if not value:
                del self.cookies[name]
        self.entries[title] = self._normalized(f"{shown}\n{received}")
        return received

    def _normalized(self, text: str) -> str:
        head, _, body = text.partition("\n\n")
        if body:
            # Not the number: it depends on the values that are replaced.
            announced = re.search(r"(?m)^content-length: (\d+)$", head)
            assert announced is not None and int(announced[1]) == len(body.encode()), text
            text = text.replace(announced[0], "content-length: <body>", 1)
        for value, name in self._names.items():
            text = text.replace(value, name)
        for pattern, replacement in _VARYING:
            text = re.sub(pattern, replacement, text, flags=re.DOTALL if "style" in pattern else 0)
        return text.rstrip("\n")


def load(path: Path) -> dict[str, str]:
    """Return the recorded entries of a file by title."""
    parts = re.split(r"(?m)^=== (.+)\n", path.read_text("utf-8"))[1:]
    entries: dict[str, str] = {}
    for title, text in zip(parts[::2], parts[1::2], strict=True):
        shown, _, response = text.rstrip("\n").partition("\n")
        if response.startswith(_SAME):
            response = entries[response.removeprefix(_SAME)].partition("\n")[2]
        entries[title] = f"{shown}\n{response}"
    return entries


def save(path: Path, entries: Mapping[str, str]) -> None:
    """Write the entries to a file. A response that occurs again is written as the title of the first."""
    first: dict[str, str] = {}
    with path.open("w", encoding="utf-8") as file:
        for title, text in entries.items():
            shown, _, response = text.partition("\n")
            same = first.setdefault(response, title)
            file.write(f"=== {title}\n{shown}\n{response if same == title else _SAME + same}\n\n")
