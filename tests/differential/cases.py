"""One table of requests: spellings of paths, gateway headers and hosts, and each shape of access rule."""

from __future__ import annotations

from dataclasses import dataclass

from tests.support.client_signatures import REFUSED

HOST = "app.example"

RULES = [
    {"path": "/", "require": "nothing"},
    {"path": "/public/*", "require": "nothing"},
    {"path": "/api/banks/{connector}/*", "methods": ["GET"], "require": "{connector}", "otherwise": "unauthorized"},
    {"path": "/api/banks/{connector}/*", "methods": ["POST"], "require": "{connector}", "otherwise": "forbidden"},
    {"path": "/both", "require": ["mikomo", "other"], "otherwise": "connect"},
    {"path": "/either", "require": "any", "otherwise": "unauthorized"},
    {"path": "/closed", "require": "other", "otherwise": "forbidden"},
    {"path": "/optional", "require": "other", "otherwise": "pass"},
    {"path": "/optional/any", "require": "any", "otherwise": "pass"},
    {"path": "/optional/rest", "methods": ["GET"], "require": "other", "otherwise": "unauthorized"},
    {"path": "/optional/*", "require": "nothing"},
    {"path": "/accounts", "require": "any", "otherwise": "connect"},
    {"path": "/accounts/*", "require": "any", "otherwise": "connect"},
    {"path": "/mikomo", "require": "mikomo", "otherwise": "connect"},
    {"path": "/mikomo/{page}", "methods": ["GET", "PUT"], "require": "mikomo", "otherwise": "connect"},
    {"path": "/query/{connector}", "require": "{connector}", "grant": {"query": "login"}, "otherwise": "unauthorized"},
    {"path": "/header", "require": "mikomo", "grant": {"header": "X-Bank-Login"}, "otherwise": "unauthorized"},
    {"path": "/path/{login}/x", "require": "mikomo", "grant": {"path": "login"}, "otherwise": "unauthorized"},
    {"path": "/single", "require": ["mikomo"], "grant": "single", "otherwise": "pass"},
    {"path": "/tokens", "require": ["other", "mikomo"], "pass_tokens": "all", "otherwise": "unauthorized"},
]


@dataclass(frozen=True)
class Row:
    """One request and what is expected of it.

    `member`: sent with the cookie of a user who has connected `mikomo`. `ended`: the provider has ended that grant.
    `several`: sent with the cookie of a user who has two logins at `mikomo` and one at `other`. `half`: sent with the
    cookie of a user who has two logins at `mikomo`, of which the provider has ended one.
    `refused`: every entry point refuses it, though the reason may differ. `hosts`: the Host header lines.
    `stricter`: entry points that may refuse what others allow. `proxied`: whether a front proxy would forward the
    request at all.
    """

    target: str
    method: str = "GET"
    lines: tuple[str, ...] = ()
    hosts: tuple[str, ...] = (f"Host: {HOST}",)
    member: bool = True
    refused: bool = False
    stricter: tuple[str, ...] = ()
    proxied: bool = True
    ended: bool = False
    several: bool = False
    half: bool = False

    def __str__(self) -> str:
        parts = [self.method, self.target[:60], *(f"[{line[:40]}]" for line in self.lines)]
        parts += [f"<{line}>" for line in self.hosts if line != f"Host: {HOST}"]
        return " ".join(parts) + ("" if self.member else " as nobody") + (" with an ended grant" if self.ended else "")


