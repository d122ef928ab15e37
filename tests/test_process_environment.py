"""Proxy and trust variables: parsed at startup, reported by name, never shown with a password."""

from __future__ import annotations

import asyncio
import os
import ssl
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from cryptography.hazmat.primitives.serialization import Encoding

from akoya_gateway.doctor.checks import run_checks
from akoya_gateway.process_environment import ProcessEnvironment, read_process_environment
from akoya_gateway.provider import http_client
from tests.support.certificates import Authority, self_signed
from tests.support.config_documents import ENVIRON, changed, error_lines, validated, warning_lines

LOOPBACK = {
    "environments": {
        "double": {"authorization_endpoint": "http://127.0.0.1:9/auth", "token_endpoint": "http://127.0.0.1:9/token"}
    },
    "clients.demo-app.environment": "double",
}
FORM = "is not of the form http://USER:PASSWORD@host:port (in user and password / ? # @ and % are percent-encoded)"


def faults_of(environ: dict[str, str]) -> list[str]:
    return [f"{message} ({remedy})" for message, remedy in read_process_environment(environ)[1]]


def warnings_of(environ: dict[str, str]) -> list[str]:
    return [message for message, _ in read_process_environment(environ)[2]]


@pytest.mark.parametrize("name", ["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"])
@pytest.mark.parametrize("url", ["socks5://127.0.0.1:1080", "socks://127.0.0.1:1080/", "SOCKS5h://u:hunter2@h:1080"])
def test_socks_proxy_is_refused_by_name(name: str, url: str) -> None:
    (fault,) = faults_of({name: url})
    assert fault.startswith(f"the variable {name} names a SOCKS proxy, which is not supported")
    assert "hunter2" not in fault


def test_all_proxy_does_not_count_where_https_proxy_is_set() -> None:
    process_environment, faults, _ = read_process_environment(
        {"ALL_PROXY": "socks5://h:1", "HTTPS_PROXY": "http://proxy:3128"}
    )
    assert faults == []
    assert process_environment.proxy is not None
    assert (process_environment.proxy.variable, process_environment.proxy.shown) == ("HTTPS_PROXY", "http://proxy:3128")


@pytest.mark.parametrize(
    ("url", "shown", "whole"),
    [
        ("http://proxy.example:3128", "http://proxy.example:3128", "http://proxy.example:3128"),
        ("proxy:3128", "http://proxy:3128", "http://proxy:3128"),
        ("HTTP://u:hunter2%40@[fd00::1]:3128/", "http://[fd00::1]:3128", "http://u:hunter2%40@[fd00::1]:3128"),
        ("https://proxy", "https://proxy", "https://proxy"),
    ],
)
def test_proxy_is_shown_without_its_password(url: str, shown: str, whole: str) -> None:
    process_environment, faults, warnings = read_process_environment({"HTTPS_PROXY": url})
    assert (faults, warnings) == ([], [])
    assert process_environment.proxy is not None
    assert (process_environment.proxy.shown, process_environment.proxy.url.reveal()) == (shown, whole)
    assert "hunter2" not in repr(process_environment)


@pytest.mark.parametrize(
    "url",
    ["http://u:hunter2/x@proxy:1", "http://u:hunter2#@proxy:1", "http://u:p@hunter2@proxy:1", "http://u:hun ter2@proxy:1", "http://proxy:hunter2",
     "http://proxy:0", "http://proxy:65536", "http://u:hunter2\u00e9@proxy:1", "ftp://u:hunter2@proxy:1", "http://", "http://proxy:1/hunter2",
     # The HTTP client, or the resolver, raises an exception for these hosts.
     "http://u:hunter2@999.1.1.1:1", "http://u:hunter2@[1.2.3.4]:1", "http://u:hunter2@[1::2::3]", "http://u:hunter2@a..b:1", "http://u:hunter2@" + "a" * 64],
)  # fmt: skip
def test_proxy_that_cannot_be_read_is_a_fault_that_shows_nothing_of_it(url: str) -> None:
    assert faults_of({"HTTPS_PROXY": url}) == [f"the variable HTTPS_PROXY {FORM}"]


