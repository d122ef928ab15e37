"""Lists of request headers that make servers and frameworks serve another request than the one that was authorized.

The only lists of these names: `client_headers` decides with them, and the files of `deploy/` are generated from them
(`python -m tests.support.client_header_lists`). All names are lower-case and spelled with `-`. Has no logic.
"""

from __future__ import annotations

MOVES_THE_REQUEST = frozenset(
    {
        # The path, or the prefix at which an app is mounted.
        b"base-path", b"base-url", b"daphne-root-path", b"document-root", b"document-uri", b"http-url",
        b"original-uri", b"original-url", b"path-info", b"path-translated", b"pathbase", b"proxy-url",
        b"raw-request-uri", b"redirect-url", b"request-path", b"request-target", b"request-uri", b"request-url",
        b"request-base", b"rewrite-url", b"root-path", b"script-filename", b"script-name", b"script-uri", b"script-url",
        b"unencoded-url", b"x-app-path", b"x-astro-locals", b"x-astro-path", b"x-base-path", b"x-base-url",
        b"x-context-path", b"x-couchdb-requested-path", b"x-couchdb-vhost-path", b"x-envoy-original-path",
        b"x-external-path", b"x-forwarded-path", b"x-forwarded-uri", b"x-forwarded-url", b"x-http-destinationurl",
        b"x-http-path-override", b"x-ingress-path", b"x-mount-path", b"x-ms-original-url",
        b"x-netlify-original-pathname", b"x-nf-original-path", b"x-original-path", b"x-original-prefix",
        b"x-original-query", b"x-original-uri", b"x-original-url", b"x-override-url", b"x-path-base", b"x-path-info",
        b"x-path-prefix", b"x-pathbase", b"x-proxy-path", b"x-proxy-prefix", b"x-proxy-url", b"x-proxycontextpath",
        b"x-proxypath", b"x-real-path", b"x-real-uri", b"x-real-url", b"x-replaced-path", b"x-request-base",
        b"x-request-path", b"x-request-uri", b"x-request-url", b"x-rewrite-path", b"x-rewrite-uri", b"x-rewrite-url",
        b"x-root-path",
        b"x-script-filename", b"x-script-name", b"x-script-uri", b"x-script-url", b"x-sendfile-type",
        b"x-rsc-request", b"x-servlet-path", b"x-traversal-path", b"x-url-prefix", b"x-waws-unencoded-url",
        b"x-artifactory-override-base-url", b"x-cf-forwarded-url", b"x-jfrog-override-base-url", b"x-proxy-base",
        # The document root of a ColdFusion server behind mod_cfml.
        b"x-modcfml-sharedkey", b"x-tomcat-docroot", b"x-webserver-context",
        # The data of a React Router app (CVE-2025-43864, CVE-2025-43865).
        b"x-react-router-prerender-data", b"x-react-router-spa-mode",
        # The route of a Next.js app, and its middleware, which CVE-2025-29927 skips. `x-middleware-prefetch` passes:
        # browsers send it. So does `x-sveltekit-pathname`, the page from which a remote function is called.
        b"next-resume", b"x-matched-path", b"x-middleware-invoke", b"x-middleware-next",
        b"x-middleware-override-headers", b"x-middleware-redirect", b"x-middleware-refresh", b"x-middleware-rewrite",
        b"x-middleware-set-cookie", b"x-middleware-skip", b"x-middleware-subrequest", b"x-middleware-subrequest-id",
        b"x-nextjs-matched-path", b"x-nextjs-rewrite", b"x-now-route-matches",
        # The method.
        b"http-method", b"method-override", b"override-method", b"request-method", b"x-forwarded-method",
        b"x-http-method", b"x-http-method-override", b"x-http-override", b"x-http-verb", b"x-method",
        b"x-method-override", b"x-original-method", b"x-override-method", b"x-request-method", b"x-rest-method",
        b"x-tunnel-method", b"x-tunneled-method",
        # The rest of the CGI environment (RFC 3875 section 4.1), and `Proxy`, which becomes HTTP_PROXY (CVE-2016-5385).
        b"auth-type", b"gateway-interface", b"proxy", b"query-string", b"request-scheme", b"server-addr",
        b"server-name", b"server-port", b"server-protocol", b"server-software",
        # Plain-text HTTP/2 (RFC 7540 section 3.2.1).
        b"http2-settings",
    }
)  # fmt: skip
"""Names that change which request the app serves.

They are removed from every request, including those of trusted proxies: no proxy needs to change the path or method of
a request after it has been authorized.
"""

