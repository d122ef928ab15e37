"""Searches everything that the gateway writes in a complete life cycle for every secret that it has held.

Places where a secret belongs are excluded: the browser's own cookies, `state` on the way to Akoya, the CSRF token in
the gateway's forms, and the id_token in the headers to the app (docs/design.md section 5).
"""

from __future__ import annotations

import dataclasses
import re
import signal
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
import yaml

from akoya_gateway.secret import Secret
from tests.secret_leaks.recorder import Known, RecordingProxy
from tests.support.commands import run_command
from tests.support.environment import CLIENT_SECRET, HMAC_SECRET, STORE_KEY, Browser, GatewayEnv
from tests.support.ports import free_port
from tests.support.processes import AppServer, GatewayProcess, MiddlewareServer
from tests.support.waiting import until


class RecordedEnv(GatewayEnv):
    """Sends token and revocation requests through the recorder, with logs at their most verbose level."""

    def __init__(self, folder: Path, entrypoint: str, algorithm: str) -> None:
        super().__init__(folder, entrypoint=entrypoint, algorithm=algorithm, settings={"id_token_lifetime": 2.0})
        self.known = Known()
        self.recorder = AppServer(RecordingProxy(self.akoya.url, self.known))
        self.written: list[tuple[str, bytes]] = []
        for secret, what in (
            (CLIENT_SECRET, "client secret"),
            (STORE_KEY, "store key"),
            (HMAC_SECRET, "signing secret"),
        ):
            self.known.add(secret, what)
        pem = folder / "signing-key.pem"
        if pem.exists():
            self.known.add(pem.read_text().splitlines()[1], "private key")

    def config(self) -> dict[str, Any]:
        config = super().config()
        environment = config["environments"]["double"]
        for name in ("token_endpoint", "revocation_endpoint"):
            environment[name] = environment[name].replace(self.akoya.url, self.recorder.url)
        environment["dialect"] = {**environment.get("dialect", {}), "pkce": True}
        return {**config, "tokens": {"refresh_before": "1s"}, "logging": {"format": "json", "level": "debug"}}

    def __enter__(self) -> RecordedEnv:
        self.recorder.__enter__()
        super().__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        super().__exit__()
        self.recorder.__exit__()

    def browser(self) -> Browser:
        browser = super().browser()
        browser.http.event_hooks["response"].append(self._on_response)
        return browser

    def _on_response(self, response: httpx.Response) -> None:
        response.read()
        for line in response.headers.get_list("set-cookie"):
            self.known.add(line.partition("=")[2].partition(";")[0], "cookie")
        location = response.headers.get("location", "")
        if location.startswith(self.akoya.url):
            query = parse_qs(urlsplit(location).query)
            self.known.add(query["state"][0], "state")
        elif location:
            self.written.append((f"Location of {response.request.url.path}", location.encode()))
        try:
            # Search for it as a JSON member: a token contains any three letters by chance now and then.
            from_app = "headers" in response.json()
        except ValueError:
            from_app = False
        if not from_app:
            self.written.append((f"answer to {response.request.method} {response.request.url.path}", response.content))
        kept = [
            (name, value) for name, value in response.headers.multi_items() if name not in ("set-cookie", "location")
        ]
        self.written.append((f"headers of {response.request.url.path}", repr(kept).encode()))


def go_back(env: RecordedEnv, browser: Browser, callback: str) -> httpx.Response:
    query = parse_qs(urlsplit(callback).query)
    for name in ("code", "state"):
        env.known.add(query.get(name, [""])[0], name)
    return browser.go(callback)


