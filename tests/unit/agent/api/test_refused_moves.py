"""The record of refused questions: bounded, counted, and everybody's own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from agent_api import ServedApi, serving_api

from ringfence_agent.api import refused_moves
from ringfence_agent.api.refused_moves import MOVE_RULES, MoveRecord
from ringfence_zones.findings import Rule
from ringfence_zones.moves import MoveDecision

NO = MoveDecision(rename=False, transfer=False, same_zone=False, reason="r", rule=Rule.ZONE_TO_CLEAR)
YES = MoveDecision(rename=True, transfer=True, same_zone=True)


@pytest.fixture
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServedApi]:
    settings = "allowed_users: [masker, etl]\n"
    served = ServedApi(
        Path(tmp_path_factory.mktemp("a")), settings, routers=lambda view: [refused_moves.router(view.moves)]
    )
    with serving_api(served) as running:
        yield running


def test_everybody_sees_their_own_questions_alone(api: ServedApi) -> None:
    for name in ("masker", "etl"):
        api.accounts.name = name
        body = f'{{"src": "/data/pii/{name}", "dst": "/data/masked/f"}}'.encode()
        assert api.ask("POST", "/v1/moves/check", body)[0] == 200
    for name in ("masker", "etl"):
        api.accounts.name = name
        status, told = api.ask("GET", "/v1/moves/refused")
        assert (status, told["all_callers"]) == (200, False)
        assert [each["src"] for each in told["moves"]] == [f"/data/pii/{name}"]


def test_one_callers_etag_is_not_anothers(api: ServedApi) -> None:
    etags = set()
    for name in ("masker", "etl"):
        api.accounts.name = name
        connection = api.unix()
        connection.request("GET", "/v1/moves/refused")
        etags.add(connection.getresponse().headers["ETag"])
        connection.close()
    assert len(etags) == 2


def test_only_refusals_are_kept_and_everything_is_counted() -> None:
    record = MoveRecord(lambda: 7.0)
    record.add("etl", "/a", "/b", YES)
    record.add("etl", "/a", "/b", NO)
    assert record.checked == 2
    assert [(each.at_s, each.src, each.rule) for each in record.list_refused(None)] == [(7.0, "/a", Rule.ZONE_TO_CLEAR)]
    assert record.refused_by_rule[Rule.ZONE_TO_CLEAR] == 1


def test_the_record_is_bounded_in_number_and_in_length() -> None:
    record = MoveRecord()
    for number in range(700):
        record.add("etl", f"/{number}/" + "x" * 8000, "/b", NO)
    kept = list(record.list_refused(None))
    assert len(kept) == 500
    assert kept[0].src.startswith("/699/")
    assert {len(each.src) for each in kept} == {1025}
    assert record.refused_by_rule[Rule.ZONE_TO_CLEAR] == 700


def test_every_rule_that_refuses_a_move_is_counted_from_zero() -> None:
    source = (Path(refused_moves.__file__).parents[3] / "zones/ringfence_zones/moves.py").read_text()
    named = {rule for rule in Rule if f"Rule.{rule.name}" in source}
    assert named == set(MOVE_RULES)