def test_lower_case_counts_first_also_if_it_is_empty() -> None:
    proxy = read_process_environment({"https_proxy": "http://a:1", "HTTPS_PROXY": "http://b:1"})[0].proxy_for("h", 443)
    assert proxy is not None
    assert proxy.shown == "http://a:1"
    assert read_process_environment({"https_proxy": "", "HTTPS_PROXY": "http://b:1"})[0].proxy is None


@pytest.mark.parametrize(
    ("no_proxy", "straight", "proxied"),
    [
        ("10.0.0.0/8,fd00::/8", [("10.1.2.3", 443), ("fd12::1", 443)], [("11.0.0.1", 443), ("fe80::1", 443), ("x.example", 443)]),
        ("example.com", [("example.com", 443), ("a.Example.com.", 8443)], [("badexample.com", 443), ("example.com.evil", 443)]),
        (".example.com, *.example.org", [("a.example.com", 443), ("a.example.org", 1)], [("bexample.com", 443), ("example.co", 443)]),
        ("localhost:8443", [("localhost", 8443)], [("localhost", 443)]),
        ("127.0.0.1:8443,[::1]:9,[fd00::]/8", [("127.0.0.1", 8443), ("::1", 9)], [("127.0.0.1", 1), ("::1", 443), ("fd00::1", 443)]),
        ("::1,[fd00::2]", [("::1", 443), ("fd00::2", 1)], [("::2", 443)]),
        ("https://a.example:8443,http://b.example,all://c.example", [("a.example", 8443), ("c.example", 1)], [("a.example", 443), ("b.example", 443)]),
        ("*", [("anything", 1), ("10.0.0.1", 443)], []),
        ("a.example b.example\t10.0.0.0/8\n,c.example", [("a.example", 443), ("b.example", 443), ("10.0.0.1", 1), ("c.example", 443)], []),
        ("", [], [("anything", 443)]),
    ],
)  # fmt: skip
def test_no_proxy_covers_names_networks_and_ports(
    no_proxy: str, straight: list[tuple[str, int]], proxied: list[tuple[str, int]]
) -> None:
    process_environment, _, _ = read_process_environment({"HTTPS_PROXY": "http://proxy:3128", "NO_PROXY": no_proxy})
    assert [each for each in straight if process_environment.proxy_for(*each) is not None] == []
    assert [each for each in proxied if process_environment.proxy_for(*each) is None] == []


@pytest.mark.parametrize(
    "entry", ["127.0.0.1:*", "<local>", "10.0.0.0/40", "a;b", "x:99999", "[::g]", "h\u00f6st", "a" * 300 + ":"]
)
def test_unreadable_entry_of_no_proxy_is_left_out_with_a_warning(entry: str) -> None:
    environ = {"HTTPS_PROXY": "http://proxy:3128", "no_proxy": f"localhost,{entry},10.0.0.0/8"}
    process_environment, faults, warnings = read_process_environment(environ)
    assert faults == []
    (message,) = [message for message, _ in warnings]
    assert message.startswith(f"the variable no_proxy has an invalid entry, which is ignored: {ascii(entry)[:40]}")
    assert message.isascii()
    assert len(message) < 200
    assert process_environment.proxy_for("10.0.0.1", 443) is None
    assert process_environment.proxy_for("localhost", 443) is None


def test_no_proxy_without_a_proxy_is_not_looked_at() -> None:
    assert read_process_environment({"NO_PROXY": "127.0.0.1:*,fd00::/8"}) == (ProcessEnvironment(), [], [])


