"""Pages of a list: `offset` and `limit` select one, and `links.next.href` is the address of the next."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlencode

from akoya_gateway.sandbox.data.errors import DataError
from akoya_gateway.sandbox.data.request import DataRequest

DEFAULT_LIMIT = 50


def page(request: DataRequest, name: str, items: list[Any]) -> dict[str, Any]:
    """Return the requested page of `items` as property `name`, with links to the next and the previous page.

    The links are relative to the host, as in the responses of Akoya's sandbox, and keep the other query parameters.

    Raises:
        DataError: `offset` or `limit` is invalid.
    """
    offset, limit = _number(request, "offset", 0), _number(request, "limit", DEFAULT_LIMIT)
    if not limit:
        raise DataError(400, "limit is at least 1")
    links, following = {}, offset + limit
    if following < len(items):
        links["next"] = {"href": _link(request, following, limit)}
    if offset:
        links["prev"] = {"href": _link(request, max(0, offset - limit), limit)}
    metadata = {"total": len(items)} | ({"nextOffset": following} if "next" in links else {})
    return {"links": links, "page": metadata, name: items[offset:following]}


def _link(request: DataRequest, offset: int, limit: int) -> str:
    query = dict(request.query) | {"offset": str(offset), "limit": str(limit)}
    return f"{request.path}?{urlencode(sorted(query.items()))}"


def _number(request: DataRequest, name: str, default: int) -> int:
    text = request.query.get(name)
    if text is None:
        return default
    if not text.isascii() or not text.isdigit() or len(text) > 6:
        raise DataError(400, "offset and limit are whole numbers")
    return int(text)
