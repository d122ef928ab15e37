"""The TLS client context for upstream connections, built at startup."""

from __future__ import annotations

import ssl

from akoya_gateway.config.model import UpstreamTLS


def client_context(tls: UpstreamTLS) -> ssl.SSLContext:
    """Return a context that verifies the upstream and presents the client certificate if one is configured.

    If `tls.ca` is set, only its CAs are trusted, otherwise those of the system.

    Raises:
        OSError: A file is missing or cannot be read.
        ssl.SSLError: A file is invalid.
    """
    context = ssl.create_default_context(cafile=None if tls.ca is None else str(tls.ca))
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    if tls.certificate is not None:
        context.load_cert_chain(tls.certificate, tls.key)
    return context