def test_trust_variables_that_lead_nowhere_are_faults_by_name(tmp_path: Path) -> None:
    empty = tmp_path / "empty.pem"
    empty.touch()
    for name, value, message in (
        ("SSL_CERT_FILE", f"{tmp_path}/none.pem", "No such file or directory"),
        ("SSL_CERT_FILE", str(tmp_path), ""),
        ("SSL_CERT_FILE", str(empty), "a file without certificates"),
        ("SSL_CERT_DIR", f"{tmp_path}/none", "no readable folder"),
        ("SSL_CERT_DIR", f"{tmp_path}/{'x' * 300}", "no readable folder"),
        ("SSL_CERT_DIR", str(empty), "no readable folder"),
        ("SSLKEYLOGFILE", f"{tmp_path}/none/keys", "No such file or directory"),
    ):
        (fault,) = faults_of({name: value})
        assert fault.startswith(f"the variable {name} names ")
        assert message in fault
        assert str(value) in fault


def test_trust_variables_that_lead_somewhere_are_kept(tmp_path: Path) -> None:
    pem = tmp_path / "ca.pem"
    pem.write_bytes(self_signed())
    assert read_process_environment({"SSL_CERT_FILE": str(pem), "SSL_CERT_DIR": "/none"}) == (
        ProcessEnvironment(ca_file=str(pem)),
        [],
        [],
    )
    assert "named by their hash" in warnings_of({"SSL_CERT_DIR": str(tmp_path)})[0]
    (tmp_path / "0123abcd.0").symlink_to(pem)
    assert read_process_environment({"SSL_CERT_DIR": f"/none:{tmp_path}"})[1:] == ([], [])
    (tmp_path / "0123abcd.0").unlink()
    (tmp_path / "0123abcd.0").symlink_to(tmp_path / "removed.pem")
    assert "named by their hash" in warnings_of({"SSL_CERT_DIR": str(tmp_path)})[0]
    assert "keys of TLS connections" in warnings_of({"SSLKEYLOGFILE": str(tmp_path / "keys")})[0]


def test_trust_file_without_a_valid_authority_is_warned_about(tmp_path: Path) -> None:
    expired, valid = (Authority(tmp_path, expired=each).certificate for each in (True, False))
    pem = tmp_path / "cas.pem"
    pem.write_bytes(expired.public_bytes(Encoding.PEM))
    assert warnings_of({"SSL_CERT_FILE": str(pem)}) == [
        f"the variable SSL_CERT_FILE names a file whose certificates have all expired: {str(pem)!r}"
    ]
    assert faults_of({"SSL_CERT_FILE": str(pem)}) == []
    pem.write_bytes(expired.public_bytes(Encoding.PEM) + valid.public_bytes(Encoding.PEM))
    assert warnings_of({"SSL_CERT_FILE": str(pem)}) == []


def test_trust_variable_of_other_programs_is_warned_about(tmp_path: Path) -> None:
    pem = tmp_path / "ca.pem"
    pem.write_bytes(self_signed())
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        expected = f"the variable {name} is set, but only SSL_CERT_FILE and SSL_CERT_DIR are used"
        assert warnings_of({name: str(pem)}) == [expected]
        assert warnings_of({name: str(pem), "SSL_CERT_FILE": str(pem)}) == []


def test_check_reports_variables_in_one_line_and_only_where_https_is_used(tmp_path: Path) -> None:
    environ = {**ENVIRON, "ALL_PROXY": "socks5://h:1", "SSL_CERT_FILE": "/none.pem"}
    assert len(error_lines(validated(tmp_path, {}, environ))) == 2
    assert all(line.startswith("the variable ") for line in error_lines(validated(tmp_path, {}, environ)))
    assert error_lines(validated(tmp_path, LOOPBACK, environ)) == []
    by_token = {
        **LOOPBACK,
        "identity": {"jwt": {"jwks_uri": "https://idp.example/keys", "issuer": "i", "audience": "a"}},
    }
    assert len(error_lines(validated(tmp_path, by_token, environ))) == 2
    odd = {**ENVIRON, "HTTPS_PROXY": "http://p:1", "NO_PROXY": "127.0.0.1:*"}
    assert any(
        "NO_PROXY has an invalid entry, which is ignored: '127.0.0.1:*'" in line
        for line in warning_lines(validated(tmp_path, {}, odd))
    )


