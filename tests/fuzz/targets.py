"""Fuzz targets: functions of bytes that return, or raise if the gateway misbehaves.

`tests/fuzz/test_targets.py` runs each of them briefly, `scripts/fuzz` for as long as you like. `SEEDS` are valid inputs
to start from. Inputs that once caused a failure are kept in `FOUND`, which every run tries first.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from ipaddress import ip_network
from pathlib import Path
from typing import Any
from urllib.parse import unquote_to_bytes

import akoya_verify as v
from akoya_gateway.access.path_normalization import PathRefused, normalize_path
from akoya_gateway.access.redirect_policy import RedirectRefused
from akoya_gateway.access.request import RequestInfo, host_of, is_navigation
from akoya_gateway.config.diagnostics import ConfigurationError
from akoya_gateway.config.document import parse_document
from akoya_gateway.config.loader import validate_document
from akoya_gateway.config.model import Dialect, EncryptionKey
from akoya_gateway.endpoints.rate_limit import client_key
from akoya_gateway.endpoints.request import _unique_parameters
from akoya_gateway.errors import GatewayError, UserError
from akoya_gateway.grants.serialization import UnreadableGrant
from akoya_gateway.grants.serialization import decode as decode_grant
from akoya_gateway.oauth.authorization_response import parse_authorization_response
from akoya_gateway.oauth.id_token import IdTokenRejected, validate_id_token
from akoya_gateway.oauth.jwks import UnreadableKeys, read_keys
from akoya_gateway.oauth.token_messages import HttpResponse, parse_token_response
from akoya_gateway.secret import Secret
from akoya_gateway.sessions.cookies import read_cookie, strip_cookies
from akoya_gateway.sessions.random_tokens import is_token
from akoya_gateway.sessions.session import UnreadableSession
from akoya_gateway.sessions.session import decode as decode_session
from akoya_gateway.signing.header_names import is_gateway_header, strip
from akoya_gateway.store.encryption import Keyring
from akoya_gateway.upstream.websocket.frame_validator import FrameValidator
from akoya_verify.structured_fields import InnerList, parse_dictionary, serialize_inner_list
from tests.support.browser_redirects import POLICY, as_a_browser_reads
from tests.support.config_documents import ENVIRON
from tests.support.connection_in_memory import new_connection
from tests.support.oauth_values import NOW, claims, client, environment, jwks, key_set, rsa_key, signed
from tests.support.signing import KEYS
from tests.support.websocket_frames import frames
from tests.support.websocket_reference import RIGHT, judged_by_others

EXAMPLE = Path(__file__).parents[2] / "gateway.yaml"
KNOWN_KEYS = key_set(rsa_key())
VERIFIER_KEYS = v.keys_of([v.jwk_key(KEYS["ed25519"]["public_jwk"])])
RING = Keyring([EncryptionKey("k1", b"k" * 32)])


def path(data: bytes) -> None:
    """Normalize a path: an accepted path decodes to the validated text, and decoding it again changes nothing."""
    try:
        text = normalize_path(data)
    except PathRefused:
        return
    assert unquote_to_bytes(data).decode() == text
    assert unquote_to_bytes(text).decode() == text
    assert not {".", ".."} & set(text.split("/"))
    assert "//" not in text
    assert text[0] == "/"
    assert not set("\\;?#") & set(text)
    assert all(ord(character) >= 0x20 and ord(character) != 0x7F for character in text)


def redirect(data: bytes) -> None:
    """Validate a redirect target: a browser resolves an accepted target to a listed host."""
    try:
        target = POLICY.validate(data.decode("utf-8", "surrogateescape"))
    except RedirectRefused:
        return
    assert target.isascii()
    assert as_a_browser_reads(target, "https://app.example.com/") in (
        "app.example.com",
        "pages.example.com",
        "one.example.com",
    )


def cookie(data: bytes) -> None:
    """Read and strip cookies: only well-formed values are returned, and no gateway cookie survives stripping."""
    found = read_cookie(data, b"akoya")
    assert found is None or (is_token(found) and found.encode() in data)
    left = strip_cookies(data, (b"akoya", b"akoya-browser"))
    if left is not None:
        assert len(left) <= len(data)
        assert read_cookie(left, b"akoya") is None
        assert read_cookie(left, b"akoya-browser") is None


def session(data: bytes) -> None:
    try:
        found = decode_session("id", 1, data)
    except UnreadableSession:
        return
    assert found.csrf is not None


def grant(data: bytes) -> None:
    try:
        decode_grant(data, 1)
    except UnreadableGrant:
        return


def sealed(data: bytes) -> None:
    try:
        RING.decrypt(data, b"context")
    except GatewayError:
        return
    raise AssertionError("decrypted data that was not encrypted")


def callback(data: bytes) -> None:
    """Parse an authorization response: nothing is raised, and `repr` does not contain the code."""
    found = parse_authorization_response(data)
    code = getattr(found, "code", None)
    if isinstance(code, Secret) and len(code) > 8:
        assert code.reveal() not in repr(found)


def form(data: bytes) -> None:
    try:
        found = _unique_parameters(data)
    except UserError:
        return
    assert len(found) <= 64


def token_response(data: bytes) -> None:
    """Parse a token response: nothing is raised, whatever the status."""
    status, body = (data[0] * 3 + 100 if data else 200), data[1:]
    for dialect in (Dialect(), Dialect(bearer=Dialect().bearer.__class__("access_token"))):
        parse_token_response(dialect, HttpResponse(status, body, body[:20].decode("latin-1")), NOW)
        parse_token_response(dialect, HttpResponse(200, data), NOW)


def id_token(data: bytes) -> None:
    """Validate an id_token: only a token that the provider's key signed is verified."""
    text = data.decode("latin-1")
    for keys in (KNOWN_KEYS, None):
        try:
            found = validate_id_token(Secret(text), keys, client(), environment(), NOW)
        except IdTokenRejected as refused:
            assert len(text) < 20 or text not in str(refused)
            continue
        assert not found.verified or text == GOOD_TOKEN


