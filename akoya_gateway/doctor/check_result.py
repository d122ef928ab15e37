"""What an examination finds."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from akoya_gateway.observability.redaction import escape_controls, redact_text


class Severity(StrEnum):
    FINE = "fine"
    WARNING = "warning"
    FAULT = "fault"


@dataclass(frozen=True, slots=True)
class CheckResult:
    """`about` names the setting or part (`environments.sandbox.token_endpoint`), `says` what was seen, `remedy` what to
    do; `milliseconds` how long it took, where that matters."""

    about: str
    verdict: Severity
    says: str
    remedy: str = ""
    milliseconds: float | None = None

    @property
    def clean(self) -> CheckResult:
        """Without anything that looks like a secret, on one line: what others answered is in it."""
        return CheckResult(self.about, self.verdict, _clean(self.says), _clean(self.remedy), self.milliseconds)


def _clean(text: str) -> str:
    return escape_controls(redact_text(text, 500))


def fine(about: str, says: str, milliseconds: float | None = None) -> CheckResult:
    return CheckResult(about, Severity.FINE, says, "", milliseconds)


def warning(about: str, says: str, remedy: str = "") -> CheckResult:
    return CheckResult(about, Severity.WARNING, says, remedy)


def fault(about: str, says: str, remedy: str = "") -> CheckResult:
    return CheckResult(about, Severity.FAULT, says, remedy)
