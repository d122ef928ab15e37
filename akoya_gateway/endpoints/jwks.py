"""`GET /akoya/jwks.json`: the public keys of the signed headers."""

from __future__ import annotations

from akoya_gateway.clock import Clock
from akoya_gateway.config.model import Signing
from akoya_gateway.endpoints.request import EndpointRequest
from akoya_gateway.responses.response import Response
from akoya_gateway.signing import jwks, jwks_headers


class JwksEndpoint:
    """Publishes the keys. Their schedule depends on the time, but rebuilding the document once a second is enough."""

    def __init__(self, signing: Signing, clock: Clock) -> None:
        self._signing = signing
        self._clock = clock
        self._second = -1
        self._document = b""

    async def __call__(self, request: EndpointRequest) -> Response:
        second = int(self._clock())
        if second != self._second:
            self._second, self._document = second, jwks(self._signing, self._clock)
        return Response(200, jwks_headers(), self._document)
