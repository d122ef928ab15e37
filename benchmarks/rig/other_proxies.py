"""Configurations and commands of the other proxies: nginx, Envoy, Apache with mod_auth_openidc, oauth2-proxy."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

from akoya_gateway.sandbox.server import SandboxServer
from benchmarks.rig.gateway import CLIENT_ID, CLIENT_SECRET

_SCOPES = ["openid", "profile", "offline_access"]

_NGINX = """
daemon off;
master_process off;
worker_processes 1;
pid {folder}/nginx.pid;
error_log {folder}/nginx-error.log crit;
events {{ worker_connections 16384; }}
http {{
  access_log {access_log};
  keepalive_requests 1000000000;
  keepalive_timeout 600s;
  client_max_body_size 0;
  client_body_temp_path {folder}/body;
  proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/f;
  uwsgi_temp_path {folder}/u;
  scgi_temp_path {folder}/s;
  map $http_upgrade $connection_upgrade {{ default upgrade; "" ""; }}
  upstream origin {{ server 127.0.0.1:{origin}; keepalive 512; keepalive_requests 1000000000; }}
  upstream streams {{ server 127.0.0.1:{streams}; keepalive 512; }}
  server {{
    listen 127.0.0.1:{port} backlog=4096;
    proxy_http_version 1.1;
    # All in one place: a location with one of these of its own would inherit none, and close each connection.
    proxy_set_header Host $http_host;
    proxy_set_header Connection "";
    proxy_set_header X-Forwarded-For $remote_addr;
    proxy_set_header X-Forwarded-Proto $scheme;
    proxy_request_buffering off;
    proxy_max_temp_file_size 0;
    location / {{ proxy_pass http://origin; }}
    location /bench/events {{ proxy_pass http://streams; proxy_buffering off; proxy_read_timeout 600s; }}
    location /bench/echo {{
      proxy_pass http://streams;
      proxy_set_header Upgrade $http_upgrade;
      proxy_set_header Connection $connection_upgrade;
    }}
  }}
}}
"""


def nginx(folder: Path, port: int, origin: int, streams: int, *, logged: bool = False) -> list[str]:
    folder.mkdir()
    access_log = f"{folder}/access.log" if logged else "off"
    conf = folder / "nginx.conf"
    conf.write_text(_NGINX.format(folder=folder, port=port, origin=origin, streams=streams, access_log=access_log))
    return ["nginx", "-p", str(folder), "-c", str(conf)]


_APACHE = """
ServerRoot {folder}
ServerName 127.0.0.1
Listen 127.0.0.1:{port}
ListenBacklog 4096
PidFile {folder}/apache.pid
ErrorLog {folder}/apache-error.log
LogLevel error
{access_log}
{modules}
<IfModule unixd_module>
User www-data
Group www-data
</IfModule>
ServerLimit 1
StartServers 1
ThreadLimit 64
ThreadsPerChild 64
MaxRequestWorkers 64
MaxConnectionsPerChild 0
KeepAlive On
MaxKeepAliveRequests 0
KeepAliveTimeout 600
ProxyPass / http://127.0.0.1:{origin}/ enablereuse=on max=64 smax=64 ttl=600
ProxyPreserveHost On
LimitRequestFieldSize 65536

OIDCProviderMetadataURL {url}/.well-known/openid-configuration
OIDCProviderTokenEndpointAuth client_secret_basic
OIDCAuthRequestParams connector=mikomo
OIDCClientID {client_id}
OIDCClientSecret {client_secret}
OIDCRedirectURI http://127.0.0.1:{port}/oidc/callback
OIDCScope "{scopes}"
OIDCCryptoPassphrase a-passphrase-of-the-benchmark-0123456789
OIDCSessionType {session}
OIDCCacheType shm
OIDCSessionInactivityTimeout 86400
<Location />
  AuthType openid-connect
  Require valid-user
</Location>
"""

_COMBINED = r"""CustomLog {folder}/access.log "%h %l %u %t \"%r\" %>s %O \"%{{Referer}}i\" \"%{{User-Agent}}i\""
"""
_MODULES = Path("/usr/lib/apache2/modules")
_NEEDED = (
    "mpm_event", "authn_core", "authz_core", "authz_user", "proxy", "proxy_http", "auth_openidc"
)  # fmt: skip


def apache(
    folder: Path, port: int, origin: int, akoya: SandboxServer, session: str, *, logged: bool = False
) -> list[str]:
    """Configure Apache with mod_auth_openidc. `session` is `client-cookie` or `server-cache`."""
    folder.mkdir()
    akoya.register_redirect_uri(f"http://127.0.0.1:{port}/oidc/callback")
    modules = "\n".join(f"LoadModule {name}_module {_MODULES}/mod_{name}.so" for name in _NEEDED)
    conf = folder / "apache.conf"
    conf.write_text(
        _APACHE.format(
            folder=folder, port=port, origin=origin, session=session, modules=modules,
            url=akoya.url, client_id=CLIENT_ID, client_secret=CLIENT_SECRET,
            scopes=" ".join(_SCOPES), access_log=_COMBINED.format(folder=folder) if logged else "",
        )
    )  # fmt: skip
    return ["apache2", "-f", str(conf), "-DFOREGROUND"]


def has_apache() -> bool:
    return shutil.which("apache2") is not None and (_MODULES / "mod_auth_openidc.so").exists()


def envoy_binary() -> str | None:
    beside = Path(sys.executable).with_name("envoy")
    return str(beside) if beside.exists() else shutil.which("envoy")


def envoy(
    folder: Path,
    port: int,
    origin: int,
    streams: int,
    akoya: SandboxServer | None,
    concurrency: int = 1,
    *,
    logged: bool = False,
) -> list[str]:
    """Configure Envoy, with its `oauth2` filter if `akoya` is given."""
    folder.mkdir()
    conf = folder / "envoy.json"
    access_log = [_access_log(folder / "access.log")] if logged else []
    conf.write_text(json.dumps(_envoy(port, origin, streams, akoya, access_log), indent=1))
    binary = envoy_binary()
    assert binary is not None
    return [
        binary, "-c", str(conf), "--concurrency", str(concurrency), "--use-dynamic-base-id",
        "--disable-hot-restart", "-l", "error",
    ]  # fmt: skip


_TYPES = "type.googleapis.com/envoy.extensions"


def _access_log(path: Path) -> dict[str, Any]:
    """Return a file access log in Envoy's default format."""
    config = {"@type": f"{_TYPES}.access_loggers.file.v3.FileAccessLog", "path": str(path)}
    return {"name": "envoy.access_loggers.file", "typed_config": config}


def _envoy(
    port: int, origin: int, streams: int, akoya: SandboxServer | None, access_log: list[dict[str, Any]]
) -> dict[str, Any]:
    filters: list[dict[str, Any]] = []
    clusters = [_cluster("origin", origin), _cluster("streams", streams)]
    secrets = []
    if akoya is not None:
        akoya.register_redirect_uri(f"http://127.0.0.1:{port}/callback")
        clusters.append(_cluster("akoya", int(akoya.url.rpartition(":")[2])))
        secrets = [_secret("token", CLIENT_SECRET), _secret("hmac", "an-hmac-secret-of-envoy-0123456789ab")]
        filters.append({"name": "envoy.filters.http.oauth2", "typed_config": _oauth2(port, akoya)})
    filters.append(
        {"name": "router", "typed_config": {"@type": f"{_TYPES}.filters.http.router.v3.Router"}},
    )
    routes = [
        {"match": {"prefix": path}, "route": {"cluster": "streams", "timeout": "0s", "idle_timeout": "0s"}}
        for path in ("/bench/events", "/bench/echo", "/bench/gigabyte", "/bench/sink")
    ]
    routes.append({"match": {"prefix": "/"}, "route": {"cluster": "origin", "timeout": "60s"}})
    manager = {
        "@type": f"{_TYPES}.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "in",
        "http_filters": filters,
        "access_log": access_log,
        "upgrade_configs": [{"upgrade_type": "websocket"}],
        "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": routes}]},
    }
    listener = {
        "name": "in",
        "address": _address(port),
        "filter_chains": [{"filters": [{"name": "http", "typed_config": manager}]}],
    }
    return {"static_resources": {"listeners": [listener], "clusters": clusters, "secrets": secrets}}


def _oauth2(port: int, akoya: SandboxServer) -> dict[str, Any]:
    return {
        "@type": f"{_TYPES}.filters.http.oauth2.v3.OAuth2",
        "config": {
            "token_endpoint": {"cluster": "akoya", "uri": f"{akoya.url}/token", "timeout": "5s"},
            "authorization_endpoint": f"{akoya.url}/auth?connector=mikomo",
            "redirect_uri": f"http://127.0.0.1:{port}/callback",
            "redirect_path_matcher": {"path": {"exact": "/callback"}},
            "signout_path": {"path": {"exact": "/signout"}},
            "forward_bearer_token": True,
            "auth_type": "BASIC_AUTH",
            "auth_scopes": _SCOPES,
            "credentials": {
                "client_id": CLIENT_ID,
                "token_secret": {"name": "token"},
                "hmac_secret": {"name": "hmac"},
            },
        },
    }


def _secret(name: str, value: str) -> dict[str, Any]:
    return {"name": name, "generic_secret": {"secret": {"inline_string": value}}}


def _cluster(name: str, port: int) -> dict[str, Any]:
    limits = {"max_connections": 4096, "max_pending_requests": 4096, "max_requests": 4096}
    return {
        "name": name,
        "type": "STATIC",
        "connect_timeout": "5s",
        "circuit_breakers": {"thresholds": [limits]},
        "load_assignment": {
            "cluster_name": name,
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": _address(port)}}]}],
        },
    }


def _address(port: int) -> dict[str, Any]:
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}