def rules() -> list[Row]:
    """Return requests that match and do not match each shape of rule: navigations and API calls, all methods."""
    targets = ["/", "/public/x", "/api/banks/mikomo/x", "/api/banks/other/x", "/api/banks/nobody/x", "/both", "/either",
               "/closed", "/optional", "/optional/any", "/optional/rest", "/optional/x", "/accounts", "/accounts/", "/accounts/1/2?q=1&q=2", "/mikomo",
               "/mikomo/1", "/mikomo/1/2", "/mikomo/", "/optional/ANY", "/optional/any/", "/Optional/any", "/optional/Rest", "/optional/", "/optional/x/", "/nowhere", "/accountsx", "/Accounts"]  # fmt: skip
    page = ("Accept: text/html", "Sec-Fetch-Mode: navigate", "Sec-Fetch-Dest: document")
    rows = [
        Row(target, lines=lines, member=member)
        for target in targets
        for lines in ((), page)
        for member in (True, False)
    ]
    methods = ["POST", "PUT", "DELETE", "OPTIONS", "PATCH"]
    some = ["/public/x", "/api/banks/mikomo/x", "/accounts", "/mikomo/1"]
    rows += [Row(target, method, member=member) for target in some for method in methods for member in (True, False)]
    rows += [Row(target, "TRACE") for target in some]
    required = [
        "/api/banks/mikomo/x",
        "/api/banks/other/x",
        "/both",
        "/either",
        "/closed",
        "/optional/any",
        "/accounts",
        "/mikomo",
    ]
    rows += [Row(target, lines=lines, ended=True) for target in required for lines in ((), page)]
    chosen = ["/query/mikomo", "/header", "/path/g_of_no_user/x", "/single", "/tokens"]
    for target in chosen:
        rows += [Row(target, lines=page), Row(target, lines=page, ended=True), Row(target, lines=page, member=False)]
    return rows


def choices(
    first: str, second: str, other: str, foreign: str, live: str, ended: str
) -> list[tuple[Row, str, str | None]]:
    """Return requests of a user with several logins, with the outcome and the grant that is passed.

    Args:
        first: A login of the user at `mikomo`.
        second: The other one.
        other: The user's login at `other`.
        foreign: A login of another user at `mikomo`.
        live: A login at `mikomo` of the user one of whose logins has ended.
        ended: The login that has ended.
    """
    named = [(first, "passed", first), (second, "passed", second)]
    unknown = [
        (id_, "unknown-grant", None) for id_ in (foreign, "g_AAAAAAAAAAAAAAAAAAAAAA", other, first[2:], "x" * 64)
    ]
    found: list[tuple[Row, str, str | None]] = []
    for id_, word, grant in [*named, *unknown]:
        header = f"X-Bank-Login: {id_}"
        found += [
            (Row(f"/query/mikomo?login={id_}", several=True), word, grant),
            (Row(f"/query/mikomo?a=1&lo%67in={id_}&b", several=True), word, grant),
            (Row("/header", lines=(header,), several=True), word, grant),
            (Row("/header", "POST", lines=(f"x-bank-login: {id_}", "Content-Length: 0"), several=True), word, grant),
            (Row(f"/path/{id_}/x", several=True), word, grant),
        ]
    long = "x" * 65
    refused = [
        Row(f"/query/mikomo?login={first}&login={first}", several=True),
        Row(f"/query/mikomo?login={first}&login=", several=True),
        Row("/query/mikomo?login=", several=True),
        Row("/query/mikomo?login", several=True),
        Row(f"/query/mikomo?login={long}", several=True),
        Row("/header", lines=(f"X-Bank-Login: {first}", f"X-Bank-Login: {second}"), several=True),
        Row("/header", lines=("X-Bank-Login:",), several=True),
        Row("/header", lines=(f"X-Bank-Login: {long}",), several=True),
        Row(f"/path/{long}/x", several=True),
    ]
    ambiguous = [
        "/query/mikomo",
        "/query/mikomo?LOGIN=x",
        "/header",
        "/header?login=x",
        "/single",
        f"/single?login={first}",
    ]
    return [
        *found,
        *((row, "bad-grant", None) for row in refused),
        *((Row(target, several=True), "ambiguous-grant", None) for target in ambiguous),
        (Row("/header", lines=(f"X_Bank_Login: {first}",), several=True), "ambiguous-grant", None),
        (Row("/query/other", several=True), "passed", other),
        (Row(f"/query/other?login={first}", several=True), "unknown-grant", None),
        (Row("/query/nobody", several=True), "unknown-connector", None),
        (Row("/tokens", several=True), "passed", other),
        (Row(f"/query/mikomo?login={first}"), "unknown-grant", None),
        (Row("/query/mikomo"), "passed", foreign),
        (Row("/single"), "passed", foreign),
        (Row(f"/query/mikomo?login={foreign}", member=False), "not-connected", None),
        *((Row(target, half=True), "ambiguous-grant", None) for target in ("/query/mikomo", "/header", "/single")),
        (Row("/api/banks/mikomo/x", half=True), "passed", live),
        (Row(f"/query/mikomo?login={live}", half=True), "passed", live),
        (Row(f"/query/mikomo?login={ended}", half=True), "reconnect", None),
        (Row("/header", lines=(f"X-Bank-Login: {live}",), half=True), "passed", live),
        (Row("/header", lines=(f"X-Bank-Login: {ended}",), half=True), "reconnect", None),
        (Row(f"/path/{ended}/x", half=True), "reconnect", None),
        (Row(f"/query/mikomo?login={ended}", several=True), "unknown-grant", None),
    ]