def live_a_whole_life(env: RecordedEnv) -> None:
    """Run through successes and failures."""
    akoya = env.akoya
    with env.browser() as browser, env.browser() as other_browser:
        callback = akoya.consent(browser.begin(), "mikomo_1")
        other_browser.begin()
        assert go_back(env, other_browser, callback).status_code == 400
        for connector, user in (("mikomo", "mikomo_1"), ("other", "mikomo_4")):
            assert go_back(env, browser, akoya.consent(browser.begin(connector), user)).status_code == 302
            assert go_back(env, browser, callback).status_code == 400  # replayed
        for path in (
            "/accounts",
            "/mikomo",
            "/both",
            "/akoya/",
            "/akoya/jwks.json",
            "/nowhere",
            "/closed",
            "/public/x",
        ):
            browser.fetch(path)
            browser.go(path)
            other_browser.go(path)
        browser.fetch("/accounts/stale")
        for kind in ("status", "html", "wrong_sub", "bad_signature", "secret_rotated"):
            akoya.fault(kind, "token.refresh_token", times=2)
            time.sleep(1.1)  # refreshed after half of their lifetime of two seconds
            browser.fetch("/mikomo")
            browser.go("/both")
            akoya.clear_faults()
            browser.fetch("/accounts")
        for kind in ("status", "html", "garbage", "bad_signature", "secret_rotated", "cut_after"):
            akoya.fault(kind, "token.authorization_code", times=1)
            response = go_back(env, other_browser, akoya.consent(other_browser.begin(), "mikomo_1"))
            other_browser.go(response.headers.get("location", "/akoya/"))
            akoya.clear_faults()
        for query in (
            "error=access_denied&error_description=because",
            "error=odd",
            "code=never-issued-code",
            "code=a&code=b",
        ):
            state = parse_qs(urlsplit(other_browser.begin()).query)["state"][0]
            other_browser.go(f"/akoya/callback?{query}&state={state}")
        other_browser.go("/akoya/callback?code=never-issued-code&state=never-issued-state")
        csrf = browser.connections()["csrf"]
        browser.fetch("/akoya/disconnect/mikomo", "POST", data={"csrf": "wrong"})
        browser.fetch("/akoya/disconnect/mikomo", "POST", data={"csrf": csrf})
        browser.fetch("/akoya/disconnect/mikomo", "GET")
        assert go_back(env, browser, akoya.consent(browser.begin(), "mikomo_1")).status_code == 302
        akoya.fault("dead_token", "token.refresh_token", times=1)
        time.sleep(1.1)
        browser.fetch("/mikomo")
        browser.go("/mikomo")
        browser.go("/akoya/")
        akoya.clear_faults()
        other_browser.fetch("/akoya/logout", "POST", data={"csrf": "x"})


def reload_with(env: RecordedEnv, config: dict[str, Any]) -> None:
    assert isinstance(env.gateway, GatewayProcess)
    assert env.gateway.process is not None
    before = len(env.log())
    env.gateway.config_path.write_text(yaml.safe_dump(config, sort_keys=False))
    env.gateway.process.send_signal(signal.SIGHUP)
    until(lambda: re.search(r"configuration reloaded|new configuration (rejected|not applied)", env.log()[before:]))


GOOD = (["check"], ["explain", "GET", "/accounts"], ["doctor"], ["url", "mikomo"], ["keys", "public"])
WRONG = (["check"], ["doctor"])


def commands(env: RecordedEnv, folder: Path, config: Path, lines: Sequence[list[str]]) -> Iterator[tuple[str, bytes]]:
    for words in lines:
        done = run_command(*words, "--config", str(config), folder=folder, environ=env.environ)
        yield f"akoya-gateway {' '.join(words)}", (done.stdout + done.stderr).encode()


def leaks(env: RecordedEnv, written: list[tuple[str, bytes]]) -> list[str]:
    forms = list(env.known.forms())
    return sorted({f"{what} in {where}" for where, data in written for form, what in forms if form in data})


@pytest.mark.timeout(300)
@pytest.mark.parametrize("algorithm", ["ed25519", "hmac-sha256"])
def test_sidecar_writes_no_secret_anywhere(tmp_path: Path, algorithm: str) -> None:
    with RecordedEnv(tmp_path, "sidecar", algorithm) as env:
        live_a_whole_life(env)
        good = env.config()
        dead = {**good, "upstream": {"url": f"http://127.0.0.1:{free_port()}"}}
        reload_with(env, dead)
        with env.browser() as browser:
            go_back(env, browser, env.akoya.consent(browser.begin(), "mikomo_1"))
            assert browser.fetch("/accounts").status_code == 502
            assert browser.go("/accounts").status_code == 502
        # An operator error: the message must name the place but not the value.
        wrong = {**good, "clients": {"test-app": {**good["clients"]["test-app"], "client_secret": CLIENT_SECRET}}}
        wrong["sessions"] = {
            **good["sessions"],
            "keys": [STORE_KEY],
            "store": f"redis://user:{HMAC_SECRET}@127.0.0.1:1/0",
        }
        reload_with(env, wrong)
        (tmp_path / "wrong.yaml").write_text(yaml.safe_dump(wrong, sort_keys=False))
        (tmp_path / "good.yaml").write_text(yaml.safe_dump(good, sort_keys=False))
        written = list(env.written)
        if algorithm == "ed25519":
            written += [
                *commands(env, tmp_path, tmp_path / "good.yaml", GOOD),
                *commands(env, tmp_path, tmp_path / "wrong.yaml", WRONG),
            ]
        admin = httpx.Client(base_url=env.admin_url, trust_env=False, timeout=60)
        with admin:
            written += [(path, admin.get(path).content) for path in ("/metrics", "/readyz", "/livez", "/nothing")]
        assert isinstance(env.gateway, GatewayProcess)
        for file in tmp_path.glob("grants.db*"):
            written.append((file.name, file.read_bytes()))
        env.gateway.stop()
        written += [(file.name, file.read_bytes()) for file in [*tmp_path.glob("grants.db*"), *tmp_path.glob("*.log")]]
    check_that_the_search_works(env)
    log = b"".join(data for where, data in written if where.endswith(".log"))
    assert b'"debug"' in log, "the log is at its most verbose level"
    assert leaks(env, written) == []