MOVES_PREFIXES = (
    # grpc-gateway removes the prefix: the rest is the name in gRPC's metadata.
    b"grpc-metadata-akoya",
    b"grpc-metadata-remote-",
    b"grpc-metadata-signature",
    b"grpc-metadata-x-forwarded-",
    b"ms-aspnetcore-",
    b"spring-cloud-function-",  # `spring.cloud.function.routing-expression` selects a function (CVE-2022-22963).
    b"x-accel-",
    b"x-invoke-",
    b"x-middleware-request-",
)
MOVES_SUFFIXES = (
    b"-forwarded-path",
    b"-forwarded-uri",
    b"-forwarded-url",
    b"-method-override",
    b"-original-uri",
    b"-original-url",
    b"-override-method",
    b"-path-info",
    b"-path-override",
    b"-request-uri",
    b"-rewrite-url",
    b"-root-path",
    b"-script-name",
)
"""Prefixes and suffixes of further names that change which request the app serves."""

TRACES = frozenset(
    {
        b"b3", b"eagleeye-traceid", b"elastic-apm-traceparent", b"grpc-trace-bin", b"jaeger-baggage",
        b"jaeger-debug-id", b"newrelic", b"sentry-trace", b"singularityheader", b"sw8", b"sw8-correlation", b"sw8-x",
        b"traceparent", b"tracestate", b"uber-trace-id", b"x-amzn-trace-id", b"x-cloud-trace-context", b"x-dynatrace",
        b"x-ot-span-context",
    }
)  # fmt: skip
"""Names for the trace that the request belongs to (W3C Trace Context section 3, and vendors' own).

With a sampled trace of its own choice a client could make the app record every request, and join its requests to other
traces. An operator whose pages begin traces in the browser can allow them (`allow_client_headers`).
"""

