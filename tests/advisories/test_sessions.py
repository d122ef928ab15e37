"""Attacks on sessions: which user a browser acts for, and for how long."""

from __future__ import annotations

import json
import random
import re
import time
from pathlib import Path
from urllib.parse import parse_qs, quote, urlsplit

import pytest

from akoya_gateway.config.model import Cookie, EncryptionKey, Limits, Seconds, key_id
from akoya_gateway.oauth.authorization_request import code_verifier, new_nonce
from akoya_gateway.sessions import AttemptUnknown, AuthorizationAttempt, AuthorizationAttempts, new_token
from akoya_gateway.sessions.cookies import delete_cookie, set_cookie
from akoya_gateway.store import EncryptedStore, open_store
from akoya_gateway.store.encryption import Keyring
from tests.advisories.advisory import advisory
from tests.support.environment import Browser, GatewayEnv
from tests.support.target import Target

XSS = [
    '"><script>alert(1)</script>',
    "'><img src=x onerror=alert(1)>",
    "<svg/onload=alert(1)>",
    "javascript:alert(1)",
    "{{7*7}}",
    "%0d%0a<script>",
]


def cookie_line(browser: Browser) -> str:
    return "Cookie: " + "; ".join(f"{name}={value}" for name, value in browser.http.cookies.items())


@advisory("GHSA-f24x-5g9q-753f", attack="The session survives the sign-in page: session fixation, or the wrong user continues.",
          ours="Each new grant rotates the session ID and invalidates the old one. IDs that the gateway did not create are unknown.")  # fmt: skip
def test_ghsa_f24x_5g9q_753f_session_fixation(target: Target, browser: Browser) -> None:
    assert target.env is not None
    browser.connect()
    planted = dict(browser.http.cookies)
    with target.env.browser() as attacker:
        attacker.http.cookies.update(planted)
        browser.connect("other")
        # Another process may use what it read from the store for a second.
        deadline = time.monotonic() + 30
        while attacker.fetch("/accounts").status_code != 401:
            assert time.monotonic() < deadline
            time.sleep(0.1)
    with target.env.browser() as victim:
        name = next(name for name in planted if not name.endswith("-browser"))
        chosen = new_token()
        victim.http.cookies.set(name, chosen, domain="127.0.0.1", path="/")
        landed = victim.connect()
        assert all(chosen not in value for value in landed.headers.get_list("set-cookie"))
        assert not target.fetch(target.protected, f"Cookie: {name}={chosen}").let_in


@advisory("CVE-2017-1000069", "CVE-2025-14546", "CVE-2025-68481", "CVE-2025-68158",
          attack="`state` is not checked or not bound to the browser: login CSRF.",
          ours="A callback is accepted once, with the state of an attempt and the cookie of the browser that started it.")  # fmt: skip
def test_cve_2017_1000069_login_csrf(target: Target, browser: Browser) -> None:
    assert target.env is not None
    callback = target.env.akoya.consent(browser.begin(), "mikomo_1")
    before = len(target.env.akoya.events("token"))
    with target.env.browser() as victim:
        victim.begin()
        response = victim.go(callback)
        assert response.status_code == 400
        assert victim.fetch("/accounts").status_code == 401
    assert len(target.env.akoya.events("token")) == before, "the attacker's code is not exchanged"
    stateless = re.sub(r"[?&]state=[^&]*", "", callback).replace("/callback&", "/callback?")
    assert browser.go(stateless).status_code == 400


@pytest.mark.parametrize("query", ["", "code=x", "state=", "code=", "code=x&state=", "state=x", "=", "&&&", "code=x&state=a&state=b", "code=%00&state=%ff",
                                   "error=x", "code[]=x&state[]=y", "code=x&state=" + "y" * 5000, "%", "code=x;state=y"])  # fmt: skip
@advisory("CVE-2023-27496", attack="A callback without `state` crashes the gateway.",
          ours="The query is parsed by pure functions that are fuzzed with random input. Missing parameters result in an error page.")  # fmt: skip
def test_cve_2023_27496_callback_without_state(target: Target, query: str) -> None:
    reply = target.navigate(f"{target.needs_callback}?{query}")
    assert 400 <= reply.status < 500 or reply.status in (302, 303)
    assert not any("session" in value.lower() for value in reply.all("set-cookie"))
    assert target.fetch(target.public).let_in, "the gateway still runs"


@advisory("CVE-2024-21492", attack="The session stays valid after logout.",
          ours="Logout deletes the session from the store, and revokes and deletes the grants that are reachable only through it.")  # fmt: skip
def test_cve_2024_21492_session_after_logout(target: Target, browser: Browser) -> None:
    browser.connect()
    line = cookie_line(browser)
    assert target.fetch(target.protected, line).let_in
    browser.fetch("/akoya/logout", "POST", data={"csrf": browser.connections()["csrf"]})
    assert not target.fetch(target.protected, line).let_in


