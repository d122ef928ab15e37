"""The demo as a user sees it: emulator, sample app and gateway as processes and threads behind one URL."""

from __future__ import annotations

import contextlib
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from akoya_gateway.sandbox.demo import Demo
from akoya_gateway.sandbox.server import listen, no_tls
from akoya_gateway.sandbox.settings import SandboxSettings
from tests.support.ports import free_port
from tests.support.sandbox_client import HTTP

NAVIGATION = {"Accept": "text/html", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}


@pytest.fixture(scope="module")
def demo() -> Iterator[Demo]:
    with Demo(0, SandboxSettings(id_token_lifetime=600), bank_port=0) as running:
        yield running


@pytest.fixture
def browser() -> Iterator[httpx.Client]:
    with httpx.Client(
        trust_env=False, timeout=60, verify=no_tls(), follow_redirects=True, headers=NAVIGATION
    ) as client:
        yield client


def press(browser: httpx.Client, page: httpx.Response, **typed: str | list[str]) -> httpx.Response:
    """Fill in the form of the page and submit it."""
    action = re.search(r'<form[^>]* action="([^"]+)"', page.text)
    assert action, page.text
    return browser.post(page.url.join(action[1]), data={"action": "continue"} | typed)


def connect(browser: httpx.Client, page: httpx.Response) -> httpx.Response:
    """Go from the bank's sign-in page to the page where the browser ends."""
    page = press(browser, page, username="mikomo_1", password="mikomo_1")
    page = press(browser, page)
    return press(browser, page, account=re.findall(r'name="account" value="([^"]+)"', page.text))


def loaded(browser: httpx.Client, page: httpx.Response) -> str:
    """Return what the page's script loads."""
    (path,) = re.findall(r'data-url="([^"]+)"', page.text)
    return browser.get(page.url.join(path)).text


def test_connect_see_accounts_and_verified_headers(demo: Demo, browser: httpx.Client) -> None:
    home = browser.get(f"{demo.url}/")
    link = re.search(r'href="(/akoya/connect/mikomo[^"]*)"', home.text)
    assert link
    page = connect(browser, browser.get(home.url.join(link[1])))
    assert (page.status_code, str(page.url)) == (200, f"{demo.url}/accounts")
    assert "Everyday Checking" in loaded(browser, page)
    headers = browser.get(f"{demo.url}/headers").text
    assert "Verified." in headers
    assert "Akoya-Owner" in headers
    assert "Akoya-Id-Token" not in headers
    assert "Connect Mikomo Bank" not in browser.get(f"{demo.url}/").text
    assert "Mikomo Bank" in browser.get(f"{demo.url}/akoya/").text


def test_page_that_requires_a_bank_redirects_to_connect_and_back(demo: Demo, browser: httpx.Client) -> None:
    page = browser.get(f"{demo.url}/accounts")
    assert str(page.url).startswith(demo.sandbox.url)
    assert str(connect(browser, page).url) == f"{demo.url}/accounts"


def test_public_pages_without_a_bank_are_shown_without_a_token(demo: Demo, browser: httpx.Client) -> None:
    page = browser.get(f"{demo.url}/headers")
    assert page.status_code == 200
    assert "Akoya-Id-Token" not in page.text


def test_app_refuses_requests_without_the_gateways_signature(demo: Demo) -> None:
    forged = {"Akoya-Connector": "mikomo", "Akoya-Id-Token": "x", "Akoya-Owner": "somebody"}
    response = HTTP.get(f"{demo.app_url}/accounts", headers=forged)
    assert response.status_code == 401
    assert "Not from the gateway" in response.text
    assert "Not verified" in HTTP.get(f"{demo.app_url}/headers", headers=forged).text


def test_secrets_of_the_demo_are_readable_by_its_user_only(demo: Demo) -> None:
    modes = {path.name: path.stat().st_mode & 0o077 for path in demo.config.parent.iterdir()}
    assert {"client_id", "client_secret", "store.key", "signing.pem"} <= set(modes)
    assert [name for name in ("client_secret", "store.key", "signing.pem") if modes[name]] == []


@contextlib.contextmanager
def demo_command(host: str = "127.0.0.1") -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Yield the process of `akoya-gateway demo` when it is ready, and the URL of its gateway."""
    port, bank_port = free_port(), free_port()
    ports = ["--port", str(port), "--bank-port", str(bank_port), "--host", host]
    command = [sys.executable, "-c", "from akoya_gateway.cli import main; main()", "demo", *ports]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        text = ""
        while "Ctrl-C" not in text:
            line = process.stdout.readline()
            assert line, text
            text += line
        assert re.findall(r"http://[^\s]+[^\s.]", text) == [
            f"http://127.0.0.1:{port}/",
            f"http://127.0.0.1:{bank_port}",
        ]
        assert f"ssh -L {port}:127.0.0.1:{port} -L {bank_port}:127.0.0.1:{bank_port} " in text
        yield process, f"http://127.0.0.1:{port}/"
    finally:
        process.kill()
        process.wait()


def test_demo_with_a_wildcard_host_is_reachable_from_outside_and_keeps_its_urls(browser: httpx.Client) -> None:
    """A forwarded port of a container leads to an address of its own; the browser's URLs are those of loopback."""
    with Demo(0, bank_port=0, host="0.0.0.0") as running:
        for url in (running.url, running.sandbox.url):
            host = url.removeprefix("http://")
            assert HTTP.get(url.replace("127.0.0.1", "127.0.0.2") + "/", headers={"Host": host}).status_code < 500
        page = connect(browser, browser.get(f"{running.url}/accounts"))
        assert (page.status_code, str(page.url)) == (200, f"{running.url}/accounts")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_demo_command_prints_its_urls_and_stops_on_a_signal(number: signal.Signals) -> None:
    with demo_command() as (process, url):
        assert HTTP.get(url).status_code == 200
        process.send_signal(number)
        _, errors = process.communicate(timeout=20)
    assert process.returncode == 0
    assert "Traceback" not in errors
    folder = re.search(r"Configuration: (\S+)/gateway.yaml", errors)
    assert folder
    assert not Path(folder[1]).exists()
    with pytest.raises(httpx.ConnectError):
        HTTP.get(url)


def test_demo_killed_takes_its_gateway_along() -> None:
    with demo_command() as (process, url):
        process.kill()
        process.communicate(timeout=20)  # until the gateway has closed its end of the pipes as well
    with pytest.raises(httpx.ConnectError):
        HTTP.get(url)


def test_wait_ends_when_the_gateway_exits(demo: Demo) -> None:
    with Demo(0, bank_port=0) as second:
        assert second.url != demo.url
        assert second._gateway is not None
        second._gateway.terminate()
        assert second.wait() == second._gateway.returncode


def test_port_in_use_is_reported() -> None:
    with listen() as taken:
        command = [sys.executable, "-c", "from akoya_gateway.cli import main; main()", "demo", "--port"]
        run = subprocess.run(
            [*command, str(taken.getsockname()[1])], capture_output=True, text=True, timeout=60, check=False
        )
        port = taken.getsockname()[1]
    assert run.returncode == 1
    assert f"cannot listen on 127.0.0.1:{port}: Address already in use (choose another --port" in run.stderr