FROM_PROXIES = TRACES | frozenset(
    {
        # The client's address.
        b"cdn-src-ip", b"client-ip", b"clientip", b"coming-from", b"real-ip", b"rlnclientipaddr", b"source-ip",
        b"x-bluecoat-via", b"x-client-addr", b"x-client-address", b"x-client-host", b"x-client-port", b"x-clientip",
        b"x-coming-from", b"x-comming-from", b"x-ip", b"x-ip-address", b"x-nf-client-connection-ip",
        b"x-originating-ip", b"x-peer-addr", b"x-peer-ip", b"x-proxyuser-ip", b"x-custom-ip-authorization",
        b"x-forward", b"x-forwarder-for", b"x-from-ip", b"x-real-port", b"x-source-ip", b"x-src-ip",
        b"x-sucuri-clientip", b"x-user-ip",
        # The scheme, host and port that the client used.
        b"disguised-host", b"k-original-host", b"k-proxy-request", b"x-custom-host", b"x-fh-requested-host",
        b"x-proxy-host", b"x-proxy-port", b"x-proxy-proto", b"x-proxy-scheme", b"x-zitadel-public-host",
        b"forwarded", b"proxy-host", b"front-end-https", b"front-end-ssl", b"host-override",
        b"https", b"is-https", b"ssl-offloaded", b"use-ssl", b"usessl", b"was-default-hostname", b"x-appservice-proto",
        b"x-authority", b"x-client-proto", b"x-client-protocol", b"x-client-scheme", b"x-client-ssl", b"x-forwarded",
        b"x-forwardedfor", b"x-frontend-https", b"x-frontend-proto", b"x-frontend-scheme", b"x-host",
        b"x-host-override", b"x-http-host", b"x-http-host-override", b"x-https", b"x-is-https", b"x-is-ssl",
        b"x-override-host", b"x-proto", b"x-protocol", b"x-proxied-https", b"x-proxyhost", b"x-proxyport",
        b"x-proxyscheme", b"x-real-host", b"x-request-host", b"x-request-proto", b"x-request-scheme", b"x-scheme",
        b"x-server-addr", b"x-server-name", b"x-server-port", b"x-site-deployment-id", b"x-ssl", b"x-ssl-offload",
        b"x-ssl-offloaded", b"x-url-scheme", b"x-virtual-host",
        # The user, and the client certificate that the proxy has verified.
        b"affiliation", b"entitlement", b"eppn", b"pairwise-id", b"persistent-id", b"primary-affiliation",
        b"subject-id", b"targeted-id", b"unscoped-affiliation",  # attributes that Shibboleth passes on
        b"msisdn", b"x-msisdn", b"x-up-calling-line-id",  # the subscriber, from a mobile operator's proxy
        b"plotly-user-data", b"x-client-cn", b"x-client-i-dn", b"x-client-issuer-dn", b"x-client-s-dn",
        b"x-client-subject-dn", b"x-credential-username", b"x-hassio-key", b"x-proxiedentitygroups", b"x-user-dn",
        b"x-wcpay-platform-checkout-user",
        b"auth-user", b"cas-user", b"logon-user", b"es-security-runas-user", b"teleport-jwt-assertion", b"client-cert",
        b"client-cert-chain", b"mellon-name-id", b"proxy-auth-cert", b"proxy-ssl-id", b"sm-universalid",
        b"sm-serversessionid", b"sm-user", b"sm-userdn", b"sm-usergroups", b"smuser", b"ssl-cert", b"ssl-cipher",
        b"ssl-cipher-usekeysize", b"ssl-session-id", b"x-anonymous-consumer", b"x-auth-audience", b"x-auth-email",
        b"x-auth-groups", b"x-auth-roles", b"x-auth-subject", b"x-auth-user", b"x-auth-userid", b"x-auth-username",
        b"x-authuser", b"x-cas-user", b"x-cert-subject", b"x-client-cert", b"x-client-certificate", b"x-client-dn",
        b"x-client-verified", b"x-client-verify", b"x-clientcert", b"x-credential-identifier",
        b"x-endpoint-api-userinfo", b"x-iis-windowsauthtoken", b"x-jwt-assertion", b"x-proxiedentitieschain",
        b"x-rh-identity", b"x-token-subject", b"x-ms-forwarded-client-cert", b"x-proxy-roles", b"x-proxy-user",
        b"x-rapidapi-user", b"x-ssl-cert", b"x-ssl-cipher", b"x-sso-user", b"x-tls-client-cert", b"x-token-user-email",
        b"x-token-user-name", b"x-trusted-user", b"x-userinfo", b"x-vouch-user",
    }
)  # fmt: skip
"""Names that are passed on only if the request comes from one of `trusted_proxies`."""

