"""Past accesses against a policy: what is certain, what is possible, and what is not judged."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import pytest

from ringfence_zones.findings import Rule, Severity
from ringfence_zones.flow_labels import Kind
from ringfence_zones.memberships import Memberships
from ringfence_zones.policy import Policy, policy_from_json
from ringfence_zones.replay.access import Access, KmsAccess, NameNodeAccess, Outcome
from ringfence_zones.replay.judge import UNNAMED, Judge, Refusal

ZONES: list[dict[str, Any]] = [
    {"path": "/pii", "key": "pii", "readers": ["ann", "masker"], "writers": ["etl"]},
    {"path": "/masked", "key": "masked", "readers": ["*"], "writers": ["masker", "ann"]},
    {"path": "/team", "key": "team", "readers": ["@team"], "writers": ["etl"], "group": "load", "mode": "0770"},
]
FLOWS = [{"from": "/pii", "to": "/masked", "who": ["masker"]}]
KMS = {"namenode_users": ["hdfs"], "admins": ["admin", "@keyadmins"]}


def _policy(**top: Any) -> Policy:
    document: dict[str, Any] = {"version": 1, "cluster": "c", "zones": ZONES, "kms": KMS, **top}
    return policy_from_json({name: value for name, value in document.items() if value is not None})


def _kms(op: str, key: str | None, user: str | None, **more: Any) -> KmsAccess:
    known: dict[str, Any] = {"outcome": Outcome.DONE, "session": user, "time_s": 0.0, "time": "t"}
    return KmsAccess(op=op, key=key, user=user, **(known | more))


def _nn(op: str, src: str, user: str, dst: str | None = None, **more: Any) -> NameNodeAccess:
    known: dict[str, Any] = {"outcome": Outcome.DONE, "session": user, "time_s": 0.0, "time": "t"}
    return NameNodeAccess(op=op, src=src, dst=dst, user=user, **(known | more))


def _judge(
    accesses: Iterable[Access], policy: Policy | None = None, members: Memberships | None = None
) -> tuple[list[Refusal], Judge]:
    judge = Judge(policy or _policy(), members, 600)
    return [refusal for access in accesses for refusal, _ in judge.judge(access)], judge


def _words(refusals: Iterable[Refusal]) -> list[str]:
    return [f"{'certain' if each.certain else 'possible'} {each.rule.value} {each.zone}" for each in refusals]


NO_GROUPS: Mapping[str, frozenset[str]] = {}


@pytest.mark.parametrize(
    ("op", "key", "user", "told"),
    [
        ("DECRYPT_EEK", "pii", "ann", []),
        ("DECRYPT_EEK", "pii", "etl", []),
        ("DECRYPT_EEK", "pii", "bob", ["certain access_refused /pii"]),
        ("DECRYPT_EEK", "pii", "hdfs", ["certain access_refused /pii"]),
        ("DECRYPT_EEK", "masked", "anybody", []),
        ("DECRYPT_EEK", "team", "bob", ["possible access_refused /team"]),
        ("GENERATE_EEK", "pii", "hdfs", []),
        ("GENERATE_EEK", "pii", "etl", ["certain access_refused /pii"]),
        ("REENCRYPT_EEK", "pii", "hdfs", []),
        ("REENCRYPT_EEK_BATCH", "pii", "etl", ["certain access_refused /pii"]),
        ("ROLL_NEW_VERSION", "pii", "admin", []),
        ("ROLL_NEW_VERSION", "pii", "etl", ["possible access_refused /pii"]),
        ("CREATE_KEY", "pii", "etl", ["possible access_refused /pii"]),
        ("DELETE_KEY", "pii", "admin", []),
        ("INVALIDATE_CACHE", "pii", "etl", ["possible access_refused /pii"]),
        ("GET_METADATA", "pii", "hdfs", []),
        ("GET_METADATA", "pii", "etl", ["possible access_refused /pii"]),
        ("GET_KEY_VERSION", "pii", "admin", ["certain access_refused /pii"]),
        ("GET_KEY_VERSIONS", "pii", "admin", ["certain access_refused /pii"]),
        ("GET_CURRENT_KEY", "pii", "admin", ["certain access_refused /pii"]),
        ("GET_KEYS", None, "bob", []),
        ("PUBLISH_POLICY", None, "bob", []),
        ("GET_KEY_VERSION", "other", "bob", []),
    ],
)
def test_each_operation_of_a_kms_needs_its_grant(op: str, key: str | None, user: str, told: list[str]) -> None:
    refusals, _ = _judge([_kms(op, key, user)], _policy(flows=None))
    assert _words(refusals) == told


def test_groups_that_are_known_make_it_certain() -> None:
    access = _kms("DECRYPT_EEK", "team", "bob")
    assert _words(_judge([access], members=NO_GROUPS)[0]) == ["certain access_refused /team"]
    assert _words(_judge([access], members={"bob": frozenset({"team"})})[0]) == []
    (possible,) = _judge([access])[0]
    assert possible.why == "no right to DECRYPT_EEK on its key, unless in @load or @team"


def test_what_was_refused_then_or_only_begun_is_not_judged() -> None:
    accesses = [
        _kms("DECRYPT_EEK", "pii", "bob", outcome=Outcome.FAILED),
        _kms("ROLL_NEW_VERSION", "pii", "bob", outcome=Outcome.OTHER),
        _nn("open", "/pii/f", "bob", outcome=Outcome.FAILED),
    ]
    refusals, judge = _judge(accesses)
    assert refusals == []
    assert (judge.counts.failed, judge.counts.other, judge.counts.judged) == (2, 1, 0)


def test_without_a_kms_block_only_reading_and_writing_is_judged() -> None:
    policy = _policy(kms=None)
    assert _judge([_kms("GENERATE_EEK", "pii", "etl"), _kms("DELETE_KEY", "pii", "x")], policy)[0] == []
    assert len(_judge([_kms("DECRYPT_EEK", "pii", "bob"), _kms("GET_KEY_VERSION", "pii", "x")], policy)[0]) == 2


def test_counts_of_merged_lines_are_passed_on() -> None:
    judge = Judge(_policy(), None, 600)
    ((_, count),) = judge.judge(_kms("DECRYPT_EEK", "pii", "bob", count=851))
    assert count == judge.counts.judged == 851


def test_keys_that_the_policy_does_not_name_are_counted_and_named() -> None:
    _, judge = _judge([_kms("DECRYPT_EEK", "old", "bob", count=3), _kms("DECRYPT_EEK", "pii", "ann")])
    assert (judge.counts.outside, judge.counts.judged) == (3, 1)
    assert judge.counts.other_keys == {"old": 3}


# Copies


def test_a_copy_that_a_kms_tells_exactly_is_certain_in_both_orders() -> None:
    opens = [("pii", Kind.READ), ("masked", Kind.WRITE)]
    for order in (opens, opens[::-1]):
        accesses = [_kms("DECRYPT_EEK", key, "ann", opened=opened) for key, opened in order]
        (refusal,) = _judge(accesses, _policy(flows=FLOWS))[0]
        assert (refusal.rule, refusal.certain) == (Rule.FLOW_REFUSED, True)
        assert (refusal.zone, refusal.to) == ("/pii", "/masked")
        assert refusal.why == "no flow from /pii to /masked for ann"
    masker = [_kms("DECRYPT_EEK", key, "masker", opened=opened) for key, opened in opens]
    assert _judge(masker, _policy(flows=FLOWS))[0] == []


def test_a_copy_that_is_only_guessed_is_possible() -> None:
    accesses = [_kms("DECRYPT_EEK", key, "ann") for key in ("pii", "masked")]
    (refusal,) = _judge(accesses, _policy(flows=FLOWS))[0]
    assert (refusal.certain, refusal.directed, refusal.zone, refusal.to) == (False, False, "/masked", "/pii")
    assert refusal.why == "no flow between /masked and /pii for ann; the log does not tell a copy from two reads"
    masker = [_kms("DECRYPT_EEK", key, "masker") for key in ("pii", "masked")]
    refusals, judge = _judge(masker, _policy(flows=FLOWS))
    assert (refusals, judge.sessions.undecided) == ([], 1)


def test_without_flows_no_copy_is_judged() -> None:
    accesses = [_kms("DECRYPT_EEK", key, "ann") for key in ("pii", "masked")]
    assert _judge(accesses, _policy(flows=None))[0] == []


def test_a_key_that_the_policy_does_not_name_is_a_zone_without_edges() -> None:
    accesses = [
        _kms("DECRYPT_EEK", "pii", "masker", opened=Kind.READ),
        _kms("DECRYPT_EEK", "old", "masker", opened=Kind.WRITE),
    ]
    (refusal,) = _judge(accesses, _policy(flows=FLOWS))[0]
    assert (refusal.certain, refusal.zone, refusal.to) == (True, "/pii", UNNAMED)


def test_an_opening_that_is_refused_leaves_nothing_to_carry() -> None:
    accesses = [
        _kms("DECRYPT_EEK", "pii", "bob", opened=Kind.READ),
        _kms("DECRYPT_EEK", "masked", "bob", opened=Kind.WRITE),
    ]
    assert _words(_judge(accesses, _policy(flows=[]))[0]) == ["certain access_refused /pii"]


def test_a_group_on_an_edge_makes_a_refusal_possible() -> None:
    zones = [{**ZONES[0], "readers": ["@maskers", "ann"]}, {**ZONES[1], "writers": ["@maskers"]}]
    policy = _policy(zones=zones, flows=[{"from": "/pii", "to": "/masked", "who": ["@maskers"]}])
    accesses = [_nn("open", "/pii/f", "ann"), _nn("create", "/masked/f", "ann")]
    flows = [each for each in _judge(accesses, policy)[0] if each.rule is Rule.FLOW_REFUSED]
    assert [(each.certain, each.why) for each in flows] == [
        (False, "no flow from /pii to /masked for ann, unless in @maskers; `open` may have asked where blocks are")
    ]
    assert _judge(accesses, policy, {"ann": frozenset({"maskers"})})[0] == []


# The NameNode's log


@pytest.mark.parametrize(
    ("op", "src", "user", "told"),
    [
        ("open", "/pii/d/f", "ann", []),
        ("open", "/pii/d/f", "bob", ["certain access_refused /pii"]),
        ("open", "/pii/.snapshot/s1/f", "bob", ["certain access_refused /pii"]),
        # HDFS asks its superuser for no right.
        ("open", "/pii/d/f", "hdfs", ["possible access_refused /pii"]),
        ("create", "/pii/d/f", "hdfs", ["certain access_refused /pii"]),
        # Cipher text: the KMS is not asked.
        ("open", "/.reserved/raw/pii/f", "bob", []),
        ("open", "/.reserved/.inodes/16392", "bob", []),
        ("open", "/elsewhere/f", "bob", []),
        ("open", "/pii2/f", "bob", []),
        ("create", "/pii/f", "etl", []),
        ("create", "/pii/f", "bob", ["certain access_refused /pii"]),
        # The KMS cannot tell a write from a read; HDFS's rights do, on what they were set on.
        ("create", "/pii/f", "ann", ["possible access_refused /pii"]),
        ("append", "/pii/f", "ann", []),
        ("getfileinfo", "/pii/f", "bob", []),
        ("delete", "/pii/f", "bob", []),
    ],
)
def test_files_are_opened_and_made_with_the_key_of_their_zone(op: str, src: str, user: str, told: list[str]) -> None:
    assert _words(_judge([_nn(op, src, user)])[0]) == told


@pytest.mark.parametrize(("members", "told"), [(None, ["possible"]), ({"bob": frozenset({"load"})}, [])])
def test_a_mode_that_lets_a_group_write_counts(members: Memberships | None, told: list[str]) -> None:
    refusals, _ = _judge([_nn("create", "/team/f", "bob")], members=members)
    assert [words.partition(" ")[0] for words in _words(refusals)] == told


@pytest.mark.parametrize(
    ("src", "dst", "told"),
    [
        ("/pii/a", "/pii/d/a", []),
        ("/pii/a", "/masked/a", [("zone_to_zone", True, "/pii", "/masked")]),
        ("/pii/a", "/user/etl/.Trash/Current/pii/a", [("zone_to_clear", True, "/pii", "clear text")]),
        ("/tmp/a", "/pii", [("clear_to_zone", True, "clear text", "/pii")]),
        ("/pii", "/old", [("zone_root", False, "/pii", "clear text")]),
        ("/", "/x", [("zone_root_ancestor", False, "clear text", "clear text")]),
        ("/tmp/a", "/tmp/b", []),
        # The NameNode treats raw paths as the ones that they show.
        ("/.reserved/raw/pii/a", "/.reserved/raw/pii/b", []),
        ("/.reserved/raw/pii/a", "/.reserved/raw/masked/b", [("zone_to_zone", True, "/pii", "/masked")]),
    ],
)
def test_renames_are_judged_as_every_move_is(src: str, dst: str, told: list[tuple[object, ...]]) -> None:
    refusals, _ = _judge([_nn("rename", src, "etl", dst)])
    assert [(each.rule.value, each.certain, each.zone, each.to) for each in refusals] == told


@pytest.mark.parametrize(
    ("src", "told"),
    [("/pii/a", []), ("/team/d/b", []), ("/pii", ["zone_root"]), ("/", ["zone_root_ancestor"]), ("/tmp/x", [])],
)
def test_what_goes_to_the_trash_goes_to_that_of_its_zone(src: str, told: list[str]) -> None:
    trash = f"/user/etl/.Trash/Current{src.rstrip('/')}"
    assert [each.rule.value for each in _judge([_nn("rename", src, "etl", trash, to_trash=True)])[0]] == told


def test_the_namenode_tells_reads_from_writes_but_not_whether_a_key_was_asked_for() -> None:
    policy = _policy(flows=FLOWS)
    copy = [_nn("open", "/pii/f", "ann"), _nn("create", "/masked/f._COPYING_", "ann")]
    for order in (copy, copy[::-1]):
        (refusal,) = _judge(order, policy)[0]
        assert (refusal.rule, refusal.zone, refusal.to) == (Rule.FLOW_REFUSED, "/pii", "/masked")
        assert (refusal.certain, refusal.directed) == (False, True)
    reads = [_nn("open", "/pii/f", "ann"), _nn("open", "/masked/f", "ann")]
    assert _judge(reads, policy)[0] == []


def test_findings_say_how_often_and_where() -> None:
    (refusal,) = _judge([_nn("open", "/pii/f", "bob")])[0]
    finding = refusal.to_finding(3, "hdfs-audit.log:7")
    assert (finding.severity, finding.rule, finding.path) == (Severity.ERROR, Rule.ACCESS_REFUSED, "hdfs-audit.log:7")
    assert finding.message == ("bob: open in /pii would have been refused 3 times: no right to DECRYPT_EEK on its key")
    (possible,) = _judge([_nn("create", "/pii/f", "ann")])[0]
    assert possible.to_finding(1, "x:1").severity is Severity.WARN
    assert "may have been refused once" in possible.to_finding(1, "x:1").message