@advisory("CVE-2025-55162", attack="Sign-out writes the deletion cookie without `Secure`, and browsers keep the `__Secure-` cookie.",
          ours="The deletion cookie has the name, path and attributes of the one it deletes.")  # fmt: skip
def test_cve_2025_55162_deletion_cookie_has_the_same_attributes(target: Target, browser: Browser) -> None:
    landed = browser.connect()
    made = next(v for k, v in landed.headers.multi_items() if k == "set-cookie")
    gone = browser.fetch("/akoya/logout", "POST", data={"csrf": browser.connections()["csrf"]}).headers["set-cookie"]
    assert attributes(made) == attributes(gone)
    assert "Max-Age=0" in gone
    secure = Cookie("__Host-akoya", secure=True, idle=Seconds(60), lifetime=Seconds(60))
    assert attributes(delete_cookie(secure).decode()) == attributes(set_cookie(secure, "x", 60).decode())
    assert "Secure" in attributes(delete_cookie(secure).decode())


def attributes(cookie: str) -> set[str]:
    name, *rest = cookie.split("; ")
    return {name.partition("=")[0], *(part for part in rest if not part.startswith("Max-Age"))}


@advisory("CVE-2021-41230", attack="Claims of an old token remain in use after a refresh.",
          ours="Gateway headers are built from the current grant: the new token, its expiry and its scope, as soon as they are stored.")  # fmt: skip
def test_cve_2021_41230_nothing_old_after_a_refresh(target: Target, browser: Browser) -> None:
    browser.connect()
    before = browser.passed()
    browser.fetch("/accounts/stale")
    deadline = time.monotonic() + 30
    while (after := browser.passed())["akoya-id-token"] == before["akoya-id-token"]:
        if target.entrypoint == "forward-auth":
            pytest.skip("the proxy hides the app's response, so the token is replaced only when it expires")
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert after["akoya-owner"] == before["akoya-owner"]
    assert browser.passed("/mikomo")["akoya-id-token"] == after["akoya-id-token"], "every rule releases the new token"


@advisory(
    "CVE-2024-39315",
    attack="The user-info page shows the tokens.",
    ours="Pages and JSON contain banks, states and times, but no tokens.",
)
def test_cve_2024_39315_gateway_pages_contain_no_token(target: Target, session: str, browser: Browser) -> None:
    token = browser.passed()["akoya-id-token"]
    for path in ("/akoya/", "/akoya/?error=x", "/akoya/jwks.json", "/akoya/nothing"):
        for accept in ("text/html", "application/json"):
            reply = target.fetch(path, session, f"Accept: {accept}")
            assert token not in reply.text
            assert token.split(".")[2] not in reply.text
            for value in session.removeprefix("Cookie: ").split("; "):
                assert value.partition("=")[2] not in reply.text
            assert reply.header("cache-control") in (
                "no-store",
                "public, max-age=300",
                "public, max-age=60",
            ) or path.endswith("jwks.json")


@advisory("CVE-2022-24797", attack="pprof and metrics are served on the public listener.",
          ours="Health and metrics have their own listener, on loopback by default.")  # fmt: skip
def test_cve_2022_24797_no_admin_on_the_public_listener(target: Target) -> None:
    for path in (
        "/metrics",
        "/livez",
        "/readyz",
        "/akoya/metrics",
        "/debug/pprof",
        "/_sandbox/events",
        "/stats",
        "/server-status",
    ):
        reply = target.fetch(path)
        assert "python_info" not in reply.text
        assert "akoya_" not in reply.text
        assert "goroutine" not in reply.text


@pytest.mark.parametrize("path", ["/akoya/", "/akoya/?return_to=/accounts"])
@advisory("CVE-2024-42490", attack="An API returns data without the session that it requires.",
          ours="Without a session the JSON at `/akoya/` contains only the list of banks that can be connected.")  # fmt: skip
def test_cve_2024_42490_unauthenticated_api(target: Target, session: str, path: str) -> None:
    document = json.loads(target.fetch(path, "Accept: application/json").body)
    assert document["connections"] == []
    assert document["csrf"] is None
    assert target.fetch(
        "/akoya/disconnect/mikomo", "Content-Type: application/x-www-form-urlencoded", method="POST", body=b"csrf="
    ).status in (401, 403)
    assert target.fetch(target.protected, session).let_in, "the grant is still connected"


@advisory("CVE-2025-53942", "CVE-2025-64521", attack="Deactivated users or service accounts still receive tokens.",
          ours="A disconnected, revoked or dead grant releases no token at any entry point, from the moment that the gateway learns of it.")  # fmt: skip
