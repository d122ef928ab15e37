"""All entry points decide alike and by the same rule, and the app receives the path that was authorized."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from tests.differential.cases import HOST, ROWS, RULES, Row, choices
from tests.differential.entrypoints import Entrypoints, Outcome

NGINX_STATUS = {302: 401, 400: 403, 404: 403, 409: 403, 414: 403, 421: 403}
"""`auth_request` distinguishes only 2xx, 401 and 403."""


STATUS = {"passed": 200, "bad-grant": 400, "ambiguous-grant": 409, "not-connected": 401, "reconnect": 401}
"""The status of each outcome of a request that names a login. All others are 404."""


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
        check_outcome(row, name, outcome)
        if row.refused or (name in row.stricter and not outcome.passed):
            continue
        assert outcome.passed == reference.passed, name
        assert (outcome.rule, outcome.word) == (reference.rule, reference.word), name
        assert outcome.seen == reference.seen, name
        assert outcome.injected == reference.injected, name
        assert outcome.location == reference.location, name
        status = NGINX_STATUS.get(reference.status, reference.status) if name == "nginx" else reference.status
        assert outcome.status == status, name


def check_outcome(row: Row, name: str, outcome: Outcome) -> None:
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


def test_fragment_is_refused_wherever_it_can_be_seen(entrypoints: Entrypoints) -> None:
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
    assert {word for _, word, _ in rows} == {*STATUS, "unknown-grant", "unknown-connector"}
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
                status = STATUS.get(word, 404)
                assert outcome.status == (NGINX_STATUS.get(status, status) if name == "nginx" else status), (row, name)
                if word == "passed":
                    check_outcome(row, name, outcome)
                tokens = outcome.injected.get("akoya-id-tokens", "")
                assert tokens.startswith('other="eyJ') is ('", mikomo="eyJ' in tokens) is (row.target == "/tokens"), (
                    name
                )


def test_login_that_a_handshake_names_is_the_one_that_a_websocket_gets(entrypoints: Entrypoints) -> None:
    for row, word, grant in choices(**entrypoints.grants):
        if row.method != "GET":
            continue
        for name in ("sidecar", "app", "middleware"):
            outcome = entrypoints.handshake(row, name)
            assert outcome.word == word, (row, name)
            assert outcome.injected.get("akoya-grant") == grant, (row, name)
            assert outcome.status == (101 if word == "passed" else STATUS.get(word, 404)), (row, name)


def test_token_endpoint_gives_each_login_and_refuses_as_the_other_entry_points(entrypoints: Entrypoints) -> None:
    """Without an ID it gives the login that was connected last, as rules without `grant` do. An ended one is a 404."""
    grants = entrypoints.grants
    checked = 0
    for row, word, grant in choices(**grants):
        path, _, query = row.target.partition("?")
        if not path.startswith("/query/") or not (row.several or row.half):
            continue
        owner = entrypoints.owners["several" if row.several else "half"]
        response = entrypoints.token(
            path.removeprefix("/query/"), f"owner={owner}&{re.sub('lo(g|%67)in', 'grant', query)}"
        )
        checked += 1
        if word == "ambiguous-grant":
            word, grant = "passed", grants["second" if row.several else "live"]
        if word == "passed":
            assert (response.status, response.body["grant"], response.body["owner"]) == (200, grant, owner), row
            assert response.body["id_token"].startswith("eyJ")
            continue
        code = {"unknown-connector": "not-connected"}.get(word, word)
        assert response.status == (400 if word == "bad-grant" else 404), row
        assert response.body["type"] == f"urn:akoya-gateway:problem:{code}", row
        assert "id_token" not in response.body
    assert checked > 20


def test_ended_grant_gives_reconnect_and_a_missing_one_gives_not_connected(entrypoints: Entrypoints) -> None:
    for name, entrypoint in entrypoints.by_name.items():
        assert entrypoint(Row("/either", ended=True)).word == "reconnect", name
        assert entrypoint(Row("/api/banks/mikomo/x", ended=True)).word == "reconnect", name
        assert entrypoint(Row("/api/banks/other/x", ended=True)).word == "not-connected", name
        assert entrypoint(Row("/either", member=False)).word == "not-connected", name


def test_table_meets_every_rule_and_every_way_out(entrypoints: Entrypoints) -> None:
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
