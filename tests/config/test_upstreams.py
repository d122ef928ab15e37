"""Several upstreams: which one an access rule names, and the diagnostics if the name is missing or unknown."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from akoya_gateway.config.model import Config
from tests.support.config_documents import error_lines, validated, warning_lines

APP = {"url": "http://127.0.0.1:3000"}
REPORTS = {"url": ["https://10.0.0.5", "https://10.0.0.6"], "pool": 20, "max_header_bytes": "8KiB"}
TO_REPORTS = {"path": "/reports/*", "require": "any", "upstream": "reports"}
TO_THE_APP = {"path": "/*", "require": "any"}


def both(**changes: Any) -> dict[str, Any]:
    return {"upstream": APP, "upstreams": {"reports": REPORTS}, "access": [TO_REPORTS, TO_THE_APP], **changes}


def config(folder: Path, changes: dict[str, Any]) -> Config:
    result = validated(folder, changes)
    assert result.config is not None, error_lines(result)
    assert not [line for line in warning_lines(result) if "upstream" in line]
    return result.config


def test_rule_leads_to_the_upstream_it_names_and_to_the_default_otherwise(tmp_path: Path) -> None:
    made = config(tmp_path, both())
    reports, app = (rule.upstream for rule in made.access)
    assert reports == made.upstreams["reports"]
    assert app == made.upstream
    assert made.all_upstreams == (app, reports)
    assert reports
    assert [str(origin) for origin in reports.origins] == REPORTS["url"]
    assert (reports.address, reports.secure, reports.pool, reports.max_header_bytes) == (
        "upstreams.reports",
        True,
        20,
        8192,
    )
    assert app
    assert (app.address, app.secure, app.pool) == ("upstream", False, 100)


def test_no_default_is_needed_where_every_rule_names_one(tmp_path: Path) -> None:
    made = config(tmp_path, both(upstream=None, access=[TO_REPORTS]))
    assert made.upstream is None
    assert [each.name for each in made.all_upstreams] == ["reports"]


def test_without_any_no_rule_leads_anywhere(tmp_path: Path) -> None:
    made = config(tmp_path, {"upstreams": {}})
    assert made.all_upstreams == ()
    assert made.access[0].upstream is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            both(access=[{**TO_REPORTS, "upstream": "report"}, TO_THE_APP]),
            'access[0].upstream: no upstream named "report" (did you mean "reports"?)',
        ),
        (
            both(access=[{**TO_REPORTS, "upstream": "xyz"}, TO_REPORTS, TO_THE_APP]),
            'access[0].upstream: no upstream named "xyz" (known: "reports")',
        ),
        (
            {"upstream": APP, "access": [TO_REPORTS]},
            'access[0].upstream: no upstream named "reports" (known: none)',
        ),
        (
            both(upstream=None),
            'access[1]: this rule leads to no upstream (name one of "reports" here, or add `upstream` for such rules)',
        ),
        (both(access=[{**TO_REPORTS, "upstream": 5}, TO_THE_APP]), "access[0].upstream: "),
        (both(access=[{**TO_REPORTS, "upstream": "Reports"}, TO_THE_APP]), "access[0].upstream: "),
        (both(upstreams={"reports": {"pool": 5}}), "upstreams.reports: "),
        (both(upstreams={"reports": None}), "upstreams.reports: "),
        (both(upstreams={"reports": {**REPORTS, "pol": 5}}), "upstreams.reports.pol: "),
        (both(upstreams={"reports": REPORTS, "No Name": REPORTS}), "upstreams"),
        (both(upstreams=["http://127.0.0.1:3000"]), "upstreams: "),
        (
            both(upstreams={"reports": {"url": "http://10.0.0.5"}}),
            "upstreams.reports.url: plain http to an address that is not loopback would show tokens to the network "
            "(use https, or set upstreams.reports.insecure_http: true if that network is yours alone)",
        ),
        (
            both(upstreams={"reports": {**REPORTS, "max_header_bytes": 100}}),
            "upstreams.reports.max_header_bytes: must be 4KiB or more",
        ),
        (
            both(upstreams={"reports": {**REPORTS, "tls": {"certificate": __file__}}}),
            "upstreams.reports.tls.certificate: a certificate without its key",
        ),
    ],
)
def test_mistake_is_one_fault(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    lines = error_lines(validated(tmp_path, changes))
    assert len(lines) == 1, lines
    assert lines[0].startswith(message), lines


def test_broken_default_is_the_only_fault(tmp_path: Path) -> None:
    """Access rules without an upstream name are not reported as having no upstream."""
    lines = error_lines(validated(tmp_path, both(upstream={"url": "nonsense"})))
    assert len(lines) == 1
    assert lines[0].startswith("upstream.url: ")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (both(access=[TO_THE_APP]), "upstreams.reports: no access rule leads to this upstream"),
        (both(access=[TO_REPORTS]), "upstream: no access rule leads to this upstream"),
    ],
)
def test_one_that_no_rule_leads_to_is_a_warning(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    result = validated(tmp_path, changes)
    assert result.config is not None
    assert [line for line in warning_lines(result) if line.startswith(message)]


def test_broken_rule_causes_no_warning_about_unused_upstreams(tmp_path: Path) -> None:
    result = validated(tmp_path, both(access=[{**TO_REPORTS, "require": "nobody"}, TO_THE_APP]))
    assert not [line for line in warning_lines(result) if "leads to this upstream" in line]
