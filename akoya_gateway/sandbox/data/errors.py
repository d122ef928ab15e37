"""Errors of the data APIs: HTTP status, Akoya's integer code and message (docs/akoya.md section 6)."""

from __future__ import annotations

from typing import Any

_MEANINGS = {
    500: (500, "Internal server error"),
    501: (501, "Subsystem unavailable"),
    601: (404, "Customer not found"),
    602: (401, "Customer not authorized"),
    701: (404, "Account not found"),
    702: (400, "Invalid start or end date"),
    703: (400, "Invalid date range"),
    704: (400, "Account type not supported"),
    1207: (429, "Too many requests"),
}
_MESSAGES = {
    400: "Bad request",
    403: "Forbidden",
    404: "Not found",
    406: "Content type not supported",
    408: "Request timed out",
    409: "Tax forms are not currently available for this account or this year",
    503: "System is down for maintenance",
}
_CODE_OF_STATUS = {401: 602, 404: 701, 429: 1207}


class DataError(Exception):
    """An error response.

    Args:
        code: Akoya's code. Where none is documented it is the HTTP status. 0: the body has no code.
        detail: The `debugMessage`.
        status: Defaults to the status of the code.
    """

    def __init__(self, code: int, detail: str = "", *, status: int | None = None) -> None:
        known_status, message = _MEANINGS.get(code, (code, _MESSAGES.get(status or code, "Request failed")))
        super().__init__(message)
        self.code, self.detail, self.message = code, detail, message
        self.status = status or known_status

    @staticmethod
    def of_status(status: int, code: int | None = None, detail: str = "") -> DataError:
        """Return the error of an HTTP status. `code` None selects the documented code of that status."""
        return DataError(_CODE_OF_STATUS.get(status, status) if code is None else code, detail, status=status)

    def body(self) -> dict[str, Any]:
        body = {"code": self.code, "message": self.message, "debugMessage": self.detail}
        if not self.code:
            del body["code"]
        return body