def test_cve_2025_53942_nothing_after_disconnect(target: Target, browser: Browser) -> None:
    browser.connect()
    line = cookie_line(browser)
    csrf = browser.connections()["csrf"]
    assert browser.fetch("/akoya/disconnect/mikomo", "POST", data={"csrf": csrf}).status_code == 303
    for path in (target.protected, "/mikomo", "/api/banks/mikomo/x"):
        assert not target.fetch(path, line).let_in
    optional = target.fetch("/optional", line)
    assert optional.seen is not None
    assert "akoya-id-token" not in dict(optional.seen["headers"])


@advisory(
    "CVE-2025-64708",
    attack="Expired invitations are accepted.",
    ours="An authorization attempt expires by the gateway's own clock, even if the store still has it.",
)
async def test_cve_2025_64708_an_expired_attempt(tmp_path: Path) -> None:
    now = 1_000_000.0

    def clock() -> float:
        return now

    store = open_store("memory://", lambda: 1_000_000.0)  # a store with a stopped clock expires nothing
    await store.open()
    keyring = Keyring([EncryptionKey(key_id(b"k" * 32), b"k" * 32)])
    attempts = AuthorizationAttempts(EncryptedStore(store, keyring), Limits(), clock=clock)
    browser = new_token()
    in_time = await attempts.begin("mikomo", browser, "/")
    late = await attempts.begin("mikomo", browser, "/")
    now += 899
    assert isinstance(await attempts.consume(in_time, browser), AuthorizationAttempt)
    now += 1
    assert isinstance(await attempts.consume(late, browser), AttemptUnknown)
    await store.close()


@pytest.mark.parametrize("text", XSS)
@advisory("CVE-2024-21496", "CVE-2023-52430", "CSNC-2019-001", "CVE-2021-32792",
          attack="Reflected script in error pages, from the Referer, an error parameter, a path or a preserved POST.",
          ours="Pages show fixed texts selected by stable codes, templates escape, and the content security policy allows no scripts.")  # fmt: skip
def test_cve_2024_21496_reflected_script(target: Target, text: str) -> None:
    encoded = quote(text, safe="")
    paths = [f"{target.protected}/{encoded}", f"{target.protected}?error={encoded}", f"/akoya/?error={encoded}&done={encoded}&return_to={encoded}",
             f"/akoya/connect/{encoded}", f"/akoya/connect/mikomo?return_to={encoded}", f"/akoya/callback?error={encoded}&error_description={encoded}&state={encoded}",
             f"/{encoded}"]  # fmt: skip
    for path in paths:
        for lines in (
            (),
            (f"Referer: {text}",),
            (f"User-Agent: {text}", f"X-Request-Id: {text}", f"Cookie: akoya={text}"),
        ):
            reply = target.navigate(path, *lines)
            if reply.seen is None:
                assert text not in reply.text
                assert "<script>" not in reply.text.lower()
    reply = target.fetch(
        target.protected,
        "Accept: text/html",
        "Content-Type: application/x-www-form-urlencoded",
        method="POST",
        body=f"a={text}".encode(),
    )
    assert text not in reply.text


@advisory("lua-resty-openidc#526", attack="A session of tenant A is accepted for tenant B that has the same secret.",
          ours="A session is a record in one store, not an encrypted cookie. A gateway with the same keys but another store does not accept it.")  # fmt: skip
def test_lua_resty_526_session_of_another_tenant(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    with (
        GatewayEnv(tmp_path / "a") as one,
        GatewayEnv(tmp_path / "b") as other,
        one.browser() as browser,
        other.browser() as other_browser,
    ):
        assert one.environ["AKOYA_GATEWAY_KEY"] == other.environ["AKOYA_GATEWAY_KEY"]
        browser.connect()
        other_browser.http.cookies.update(browser.http.cookies)
        assert browser.fetch("/accounts").status_code == 200
        assert other_browser.fetch("/accounts").status_code == 401


@advisory("CVE-2024-21495", attack="State and nonce come from a weak random source.",
          ours="Every secret identifier has at least 192 bits from the operating system's random source; `state` and session IDs have 256.")  # fmt: skip
def test_cve_2024_21495_randomness(target: Target) -> None:
    random.seed(1)
    first = (
        [new_token() for _ in range(500)]
        + [new_nonce() for _ in range(500)]
        + [code_verifier().reveal() for _ in range(500)]
    )
    random.seed(1)
    second = (
        [new_token() for _ in range(500)]
        + [new_nonce() for _ in range(500)]
        + [code_verifier().reveal() for _ in range(500)]
    )
    assert len({*first, *second}) == 3000
    assert min(map(len, first)) >= 32
    if target.env is not None:
        with target.env.browser() as browser:
            states = [parse_qs(urlsplit(browser.begin()).query)["state"][0] for _ in range(20)]
        assert len({state[:8] for state in states}) == 20
        assert {len(state) for state in states} == {43}