def paths() -> list[Row]:
    """Return ambiguous paths below a public prefix, below a protected one, and below a gateway route."""
    ambiguous = [
        "/public/../accounts", "/public/./accounts", "/public/..", "/public/%2e%2e/accounts", "/public/%2E%2E/accounts",
        "/public/.%2e/accounts", "/public/%2e/accounts", "/public/..%2faccounts", "/public/..%2Faccounts", "/public%2faccounts",
        "/public/..%5caccounts", "/public\\..\\accounts", "/public%5C..%5Caccounts", "//accounts", "/public//accounts",
        "/accounts//", "/public/..;/accounts", "/public;/../accounts", "/accounts;x", "/accounts%3bx", "/accounts%3Bx",
        "/accounts%00", "/public/%00/x", "/accounts%0a", "/accounts%0d%0aX:y", "/accounts%09", "/accounts%7f", "/accounts%23x",
        "/accounts%3fx", "/public/%3F/../x", "/%c0%ae%c0%ae/accounts", "/public/%c0%af../accounts",
        "/public/%e0%80%af", "/%2561ccounts", "/public/%252e%252e/accounts", "/accounts/%zz", "/accounts/%", "/accounts/%2",
        "/public/%ff", "/public/%ed%a0%80", "/public/\xe4", "/akoya/../accounts", "/akoya/%2e%2e/accounts", "/akoya//accounts",
        "/" + "x" * 8200, "/public/" + "%2e" * 2 + "/" + "a" * 100,
    ]  # fmt: skip
    plain = [
        "/public/a%20b", "/public/%61", "/%61ccounts", "/accounts/%C3%A4", "/caf%C3%A9/x", "/caf%c3%a9/x", "/public/a+b",
        "/public/a:b@c,d=e~f!g$h&i'j(k)l*m", "/accounts/...", "/accounts/.hidden", "/accounts/a..b", "/public/x?", "/public/x??",
        "/accounts?next=/public/../x", "/accounts?a=%2e%2e%2f&b=//&c=%00&d=#".removesuffix("#"), "/public/x?%zz", "/public/" + "x" * 4000,
        "/ACCOUNTS", "/public/ACCOUNTS", "/accounts/%41%42",
    ]  # fmt: skip
    rows = [Row(target, refused=True) for target in ambiguous] + [Row(target) for target in plain]
    rows += [Row(target, refused=True, member=False) for target in ambiguous[:6]]
    rows += [
        Row(f"http://{HOST}/accounts", proxied=False),
        Row(f"http://evil.example{'/public/../accounts'}", refused=True, proxied=False),
    ]
    rows += [Row("*", "OPTIONS", refused=True, proxied=False), Row("accounts", refused=True, proxied=False)]
    return rows


