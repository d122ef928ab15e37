"""GET /statements: monthly statements of two years, and the PDF file of one."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from starlette.responses import Response

from akoya_gateway.sandbox.data.document import PDF
from akoya_gateway.sandbox.data.errors import DataError
from akoya_gateway.sandbox.data.paging import page
from akoya_gateway.sandbox.data.request import DataRequest

_MONTHS = [datetime(year, month, 1, tzinfo=UTC) for year in (2024, 2025) for month in range(1, 13)]


def statements(request: DataRequest) -> dict[str, Any]:
    """Return a page of the statements between `startTime` and `endTime`, newest first."""
    account, (start, end) = request.account(), request.span()
    found = []
    for at in reversed(_MONTHS):
        if (start and at < start) or (end and at > end):
            continue
        statement_id = f"{account.id}-s{at:%Y%m}"
        link = {"href": f"{request.path}/{statement_id}", "rel": "self", "action": "GET", "types": ["application/pdf"]}
        found.append(
            {
                "accountId": account.id,
                "statementId": statement_id,
                "statementDate": f"{at:%Y-%m-%d}",
                "description": f"Statement of {at:%B %Y}",
                "status": "AVAILABLE",
                "links": [link],
            }
        )
    return page(request, "statements", found)


def statement(request: DataRequest) -> Response:
    """Return the PDF file of a statement. Raises DataError if it does not exist, or the client accepts no PDF."""
    account = request.account()
    if request.parameters["statement"] not in {f"{account.id}-s{at:%Y%m}" for at in _MONTHS}:
        raise DataError(404, "no such statement")
    if not request.accepts_pdf():
        raise DataError(406, "accept: application/pdf")
    return Response(PDF, media_type="application/pdf")
