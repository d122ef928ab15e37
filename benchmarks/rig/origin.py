"""The upstream of all proxies: nginx for bodies, a small asyncio server for event streams and WebSockets."""

from __future__ import annotations

import json
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Self

from benchmarks.rig.processes import Server, free_port

SMALL, JSON, LARGE, HUGE = "/bench/small", "/bench/json", "/bench/100k", "/bench/10m"
VARIED = "/bench/varied"
"""Path whose responses all differ in one header."""
EMPTY, UNCHANGED = "/bench/empty", "/bench/unchanged"
"""Paths of an empty body, and of a file for conditional requests.

wrk takes a HEAD response for that of a GET and would wait for its body, so HEAD requests are for an empty one.
"""
UPLOAD, SEEN, EVENTS, ECHO = "/bench/upload", "/bench/seen", "/bench/events", "/bench/echo"
UPLOAD_BYTES = 10_000_000

_CONF = """
daemon off;
master_process off;
worker_processes 1;
pid {folder}/origin.pid;
error_log {folder}/origin-error.log crit;
events {{ worker_connections 16384; }}
http {{
  access_log off;
  keepalive_requests 1000000000;
  keepalive_timeout 600s;
  client_body_temp_path {folder}/origin-body;
  proxy_temp_path {folder}/origin-proxy;
  fastcgi_temp_path {folder}/origin-f;
  uwsgi_temp_path {folder}/origin-u;
  scgi_temp_path {folder}/origin-s;
  sendfile on;
  open_file_cache max=16;
  open_file_cache_valid 600s;
  default_type application/json;
  large_client_header_buffers 8 64k;
  underscores_in_headers on;
  upstream streams {{ server 127.0.0.1:{streams}; keepalive 4; }}
  server {{
    listen 127.0.0.1:{port} backlog=4096;
    location = /bench/small {{ default_type text/plain; return 200 "hello, world"; }}
    location = /bench/empty {{ default_type text/plain; return 200; }}
    location = /bench/unchanged {{ alias {folder}/unchanged.txt; }}
    location /bench/varied {{ add_header X-Request-Id $request_id; return 200 "hello, world"; }}
    location = /bench/json {{ return 200 '{document}'; }}
    location = /bench/100k {{ alias {folder}/100k.json; }}
    location = /bench/10m {{ default_type application/octet-stream; alias {folder}/10m.bin; }}
    set $ours $http_akoya_id_token$http_akoya_assertion;
    set $theirs $http_authorization$http_oidc_access_token$http_oidc_claim_sub;
    location = /bench/seen {{ return 200 '$ours$theirs'; }}
    location = /bench/upload {{
      # Reads the whole body before it responds.
      client_max_body_size 0;
      client_body_buffer_size 16m;
      proxy_pass_request_body off;
      proxy_set_header Content-Length "";
      proxy_pass http://127.0.0.1:{port}/bench/small;
    }}
    location / {{ return 200 "hello, world"; }}
  }}
}}
"""


class Origin:
    """Context manager for the upstream. `url` serves bodies; `streams_url` streams, WebSockets and slow uploads."""

    def __init__(self, folder: Path, cores: str) -> None:
        self.folder = folder
        self.port = free_port()
        self.streams_port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.streams_url = f"http://127.0.0.1:{self.streams_port}"
        self._cores = cores
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        folder = self.folder
        (folder / "100k.json").write_bytes(b"[" + b'"0123456789abcdef",' * 5390 + b"0]")
        (folder / "unchanged.txt").write_bytes(b"hello, world")
        (folder / "10m.bin").write_bytes(bytes(range(256)) * 39063)
        accounts = [{"account": f"mikomo-{n}", "balance": n * 113 / 100, "currency": "USD"} for n in range(17)]
        document = json.dumps(accounts)[:1024]
        conf = folder / "origin.conf"
        conf.write_text(_CONF.format(folder=folder, port=self.port, streams=self.streams_port, document=document))
        command: list[str | Path] = ["nginx", "-p", folder, "-c", conf]
        self._stack.enter_context(Server("origin", command, self.port, folder / "origin.log", cores=self._cores))
        streams = [sys.executable, "-m", "benchmarks.rig.streams", str(self.streams_port)]
        self._stack.enter_context(
            Server("streams", streams, self.streams_port, folder / "streams.log", cores=self._cores)
        )
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()
