"""Nobody is sent anywhere that the operator did not list."""

from __future__ import annotations

from urllib.parse import urljoin, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from akoya_gateway.access.redirects import RedirectPolicy, RedirectRefused
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
}

# Written from the descriptions of the advisories in peers.md section D, not copied from any corpus.
HOSTILE = [
    "//evil.com", "///evil.com", "////evil.com/", "/\\evil.com", "\\\\evil.com", "/\\/evil.com", "\\/evil.com",
    "/\t/evil.com", "/\n/evil.com", "/\r\n/evil.com", "\t//evil.com", " //evil.com", "/ /evil.com", "/%09/evil.com",
    "/%2f/evil.com", "/%2fevil.com", "/%5cevil.com", "/%0d%0aLocation:%20https://evil.com", "/.//evil.com", "/./\\evil.com",
    "/accounts/..//evil.com", "/accounts/../../evil", "/accounts/%2e%2e/admin", "/accounts/..;/admin",
    "http://evil.com", "https://evil.com", "https:evil.com", "https:/evil.com", "https:///evil.com", "https:\\\\evil.com",
    "HTTPS://evil.com", "hTTps://app.example.com/accounts", "//app.example.com/accounts", "javascript:alert(1)",
    "JaVaScRiPt:alert(1)", "data:text/html,x", "vbscript:x", "file:///etc/passwd", "blob:https://app.example.com/x",
    "https://app.example.com@evil.com/accounts", "https://app.example.com:pass@evil.com/accounts",
    "https://evil.com#@app.example.com/accounts", "https://evil.com?@app.example.com/accounts",
    "https://evil.com\\@app.example.com/accounts", "https://evil.com\\.app.example.com/accounts",
    "https://app.example.com.evil.com/accounts", "https://evilapp.example.com/accounts", "https://xapp.example.com/accounts",
    "https://app.example.com:8443/accounts", "https://app.example.com:/accounts", "https://app.example.com:0443/accounts",
    "https://app.example.com:99999/accounts", "http://app.example.com/accounts", "https://APP.example.com/accounts",
    "https://app.example.com./accounts", "https://app.example.com%2eevil.com/accounts", "https://app.example.com%00/accounts",
    "https://[::1]/accounts", "https://0x7f.1/accounts", "https://2130706433/", "https://app。example。com/accounts",
    "https://аpp.example.com/accounts", "/accounts\x00", "/accounts\u2028", "/accounts\ufeff", "/\u2215evil", "/ａccounts",
    "/accountsx", "/account", "/", "", " ", "accounts", "?x", "#x", "/accounts?\r\nSet-Cookie:a=b", "/accounts?a\\b",
    "/accounts?<script>", '/accounts?"', "/accounts#\n", "https://www.example.org/done/more", "https://www.example.org",
    "/accounts/" + "a" * 3000, "/\x0bevil", "/\u0000//evil.com", "/;@evil.com", "/accounts;/evil", "//;@evil.com",
    "https://app.example.com//evil.com", "https://app.example.com/\\evil.com", "/%e3%80%82evil.com",
]  # fmt: skip


def test_an_origin_alone_lists_all_of_its_pages_and_no_other_origins() -> None:
    policy = RedirectPolicy(Origin("https", "app.example.com", 443), ("https://www.example.org",))
    for target in ("https://www.example.org", "https://www.example.org/", "https://www.example.org/any/page?x"):
        assert policy.judge(target).startswith("https://www.example.org/")
    for target in ("https://www.example.org.evil.com/", "https://www.example.orgx/", "/"):
        with pytest.raises(RedirectRefused):
            policy.judge(target)


@pytest.mark.parametrize("target", ACCEPTED)
def test_a_listed_target_is_put_together_anew(target: str) -> None:
    assert POLICY.judge(target) == ACCEPTED[target]


@pytest.mark.parametrize("target", HOSTILE)
def test_a_hostile_target_is_refused(target: str) -> None:
    with pytest.raises(RedirectRefused):
        POLICY.judge(target)
    assert POLICY.judged_or(target, "/home") == "/home"


@given(
    st.text(max_size=40)
    | st.lists(
        st.sampled_from(["/", "\\", "//", "http:", "https:", "@", "evil.com", "app.example.com", "%2f", "\t", ".", "..", "?", "#", ":"]),
        max_size=8,
    ).map("".join)
)
def test_whatever_is_accepted_a_browser_keeps_on_our_origin(target: str) -> None:
    try:
        judged = EVERYTHING.judge(target)
    except RedirectRefused:
        return
    assert judged.isascii()
    assert judged.isprintable()
    # What a WHATWG parser does before resolving: backslashes are slashes, tabs and newlines are dropped.
    as_browser = urljoin(OWN + "/akoya/callback", judged.replace("\\", "/"))
    assert urlsplit(as_browser).netloc == "app.example.com"
    assert urlsplit(as_browser).scheme == "https"