def headers() -> list[Row]:
    names = ["Akoya-Owner", "akoya-owner", "AKOYA-OWNER", "Akoya_Owner", "akoya_id_token", "Akoya.Owner", "Akoya-Id-Token",
             "Akoya-Connector", "Akoya-Connections", "Akoya-Assertion", "Akoya-Expires", "Signature", "Signature-Input",
             "Signature_Input", "Signature.Input"]  # fmt: skip
    targets = ["/accounts", "/public/x", "/optional"]
    rows = [
        Row(target, lines=(f"{name}: {spoofed(name)}",) * times)
        for target in targets
        for name in names
        for times in (1, 2)
    ]
    context = [
        "Akoya-Provider",
        "Akoya-Grant",
        "Akoya-Consent",
        "Akoya-Interaction-Type",
        "Akoya-Last-Access",
        "Akoya-Id-Tokens",
    ]
    rows += [Row("/accounts", lines=(f"{name}: {spoofed(name)}",)) for name in context]
    rows += [Row("/public/x", lines=tuple(f"{name}: spoofed" for name in context))]
    rows += [Row(target, lines=("Akoya-New: spoofed",), stricter=("nginx",)) for target in targets]
    rows += [
        Row(target, lines=(f"Connection: {name}",))
        for target in targets
        for name in ("Akoya-Owner", "akoya-id-token", "Signature")
    ]
    rows += [Row(target, lines=("X-Folded: a\r\n b",), proxied=False) for target in targets]
    rows += [
        Row("/accounts", lines=("Akoya-Owner: a\r\n spoofed",), proxied=False),
        Row("/accounts", lines=("Akoya-Owner : spoofed",), refused=True, proxied=False),
    ]
    rows += [Row("/accounts", lines=(f"{name}: DELETE",)) for name in ("X-Http-Method-Override", "X-Method-Override")]
    rows += [Row("/mikomo/1", "PUT", lines=("X-Http-Method-Override: DELETE",))]
    rows += [
        Row("/optional", "POST", lines=("X.Http-Method_Override: GET",)),
        Row("/optional/rest", "POST", lines=("X-Http-Method: GET",)),
    ]
    rows += [Row(target, method) for target in ("/mikomo/1?_method=DELETE", "/optional/rest?a=1&%5Fmethod=GET", "/accounts?_method=DELETE",
                                                "/mikomo/1?.method=PUT", "/mikomo/1?_methods=x") for method in ("GET", "PUT", "POST")]  # fmt: skip
    moving = ["Script-Name", "Daphne-Root-Path", "X-Original-URL", "X-Rewrite-Url", "X-Script-Name", "X-Forwarded-Prefix", "Remote-User",
              "True-Client-Ip", "X-Envoy-Original-Path", "SCRIPT_NAME", "Path_Info", "X_Forwarded_User", "X_Own"]  # fmt: skip
    rows += [Row(target, lines=(f"{name}: /accounts",)) for target in targets for name in moving]
    rows += [
        Row("/mikomo/1", "PUT", lines=(f"{name}: /accounts",), member=member)
        for name in moving
        for member in (True, False)
    ]
    rows += [Row("/accounts", lines=("Signature: mine=:AA==:", "Signature: mine=:AA==:"), proxied=False)]
    rows += [
        Row("/accounts", lines=tuple(f"{name.decode()}: {value.decode()}" for name, value in fields))
        for title, fields in REFUSED
        if title in WRONG_SIGNATURES
    ]
    return rows


WRONG_SIGNATURES = (
    "input: date",
    "input: display string",
    "input: integer of 15 digits",
    "input: parameter twice",
    "input: tab in a list",
    "signature: non-canonical base64",
    "signature: an unused bit set",
    "signature: parameter",
    "no signature",
    "gateway's label twice",
    "label twice, on two lines",
)
"""Signatures of clients that a verifier refuses. At every entry point the app must get the gateway's alone."""


def spoofed(name: str) -> str:
    """Return a forged value for a gateway header.

    Another label in `Signature` would be the client's own signature, which may stay.
    """
    return {"Signature": "akoya=:c3Bvb2ZlZA==:", "Signature-Input": 'akoya=("spoofed")'}.get(name, "spoofed")


def hosts() -> list[Row]:
    good = [
        HOST.upper(),
        f"{HOST}.",
        f"{HOST}:80",
        f"{HOST}:8443",
        "other.example",
        "127.0.0.1",
        "[::1]:80",
        "a_b.example",
    ]
    bad = [f"user@{HOST}", "a b", "a,b", "a/b", "a\\b", "a?b", "a#b", "", "a;b", f"{HOST}%00", "x" * 300]
    rows = [Row(target, hosts=(f"Host: {host}",)) for host in good for target in ("/accounts", "/public/x")]
    rows += [Row("/accounts", hosts=(f"Host: {host}",), refused=True) for host in bad]
    rows += [
        Row("/accounts", hosts=(f"Host: {HOST}", "Host: evil.example"), refused=True),
        Row("/accounts", hosts=(), refused=True),
    ]
    return rows


ROWS = [*rules(), *paths(), *headers(), *hosts()]