GENERAL_PREFIXES = (
    b"forwarded-", b"remote-", b"x-external-", b"x-forward-", b"x-forwarded-", b"x-orig-", b"x-original-",
    b"x-remote-", b"x-rewrite-",
)  # fmt: skip
"""Prefixes with which proxies in general describe the client's request. Apps use them for their own headers as well."""
USER_PREFIXES = (
    # The client certificate that the proxy has verified.
    b"cert-chain-", b"client-cert-", b"ssl-client-", b"sslclientcert", b"x-amzn-mtls-", b"x-client-cert-", b"x-ssl-",
    b"x-tls-",
    # Headers in which authentication proxies name the user. Some make names of the claims of a token.
    b"cf-access-", b"impersonate-", b"iv-", b"mellon-", b"ngrok-auth-", b"oam-", b"oidc-", b"osso-", b"posit-connect-",
    b"sf-context-", b"shib-", b"sm-", b"tailscale-", b"x-amzn-ava-", b"x-amzn-oidc-", b"x-auth-couchdb-",
    b"x-auth-request-", b"x-authenticated-", b"x-authentik-", b"x-consumer-",
    b"x-goog-authenticated-user-", b"x-goog-iap-", b"x-hass-", b"x-ms-client-principal", b"x-ms-token-", b"x-pomerium-",
    b"x-proxy-cas-", b"x-streamlit-user", b"x-token-user-", b"x-vouch-", b"x-webauth-",
)  # fmt: skip
HOSTING_PREFIXES = (
    # Headers in which the proxies of hosting services describe the request.
    b"akamai-", b"cf-", b"cloudfront-", b"fastly-", b"fly-", b"incap-", b"x-akamai-", b"x-amzn-", b"x-azure-",
    b"x-google-", b"x-vercel-forwarded-", b"x-vercel-ip-", b"x-vercel-proxied-",
)  # fmt: skip
CONTROL_PREFIXES = (
    # Headers that control application platforms.
    b"x-apigateway-", b"x-appengine-", b"x-arr-", b"x-cloudscheduler", b"x-cloudtasks-", b"x-iisnode-", b"x-waws-",
    b"x-gsweb-", b"x-weblogic-", b"x-webobjects-", b"wl-proxy-",
    b"-ws",  # `$WSRU` and similar, from which WebSphere takes the user, address and scheme.
    # The mount point of RStudio's products.
    b"rstudio-connect-", b"x-rstudio-",
    # Headers with which service meshes describe a request or are controlled.
    b"dapr-", b"knative-serving-", b"l5d-", b"x-envoy-", b"x-istio-",
)  # fmt: skip
TRACE_PREFIXES = (b"ot-tracer-", b"pinpoint-", b"uberctx-", b"x-b3-", b"x-datadog-", b"x-instana-")
PROXY_PREFIXES = GENERAL_PREFIXES + USER_PREFIXES + HOSTING_PREFIXES + CONTROL_PREFIXES + TRACE_PREFIXES
PROXY_SUFFIXES = (
    b"-client-cert",
    b"-client-ip",
    b"-connecting-ip",
    b"-forwarded-for",
    b"-forwarded-host",
    b"-forwarded-port",
    b"-forwarded-prefix",
    b"-forwarded-proto",
    b"-forwarded-user",
    b"-real-ip",
    b"-remote-addr",
    b"-remote-ip",
    b"-remote-user",
    b"-subject-dn",
)
"""Prefixes and suffixes of further names that are passed on only if the request comes from one of `trusted_proxies`."""

SENT_BY_NGINX = frozenset(
    {
        b"x-forwarded-for", b"x-forwarded-host", b"x-forwarded-method", b"x-forwarded-port", b"x-forwarded-prefix",
        b"x-forwarded-proto", b"x-forwarded-scheme", b"x-forwarded-server", b"x-forwarded-ssl", b"x-forwarded-uri",
        b"x-original-method", b"x-original-uri", b"x-real-ip",
    }
)  # fmt: skip
"""Names that nginx removes from the client's request and may set in its own requests for forward-auth."""

