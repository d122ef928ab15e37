"""Redirects lead only to targets that the operator has listed."""

from __future__ import annotations

import re
from urllib.parse import urljoin, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from akoya_gateway.access.redirect_policy import RedirectPolicy, RedirectRefused
from akoya_gateway.config.model import Origin

OWN = "https://app.example.com"
POLICY = RedirectPolicy(
    Origin("https", "app.example.com", 443),
    ("/accounts", "/accounts/*", "https://app.example.com/pages/*", "https://www.example.org/done"),
)
EVERYTHING = RedirectPolicy(Origin("https", "app.example.com", 443), ("/*",))

ACCEPTED = {
    "/accounts": "/accounts",
    "/accounts/1": "/accounts/1",
    "/accounts?tab=2&x=%2F": "/accounts?tab=2&x=%2F",
    "/accounts#top": "/accounts#top",
    "/accounts/?next=//evil.com": "/accounts/?next=//evil.com",
    "https://app.example.com/accounts": "/accounts",
    "https://app.example.com:443/accounts": "/accounts",
    "/pages/x": "/pages/x",
    "https://www.example.org/done": "https://www.example.org/done",
    "https://www.example.org/done?ok=1": "https://www.example.org/done?ok=1",
    # Scheme and host are case-insensitive, and parsers and browsers agree on them.
    "hTTps://app.example.com/accounts": "/accounts",
    "https://APP.example.com/accounts": "/accounts",
    "HTTPS://WWW.EXAMPLE.ORG:443/done": "https://www.example.org/done",
}

# Characters that browsers send raw stay raw; those that browsers encode are encoded.
AS_BROWSERS_HAVE_IT = {
    "/list?filter={a:1}": "/list?filter={a:1}",
    "/list?filter=name^2": "/list?filter=name^2",
    "/list?q=a`b": "/list?q=a`b",
    "/p?path=C:\\dir": "/p?path=C:\\dir",
    "/list?a=1&b=[2]|3": "/list?a=1&b=[2]|3",
    "/list?q=a b": "/list?q=a%20b",
    '/list?q="a"<b>': "/list?q=%22a%22%3Cb%3E",
    "/list?q=caf\u00e9": "/list?q=caf%C3%A9",
    "/list?q=%zz&p=%": "/list?q=%zz&p=%",
    "/caf\u00e9": "/caf%C3%A9",
    '/a b/{c}^`"<d>': "/a%20b/%7Bc%7D%5E%60%22%3Cd%3E",
    "/a|b/c[1]": "/a|b/c[1]",
    "/a;v=1/b;w=2": "/a;v=1/b;w=2",
    "/x#a[1]": "/x#a[1]",
    "/x#{y|z}^w": "/x#{y|z}^w",
    "/x#!/a#b\\c": "/x#!/a#b\\c",
    '/x#a b"<c>`\u00e9': "/x#a%20b%22%3Cc%3E%60%C3%A9",
    "/x?a#b?c": "/x?a#b?c",
    "/x#b?c": "/x#b?c",
    "https://app.example.com": "/",
    "https://app.example.com?x=1": "/?x=1",
    "https://app.example.com?@evil.com": "/?@evil.com",
    "https://app.example.com#@evil.com": "/#@evil.com",
    "/\U0001f468\u200d\U0001f469": "/%F0%9F%91%A8%E2%80%8D%F0%9F%91%A9",
    "/" + "a" * 8000: "/" + "a" * 8000,
    "/s?" + "\u00e9" * 1300: "/s?" + "%C3%A9" * 1300,
}

