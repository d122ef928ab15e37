"""Tests with common servers: a threaded WSGI server and nginx as upstreams, and nginx in front as a trusted proxy."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterable, Iterator
from ipaddress import ip_network
from pathlib import Path
from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

import pytest

from akoya_gateway.config.model import Origin
from tests.support.raw_http import Client, Proxied, fetch, proxied
from tests.support.shutdown import ended, served

NGINX = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin:/usr/local/sbin:/usr/local/nginx/sbin")


def application(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    size = int(environ.get("CONTENT_LENGTH") or 0)
    body = environ["wsgi.input"].read(size)
    seen = {name: value for name, value in environ.items() if name.startswith("HTTP_")}
    seen |= {"digest": hashlib.sha256(body).hexdigest(), "path": environ["PATH_INFO"], "query": environ["QUERY_STRING"]}
    start_response("200 OK", [("Content-Type", "application/json")])
    return [json.dumps(seen).encode()]


class Threaded(ThreadingMixIn, WSGIServer):
    """A wsgiref server with a thread per request."""

    daemon_threads = True


class Silent(WSGIRequestHandler):
    """A request handler that logs nothing."""

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        pass


@pytest.fixture(scope="module")
def wsgi() -> Iterator[Proxied]:
    with (
        make_server("127.0.0.1", 0, application, Threaded, Silent) as server,
        served(server),
        proxied(Origin("http", "127.0.0.1", server.server_port)) as proxy,
    ):
        yield proxy


def test_wsgi_app_gets_body_and_headers_once_each(wsgi: Proxied) -> None:
    """wsgiref speaks HTTP/1.0 and closes the connection to end a response."""
    body = os.urandom(300_000)
    headers = {"X-Forwarded-For": "6.6.6.6", "X_Forwarded_For": "6.6.6.6", "Akoya-Connector": "mikomo"}
    for _ in range(3):
        status, _, response = fetch(wsgi.port, "/a?b=c", method="POST", body=body, headers=headers)
        seen = json.loads(response)
        assert status == 200
        assert seen["digest"] == hashlib.sha256(body).hexdigest()
        assert (seen["path"], seen["query"]) == ("/a", "b=c")
        assert seen["HTTP_X_FORWARDED_FOR"] == "127.0.0.1"
        assert seen["HTTP_AKOYA_CONNECTOR"] == "mikomo"


@pytest.fixture(scope="module")
def nginx(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Origin, Proxied, int]]:
    """nginx as upstream (files, a forbidden location, a slow one), the proxy, and nginx in front of the proxy."""
    if NGINX is None:
        pytest.skip("nginx is not installed")
    directory: Path = tmp_path_factory.mktemp("nginx")
    directory.chmod(0o755)
    (directory / "file.bin").write_bytes(os.urandom(3_000_000))
    (directory / "small.txt").write_text("small\n" * 1000)
    with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("127.0.0.1", 0)) as two:
        back, front = one.getsockname()[1], two.getsockname()[1]
    with proxied(Origin("http", "127.0.0.1", back), trusted_proxies=[ip_network("127.0.0.1")]) as proxy:
        configuration = directory / "nginx.conf"
        configuration.write_text(
            f"""
            daemon off; pid {directory}/pid; error_log {directory}/error.log;
            {"user root;" if os.getuid() == 0 else ""}
            events {{ worker_connections 256; }}
            http {{
              access_log off; root {directory}; gzip on; gzip_types *; gzip_proxied any; gzip_min_length 1;
              client_body_temp_path {directory}/body; proxy_temp_path {directory}/proxy;
              fastcgi_temp_path {directory}/f; uwsgi_temp_path {directory}/u; scgi_temp_path {directory}/s;
              client_max_body_size 1m; keepalive_requests 10;
              server {{ listen 127.0.0.1:{back};
                location /said {{ return 200 "$http_x_forwarded_for|$http_x_forwarded_proto|$http_host|$http_via\\n"; }}
                location /none {{ return 204; }}
                location /closed {{ return 444; }}
              }}
              server {{ listen 127.0.0.1:{front};
                location / {{ proxy_pass http://127.0.0.1:{proxy.port}; proxy_http_version 1.1;
                  proxy_set_header Connection ""; proxy_set_header Host $http_host;
                  proxy_set_header X-Forwarded-Proto https; proxy_set_header X-Forwarded-For 203.0.113.9; }}
              }}
            }}"""
        )
        process = subprocess.Popen([NGINX, "-c", str(configuration), "-p", str(directory)], stderr=subprocess.PIPE)
        try:
            deadline = time.monotonic() + 60
            while True:
                try:
                    socket.create_connection(("127.0.0.1", front), 1).close()
                    break
                except OSError:
                    assert process.poll() is None, process.stderr and process.stderr.read()
                    assert time.monotonic() < deadline
                    time.sleep(0.02)
            yield Origin("http", "127.0.0.1", back), proxy, front
        finally:
            ended(process)


def test_files_of_nginx_come_whole_with_ranges_and_conditions(nginx: tuple[Origin, Proxied, int]) -> None:
    origin, proxy, _ = nginx
    direct = fetch(origin.port, "/file.bin")
    through = fetch(proxy.port, "/file.bin")
    assert through[2] == direct[2]
    status, headers, part = fetch(proxy.port, "/file.bin", headers={"Range": "bytes=100-199"})
    assert (status, part) == (206, direct[2][100:200])
    status, _, body = fetch(proxy.port, "/file.bin", headers={"If-None-Match": direct[1]["etag"]})
    assert (status, body) == (304, b"")
    status, headers, body = fetch(proxy.port, "/file.bin", method="HEAD")
    assert (status, headers["content-length"], body) == (200, "3000000", b"")
    status, headers, body = fetch(proxy.port, "/small.txt", headers={"Accept-Encoding": "gzip"})
    assert headers["content-encoding"] == "gzip"
    assert body[:2] == b"\x1f\x8b"


def test_keep_alive_survives_nginxs_limit_of_requests(nginx: tuple[Origin, Proxied, int]) -> None:
    with Client(nginx[1].port) as client:
        for _ in range(35):
            client.send(b"GET /small.txt HTTP/1.1\r\nHost: a\r\n\r\n")
            assert client.response().status == 200


def test_nginx_sends_413_early_and_204_without_a_body(nginx: tuple[Origin, Proxied, int]) -> None:
    assert fetch(nginx[1].port, "/none")[0] == 204
    with Client(nginx[1].port) as client:
        client.send(b"POST /small.txt HTTP/1.1\r\nHost: a\r\nContent-Length: 5000000\r\n\r\n" + b"x" * 1000)
        assert client.response().status == 413


def test_nginx_that_closes_without_a_response_is_502(nginx: tuple[Origin, Proxied, int]) -> None:
    assert fetch(nginx[1].port, "/closed")[0] == 502


def test_nginx_in_front_is_believed_when_it_is_trusted(nginx: tuple[Origin, Proxied, int]) -> None:
    status, _, body = fetch(nginx[2], "/said", headers={"Host": "shop.example"})
    assert status == 200
    assert body == b"203.0.113.9, 127.0.0.1|https|shop.example|1.1 akoya-gateway\n"
