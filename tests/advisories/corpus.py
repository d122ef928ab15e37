"""Redirect targets that have bypassed other validators, rewritten from the descriptions. All aim at evil.example."""

from __future__ import annotations

from itertools import product

EVIL = "evil.example"

_AUTHORITIES = [EVIL, f"{EVIL}:80", f"user@{EVIL}", f"app@{EVIL}", f"{EVIL}%2f", f"{EVIL}.", "EVIL.example"]
_STARTS = ["//", "///", "////", "/\\", "\\/", "\\\\", "/\\/", "/\t/", "\t//", "/\n/", "/\r/", "/%09/", "/%0a/", "/%0d/", "/%5c", "/%2f", "/%2F/",
           "/.//", "/..//", "/./\\", "/accounts/..//", "/accounts//..//", "/ /", " //", "/\x00/", "/%00/", "/\x0b/", "/\u2028/", "/\u00a0/",
           "http:", "http:/", "https:", "https:///", "http:\\\\", "https:/\\", "http:////", "hTTps://", "//;@", "/;//", "/:@", "\u2215\u2215",
           "\uff0f\uff0f", "/\u2044/", "\u3002//"]  # fmt: skip
_WHOLE = [
    "javascript:alert(1)", "JaVaScRiPt:alert(1)", "java\nscript:alert(1)", " javascript:alert(1)", "\x01javascript:alert(1)", "data:text/html,x",
    "data:text/html;base64,PHNjcmlwdD4=", "vbscript:x", "file:///etc/passwd", "ftp://evil.example/", "ws://evil.example/", "blob:https://evil.example/x",
    "view-source:https://evil.example", "mailto:a@evil.example", "intent://evil.example#Intent;scheme=https;end", "https://127.0.0.1@evil.example/",
    "https://evil.example#@127.0.0.1/", "https://evil.example?@127.0.0.1/", "https://evil.example\\@127.0.0.1/", "https://127.0.0.1.evil.example/",
    "https://127.0.0.1%00.evil.example/", "https://127.0.0.1\\.evil.example/", "https://127.0.0.1%2eevil.example/", "https://[::1]@evil.example/",
    "https://[evil.example]/", "https://evil.example/accounts", "//evil.example/accounts", "/accounts/../../evil", "/accounts/%2e%2e//evil.example",
    "https://evil%2eexample/", "https://e%76il.example", "https://evil\u3002example/", "https://evil\uff0eexample/", "https://\u24d4vil.example/",
    "https://1249763844/", "https://0x7f.1/", "https://0177.0.0.1/", "https://evil.example:443:80/", "https://:@evil.example/", "https://evil.example:/",
    "/accounts\r\nLocation: https://evil.example", "/accounts%0d%0aLocation:%20https://evil.example", "/accounts\nSet-Cookie: a=b", "@evil.example",
    ".evil.example", "evil.example", "evil.example/accounts", ":80", "?//evil.example", "#//evil.example", "", " ", "/accounts\x7f", "/accounts\x00", "*",
    "https://", "http://", "//", "///", "http:///accounts", "https:accounts", "/\\", "\\", "https://evil.example/%2f..", "//evil.example/%2f%2e%2e",
    "//evil%00.example", "/" * 50 + EVIL, "/\\" * 20 + EVIL, "https://accounts", "https://accountsevil.example/accounts", "//accounts",
    # A permitted host followed by text that is not a path.
    *(f"https://app.example.com{sign}@evil.example/accounts" for sign in ("\\", ";", "&", "|", "`", "^", "{", "}", ",", "%", "*", ":443", ":443\\", "\u3002")),
    *(f"HTTPS://APP.EXAMPLE.COM{sign}evil.example" for sign in (".", "\\.", ";.", "%2f.", "%5c", "\t.")),
    "http\u017f://evil.example/", "https://pages.example.com/..;/\u2044evil.example",
]  # fmt: skip

TARGETS = list(dict.fromkeys([*_WHOLE, *(start + authority for start, authority in product(_STARTS, _AUTHORITIES))]))

PARAMETERS = (
    "return_to",
    "rd",
    "redirect",
    "redirect_url",
    "redirect_uri",
    "target_link_uri",
    "url",
    "next",
    "post_logout_redirect_uri",
)
"""Names of the parameter at different gateways; the first is this gateway's."""
