"""What cycles and the event stream show is one value at each moment."""

from __future__ import annotations

from ringfence_agent.budgets import BudgetView
from ringfence_agent.events.state_file import Loss
from ringfence_agent.events.watcher import EventView
from ringfence_agent.reverts import Case, CaseState, MovedRoot
from ringfence_agent.snapshot import Board, Snapshot
from ringfence_agent.turn import TurnState, TurnView
from ringfence_zones.findings import Finding, Rule, Severity

CASE = Case(
    txid=5,
    rule="zone_root",
    source="/z",
    target="/gone",
    renamed_s=10.0,
    roots=(MovedRoot("/z", "/gone", "kz", 3),),
    inode=3,
)
OF_CYCLE = Finding(severity=Severity.WARN, rule=Rule.KMS_PLAIN_HTTP, path="/", message="m", hint="h")


def _board() -> Board:
    return Board(60, lambda: 100.0)


def _cycle(number: int) -> Snapshot:
    return Snapshot(
        cycle=number,
        sentence="s",
        finished_s=99.0,
        findings=(OF_CYCLE,),
        turn=TurnView(TurnState.HELD, mine=True, holder="me"),
        budgets=BudgetView(cpu_limit=25, memory_limit=7),
    )


def test_findings_of_both_are_told_most_severe_first_and_neither_waits_for_the_other() -> None:
    board = _board()
    board.publish(_cycle(1))
    assert board.snapshot.findings == (OF_CYCLE,)
    board.publish_events(EventView(txid=7, newest_txid=9, seen_s=98.0, cases=(CASE,)))
    assert [each.rule for each in board.snapshot.findings] == [Rule.ZONE_ROOT_RENAMED, Rule.KMS_PLAIN_HTTP]
    board.publish(_cycle(2))
    assert len(board.snapshot.findings) == 2
    board.publish_events(EventView(txid=8, newest_txid=9))
    assert board.snapshot.findings == (OF_CYCLE,)
    assert board.snapshot.cycle == 2


def test_the_status_says_position_lag_turn_and_budgets() -> None:
    board = _board()
    assert board.status_json() == {"events": None, "lease": None, "budgets": None}
    board.publish(_cycle(1))
    left = Case(**{**{name: getattr(CASE, name) for name in CASE.__slots__}, "txid": 6, "state": CaseState.LEFT})
    board.publish_events(EventView(txid=7, newest_txid=9, seen_s=98.0, cases=(CASE, left)))
    status = board.status_json()
    assert status["events"] == {"position": 7, "lag": 2, "age_s": 2.0, "problem": None, "open_cases": 1}
    assert status["lease"] == {"state": "held", "acts": True, "holder": "me", "problem": None}
    assert status["budgets"]["cpu_percent"] == {"used": 0.0, "limit": 25}


def test_a_loss_is_told() -> None:
    board = _board()
    board.publish(_cycle(1))
    board.publish_events(EventView(losses=(Loss(5, 9, 1.0),)))
    (lost,) = [each for each in board.snapshot.findings if each.rule is Rule.EVENTS_LOST]
    assert "no edits from 6 to 8 any more" in lost.message
    assert board.status_json()["events"]["position"] is None
