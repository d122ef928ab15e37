"""The lists of client headers in the files of deploy/, made from akoya_gateway/client_headers.py.

`python -m tests.support.client_header_lists` writes them. In each file the list is between two comments. Each proxy gets
patterns where it has them; nginx and Traefik's `headers` middleware have none, so they get `IN_FAMILIES` instead.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from akoya_gateway.client_headers import (
    FROM_PROXIES,
    MOVES_PREFIXES,
    MOVES_SUFFIXES,
    MOVES_THE_REQUEST,
    PROXY_PREFIXES,
    PROXY_SUFFIXES,
)

DEPLOY = Path(__file__).parents[2] / "deploy"
BEGIN, END = "# Made by python -m tests.support.client_header_lists:", "# End of the list."
MAX_CHARACTERS = 1000
PUNCTUATION = "!#$%&'*+.^`|~"
"""The characters of header names (RFC 9110 section 5.6.2) that a server may take for `-`. `_` is handled beside them."""

PREFIXES = sorted(prefix.decode() for prefix in (*MOVES_PREFIXES, *PROXY_PREFIXES) if prefix != b"-ws")
SUFFIXES = sorted(suffix.decode() for suffix in (*MOVES_SUFFIXES, *PROXY_SUFFIXES))
NAMES = sorted(
    name
    for name in ["x-request-id", *(name.decode() for name in MOVES_THE_REQUEST | FROM_PROXIES)]
    if not name.startswith(tuple(PREFIXES)) and not name.endswith(tuple(SUFFIXES))
)
_FAMILIES = """
akamai-client-ip akamai-origin-hop ali-cdn-real-ip cdn-connecting-ip cdn-forwarded-for cdn-real-ip
cf-access-authenticated-user-email cf-access-jwt-assertion cf-connecting-ip cf-connecting-ipv6 cf-ipcountry
cf-pseudo-ipv4 cf-visitor cloudfront-forwarded-proto cloudfront-viewer-address cloudfront-viewer-country
cluster-client-ip do-connecting-ip eo-client-ip eo-connecting-ip fastly-client fastly-client-ip fastly-orig-host
fastly-ssl fly-client-ip fly-forwarded-port fly-forwarded-proto fly-forwarded-ssl forwarded-for forwarded-host
forwarded-port forwarded-proto forwarded-server forwarded-ssl http-client-ip http-method-override incap-client-ip
iv-creds iv-groups iv-remote-address iv-user l5d-dst-override ms-aspnetcore-clientcert ms-aspnetcore-token
ms-aspnetcore-winauthtoken oam-identity-domain oam-remote-user oidc-access-token oidc-claim-email
oidc-claim-groups oidc-claim-preferred-username oidc-claim-sub osso-subscriber osso-user-dn proxy-client-ip
real-client-ip remote-addr remote-address remote-display-name remote-email remote-group remote-groups remote-host
remote-ident remote-ip remote-name remote-port remote-preferred-username remote-role remote-roles remote-user
rstudio-connect-app-base-url shib-application-id shib-identity-provider shib-session-id ssl-client-cert
ssl-client-i-dn ssl-client-issuer-dn ssl-client-s-dn ssl-client-subject-dn ssl-client-verify
tailscale-user-login tailscale-user-name tailscale-user-profile-pic true-client-ip wl-proxy-client-cert
wl-proxy-client-ip wl-proxy-ssl x-accel-mapping x-accel-redirect x-akamai-client-ip x-akamai-edgescape
x-amzn-lambda-context x-amzn-mtls-clientcert x-amzn-mtls-clientcert-leaf x-amzn-mtls-clientcert-subject
x-amzn-oidc-accesstoken x-amzn-oidc-data x-amzn-oidc-identity x-amzn-request-context x-amzn-source-ip
x-amzn-trace-id x-apigateway-api-userinfo x-apigateway-context x-apigateway-event x-appengine-cron
x-appengine-https x-appengine-inbound-appid x-appengine-queuename x-appengine-remote-addr x-appengine-taskname
x-appengine-user-email x-appengine-user-id x-appengine-user-ip x-appengine-user-is-admin x-appengine-user-nickname
x-arr-clientcert x-arr-log-id x-arr-ssl x-auth-couchdb-roles x-auth-couchdb-token x-auth-couchdb-username
x-auth-request-access-token x-auth-request-email x-auth-request-groups x-auth-request-preferred-username
x-auth-request-redirect x-auth-request-user x-authenticated-by x-authenticated-email x-authenticated-groups
x-authenticated-name x-authenticated-roles x-authenticated-user x-authenticated-userid x-authentik-email
x-authentik-groups x-authentik-name x-authentik-uid x-authentik-username x-azure-clientip x-azure-fdid
x-azure-socketip x-cdn-real-ip x-client-ip x-client-real-ip x-cloudscheduler x-cloudtasks-queuename
x-cloudtasks-taskname x-cluster-client-ip x-consumer-custom-id x-consumer-groups x-consumer-id x-consumer-username
x-envoy-decorator-operation x-envoy-expected-rq-timeout-ms x-envoy-external-address x-envoy-force-trace
x-envoy-internal x-envoy-max-retries x-envoy-original-dst-host x-envoy-original-host x-envoy-peer-metadata
x-envoy-peer-metadata-id x-envoy-retry-on x-envoy-upstream-rq-timeout-ms x-external-host x-external-port
x-external-proto x-external-scheme x-external-url x-fastly-client-ip x-forward-for x-forward-host x-forward-ip
x-forward-proto x-forwarded-access-token x-forwarded-base x-forwarded-base-path x-forwarded-basepath x-forwarded-by
x-forwarded-client-cert x-forwarded-context x-forwarded-context-path x-forwarded-email x-forwarded-groups
x-forwarded-https x-forwarded-path-base x-forwarded-pathbase x-forwarded-port x-forwarded-preferred-username
x-forwarded-prefix x-forwarded-proto-version x-forwarded-protocol x-forwarded-request-uri x-forwarded-roles
x-forwarded-root-path x-forwarded-scheme x-forwarded-script-name x-forwarded-server x-forwarded-servlet
x-forwarded-ssl x-forwarded-tls-client-cert x-forwarded-tls-client-cert-info x-forwarded-user x-fly-client-ip
x-goog-authenticated-user-email x-goog-authenticated-user-id x-goog-iap-jwt-assertion x-google-real-ip
x-http-override-method x-iisnode-auth-user x-iisnode-remote-user x-iisnode-request-uri x-iisnode-script-name
x-invoke-error x-invoke-output x-invoke-path x-invoke-query x-invoke-status x-ms-client-principal
x-ms-client-principal-id x-ms-client-principal-idp x-ms-client-principal-name x-ms-token-aad-access-token
x-ms-token-aad-id-token x-nginx-original-uri x-orig-client-ip x-orig-host x-orig-method x-orig-path x-orig-proto
x-orig-uri x-orig-url x-original-for x-original-forwarded-for x-original-forwarded-host x-original-host
x-original-proto x-original-remote-endpoint x-original-remote-user x-original-request-uri x-original-scheme
x-pomerium-claim-email x-pomerium-claim-groups x-pomerium-claim-user x-pomerium-jwt-assertion x-proxy-client-ip
x-proxy-remote-user x-real-client-ip x-real-ip x-remote-addr x-remote-email x-remote-extra-scopes x-remote-group
x-remote-groups x-remote-host x-remote-ip x-remote-name x-remote-port x-remote-uid x-remote-user x-rewrite-host
x-rstudio-request x-rstudio-root-path x-ssl-client-cert x-ssl-client-dn x-ssl-client-s-dn x-ssl-client-verify
x-true-client-ip x-vercel-forwarded-for x-vercel-proxied-for x-webauth-email x-webauth-groups x-webauth-name
x-webauth-role x-webauth-user client-cert-subject mellon-name-id ot-tracer-spanid ot-tracer-traceid
ot-tracer-sampled uberctx-user x-b3-flags x-b3-parentspanid x-b3-sampled x-b3-spanid x-b3-traceid
x-client-cert-chain-verified x-client-cert-dn x-client-cert-hash x-client-cert-present x-client-cert-serial-number
x-client-cert-spiffe x-client-cert-subject x-client-cert-subject-dn x-client-cert-uri-sans x-datadog-origin
x-datadog-parent-id x-datadog-sampling-priority x-datadog-tags x-datadog-trace-id x-ssl-client-cn x-ssl-client-i-dn
x-ssl-issuer x-ssl-protocol x-ssl-subject x-ssl-user x-ssl-verified x-tls-client-cert x-tls-client-dn
x-tls-client-subject x-token-user-roles x-vouch-idp-claims-email x-vouch-idp-claims-groups x-vouch-success
"""
IN_FAMILIES = _FAMILIES.split()
"""Known names of the families, for proxies that have no patterns."""

_TRAEFIKS_OWN = {
    "x-forwarded-method", "x-forwarded-port", "x-forwarded-server", "x-forwarded-tls-client-cert",
    "x-forwarded-tls-client-cert-info", "x-forwarded-uri", "x-real-ip",
}  # fmt: skip
"""Set by Traefik itself on the client's request or on its own to the gateway, and never taken from a client."""
_NEEDED_IN_TRAEFIK = re.compile("user|forwarded|script|path-info")
"""Names whose spelling with `_` the gateway would refuse, because an operator may have named one in `identity.header`."""


