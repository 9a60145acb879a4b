"""What was observed, against the policy, becomes findings and an action: a pure decision."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from ringfence_agent.budgets import BudgetView
from ringfence_agent.enforce import Observation, decide
from ringfence_agent.namenode_logs import RefusedRename
from ringfence_agent.pins import PinFile
from ringfence_agent.turn import TurnState, TurnView
from ringfence_zones.findings import Finding, Rule, Severity
from ringfence_zones.model import ClusterState, DirectoryState, EncryptionZone
from ringfence_zones.policy import Policy, parse_policy

CORE_SITE = Path("/etc/hadoop/conf/core-site.xml")


def _policy(mode: str = "enforce", pin: str = "apply", paths: tuple[str, ...] = ("/a", "/b")) -> Policy:
    zones = "".join(f"  - {{path: '{path}', key: {'k' + str(n)}}}\n" for n, path in enumerate(paths))
    return parse_policy(
        f"version: 1\ncluster: c\nzones:\n{zones}kms: {{namenode_users: [hdfs], admins: [hdfs]}}\n"
        f"agent: {{mode: {mode}, pin: {pin}}}\n",
        "zones.yaml",
    )


def _observation(
    *,
    policy: Policy | None = None,
    zones: tuple[str, ...] = ("/a", "/b"),
    file: tuple[str, ...] = ("/apps",),
    live: tuple[str, ...] | None = ("/apps",),
    problem: str | None = None,
    owned: frozenset[str] = frozenset(),
    empty: tuple[str, ...] = (),
) -> Observation:
    directories = {
        path: DirectoryState(path, True, path in empty, "hdfs", "supergroup", 0o700, 0, (), 0o1777) for path in zones
    }
    state = ClusterState(
        hadoop_version=(3, 4, 2),
        zones=tuple(EncryptionZone(path, f"k{n}") for n, path in enumerate(zones)),
        directories=directories,
        protected_directories=live,
        kms=None,
        kms_error="not asked",
    )
    return Observation(
        state=state,
        policy=policy,
        policy_problem=None,
        pin_file=PinFile(CORE_SITE, file, problem),
        owned=owned,
        namenodes=("nn1:8020", "nn2:8020"),
    )


def _of(findings: tuple[Finding, ...], rule: Rule) -> list[Finding]:
    return [finding for finding in findings if finding.rule is rule]


def test_enforce_and_apply_pins_the_roots_that_exist() -> None:
    decision = decide(_observation(policy=_policy(paths=("/a", "/not-there-yet"))))
    assert decision.pins is not None
    assert decision.pins.entries == ("/apps", "/a")
    assert decision.withheld is None


@pytest.mark.parametrize("pin", ["apply", "print", "off"])
def test_observe_never_acts_and_says_what_it_would_do(pin: str) -> None:
    decision = decide(_observation(policy=_policy("observe", pin)))
    assert decision.pins is None
    assert decision.withheld == (None if pin == "off" else "would pin /a, /b")


def test_observe_does_not_even_forget() -> None:
    decision = decide(_observation(policy=_policy("observe"), zones=(), owned=frozenset({"/old"})))
    assert decision.pins is None
    assert decision.withheld is None


def test_print_says_what_to_set_with_the_administrators_entries_in_it() -> None:
    decision = decide(_observation(policy=_policy(pin="print")))
    assert decision.pins is None
    (finding,) = _of(decision.findings, Rule.PINS_TO_SET)
    assert finding.path == str(CORE_SITE)
    assert 'set fs.protected.directories to "/apps,/a,/b"' in finding.hint
    assert finding.command == (
        "hdfs dfsadmin -reconfig namenode nn1:8020 start && hdfs dfsadmin -reconfig namenode nn2:8020 start"
    )


def test_off_leaves_the_list_alone() -> None:
    decision = decide(_observation(policy=_policy(pin="off"), owned=frozenset({"/gone"}), file=("/apps", "/gone")))
    assert decision.pins is None
    assert not _of(decision.findings, Rule.PINS_TO_SET)


def test_without_a_policy_nothing_is_pinned_and_nothing_unpinned() -> None:
    decision = decide(_observation(file=("/apps", "/a"), live=("/apps", "/a"), owned=frozenset({"/a"})))
    assert decision.pins is None
    assert [finding.path for finding in _of(decision.findings, Rule.ROOT_NOT_PINNED)] == ["/b"]


def test_a_zone_that_left_the_policy_is_unpinned() -> None:
    decision = decide(
        _observation(
            policy=_policy(paths=("/a",)),
            file=("/apps", "/a", "/b"),
            live=("/apps", "/a", "/b"),
            owned=frozenset({"/a", "/b"}),
        )
    )
    assert decision.pins is not None
    assert decision.pins.entries == ("/apps", "/a")


def test_everything_in_place_means_nothing_to_do() -> None:
    pinned = ("/apps", "/a", "/b")
    decision = decide(_observation(policy=_policy(), file=pinned, live=pinned, owned=frozenset({"/a", "/b"})))
    assert decision.pins is None
    assert not _of(decision.findings, Rule.ROOT_NOT_PINNED)


def test_a_file_that_may_not_be_edited_is_a_finding_that_prints_the_value() -> None:
    decision = decide(_observation(policy=_policy(), problem="hdfs-site.xml wins"))
    assert decision.pins is None
    (finding,) = _of(decision.findings, Rule.PIN_FAILED)
    assert finding.severity is Severity.ERROR
    assert "hdfs-site.xml wins" in finding.message
    assert '"/apps,/a,/b"' in finding.hint


def test_a_list_nobody_knows_is_never_printed_as_if_it_were_whole() -> None:
    decision = decide(_observation(policy=_policy(), problem="cannot be read", file=(), live=None))
    (finding,) = _of(decision.findings, Rule.PIN_FAILED)
    assert finding.hint.startswith('add "/a,/b" to fs.protected.directories')


def test_a_failed_attempt_is_found_until_one_succeeds_and_still_tried() -> None:
    observation = replace(_observation(policy=_policy()), pin_error="nn2:8020: it is down")
    decision = decide(observation)
    assert decision.pins is not None
    assert "nn2:8020: it is down" in _of(decision.findings, Rule.PIN_FAILED)[0].message


def test_a_root_the_list_cannot_name_is_a_finding_and_the_others_are_pinned() -> None:
    decision = decide(_observation(policy=_policy(paths=("/a", "/b,c")), zones=("/a", "/b,c")))
    assert decision.pins is not None
    assert decision.pins.added == ("/a",)
    assert [finding.path for finding in _of(decision.findings, Rule.PIN_FAILED)] == ["/b,c"]


def test_the_root_of_everything_is_not_pinned() -> None:
    decision = decide(_observation(policy=_policy(paths=("/",)), zones=("/",)))
    assert decision.pins is None


def test_an_empty_root_is_said_not_to_be_protected_yet() -> None:
    pinned = ("/a", "/b")
    decision = decide(_observation(policy=_policy(), file=pinned, live=pinned, empty=("/b",)))
    assert [finding.path for finding in _of(decision.findings, Rule.ROOT_EMPTY)] == ["/b"]


def test_before_3_3_1_rename_is_said_not_to_be_covered() -> None:
    observation = _observation(policy=_policy())
    old = replace(observation, state=replace(observation.state, hadoop_version=(3, 2, 1)))
    assert _of(decide(old).findings, Rule.PIN_UNSUPPORTED)
    assert decide(old).pins is not None


def test_a_policy_that_cannot_be_read_is_a_finding() -> None:
    broken = replace(_observation(policy=_policy()), policy_problem="line 3: not a mode")
    (finding,) = _of(decide(broken).findings, Rule.POLICY_UNAVAILABLE)
    assert "stays in force" in finding.message
    assert "line 3" in finding.message
    # It may as well be a KMS that is away: nothing is to be corrected in the policy then.
    assert "what keeps the agent from reading it" in (finding.hint or "")
    assert decide(broken).pins is not None


def test_findings_come_most_severe_first_and_once() -> None:
    findings = decide(replace(_observation(policy=_policy(pin="print"), empty=("/a",)), policy_problem="x")).findings
    order = [Severity.ERROR, Severity.WARN, Severity.INFO]
    positions = [order.index(finding.severity) for finding in findings]
    assert positions == sorted(positions)
    assert len({(finding.rule, finding.path, finding.key) for finding in findings}) == len(findings)


OTHERS_TURN = TurnView(TurnState.OTHER, mine=False, holder="nn2-1")


def test_on_the_others_turn_nothing_is_done_and_what_is_left_to_it_is_said() -> None:
    decision = decide(replace(_observation(policy=_policy()), turn=OTHERS_TURN))
    assert decision.pins is None
    assert decision.withheld == "leaves to the other agent: pin /a, /b"


def _with_trash(observation: Observation, mode: int | None) -> Observation:
    directories = {path: replace(each, trash_mode=mode) for path, each in observation.state.directories.items()}
    return replace(observation, state=replace(observation.state, directories=directories))


def test_a_trash_without_its_sticky_bit_is_mended() -> None:
    observation = _with_trash(_observation(policy=_policy(paths=("/a",))), 0o777)
    assert decide(observation).sticky == ("/a/.Trash",)


@pytest.mark.parametrize("mode", [None, 0o1777, 0o1755])
def test_a_trash_that_has_it_or_is_not_there_is_left_alone(mode: int | None) -> None:
    assert decide(_with_trash(_observation(policy=_policy()), mode)).sticky == ()


def test_nobody_but_who_may_act_mends_trash() -> None:
    assert decide(_with_trash(_observation(policy=_policy("observe")), 0o777)).sticky == ()
    others = replace(_with_trash(_observation(policy=_policy()), 0o777), turn=OTHERS_TURN)
    assert decide(others).sticky == ()
    assert decide(_with_trash(_observation(), 0o777)).sticky == ()


@pytest.mark.parametrize(
    ("turn", "severity", "says"),
    [
        (TurnView(TurnState.NO_LEASES, mine=True, problem="404"), Severity.INFO, "so this agent acts: 404"),
        (TurnView(TurnState.NO_LEASES, mine=False), Severity.INFO, "so this agent only watches"),
        (TurnView(TurnState.UNKNOWN, mine=False, problem="away"), Severity.WARN, "so this agent does not act: away"),
    ],
)
def test_what_the_kms_does_not_say_about_turns_is_a_finding(turn: TurnView, severity: Severity, says: str) -> None:
    (finding,) = _of(decide(replace(_observation(), turn=turn)).findings, Rule.LEASE_UNAVAILABLE)
    assert finding.severity is severity
    assert says in finding.message


def test_resting_for_a_budget_is_a_finding() -> None:
    tight = replace(_observation(), budgets=BudgetView(exceeded="more than 600 calls a minute to HDFS were due"))
    (finding,) = _of(decide(tight).findings, Rule.OVER_BUDGET)
    assert "more than 600 calls" in finding.message
    assert not _of(decide(_observation()).findings, Rule.OVER_BUDGET)


def test_refused_renames_are_told_the_newest_of_each_source() -> None:
    refused = tuple(RefusedRename(f"at {n}", "/a/f", f"/a/f can't be moved {n}", "host") for n in range(3))
    (finding,) = _of(decide(replace(_observation(), refused=refused)).findings, Rule.RENAME_REFUSED)
    assert "at 2" in finding.message