# Written from the descriptions of the advisories in docs/advisories.md, not copied from any corpus.
HOSTILE = [
    "//evil.com", "///evil.com", "////evil.com/", "/\\evil.com", "\\\\evil.com", "/\\/evil.com", "\\/evil.com",
    "/\t/evil.com", "/\n/evil.com", "/\r\n/evil.com", "\t//evil.com", " //evil.com", "/ /evil.com", "/%09/evil.com",
    "/%2f/evil.com", "/%2fevil.com", "/%5cevil.com", "/%0d%0aLocation:%20https://evil.com", "/.//evil.com", "/./\\evil.com",
    "/accounts/..//evil.com", "/accounts/../../evil", "/accounts/%2e%2e/admin", "/accounts/..;/admin",
    "http://evil.com", "https://evil.com", "https:evil.com", "https:/evil.com", "https:///evil.com", "https:\\\\evil.com",
    "HTTPS://evil.com", "//app.example.com/accounts", "javascript:alert(1)",
    "JaVaScRiPt:alert(1)", "data:text/html,x", "vbscript:x", "file:///etc/passwd", "blob:https://app.example.com/x",
    "https://app.example.com@evil.com/accounts", "https://app.example.com:pass@evil.com/accounts",
    "https://evil.com#@app.example.com/accounts", "https://evil.com?@app.example.com/accounts",
    "https://evil.com\\@app.example.com/accounts", "https://evil.com\\.app.example.com/accounts",
    "https://app.example.com.evil.com/accounts", "https://evilapp.example.com/accounts", "https://xapp.example.com/accounts",
    "https://app.example.com:8443/accounts", "https://app.example.com:/accounts", "https://app.example.com:0443/accounts",
    "https://app.example.com:99999/accounts", "http://app.example.com/accounts", "HTTP://APP.example.com/accounts",
    "https://app.example.com./accounts", "https://app.example.com%2eevil.com/accounts", "https://app.example.com%00/accounts",
    "https://[::1]/accounts", "https://0x7f.1/accounts", "https://2130706433/", "https://app。example。com/accounts",
    "https://аpp.example.com/accounts", "/accounts\x00", "/accounts\u2028", "/accounts\ufeff", "/\u2215evil", "/ａccounts",
    "/accountsx", "/account", "/", "", " ", "accounts", "?x", "#x", "/accounts?\r\nSet-Cookie:a=b", "/accounts?\ta",
    "/accounts?\x7f", "/accounts?\ud800", "/accounts#\n", "https://www.example.org/done/more", "https://www.example.org",
    "/accounts/" + "a" * 8200, "/accounts?" + "\u00e9" * 1400, "/\x0bevil", "/\u0000//evil.com", "/;@evil.com", "/accounts;/evil", "//;@evil.com",
    "https://app.example.com//evil.com", "https://app.example.com/\\evil.com", "/%e3%80%82evil.com",
    # These letters become part of `https` or of the host only with case folding beyond ASCII.
    "http\u017f://app.example.com/accounts", "https://app.e\u212aample.com/accounts", "https://\u212a.example.com/accounts",
    # The host must be followed by a slash, a question mark or a number sign.
    "https://app.example.com\\@evil.com/accounts", "https://app.example.com;@evil.com/accounts", "https://app.example.com&@evil.com/",
    "https://app.example.com:443@evil.com/", "https://app.example.com:443\\@evil.com/", "https://app.example.com|evil.com/accounts",
    "https://app.example.com`.evil.com/accounts", "https://app.example.com{}/accounts", "https://app.example.com .evil.com/accounts",
    "https://WWW.EXAMPLE.ORG.evil.com/done", "https://www.example.org@EVIL.com/done", "HTTPS:\\\\www.example.org/done",
    "https://www.example.org?@evil.com", "https://www.example.org#/done",
    # Path parameters: some servers drop them, so the target must be allowed with and without them.
    "/accounts/..;x=1/admin", "/accounts/.;/admin", "/accounts/;/evil", "/accounts/%2e%2e;/admin", "/accounts;x/1", "/accounts/a;/../admin",
    "/accounts/a;./admin", "/accounts/a;..", "/accounts/..%3b/admin", "/accounts\\..\\admin", "/accounts/\\evil.com",
]  # fmt: skip


def test_origin_alone_lists_all_of_its_pages_and_no_other_origins() -> None:
    policy = RedirectPolicy(Origin("https", "app.example.com", 443), ("https://www.example.org",))
    for target in ("https://www.example.org", "https://www.example.org/", "https://www.example.org/any/page?x"):
        assert policy.validate(target).startswith("https://www.example.org/")
    for target in ("https://www.example.org.evil.com/", "https://www.example.orgx/", "/"):
        with pytest.raises(RedirectRefused):
            policy.validate(target)


@pytest.mark.parametrize("target", ACCEPTED)
def test_allowed_target_is_rebuilt_from_its_parts(target: str) -> None:
    assert POLICY.validate(target) == ACCEPTED[target]


@pytest.mark.parametrize("target", AS_BROWSERS_HAVE_IT)
def test_return_address_is_kept_as_browsers_have_it(target: str) -> None:
    assert EVERYTHING.validate(target) == AS_BROWSERS_HAVE_IT[target]
    # Validation is idempotent: a form may send the validated target back.
    assert EVERYTHING.validate(AS_BROWSERS_HAVE_IT[target]) == AS_BROWSERS_HAVE_IT[target]


def test_pattern_with_escapes_covers_the_path_however_it_is_escaped() -> None:
    policy = RedirectPolicy(Origin("https", "app.example.com", 443), ("/caf%C3%A9/*", "/a%2Ab"))
    for target in ("/caf%C3%A9/1", "/caf%c3%a9/1", "/caf\u00e9/1"):
        assert policy.validate(target).lower() == "/caf%c3%a9/1"
    assert policy.validate("/a*b") == "/a*b"
    with pytest.raises(RedirectRefused):
        policy.validate("/axb")


@pytest.mark.parametrize("target", HOSTILE)
def test_hostile_target_is_refused(target: str) -> None:
    with pytest.raises(RedirectRefused):
        POLICY.validate(target)
    assert POLICY.validate_or(target, "/home") == "/home"


PIECES = ["/", "\\", "//", "http:", "https:", "HTTPS:", "@", "evil.com", "app.example.com", "APP.EXAMPLE.COM", "%2f", "%5c", "\t", " ", ".", "..",
          "?", "#", ":", ";", "{", "}", "^", "`", "|", "[", "]", "\u00e9", "\u017f", "\u212a", "\uff0f", "\u3002", "\ud800", "\u200d", ":443", "&"]  # fmt: skip


@given(
    st.text(max_size=40)
    | st.lists(st.sampled_from(PIECES), max_size=10).map("".join)
    | st.lists(st.sampled_from(PIECES), max_size=8).map(lambda pieces: "https://app.example.com" + "".join(pieces))
)
def test_accepted_redirect_stays_on_the_public_origin_in_a_browser(target: str) -> None:
    try:
        result = EVERYTHING.validate(target)
    except RedirectRefused:
        return
    assert result.isascii()
    assert result.isprintable()
    assert " " not in result
    assert re.fullmatch(r"/(?![/\\])[^\\?#]*(?:[?#].*)?", result)
    assert EVERYTHING.validate(result) == result
    # As a WHATWG parser does before resolving: read backslashes as slashes, drop tabs and newlines.
    as_browser = urljoin(OWN + "/akoya/callback", result.replace("\\", "/"))
    assert urlsplit(as_browser).netloc == "app.example.com"
    assert urlsplit(as_browser).scheme == "https"
