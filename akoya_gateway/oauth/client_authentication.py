"""Requests to the token and revocation endpoints as values: what to send where, authenticated by the dialect."""

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
    """A POST of a form. `headers` and `form` hold secrets and do not print."""

    url: str
    headers: tuple[tuple[str, str], ...] = field(repr=False)
    form: tuple[tuple[str, str], ...] = field(repr=False)

    @property
    def body(self) -> bytes:
        """The form as `application/x-www-form-urlencoded` (RFC 6749 appendix B)."""
        return urlencode(self.form).encode("ascii")


def authenticated_request(
    url: str, client: Client, method: ClientAuthentication, form: tuple[tuple[str, str], ...]
) -> FormRequest:
    """Add the client's credentials by `method`, and by no other (RFC 6749 section 2.3: one method a request)."""
    if method is ClientAuthentication.CLIENT_SECRET_BASIC:
        credentials = ("Authorization", basic_credentials(client.client_id, client.client_secret))
        return FormRequest(url, (*_BASE_HEADERS, credentials), form)
    secret = (("client_id", client.client_id), ("client_secret", client.client_secret.reveal()))
    return FormRequest(url, _BASE_HEADERS, (*form, *secret))


def basic_credentials(client_id: str, client_secret: Secret) -> str:
    """`client_secret_basic`: id and secret are form-encoded before they are joined (RFC 6749 section 2.3.1)."""
    pair = f"{quote_plus(client_id)}:{quote_plus(client_secret.reveal())}"
    return "Basic " + base64.b64encode(pair.encode("ascii")).decode("ascii")