def listed() -> list[str]:
    """Return the names in the files of proxies without patterns."""
    return sorted({*NAMES, *IN_FAMILIES, *(name.decode() for name in MOVES_THE_REQUEST | FROM_PROXIES)})


def _title(name: str) -> str:
    return "-".join(word.capitalize() for word in name.split("-"))


def _groups(names: list[str]) -> Iterator[str]:
    """Yield alternatives of regular expressions, each of at most `MAX_CHARACTERS`."""
    group: list[str] = []
    for name in names:
        if len("|".join([*group, name])) > MAX_CHARACTERS:
            yield "|".join(group)
            group = []
        group.append(name)
    yield "|".join(group)


def other_than(words: list[str]) -> str:
    """Return a regular expression, without lookahead, for every text that is not one of the words or empty."""
    first = sorted({word[0] for word in words if word})
    options = [f"[^{''.join(first)}].*"] if first else [".+"]
    for letter in first:
        rest = [word[1:] for word in words if word[:1] == letter]
        options.append(f"{letter}({other_than(rest)}){'?' if '' not in rest else ''}")
    return "|".join(options)


def nginx() -> list[str]:
    return [f'proxy_set_header {_title(name)} "";' for name in listed()]


def caddy() -> list[str]:
    patterns = [
        *(f"*{mark}*" for mark in f"_{PUNCTUATION}"),
        *(f"{_title(prefix[:-1])}*" for prefix in PREFIXES),
        *(f"*-{_title(suffix[1:])}" for suffix in SUFFIXES),
    ]
    return [f"\trequest_header -{pattern}" for pattern in [*patterns, *map(_title, NAMES)]]


