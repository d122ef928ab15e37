"""Form requests to the token and revocation endpoints, authenticated by the method that the dialect names."""

from __future__ import annotations

import base64
from dataclasses import dataclass, field
from urllib.parse import quote_plus, urlencode

from akoya_gateway.config.model import Client, ClientAuthentication
from akoya_gateway.secret import Secret

_BASE_HEADERS = (
    ("Accept", "application/json"),
    ("Content-Type", "application/x-www-form-urlencoded"),
)


@dataclass(frozen=True, slots=True)
class FormRequest:
    """A POST request with a form. `headers` and `form` contain secrets and are omitted from the repr."""

    url: str
    headers: tuple[tuple[str, str], ...] = field(repr=False)
    form: tuple[tuple[str, str], ...] = field(repr=False)

    @property
    def body(self) -> bytes:
        """The form, encoded as `application/x-www-form-urlencoded` (RFC 6749 appendix B)."""
        return urlencode(self.form).encode("ascii")


def authenticated_request(
    url: str, client: Client, method: ClientAuthentication, form: tuple[tuple[str, str], ...]
) -> FormRequest:
    """Return the request with the client's credentials.

    They are sent by this method only (RFC 6749 section 2.3: one method per request).
    """
    if method is ClientAuthentication.CLIENT_SECRET_BASIC:
        credentials = ("Authorization", basic_credentials(client.client_id, client.client_secret))
        return FormRequest(url, (*_BASE_HEADERS, credentials), form)
    secret = (("client_id", client.client_id), ("client_secret", client.client_secret.reveal()))
    return FormRequest(url, _BASE_HEADERS, (*form, *secret))


def basic_credentials(client_id: str, client_secret: Secret) -> str:
    """Return the Authorization value for `client_secret_basic`.

    ID and secret are form-encoded before they are joined (RFC 6749 section 2.3.1).
    """
    pair = f"{quote_plus(client_id)}:{quote_plus(client_secret.reveal())}"
    return "Basic " + base64.b64encode(pair.encode("ascii")).decode("ascii")