def check_that_the_search_works(env: RecordedEnv) -> None:
    kinds = set(env.known.secrets.values())
    assert {"cookie", "state", "code", "id_token of an answer", "refresh_token of an answer", "client secret",
            "store key", "code_verifier of a request", "Authorization of the client", "id_token of an answer (signature)"} <= kinds  # fmt: skip
    assert len(env.known.secrets) > 40
    some = next(secret for secret, what in env.known.secrets.items() if what == "refresh_token of an answer")
    import base64
    from urllib.parse import quote

    for data in (some, quote(some, safe=""), base64.b64encode(f"user:{some}".encode()).decode(), some.encode().hex()):
        assert leaks(env, [("a planted line", f"x{data}y".encode())]) != []


def test_objects_of_a_running_gateway_print_no_secret(tmp_path: Path) -> None:
    with RecordedEnv(tmp_path, "middleware", "ed25519") as env:
        live_a_whole_life(env)
        with env.browser() as browser:
            go_back(env, browser, env.akoya.consent(browser.begin(), "mikomo_1"))
            assert browser.fetch("/accounts").status_code == 200
            assert isinstance(env.gateway, MiddlewareServer)
            printed: list[tuple[str, bytes]] = []
            seen: dict[int, Any] = {}
            kinds: set[str] = set()
            walk(env.gateway.gateway, printed, seen, kinds)
        written = [*env.written, *printed]
    assert {"Runtime", "Config", "GrantManager", "Grant", "Session", "TokenSet", "Client", "Secret"} <= kinds
    assert {"EncryptionKey", "UpstreamClaims"} <= kinds
    check_that_the_search_works(env)
    assert leaks(env, written) == []


def walk(thing: Any, printed: list[tuple[str, bytes]], seen: dict[int, Any], kinds: set[str], depth: int = 0) -> None:
    """Append `repr` and `str` of every reachable gateway object to `printed`.

    Plain containers are only traversed, and strings and numbers are skipped.
    """
    if id(thing) in seen or depth > 30 or isinstance(thing, str | bytes | int | float | type(None)):
        return
    seen[id(thing)] = thing  # keep a reference, so that no other object gets the same id()
    if isinstance(thing, dict | list | tuple | set | frozenset):
        for part in list(thing.items() if isinstance(thing, dict) else thing):
            walk(part, printed, seen, kinds, depth + 1)
        return
    cls = type(thing)
    if hasattr(thing, "items") and re.search(r"Mapping|OrderedDict", cls.__name__):
        walk(dict(thing), printed, seen, kinds, depth + 1)
        return
    if not cls.__module__.startswith("akoya_gateway"):
        return
    kinds.add(cls.__name__)
    printed.append(
        (
            f"repr of {cls.__name__}",
            f"{thing!r} {thing!s} {thing:}".encode() if cls is Secret else f"{thing!r} {thing!s}".encode(),
        )
    )
    if cls is Secret:
        return
    names = {name for base in cls.__mro__ for name in getattr(base, "__slots__", ())} | set(
        getattr(thing, "__dict__", {})
    )
    if dataclasses.is_dataclass(thing):
        names |= {field.name for field in dataclasses.fields(thing)}
    for name in names:
        walk(getattr(thing, name, None), printed, seen, kinds, depth + 1)
