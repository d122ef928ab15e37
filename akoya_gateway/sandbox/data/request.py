"""An admitted data request, and its parameters."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from akoya_gateway.sandbox.data.errors import DataError
from akoya_gateway.sandbox.demo_users import Account
from akoya_gateway.sandbox.state import Consent


@dataclass(frozen=True, slots=True)
class DataRequest:
    """A request whose id_token was accepted. `now` is in Unix seconds."""

    consent: Consent
    consented: tuple[Account, ...]
    """The accounts that the user consented to share."""
    path: str
    parameters: Mapping[str, str]
    """The variable segments of the path."""
    query: Mapping[str, str]
    accept: str
    now: float

    def account(self) -> Account:
        """Return the account of the path. Raises DataError 701."""
        return self._find(self.parameters["account"])

    def accounts(self, parameter: str = "accountIds") -> tuple[Account, ...]:
        """Return the accounts that a query parameter names, separated by commas, or all. Raises DataError 701."""
        wanted = self.query.get(parameter)
        return tuple(self._find(each) for each in wanted.split(",")) if wanted else self.consented

    def _find(self, account_id: str) -> Account:
        found = next((account for account in self.consented if account.id == account_id), None)
        if found is None:
            raise DataError(701)
        return found

    @property
    def standard(self) -> bool:
        """True for `mode=standard`: FDX values instead of the provider's own. Raises DataError for another mode."""
        mode = self.query.get("mode", "raw")
        if mode not in ("raw", "standard"):
            raise DataError(400, "mode: raw or standard")
        return mode == "standard"

    def span(self) -> tuple[datetime | None, datetime | None]:
        """Return `startTime` and `endTime`, None where missing. Raises DataError 702 or 703."""
        start, end = _time(self.query.get("startTime")), _time(self.query.get("endTime"))
        if start and end and start > end:
            raise DataError(703)
        return start, end

    def accepts_pdf(self) -> bool:
        return "application/pdf" in self.accept.lower()


def _time(text: str | None) -> datetime | None:
    if text is None:
        return None
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise DataError(702) from None
    return at if at.tzinfo else at.replace(tzinfo=UTC)