@pytest.mark.parametrize("command", [("check",), ("doctor", "--no-credentials"), ("run",)])
def test_each_command_names_the_variable_without_a_traceback(tmp_path: Path, command: tuple[str, ...]) -> None:
    (tmp_path / "gateway.yaml").write_text(yaml.safe_dump(changed({})))
    clean = {name: value for name, value in os.environ.items() if "proxy" not in name.lower()}
    done = subprocess.run(
        [sys.executable, "-m", "akoya_gateway", *command, "--config", "gateway.yaml"], cwd=tmp_path, timeout=60, check=False,
        env={**clean, **ENVIRON, "ALL_PROXY": "socks5://127.0.0.1:1"}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 1
    lines = [line for line in (done.stdout + done.stderr).splitlines() if "SOCKS" in line]
    assert lines == [
        "gateway.yaml:1:1: the variable ALL_PROXY names a SOCKS proxy, which is not supported "
        "(name an HTTP proxy in HTTPS_PROXY, or unset it for the gateway)"
    ]
    assert "Traceback" not in done.stdout + done.stderr


async def _proxy(seen: list[bytes]) -> asyncio.Server:
    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen.append(await reader.readuntil(b"\r\n\r\n"))
        writer.write(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")
        await writer.drain()
        writer.close()

    return await asyncio.start_server(refuse, "127.0.0.1", 0)


async def test_requests_take_the_proxy_and_exceptions_do_not() -> None:
    seen: list[bytes] = []
    listening = await _proxy(seen)
    port = listening.sockets[0].getsockname()[1]
    environ = {"HTTPS_PROXY": f"http://u:p%40ss@127.0.0.1:{port}", "NO_PROXY": "127.0.0.0/8"}
    process_environment, _, _ = read_process_environment(environ)
    async with http_client(process_environment=process_environment) as http:
        for url in ("https://idp.example.invalid/token", "https://127.0.0.1:1/token"):
            with pytest.raises(Exception, match=r"403|connection"):
                await http.get(url)
    listening.close()
    assert [request.split(b"\r\n")[0] for request in seen] == [b"CONNECT idp.example.invalid:443 HTTP/1.1"]
    assert b"Proxy-Authorization: Basic dTpwQHNz" in seen[0], "u:p@ss"


async def test_doctor_uses_the_cas_and_the_proxy_of_the_gateway(tmp_path: Path) -> None:
    """The provider's certificate is trusted through SSL_CERT_FILE only; OpenSSL's default need not read that."""
    pem = tmp_path / "ca.pem"
    pem.write_bytes(self_signed())
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if await reader.read(1):
            writer.write(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}")
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    base = f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    changes = {
        **LOOPBACK,
        "environments": {"double": {"authorization_endpoint": f"{base}/a", "token_endpoint": f"{base}/t"}},
    }
    proxied: list[bytes] = []
    listening = await _proxy(proxied)
    by_proxy = {"HTTPS_PROXY": f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}"}
    found = {}
    for name, environ in (("trusted", {"SSL_CERT_FILE": str(pem)}), ("untrusted", {}), ("proxied", by_proxy)):
        config = validated(tmp_path, changes, {**ENVIRON, **environ}).config
        assert config is not None
        findings = await run_checks(config, credentials=False)
        found[name] = {
            each.about: (each.verdict.value, each.says) for each in findings if "token_endpoint" in each.about
        }
    server.close()
    listening.close()
    assert found["trusted"]["environments.double.token_endpoint"] == ("fine", "POST returned 400")
    assert found["untrusted"] == {}, "not tried: TLS failed before"
    assert found["proxied"]["environments.double.token_endpoint"][0] == "fault"
    assert {request.split()[0] for request in proxied} == {b"CONNECT"}
