"""Attacks that redirect a browser to the attacker's site."""

from __future__ import annotations

import re
from urllib.parse import quote

import pytest

from akoya_gateway.access.redirect_policy import RedirectPolicy, RedirectRefused
from akoya_gateway.config.model import Origin
from tests.advisories.advisory import advisory
from tests.advisories.corpus import EVIL, PARAMETERS, TARGETS
from tests.support.browser_redirects import POLICY, as_a_browser_reads
from tests.support.environment import Browser
from tests.support.target import Reply, Target


def sent_astray(reply: Reply, target: Target) -> bool:
    for location in reply.all("location") + [value.partition("url=")[2] for value in reply.all("refresh")]:
        host = as_a_browser_reads(location, target.url)
        if EVIL in host or host.startswith("(scheme"):
            return True
    return bool(
        re.search(
            r'(href|action|src)\s*=\s*["\']?\s*(javascript:|data:|(https?:)?[/\\]{2}[^"\']*evil)', reply.text, re.I
        )
    )


def refused(candidates: list[str]) -> None:
    for text in candidates:
        with pytest.raises(RedirectRefused):
            POLICY.validate(text)


def spread(step: int, start: int = 0) -> list[str]:
    return TARGETS[start::step]


@advisory("CVE-2017-1000070", "CVE-2021-39191", "CVE-2024-21497",
          attack="The return address is an open redirect (`rd`, `target_link_uri`, `redirect_url`).",
          ours="`return_to` must be listed in `redirects.allow`. A target that a browser and a parser read differently is refused before the login starts.")  # fmt: skip
def test_cve_2017_1000070_open_redirect_at_login(target: Target) -> None:
    route = target.needs_connect
    for parameter in PARAMETERS:
        for text in spread(9 if parameter == "return_to" else 60):
            reply = target.navigate(f"{route}?{parameter}={quote(text, safe='')}")
            assert not sent_astray(reply, target), text
            if parameter == "return_to" and target.env is not None:
                assert reply.status == 400, text


@advisory("CVE-2020-5233", "GHSA-qqxw", attack="`/\\evil.com` is accepted as a path, but browsers read it as a host.",
          ours="A target is rebuilt from validated parts. A backslash before the query, which browsers read as a slash, is refused.")  # fmt: skip
def test_cve_2020_5233_backslash(target: Target) -> None:
    texts = [text for text in TARGETS if "\\" in text or "%5c" in text.lower()]
    refused(texts)
    for text in texts[::4]:
        assert not sent_astray(target.navigate(f"{target.needs_connect}?return_to={quote(text, safe='')}"), target), (
            text
        )


@advisory("CVE-2020-11053", "GHSA-j7px", "CVE-2022-23527", "GHSA-q6f2",
          attack="A redirect target contains spaces, tabs or line breaks, plain or encoded.",
          ours="Control characters are refused, in a path also when encoded. A space is encoded.")  # fmt: skip
def test_cve_2020_11053_white_space(target: Target) -> None:
    texts = [text for text in TARGETS if re.search(r"[\s\x00-\x20]|%0[0-9a-d]", text, re.I)]
    assert len(texts) > 40
    refused(texts)
    for text in texts[::6]:
        reply = target.navigate(f"{target.needs_connect}?return_to={quote(text, safe='')}")
        assert not sent_astray(reply, target), text
        assert "evil" not in "".join(name for name, _ in reply.headers)


@advisory("CVE-2020-4037", "GHSA-5m6c", attack="`rd=//...` and its variants, which two parsers read differently.",
          ours="Empty segments are refused, so a target that starts with two slashes is not a path.")  # fmt: skip
def test_cve_2020_4037_protocol_relative(target: Target) -> None:
    texts = [text for text in TARGETS if text.startswith(("//", "/.", "/;", "/:"))]
    refused([text for text in texts if text not in ("/:@", "/;//")])
    for text in texts[::5]:
        assert not sent_astray(target.navigate(f"{target.needs_connect}?return_to={quote(text, safe='')}"), target), (
            text
        )


@advisory("CVE-2021-21291", "GHSA-4mf2", attack="The allow-list entry `.example.com` accepts `evilexample.com`.",
          ours="Origins are compared by scheme, host and port. There is no suffix matching.")  # fmt: skip
