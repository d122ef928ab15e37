"""Records what the gateway reports about requests, as the access log and the metrics would get it."""

from __future__ import annotations

from dataclasses import dataclass

from akoya_gateway.observability.access_log import LoggedRequest


@dataclass(frozen=True)
class ReportedRequest:
    """A request and its result, at the start of the response."""

    request_id: str
    path: str
    status: int
    rule: str
    outcome: str


class RequestRecorder:
    """A `gateway.response_observer.RequestObserver` that records its calls in `reported`."""

    def __init__(self) -> None:
        self.reported: list[ReportedRequest] = []
        self.truncated: list[tuple[str, str]] = []
        """The rule and the problem of each truncated response."""

    def on_response(
        self, request: LoggedRequest, status: int, rule: str, outcome: str, began: float, now: float
    ) -> None:
        assert now >= began
        raw_path, _, request_id = request.logged_fields()
        self.reported.append(ReportedRequest(request_id.decode(), raw_path.decode(), status, rule, outcome))

    def on_truncated(self, rule: str, problem: str) -> None:
        self.truncated.append((rule, problem))

    def outcome_of(self, request_id: str) -> tuple[str, str]:
        """Return the rule and the outcome of the request, `-` twice if it was not reported."""
        found = [(each.rule, each.outcome) for each in self.reported if each.request_id == request_id]
        return found[-1] if found else ("-", "-")
