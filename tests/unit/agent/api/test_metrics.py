"""What Prometheus is told, and that it stays little."""

from __future__ import annotations

from agent_page import state_with
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from ringfence_agent.api.metrics import make_registry
from ringfence_agent.api.refused_moves import MoveRecord
from ringfence_agent.budgets import BudgetView
from ringfence_agent.events.state_file import Loss
from ringfence_agent.events.watcher import EventView
from ringfence_agent.reverts import Case, CaseState
from ringfence_agent.snapshot import Board, Snapshot
from ringfence_agent.transfer.record import State, Tally
from ringfence_agent.turn import TurnState, TurnView
from ringfence_zones.findings import Finding, Rule, Severity
from ringfence_zones.moves import MoveDecision
from ringfence_zones.policy import parse_policy

POLICY = parse_policy(
    "version: 1\ncluster: c\nzones: [{path: /z, owner: o}]\nkms: {namenode_users: [h], admins: [h]}\n", "z.yaml"
)


NO_TRANSFERS = Tally()


class Told:
    """Samples by name and labels."""

    def __init__(self, board: Board, moves: MoveRecord, transfers: Tally = NO_TRANSFERS) -> None:
        text = generate_latest(make_registry(board, moves, transfers)).decode()
        families = list(text_string_to_metric_families(text))
        self.samples = {
            (sample.name, *sorted(sample.labels.items())): sample.value
            for family in families
            for sample in family.samples
        }
        self.labels = {label for family in families for sample in family.samples for label in sample.labels}

    def __getitem__(self, name: str) -> float:
        return self.samples[(name,)]


def publish(board: Board, **changes: object) -> None:
    values = {"cycle": 4, "sentence": "s", "finished_s": 95.0, "observed_s": 90.0}
    board.publish(Snapshot(**(values | changes)))  # type: ignore[arg-type]


def found(rule: Rule, path: str) -> Finding:
    return Finding(severity=Severity.ERROR, rule=rule, path=path, message="m", hint="h")


def test_the_loop_the_cluster_and_the_questions_are_told() -> None:
    board, moves = Board(60.0, lambda: 100.0), MoveRecord()
    findings = (found(Rule.ROOT_NOT_PINNED, "/a"), found(Rule.ROOT_NOT_PINNED, "/b"), found(Rule.SHARED_KEY, "/c"))
    publish(board, state=state_with("/a", "/b", pinned=("/a", "/other")), policy=POLICY, findings=findings)
    moves.add("u", "/a/x", "/b/x", MoveDecision(rename=False, transfer=False, same_zone=False, rule=Rule.ZONE_TO_ZONE))
    moves.add("u", "/a/x", "/a/y", MoveDecision(rename=True, transfer=True, same_zone=True))
    told = Told(board, moves)
    assert told["ringfence_agent_cycles_total"] == 4
    assert told["ringfence_agent_cycle_age_seconds"] == 5
    assert told["ringfence_agent_observation_age_seconds"] == 10
    assert (told["ringfence_agent_live"], told["ringfence_agent_ready"]) == (1, 1)
    assert (told["ringfence_agent_zones"], told["ringfence_agent_zones_pinned"]) == (2, 1)
    assert told["ringfence_agent_protected_directories"] == 2
    assert told["ringfence_agent_policy_revision"] == 7
    assert told["ringfence_agent_moves_checked_total"] == 2
    labelled = ("ringfence_agent_findings", ("rule", "root_not_pinned"), ("severity", "error"))
    assert told.samples[labelled] == 2
    assert told.samples["ringfence_agent_moves_refused_total", ("rule", "zone_to_zone")] == 1
    assert told.samples["ringfence_agent_mode", ("mode", "observe")] == 1
    assert told["process_resident_memory_bytes"] > 1024 * 1024


def case(txid: int, state: CaseState) -> Case:
    return Case(txid=txid, rule="zone_root", source="/z", target="/y", renamed_s=1.0, roots=(), inode=1, state=state)


def test_transfers_events_turn_and_budgets_are_told() -> None:
    board = Board(60.0, lambda: 100.0)
    budgets = BudgetView(hdfs_calls_per_minute=30.0, cpu_percent=4.5, memory_bytes=1 << 20, exceeded="too much")
    publish(board, turn=TurnView(TurnState.OTHER, mine=False), budgets=budgets)
    cases = (case(1, CaseState.REVERTED), case(2, CaseState.REVERTED), case(3, CaseState.OPEN))
    losses = (Loss(after_txid=3, next_txid=9, lost_s=1.0),)
    board.publish_events(EventView(txid=40, newest_txid=42, seen_s=97.0, cases=cases, losses=losses))
    told = Told(board, MoveRecord(), Tally({State.COPYING: 2, State.DONE: 5, State.FAILED: 1}, 4096))
    copying, queued = (("ringfence_agent_transfers", ("state", state)) for state in ("copying", "queued"))
    assert (told.samples[copying], told.samples[queued]) == (2, 0)
    assert told.samples["ringfence_agent_transfers_ended_total", ("outcome", "done")] == 5
    assert told.samples["ringfence_agent_transfers_ended_total", ("outcome", "failed")] == 1
    assert told["ringfence_agent_transfer_verified_bytes_total"] == 4096
    assert told["ringfence_agent_acts"] == 0
    assert (told["ringfence_agent_events_age_seconds"], told["ringfence_agent_events_behind"]) == (3, 2)
    assert told["ringfence_agent_events_lost"] == 1
    reverted, left = (("ringfence_agent_zone_root_renames", ("state", state)) for state in ("reverted", "left"))
    assert (told.samples[reverted], told.samples[left]) == (2, 0)
    assert (told["ringfence_agent_hdfs_calls_per_minute"], told["ringfence_agent_cpu_percent"]) == (30, 4.5)
    assert (told["ringfence_agent_memory_bytes"], told["ringfence_agent_over_budget"]) == (1 << 20, 1)


def test_what_is_not_known_is_not_told_as_zero() -> None:
    told = Told(Board(60.0, lambda: 100.0), MoveRecord())
    assert ("ringfence_agent_zones",) not in told.samples
    assert ("ringfence_agent_observation_age_seconds",) not in told.samples
    assert told["ringfence_agent_ready"] == 0
    assert not any(name.startswith(("ringfence_agent_acts", "ringfence_agent_events")) for name, *_ in told.samples)
    assert told.samples["ringfence_agent_mode", ("mode", "none")] == 1


def test_a_thousand_zones_and_findings_make_no_more_series() -> None:
    few, many = Board(60.0), Board(60.0)
    for board, number in ((few, 3), (many, 1000)):
        paths = [f"/zone-{each}" for each in range(number)]
        publish(board, state=state_with(*paths), findings=tuple(found(Rule.ROOT_NOT_PINNED, path) for path in paths))
    told = Told(many, MoveRecord())
    assert told.samples.keys() == Told(few, MoveRecord()).samples.keys()
    assert told.labels == {"rule", "severity", "mode", "state", "outcome"}