def test_cve_2021_21291_suffix_of_a_host() -> None:
    refused([f"https://{host}/x" for host in ("evilpages.example.com", "evil-pages.example.com", "pages.example.com.evil.example", "x.pages.example.com",
                                              "pages.example.como", "pages.example", "pages-example.com", "pagesXexample.com", "pages.example.com:8443")])  # fmt: skip
    refused(
        [
            "http://pages.example.com/x",
            "https://one.example.com/done2",
            "https://one.example.com/done/x",
            "https://one.example.com/",
            "/accountsevil",
        ]
    )
    assert POLICY.validate("https://pages.example.com/x") == "https://pages.example.com/x"


@advisory("CVE-2024-52289", attack="A redirect URI is used as a regular expression, in which `.` matches any character.",
          ours="Patterns are literal text with at most one `*`, at the end. The callback path is compared exactly.")  # fmt: skip
def test_cve_2024_52289_patterns_are_literal() -> None:
    policy = RedirectPolicy(
        Origin("https", "app.example.com", 443), ("/a.b", "/c+d", "/e(f)", "https://x.example.com/.*")
    )
    for text in ("/aXb", "/a.b.", "/ccd", "/e", "/ef", "https://xXexample.com/.x", "https://x.example.com/y"):
        with pytest.raises(RedirectRefused):
            policy.validate(text)
    assert policy.validate("/a.b") == "/a.b"
    assert policy.validate("https://x.example.com/.y") == "https://x.example.com/.y"


@advisory("CVE-2021-29456", "CVE-2021-32786", "CVE-2021-29652", "CVE-2021-29651",
          attack="Sign-out (and sign-in) routes redirect to the target of a parameter.",
          ours="Logout and disconnect use the same redirect policy. A refused target is replaced by the connections page.")  # fmt: skip
def test_cve_2021_29456_open_redirect_at_logout(target: Target, browser: Browser) -> None:
    browser.connect()
    csrf = browser.connections()["csrf"]
    for text in spread(11, 3):
        form = {"csrf": csrf, "return_to": text}
        response = browser.fetch("/akoya/disconnect/nobody", "POST", data=form)
        assert (response.status_code, response.headers["location"]) == (303, "/akoya/?done=disconnected"), text
        response = browser.fetch("/akoya/disconnect/nobody", "POST", data={**form, "grant": "none"})
        assert (response.status_code, response.headers.get("location")) == (404, None), text
    rename = {"csrf": csrf, "grant": browser.connections()["connections"][0]["id"], "name": "mine"}
    for text in spread(11, 3):
        response = browser.fetch("/akoya/rename/mikomo", "POST", data={**rename, "return_to": text})
        assert (response.status_code, response.headers["location"]) == (303, "/akoya/?done=renamed"), text
    response = browser.fetch(
        f"/akoya/logout?return_to={quote('//evil.example')}",
        "POST",
        data={"csrf": csrf, "return_to": "/\\evil.example"},
    )
    assert (response.status_code, response.headers["location"]) == (303, "/akoya/?done=signed-out")


@advisory("CVE-2026-28802", attack="A login continues at an address from the request: open redirect in the client library.",
          ours="The return address is validated when the login starts and kept in the store. The callback cannot change it.")  # fmt: skip
def test_cve_2026_28802_the_callback_cannot_choose_where_it_ends(target: Target, browser: Browser) -> None:
    assert target.env is not None
    callback = target.env.akoya.consent(browser.begin(return_to="/accounts?x=1"), "mikomo_1")
    response = browser.go(callback + "".join(f"&{name}={quote('https://evil.example/')}" for name in PARAMETERS))
    assert (response.status_code, response.headers["location"]) == (302, "/accounts?x=1")


def test_whole_corpus_is_refused_and_what_is_meant_to_pass_passes() -> None:
    assert len(TARGETS) > 350
    refused(list(TARGETS))
    for text in (
        "/accounts",
        "/accounts/",
        "/accounts/1?a=b&c=%2F#d",
        "https://pages.example.com/",
        "https://one.example.com/done?x=https://evil.example",
    ):
        assert POLICY.validate(text) == text