def oauth2_proxy(folder: Path, port: int, origin: int, akoya: SandboxServer, *, logged: bool = False) -> list[str]:
    """Configure oauth2-proxy to keep the session in its cookie and to send the id_token in `Authorization`."""
    folder.mkdir()
    url = f"http://127.0.0.1:{port}"
    akoya.register_redirect_uri(f"{url}/oauth2/callback")
    binary = shutil.which("oauth2-proxy")
    assert binary is not None
    return [
        binary,
        "--provider=oidc",
        f"--http-address=127.0.0.1:{port}",
        f"--oidc-issuer-url={akoya.issuer}",
        "--skip-oidc-discovery=true",
        f"--login-url={akoya.url}/auth?connector=mikomo",
        f"--redeem-url={akoya.url}/token",
        f"--oidc-jwks-url={akoya.jwks_uri}",
        f"--client-id={CLIENT_ID}",
        f"--client-secret={CLIENT_SECRET}",
        f"--redirect-url={url}/oauth2/callback",
        f"--scope={' '.join(_SCOPES)}",
        "--oidc-email-claim=sub",
        "--email-domain=*",
        "--insecure-oidc-allow-unverified-email=true",
        "--cookie-secure=false",
        "--cookie-secret=0123456789abcdef0123456789abcdef",
        "--skip-provider-button=true",
        "--pass-authorization-header=true",
        f"--request-logging={'true' if logged else 'false'}",
        "--auth-logging=false",
        f"--upstream=http://127.0.0.1:{origin}/",
    ]