def envoy() -> list[str]:
    matchers = [
        *(f'contains: "{mark}"' for mark in PUNCTUATION),
        *(f"prefix: {prefix}" for prefix in PREFIXES if prefix != "x-forwarded-"),
        *(f"suffix: {suffix}" for suffix in SUFFIXES if suffix not in ("-forwarded-for", "-forwarded-proto")),
        # All of `x-forwarded-` but the two that Envoy sets: it limits the size of a regular expression.
        *(f'safe_regex: {{regex: "x-forwarded-{part}"}}' for part in (
            "[^fp].*", "(f[^o].*|fo[^r].*|for.+)", "(p[^r].*|pr[^o].*|pro[^t].*)", "prot([^o].*|o.+)",
        )),
        *(f'safe_regex: {{regex: "{part}-forwarded-(for|proto)"}}' for part in ("[^x].*", "x[^-].*", "x-.+")),
    ]  # fmt: skip
    indent = " " * 26
    lines = [f"{indent}- remove_on_match: {{key_matcher: {{{matcher}}}}}" for matcher in matchers]
    return [*lines, *(f"{indent}- remove: {name}" for name in NAMES)]


def haproxy() -> list[str]:
    # Header names are in lower case here, and a line of the file may have 2,048 characters.
    expressions = [
        "[^a-z0-9-]",
        f"^({'|'.join(PREFIXES)})",
        f"({'|'.join(SUFFIXES)})$",
        *(f"^({group})$" for group in _groups(NAMES)),
    ]
    return [f"    http-request del-header {expression} -m reg" for expression in expressions]


