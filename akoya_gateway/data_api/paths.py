"""Maps the path and query of a request to those of Akoya's data API. No I/O.

`GET /bank-data/mikomo/transactions/123` becomes `/transactions/v3/mikomo/123` (docs/akoya.md section 6).
"""

from __future__ import annotations

from collections.abc import Collection
from urllib.parse import quote, unquote_to_bytes

from akoya_gateway.config.model import DataApi
from akoya_gateway.errors import UserError

_QUERY = "!$&'()*+,;=:@/?%-._~"
"""Characters that stay as they are in a query (RFC 3986 section 3.4), besides letters and digits."""


class UnknownProduct(UserError):
    """The first segment is not in `products`."""

    status = 404
    code = "unknown-product"
    title = "Unknown product"


def product_of(rest: str) -> str:
    """Return the product: the first segment of what follows the access rule's prefix."""
    return rest.partition("/")[0]


def target_path(api: DataApi, provider: str, rest: str) -> str:
    """Return the percent-encoded path of the call, relative to `products_url`.

    Args:
        api: The data API.
        provider: Akoya's ID of the provider. It becomes one segment, whatever it contains.
        rest: The normalized, decoded path after the access rule's prefix: the product and what follows.

    Raises:
        UnknownProduct: The product is not in `api.products`.
        UserError: A segment is `.` or `..`. Path normalization refuses these earlier.
    """
    product, *below = rest.split("/")
    if product not in api.products:
        raise UnknownProduct
    segments = (product, api.version, provider, *below)
    if not {".", ".."}.isdisjoint(segments):
        raise UserError("The path contains a dot segment.", code="ambiguous-path")
    return "/" + "/".join(quote(segment, safe="") for segment in segments)


def forwarded_query(query: bytes, without: Collection[str]) -> bytes:
    """Return the query without the parameters of these names, which are for the gateway only.

    What remains is unchanged, except that bytes which may not be in a URL are percent-encoded.
    """
    if without:
        names = {name.encode() for name in without}
        query = b"&".join(pair for pair in query.split(b"&") if _name(pair) not in names)
    return quote(query, safe=_QUERY).encode("ascii")


def _name(pair: bytes) -> bytes:
    return unquote_to_bytes(pair.partition(b"=")[0].replace(b"+", b" "))