def key_document(data: bytes) -> None:
    with suppress(UnreadableKeys):
        read_keys(data)
    with suppress(ValueError, RecursionError):
        v.jwks_keys(data)


def dictionary(data: bytes) -> None:
    """Parse a dictionary: its inner lists serialize to text that parses to the same value."""
    try:
        found = parse_dictionary(data.decode("latin-1"), "Signature-Input")
    except v.NotVerified:
        return
    for key, member in found.items():
        if isinstance(member, InnerList):
            text = f"{key}={serialize_inner_list(member)}"
            assert parse_dictionary(text, "again") == {key: member}


def message(data: bytes) -> None:
    """Verify a request that the gateway did not sign: `NotVerified` is raised, and nothing else."""
    lines = [line.partition(b":") for line in data.split(b"\n")]
    headers = [(name, value) for name, _, value in lines]
    verifications: tuple[Callable[[], object], ...] = (
        lambda: v.verify("GET", "app.example.com", "/", "", headers, VERIFIER_KEYS, NOW),
        lambda: v.verify_assertion(
            [*headers, (b"akoya-assertion", data)], VERIFIER_KEYS, "https://app.example.com", "http://app", NOW
        ),
    )
    for verification in verifications:
        try:
            verification()
        except v.NotVerified:
            continue
        raise AssertionError("verified a request that was not signed")


def stripped(data: bytes) -> None:
    """Strip headers: no spelling of a gateway header survives, and stripping again changes nothing."""
    lines = [line.partition(b":") for line in data.split(b"\n")]
    headers = [(name.lower(), value) for name, _, value in lines]
    once = strip(headers, lambda value: strip_cookies(value, (b"akoya",)) or b"")
    assert strip(once, lambda value: strip_cookies(value, (b"akoya",)) or b"") == once
    assert not [name for name, _ in once if is_gateway_header(name) and name not in (b"signature", b"signature-input")]


def configuration(data: bytes) -> None:
    """Load a configuration: the result is a `Config` or diagnostics of one printable line each."""
    try:
        result = validate_document(parse_document(data, "g.yaml"), Path("/nonexistent/g.yaml"), ENVIRON)
    except ConfigurationError as error:
        assert error.diagnostics
        return
    assert bool(result.diagnostics) is (result.config is None)
    for diagnostic in result.diagnostics:
        assert str(diagnostic).isprintable()


