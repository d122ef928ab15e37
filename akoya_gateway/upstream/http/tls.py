"""TLS towards the upstream: one context, built at start."""

from __future__ import annotations

import ssl

from akoya_gateway.config.model import UpstreamTLS


def client_context(tls: UpstreamTLS) -> ssl.SSLContext:
    """Verifies the upstream (system CAs, or `tls.ca` alone) and shows our certificate if there is one.

    Raises OSError or ssl.SSLError for files that are not there or make no sense.
    """
    context = ssl.create_default_context(cafile=None if tls.ca is None else str(tls.ca))
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    if tls.certificate is not None:
        context.load_cert_chain(tls.certificate, tls.key)
    return context