def traefik() -> list[str]:
    names = [name for name in listed() if name not in _TRAEFIKS_OWN]
    spelled = [_title(name).replace("-", "_") for name in names if "-" in name and _NEEDED_IN_TRAEFIK.search(name)]
    return [f'          {name}: ""' for name in [*map(_title, names), *spelled]]


def traefik_expression() -> list[str]:
    own = ["for", "host", "port", "proto", "server", "tls-client-cert", "tls-client-cert-info"]
    prefixes = "|".join(prefix for prefix in PREFIXES if prefix != "x-forwarded-")
    suffixes = "|".join(suffix for suffix in SUFFIXES if "-forwarded-" not in suffix)
    expression = (
        f"(?i)^(akoya.*|signature(-input)?|.*[^a-z0-9-].*|({prefixes}).*|.*({suffixes})"
        f"|([^x].*|x[^-].*|x-.+)-forwarded-(for|host|proto)|x-forwarded-({other_than(own)}))$"
    )
    return [f'        authResponseHeadersRegex: "{expression}"']


def envoy_gateway() -> list[dict[str, str]]:
    """Return the matchers of `removeOnMatch`. Envoy Gateway allows 64, of at most 1,024 characters each."""
    return [
        {"type": "Prefix", "value": "akoya"},
        {"type": "RegularExpression", "value": "signature([-.]input)?"},
        {"type": "Exact", "value": "x-akoya-answer"},
        # Other spellings of names that servers fold, and WebSphere's `$WSRU`.
        {"type": "RegularExpression", "value": ".*[^a-z0-9:_-].*"},
        {"type": "RegularExpression", "value": f"({'|'.join(PREFIXES)}).*"},
        {"type": "RegularExpression", "value": f".*({'|'.join(SUFFIXES)})"},
        *({"type": "RegularExpression", "value": group} for group in _groups(NAMES)),
    ]


def _envoy_gateway_lines() -> list[str]:
    return [f"        - {{type: {one['type']}, value: '{one['value']}'}}" for one in envoy_gateway()]


FILES = {
    "nginx/akoya-client-headers.conf": [nginx],
    "caddy/client-headers.caddy": [caddy],
    "envoy/envoy.yaml": [envoy],
    "haproxy/haproxy.cfg": [haproxy],
    "traefik/dynamic.yaml": [traefik, traefik_expression],
    "kubernetes/envoy-gateway.yaml": [_envoy_gateway_lines],
}


def with_lists(name: str, text: str) -> str:
    """Return the text of a file in deploy/ with its lists as they should be."""
    lists = iter(FILES[name])
    kept: list[str] = []
    inside = False
    for line in text.split("\n"):
        inside = inside and line.strip() != END
        if not inside:
            kept.append(line)
        if line.strip() == BEGIN:
            kept += next(lists)()
            inside = True
    assert next(lists, None) is None, f"{name} has no place for a list"
    return "\n".join(kept)


if __name__ == "__main__":
    for name in FILES:
        path = DEPLOY / name
        path.write_text(with_lists(name, path.read_text()))