def upstream_response(data: bytes) -> None:
    """Parse an upstream response, cut anywhere: it ends exactly once, with no control characters in its headers."""
    size = data[0] % 50 + 1 if data else 1
    connection, holder, _ = new_connection()
    connection.start(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", holder)
    body = data[1:]
    for at in range(0, len(body), size):
        connection.data_received(body[at : at + size])
    connection.eof_received()
    connection.connection_lost(None)
    diary = holder.diary
    endings = [entry for entry in diary if entry == "end" or isinstance(entry, type)]
    assert len(endings) == 1, diary
    heads = [entry for entry in diary if isinstance(entry, tuple)]
    assert len(heads) <= 1
    for _, head in heads:
        for name, value in head.headers:
            assert not {0, 10, 13} & {*name, *value}
            assert name == name.lower()


def forward_auth_request(data: bytes) -> None:
    """Read client address, host and navigation of a request: nothing is raised."""
    lines = [line.partition(b":") for line in data.split(b"\n")]
    request = RequestInfo(
        "GET", b"/", b"", [(name.lower(), value) for name, _, value in lines], data[:40].decode("latin-1"), "r"
    )
    client_key(request, ())
    client_key(request, client_networks())
    is_navigation(request)
    host = host_of(request.headers)
    assert host == host.lower()
    assert not set(b" \t\r\n/@,") & set(host)


def client_networks() -> Any:
    return (ip_network("0.0.0.0/0"), ip_network("::/0"))


GOOD_TOKEN = signed(claims()).reveal()
_SIGNATURE = b'Signature-Input: akoya=("@method" "@path" "akoya-owner");created=1;expires=9999999999;keyid="x";tag="akoya-gateway"\nSignature: akoya=:AAAA:\nakoya-owner: o'


def socket_frames(data: bytes) -> None:
    """Validate WebSocket frames.

    The same bytes pass however the input is cut, another parser accepts what passes, and little is buffered.
    """
    size = data[0] % 50 + 1 if data else 1
    for masked in (True, False):
        whole, pieces = (FrameValidator(masked=masked, max_message=1000) for _ in range(2))
        passed = whole.feed(data)
        assert passed == b"".join(pieces.feed(data[at : at + size]) for at in range(0, len(data), size))
        assert (whole.close_code, whole.remaining) == (pieces.close_code, pieces.remaining)
        assert data.startswith(passed)
        assert len(whole._held) <= 130
        assert judged_by_others(passed, masked).parser_exc is None


TARGETS: dict[str, Callable[[bytes], None]] = {
    "path": path,
    "socket-frames": socket_frames,
    "redirect": redirect,
    "cookie": cookie,
    "session": session,
    "grant": grant,
    "sealed": sealed,
    "callback": callback,
    "form": form,
    "token_response": token_response,
    "id_token": id_token,
    "key_document": key_document,
    "dictionary": dictionary,
    "message": message,
    "stripped": stripped,
    "configuration": configuration,
    "upstream_response": upstream_response,
    "asked": forward_auth_request,
}

SEEDS: dict[str, list[bytes]] = {
    "socket-frames": [frames(RIGHT[name], mask=mask) for name in ("pings within a message", "a close", "one after the other") for mask in (True, False)],
    "path": [b"/accounts/1", b"/caf%C3%A9/%2e%2e/x", b"/a%25%32e", b"/public/..;/x"],
    "redirect": [b"/accounts?x=1#y", b"https://pages.example.com/x", b"//evil.example", b"/\\evil.example", b"https://pages.example.com@evil.example/"],
    "cookie": [b"a=b; akoya=" + b"A" * 43 + b"; akoya-browser=" + b"B" * 43, b"akoya =x;akoya=;;=", b"akoya=1; akoya=2"],
    "session": [b'{"format":1,"owner":"o","created_at":1,"seen_at":2,"csrf":"c"}'],
    "grant": [b'{"format":1,"key":["o","e","c","k","s"],"tokens":{"bearer":"b","refresh_token":"r","expires_at":1,"scope":["openid"],"sub":"s","consent_id":null},'
              b'"state":"live","connected_at":1,"refreshed_at":1,"reason":"","retry_at":0,"failures":0,"unknowns":0,"lease":["h",1,2,true]}'],
    "sealed": [RING.encrypt(b"plain", b"another context")],
    "callback": [b"code=abc&state=" + b"A" * 43, b"error=access_denied&error_description=x%20y&state=s", b"code=a&code=b", b"iss=https%3A%2F%2Fx&code=1&state=2"],
    "form": [b"csrf=abc&return_to=%2Faccounts&grant=", b"a=b&a=c"],
    "token_response": [b'd{"id_token":"a.b.c","refresh_token":"r","expires_in":900,"scope":"openid"}', b'h{"error":"invalid_grant","error_description":"x"}'],
    "id_token": [GOOD_TOKEN.encode(), b"eyJhbGciOiJub25lIn0.e30.x"],
    "key_document": [json.dumps(jwks(rsa_key())).encode(), json.dumps({"keys": [KEYS["ed25519"]["public_jwk"]]}).encode()],
    "dictionary": [b'akoya=("@method" "@path";req);created=1;keyid="a\\"b";x=?1;y=:AA==:;z=1.5, b=(), c;d=tok'],
    "message": [_SIGNATURE],
    "stripped": [_SIGNATURE + b"\nCookie: akoya=x; b=c\nConnection: akoya-owner, close\nAkoya_Owner: me\nSIGNATURE: other=:AA==:"],
    "configuration": [EXAMPLE.read_bytes(), b"version: 1\npublic_url: [", b"a: &a [*a]"],
    "upstream_response": [b"\x05HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", b"\x03HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nX: y\r\n\r\n",
                          b"\x07HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n", b"\x01HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nto the end"],
    "asked": [b"10.0.0.1\nhost:app.example.com:80\nx-forwarded-for:1.2.3.4, [::1]:5\naccept:text/html\nsec-fetch-mode:navigate"],
}  # fmt: skip

FOUND: dict[str, list[bytes]] = {
    # `%` and digits that form an escape only after decoding: a second decoding yields `..`.
    "path": [b"/public/%25%32%65%25%32%65/accounts"],
}
