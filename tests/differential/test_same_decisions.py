"""All entry points decide alike and by the same rule, and the app receives the path that was authorized."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.differential.cases import HOST, ROWS, RULES, Row, choices
from tests.differential.entrypoints import Entrypoints, Outcome

NGINX_STATUS = {302: 401, 400: 403, 404: 403, 409: 403, 414: 403, 421: 403}
"""`auth_request` distinguishes only 2xx, 401 and 403."""


@pytest.fixture(scope="module")
def entrypoints(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Entrypoints]:
    with Entrypoints(tmp_path_factory.mktemp("entrypoints")) as entrypoints:
        yield entrypoints


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_every_entry_point_makes_the_same_decision(entrypoints: Entrypoints, row: Row) -> None:
    """Repeat the requests, so that cached decisions are compared as well, both allowed and denied."""
    names = ["sidecar", "app", "middleware"] + (["nginx", "traefik", "envoy"] if row.proxied else [])
    outcomes = {name: entrypoints.by_name[name](row) for name in names}
    for name in ["app", "middleware"] if row.refused else ["sidecar", "app", "middleware"]:
        for turn in (1, 2):
            outcomes[f"{name}, {turn} times before"] = entrypoints.by_name[name](row)
    reference = outcomes["sidecar"]
    for name, outcome in outcomes.items():
        judge(row, name, outcome)
        if row.refused or (name in row.stricter and not outcome.passed):
            continue
        assert outcome.passed == reference.passed, name
        assert (outcome.rule, outcome.word) == (reference.rule, reference.word), name
        assert outcome.seen == reference.seen, name
        assert outcome.injected == reference.injected, name
        assert outcome.location == reference.location, name
        status = NGINX_STATUS.get(reference.status, reference.status) if name == "nginx" else reference.status
        assert outcome.status == status, name


def judge(row: Row, name: str, outcome: Outcome) -> None:
    """Check what must hold at one entry point by itself."""
    if row.refused:
        assert not outcome.passed, name
        assert outcome.status >= 400 or outcome.status == 0, name
    if not outcome.passed:
        return
    assert outcome.rule != "-", "no request passes without a rule"
    assert "spoofed" not in str(outcome.injected), name
    if outcome.seen is not None and row.proxied:
        path, query, _ = outcome.seen
        assert path + (f"?{query}" if query else "") == (row.target if query else row.target.removesuffix("?")), (
            "byte for byte"
        )
    if outcome.injected:
        assert outcome.signature is not None
        assert outcome.signature.startswith("valid: "), name
    if not row.member:
        assert not outcome.injected


def test_a_fragment_is_refused_wherever_it_can_be_seen(entrypoints: Entrypoints) -> None:
    row = Row("/accounts#/../public/x")
    for name in ("sidecar", "nginx", "traefik", "envoy"):
        outcome = entrypoints.by_name[name](row)
        assert not outcome.passed, name
        assert outcome.status in (400, 403), name
    # uvicorn drops it before the app sees it. The path that is authorized is still the one that the app receives.
    inside = entrypoints.by_name["middleware"](row)
    assert (inside.rule.partition(" ")[2], inside.seen) == ("/accounts", ("/accounts", "", HOST))


def test_login_that_a_request_names_is_the_one_that_every_entry_point_passes(entrypoints: Entrypoints) -> None:
    """Each choice and each refusal, twice, so that nothing of a request's choice is found in a cache by the next."""
    rows = choices(**entrypoints.grants)
    assert {word for _, word, _ in rows} >= {"passed", "unknown-grant", "bad-grant", "ambiguous-grant"}
    for turn in (1, 2):
        for row, word, grant in rows:
            for name, entrypoint in entrypoints.by_name.items():
                if name == "nginx" and any("_" in line for line in row.lines):
                    continue
                outcome = entrypoint(row)
                # A 400 may come from the server itself, which logs nothing, so its line is not waited for.
                words = (word, "-") if word == "bad-grant" else (word,)
                assert outcome.word in words, (row, name, turn)
                assert outcome.injected.get("akoya-grant") == grant, (row, name, turn)
                status = {"passed": 200, "bad-grant": 400, "ambiguous-grant": 409, "not-connected": 401}.get(word, 404)
                assert outcome.status == (NGINX_STATUS.get(status, status) if name == "nginx" else status), (row, name)
                if word == "passed":
                    judge(row, name, outcome)
                tokens = outcome.injected.get("akoya-id-tokens", "")
                assert tokens.startswith('other="eyJ') is ('", mikomo="eyJ' in tokens) is (row.target == "/tokens"), (
                    name
                )


def test_ended_grant_gives_reconnect_and_a_missing_one_gives_not_connected(entrypoints: Entrypoints) -> None:
    for name, entrypoint in entrypoints.by_name.items():
        assert entrypoint(Row("/either", ended=True)).word == "reconnect", name
        assert entrypoint(Row("/api/banks/mikomo/x", ended=True)).word == "reconnect", name
        assert entrypoint(Row("/api/banks/other/x", ended=True)).word == "not-connected", name
        assert entrypoint(Row("/either", member=False)).word == "not-connected", name


def test_the_table_meets_every_rule_and_every_way_out(entrypoints: Entrypoints) -> None:
    outcomes = [entrypoints.sidecar(row) for row in ROWS if not row.refused or row.proxied]
    met = {outcome.rule for outcome in outcomes}
    assert {f"access[{index}]" for index in range(len(RULES))} <= {rule.partition(" ")[0] for rule in met}
    words = {
        "passed",
        "not-connected",
        "forbidden",
        "no-rule",
        "unknown-connector",
        "ambiguous-path",
        "bad-host",
        "reconnect",
        "unknown-grant",
    }
    assert words <= {outcome.word for outcome in outcomes}