_FAMILIES = b"""
akamai-client-ip akamai-origin-hop ali-cdn-real-ip cdn-connecting-ip cdn-forwarded-for cdn-real-ip cert-chain-0
cf-access-authenticated-user-email cf-access-jwt-assertion cf-connecting-ip cf-connecting-ipv6 cf-ipcountry
cf-pseudo-ipv4 cf-visitor client-cert-subject cloudfront-forwarded-proto cloudfront-viewer-address
cloudfront-viewer-country cluster-client-ip dapr-api-token dapr-app-id dapr-caller-app-id dapr-caller-namespace
do-connecting-ip eo-client-ip eo-connecting-ip fastly-client fastly-client-ip fastly-orig-host fastly-ssl
fly-client-ip fly-forwarded-port fly-forwarded-proto fly-forwarded-ssl forwarded-for forwarded-host forwarded-port
forwarded-proto forwarded-server forwarded-ssl grpc-metadata-akoya-id-token grpc-metadata-akoya-owner
grpc-metadata-signature grpc-metadata-x-forwarded-user http-client-ip http-method-override impersonate-extra-scopes
impersonate-group impersonate-uid impersonate-user incap-client-ip iv-creds iv-groups iv-remote-address iv-user
knative-serving-namespace knative-serving-revision knative-serving-tag l5d-dst-override mellon-name-id
ms-aspnetcore-clientcert ms-aspnetcore-token ms-aspnetcore-winauthtoken ngrok-auth-user-email ngrok-auth-user-id
ngrok-auth-user-name oam-identity-domain oam-remote-user oidc-access-token oidc-claim-email oidc-claim-groups
oidc-claim-preferred-username oidc-claim-sub osso-subscriber osso-user-dn ot-tracer-sampled ot-tracer-spanid
ot-tracer-traceid pinpoint-pspanid pinpoint-sampled pinpoint-spanid pinpoint-traceid posit-connect-user-session-token
proxy-client-ip real-client-ip remote-addr remote-address remote-display-name remote-email remote-group remote-groups
remote-host remote-ident remote-ip remote-name remote-port remote-preferred-username remote-role remote-roles
remote-user rstudio-connect-app-base-url rstudio-connect-credentials sf-context-current-user
sf-context-current-user-email sf-context-current-user-token shib-application-id shib-identity-provider shib-session-id
sm-authdirname sm-authtype sm-userloginname ssl-client-cert ssl-client-i-dn ssl-client-issuer-dn ssl-client-s-dn
ssl-client-subject-dn ssl-client-verify sslclientcertb64 sslclientcertsn sslclientcertstatus sslclientcertsubject
tailscale-app-capabilities tailscale-funnel-request tailscale-headers-info tailscale-user-login tailscale-user-name
tailscale-user-profile-pic true-client-ip uberctx-user wl-proxy-client-cert wl-proxy-client-ip wl-proxy-ssl
x-accel-mapping x-accel-redirect x-akamai-client-ip x-akamai-edgescape x-amzn-ava-user-context x-amzn-lambda-context
x-amzn-mtls-clientcert x-amzn-mtls-clientcert-issuer x-amzn-mtls-clientcert-leaf x-amzn-mtls-clientcert-serial-number
x-amzn-mtls-clientcert-subject x-amzn-mtls-clientcert-validity x-amzn-oidc-accesstoken x-amzn-oidc-data
x-amzn-oidc-identity x-amzn-request-context x-amzn-source-ip x-amzn-trace-id x-apigateway-api-userinfo
x-apigateway-context x-apigateway-event x-appengine-cron x-appengine-https x-appengine-inbound-appid
x-appengine-queuename x-appengine-remote-addr x-appengine-taskname x-appengine-user-email x-appengine-user-id
x-appengine-user-ip x-appengine-user-is-admin x-appengine-user-nickname x-arr-clientcert x-arr-log-id x-arr-ssl
x-auth-couchdb-roles x-auth-couchdb-token x-auth-couchdb-username x-auth-request-access-token x-auth-request-email
x-auth-request-groups x-auth-request-preferred-username x-auth-request-redirect x-auth-request-user x-authenticated-by
x-authenticated-email x-authenticated-groups x-authenticated-name x-authenticated-roles x-authenticated-user
x-authenticated-userid x-authentik-email x-authentik-groups x-authentik-name x-authentik-uid x-authentik-username
x-azure-clientip x-azure-fdid x-azure-socketip x-b3-flags x-b3-parentspanid x-b3-sampled x-b3-spanid x-b3-traceid
x-cdn-real-ip x-client-cert-chain-verified x-client-cert-dn x-client-cert-hash x-client-cert-present
x-client-cert-serial-number x-client-cert-spiffe x-client-cert-subject x-client-cert-subject-dn x-client-cert-uri-sans
x-client-ip x-client-real-ip x-cloudscheduler x-cloudtasks-queuename x-cloudtasks-taskname x-cluster-client-ip
x-consumer-custom-id x-consumer-groups x-consumer-id x-consumer-username x-datadog-origin x-datadog-parent-id
x-datadog-sampling-priority x-datadog-tags x-datadog-trace-id x-envoy-decorator-operation
x-envoy-expected-rq-timeout-ms x-envoy-external-address x-envoy-force-trace x-envoy-internal x-envoy-max-retries
x-envoy-original-dst-host x-envoy-original-host x-envoy-peer-metadata x-envoy-peer-metadata-id x-envoy-retry-on
x-envoy-upstream-rq-timeout-ms x-external-host x-external-port x-external-proto x-external-scheme x-external-url
x-fastly-client-ip x-fly-client-ip x-forward-for x-forward-host x-forward-ip x-forward-proto x-forwarded-access-token
x-forwarded-base x-forwarded-base-path x-forwarded-basepath x-forwarded-by x-forwarded-client-cert x-forwarded-context
x-forwarded-context-path x-forwarded-email x-forwarded-groups x-forwarded-https x-forwarded-id-token x-forwarded-login
x-forwarded-name x-forwarded-path-base x-forwarded-pathbase x-forwarded-port x-forwarded-preferred-username
x-forwarded-prefix x-forwarded-proto-version x-forwarded-protocol x-forwarded-request-uri x-forwarded-roles
x-forwarded-root-path x-forwarded-scheme x-forwarded-script-name x-forwarded-server x-forwarded-servlet
x-forwarded-ssl x-forwarded-tls-client-cert x-forwarded-tls-client-cert-info x-forwarded-user
x-goog-authenticated-user-email x-goog-authenticated-user-id x-goog-iap-jwt-assertion x-google-real-ip x-hass-is-admin
x-hass-source x-hass-user-id x-http-override-method x-iisnode-auth-user x-iisnode-remote-user x-iisnode-request-uri
x-iisnode-script-name x-instana-l x-instana-s x-instana-t x-invoke-error x-invoke-output x-invoke-path x-invoke-query
x-invoke-status x-ms-client-principal x-ms-client-principal-id x-ms-client-principal-idp x-ms-client-principal-name
x-ms-token-aad-access-token x-ms-token-aad-id-token x-nginx-original-uri x-orig-client-ip x-orig-host x-orig-method
x-orig-path x-orig-proto x-orig-uri x-orig-url x-original-for x-original-forwarded-for x-original-forwarded-host
x-original-host x-original-proto x-original-remote-endpoint x-original-remote-user x-original-request-uri
x-original-scheme x-pomerium-claim-email x-pomerium-claim-groups x-pomerium-claim-user x-pomerium-jwt-assertion
x-proxy-cas-email x-proxy-cas-username x-proxy-client-ip x-proxy-remote-user x-real-client-ip x-real-ip x-remote-addr
x-remote-email x-remote-extra-scopes x-remote-group x-remote-groups x-remote-host x-remote-ip x-remote-name
x-remote-port x-remote-uid x-remote-user x-remote-user-id x-remote-user-name x-rewrite-host x-rstudio-request
x-rstudio-root-path x-ssl-client-cert x-ssl-client-cn x-ssl-client-dn x-ssl-client-i-dn x-ssl-client-s-dn
x-ssl-client-verify x-ssl-issuer x-ssl-protocol x-ssl-subject x-ssl-user x-ssl-verified x-streamlit-user
x-streamlit-user-email x-tls-cipher x-tls-client-cert x-tls-client-dn x-tls-client-subject x-tls-sni-host
x-tls-version x-token-user-roles x-true-client-ip x-vercel-forwarded-for x-vercel-ip-city x-vercel-ip-country
x-vercel-proxied-for x-vouch-idp-claims-email x-vouch-idp-claims-groups x-vouch-success x-webauth-email
x-webauth-fullname x-webauth-groups x-webauth-name x-webauth-role x-webauth-user x-webobjects-adaptor-version
x-webobjects-customenv x-webobjects-remote-addr x-webobjects-remote-host x-webobjects-remote-user
x-webobjects-request-method x-webobjects-server-name xajp-path-info
"""
IN_FAMILIES = frozenset(_FAMILIES.split())
"""Known names that the prefixes and suffixes cover: for proxies without patterns, and never to be allowed."""

PROTECTED = frozenset(
    {
        b"authorization", b"connection", b"content-digest", b"content-encoding", b"content-length", b"content-type",
        b"cookie", b"expect", b"host", b"keep-alive", b"origin", b"proxy-authenticate", b"proxy-authentication-info",
        b"proxy-authorization", b"proxy-connection", b"te", b"trailer", b"transfer-encoding",
        b"upgrade", b"via", b"x-akoya-answer", b"x-request-id",
    }
)  # fmt: skip
"""Known names that pass if they are spelled with `-`. Other spellings are dropped."""
