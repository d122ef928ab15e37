"""The result of one doctor check."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from akoya_gateway.observability.redaction import escape_controls, redact_text


class Severity(StrEnum):
    """How serious a result is."""

    FINE = "fine"
    WARNING = "warning"
    FAULT = "fault"


@dataclass(frozen=True, slots=True)
class CheckResult:
    """One finding about the configuration or about a service that it names."""

    about: str
    """The setting or part, such as `environments.sandbox.token_endpoint`."""
    verdict: Severity
    says: str
    """What was found."""
    remedy: str = ""
    """What to do about it."""
    milliseconds: float | None = None
    """Duration of the check, if it is of interest."""

    @property
    def clean(self) -> CheckResult:
        """The result without secrets and control characters. Its texts may quote responses of other servers."""
        return CheckResult(self.about, self.verdict, _clean(self.says), _clean(self.remedy), self.milliseconds)


def _clean(text: str) -> str:
    return escape_controls(redact_text(text, 500))


def fine(about: str, says: str, milliseconds: float | None = None) -> CheckResult:
    """Return the result of a successful check."""
    return CheckResult(about, Severity.FINE, says, "", milliseconds)


def warning(about: str, says: str, remedy: str = "") -> CheckResult:
    """Return a result that the operator should know about."""
    return CheckResult(about, Severity.WARNING, says, remedy)


def fault(about: str, says: str, remedy: str = "") -> CheckResult:
    """Return the result of a failed check."""
    return CheckResult(about, Severity.FAULT, says, remedy)
