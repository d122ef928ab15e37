"""Tests that the Python verifiers pass on only the signed path, and a mount only if it was configured."""

from __future__ import annotations

from typing import Any

import pytest

from akoya_verify import AsgiVerifier, KeySource, WsgiVerifier, keys_of, secret_key
from akoya_verify.testing import TEST_KEY, signed_headers

KEYS = keys_of([secret_key("k1", "0123456789abcdef0123456789abcdef")])


def wsgi(environ: dict[str, Any], keys: KeySource = KEYS, **options: Any) -> tuple[str, bytes]:
    """Return status and body. For a request without signature, `missing-signature` means that the path was accepted unchanged."""
    statuses: list[str] = []

    def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        start_response("200 OK", [])
        return [environ["PATH_INFO"].encode()]

    base = {"REQUEST_METHOD": "GET", "SCRIPT_NAME": "", "HTTP_HOST": "a", "wsgi.url_scheme": "http", "QUERY_STRING": ""}
    body = WsgiVerifier(app, keys, exempt={"/pub/*", "/bank/pub/*"}, **options)(
        {**base, **environ}, lambda status, headers: statuses.append(status)
    )
    return statuses[0], b"".join(body)


@pytest.mark.parametrize(
    ("environ", "options", "expected"),
    [({"SCRIPT_NAME": "/pub", "PATH_INFO": "/admin"}, {}, b"root-path"), ({"SCRIPT_NAME": "/bank", "PATH_INFO": "/x"}, {}, b"root-path"),
     ({"PATH_INFO": "/x"}, {"script_name": "/bank"}, b"root-path"), ({"SCRIPT_NAME": "/bank", "PATH_INFO": "/x", "RAW_URI": "/bank/x"}, {"script_name": "/bank"}, b"missing-signature"),
     ({"PATH_INFO": "/admin", "RAW_URI": "/any/admin"}, {}, b"path-mismatch"), ({"PATH_INFO": "/x y", "RAW_URI": "/x%20y?q=1"}, {}, b"missing-signature"),
     ({"PATH_INFO": "/x", "REQUEST_URI": "http://a/x"}, {}, b"missing-signature"),
     ({"PATH_INFO": "/x", "REQUEST_URI": "http://[a/x"}, {}, b"missing-signature"), ({"PATH_INFO": "/", "REQUEST_URI": "http://a?q"}, {}, b"missing-signature"),
     ({"PATH_INFO": "/x", "REQUEST_URI": "http://a/y"}, {}, b"path-mismatch"), ({"PATH_INFO": "*", "RAW_URI": "*"}, {}, b"path-mismatch"), ({"PATH_INFO": "/\xc3\xa4", "RAW_URI": "/%C3%A4"}, {}, b"missing-signature")],
)  # fmt: skip
def test_wsgi_app_gets_the_path_that_was_signed_below_a_named_mount(
    environ: dict[str, Any], options: dict[str, Any], expected: bytes
) -> None:
    status, body = wsgi(environ, **options)
    assert status.startswith("401")
    assert expected in body


def test_exempt_wsgi_path_counts_only_below_the_named_mount() -> None:
    assert wsgi({"PATH_INFO": "/pub/x"})[0] == "200 OK"
    assert wsgi({"SCRIPT_NAME": "/bank", "PATH_INFO": "/pub/x"}, script_name="/bank")[0] == "200 OK"
    assert wsgi({"SCRIPT_NAME": "/bank", "PATH_INFO": "/pub/x"})[0].startswith("401")


def test_wsgi_app_gets_the_query_that_was_signed() -> None:
    def served(query: str, raw: str | None = None) -> str:
        signed = signed_headers("GET", "http://a/x?who=me", owner="o1")
        environ = {"PATH_INFO": "/x", "QUERY_STRING": query}
        environ |= {f"HTTP_{name.upper().replace('-', '_')}": value for name, value in signed.items()}
        return wsgi({**environ, **({} if raw is None else {"RAW_URI": raw})}, keys_of([TEST_KEY]))[0]

    assert served("who=me") == served("who=me", "/x?who=me") == served("who=me", "http://a/x?who=me") == "200 OK"
    for raw in (None, "/x?who=me", "http://a/x?who=me"):
        assert served("who=other", raw) == "401 Unauthorized"


@pytest.mark.parametrize(
    ("scope", "options", "expected"),
    [({"path": "/pub/admin", "raw_path": b"/pub/admin", "root_path": "/pub"}, {}, b"root-path"), ({"path": "/x", "raw_path": b"/x"}, {"root_path": "/bank"}, b"root-path"),
     ({"path": "/bank/x", "raw_path": b"/bank/x", "root_path": "/bank"}, {"root_path": "/bank"}, b"missing-signature"), ({"path": "/admin", "raw_path": b"/any/admin"}, {}, b"path-mismatch"),
     ({"path": "/x y", "raw_path": b"/x%20y"}, {}, b"missing-signature"), ({"path": "/ä"}, {}, b"missing-signature"), ({"path": "/pub/x", "raw_path": b"/pub/x"}, {}, b"served")],
)  # fmt: skip
async def test_asgi_app_gets_the_path_that_was_signed_below_a_named_mount(
    scope: dict[str, Any], options: dict[str, Any], expected: bytes
) -> None:
    statuses: list[dict[str, Any]] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.body", "body": b"served"})

    async def send(message: Any) -> None:
        statuses.append(message)

    base = {"type": "http", "method": "GET", "headers": [(b"host", b"a")], "scheme": "http", "query_string": b""}
    await AsgiVerifier(app, KEYS, exempt={"/pub/*"}, **options)({**base, **scope}, None, send)  # type: ignore[arg-type]
    assert expected in statuses[-1]["body"]
