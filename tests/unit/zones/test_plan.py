"""The planner, against clusters made of plain values."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from ringfence_zones.cli.plan import print_plan
from ringfence_zones.findings import Rule, Severity
from ringfence_zones.keys import KeyMetadata
from ringfence_zones.model import ClusterState, DirectoryState, EncryptionZone, KmsState
from ringfence_zones.plan import ActionKind, Plan, make_plan
from ringfence_zones.policy import Policy, canonical_json, policy_digest, policy_from_json
from ringfence_zones.rights import zone_rights

KMS_USERS = {"namenode_users": ["hdfs"], "admins": ["hdfs"]}


def _policy(*zones: dict[str, Any], **top: Any) -> Policy:
    return policy_from_json({"version": 1, "cluster": "c", "kms": KMS_USERS, "zones": list(zones), **top})


def _directory(path: str, **fields: Any) -> DirectoryState:
    values: dict[str, Any] = {
        "is_directory": True,
        "is_empty": True,
        "owner": "hdfs",
        "group": "supergroup",
        "mode": 0o700,
        "group_bits": 0,
    }
    return DirectoryState(path=path, **{**values, **fields})


def _state(**fields: Any) -> ClusterState:
    kms = fields.pop("kms", {})
    values: dict[str, Any] = {
        "hadoop_version": (3, 4, 2),
        "zones": (),
        "directories": {},
        "protected_directories": (),
        "kms": None
        if kms is None
        else KmsState(
            **{
                "uri": "kms://http@localhost:9600/kms",
                "plain_http": True,
                "is_ringfence": True,
                "revision": 0,
                "revision_digest": None,
                "keys": {},
                "custodies": ("envelope",),
                **kms,
            }
        ),
    }
    return ClusterState(**{**values, **fields})


def _key(name: str, bits: int = 256) -> KeyMetadata:
    return KeyMetadata(name, "AES/CTR/NoPadding", bits, 0, 1)


def _carried_out(plan: Plan, policy: Policy, state: ClusterState) -> ClusterState:
    """The cluster after every action, done by hand."""
    keys, zones, directories = dict(state.kms.keys if state.kms else {}), list(state.zones), dict(state.directories)
    revision: dict[str, Any] = {}
    for action in plan.actions:
        path, key, detail = str(action.path), str(action.key), action.detail
        match action.kind:
            case ActionKind.CREATE_KEY:
                assert key not in keys
                keys[key] = _key(key, detail["length_bits"])
            case ActionKind.PUBLISH_POLICY:
                assert state.kms is not None
                assert detail["expected_revision"] == state.kms.revision
                revision = {"revision": detail["expected_revision"] + 1, "revision_digest": detail["digest"]}
            case ActionKind.MAKE_DIRECTORY:
                assert path not in directories
                directories[path] = _directory(path)
            case ActionKind.CREATE_ZONE:
                assert key in keys
                assert directories[path].is_empty
                zones.append(EncryptionZone(path, key))
            case ActionKind.PROVISION_TRASH:
                directories[path] = dataclasses.replace(directories[path], trash_mode=0o1777, is_empty=False)
            case ActionKind.SET_RIGHTS:
                wanted = policy.find_zone(path)
                assert wanted is not None
                rights = zone_rights(wanted)
                named = any(not entry.startswith("default:") for entry in rights.acl)
                directories[path] = dataclasses.replace(
                    directories[path],
                    owner=detail["owner"] or "hdfs",
                    group=detail["group"] or "supergroup",
                    mode=int(detail["mode"], 8) | (0o070 if named else 0),
                    group_bits=rights.group_bits,
                    acl=tuple(detail["acl"]),
                )
    assert state.kms is not None
    kms = dataclasses.replace(state.kms, keys=keys, **revision)
    return dataclasses.replace(state, kms=kms, zones=tuple(sorted(zones)), directories=directories)


ZONES = (
    {"path": "/data/pii/inner", "nested": True, "mode": "0750"},
    {"path": "/data/pii", "owner": "etl", "group": "pii", "mode": "0750", "readers": ["r"], "writers": ["w"]},
    {"path": "/data/b", "readers": ["*"], "writers": ["w"]},
)


def test_keys_come_first_then_the_policy_then_zone_by_zone_with_parents_before_nested() -> None:
    plan = make_plan(_policy(*ZONES), _state())
    assert [action.id for action in plan.actions] == [
        "create_key:c-data-b",
        "create_key:c-data-pii",
        "create_key:c-data-pii-inner",
        "publish_policy",
        *(f"{kind}:/data/b" for kind in ("make_directory", "create_zone", "provision_trash", "set_rights")),
        *(f"{kind}:/data/pii" for kind in ("make_directory", "create_zone", "provision_trash", "set_rights")),
        *(f"{kind}:/data/pii/inner" for kind in ("make_directory", "create_zone", "provision_trash", "set_rights")),
    ]
    assert plan.problems == ()
    assert plan.revision == 0


def test_the_plan_after_a_plan_was_carried_out_is_empty() -> None:
    policy, state = _policy(*ZONES), _state()
    plan = make_plan(policy, state)
    again = make_plan(policy, _carried_out(plan, policy, state))
    assert again.is_empty
    assert again.revision == 1


@pytest.mark.parametrize("done", range(16))
def test_after_an_interruption_the_next_plan_is_the_rest_and_nothing_else(done: int) -> None:
    policy, state = _policy(*ZONES), _state()
    plan = make_plan(policy, state)
    assert len(plan.actions) == 16
    first = dataclasses.replace(plan, actions=plan.actions[:done])
    rest = make_plan(policy, _carried_out(first, policy, state))
    assert rest.problems == ()
    assert [action.id for action in rest.actions] == [action.id for action in plan.actions[done:]]


def test_a_key_that_is_there_before_its_zone_is_planned_to_be_rolled() -> None:
    policy = _policy(*ZONES)
    plan = make_plan(policy, _state(kms={"keys": {"c-data-b": _key("c-data-b")}}))
    rolled = {
        action.path: action.detail["roll_key"] for action in plan.actions if action.kind is ActionKind.CREATE_ZONE
    }
    assert rolled == {"/data/b": True, "/data/pii": False, "/data/pii/inner": False}


def test_the_published_document_is_the_policys_canonical_json() -> None:
    policy = _policy(*ZONES)
    plan = make_plan(policy, _state(kms={"revision": 4, "revision_digest": "old"}))
    action = next(action for action in plan.actions if action.kind is ActionKind.PUBLISH_POLICY)
    assert plan.policy_json == canonical_json(policy)
    assert action.detail == {"expected_revision": 4, "digest": policy_digest(policy)}


def test_custody_travels_as_a_key_attribute() -> None:
    action = make_plan(_policy({"path": "/a", "length_bits": 128}), _state()).actions[0]
    assert action.to_json()["detail"] == {
        "length_bits": 128,
        "cipher": "AES/CTR/NoPadding",
        "attributes": {"ringfence.custody": "envelope"},
    }


def test_an_empty_directory_that_is_there_becomes_the_zone() -> None:
    plan = make_plan(_policy({"path": "/a"}), _state(directories={"/a": _directory("/a")}))
    kinds = [action.kind for action in plan.actions]
    assert ActionKind.MAKE_DIRECTORY not in kinds
    assert ActionKind.CREATE_ZONE in kinds
    assert plan.problems == ()


def test_trash_is_left_alone_when_policy_wants_none_and_mended_when_its_mode_is_wrong() -> None:
    zones = (EncryptionZone("/a", "c-a"),)
    state = _state(
        zones=zones, directories={"/a": _directory("/a", trash_mode=0o755)}, kms={"keys": {"c-a": _key("c-a")}}
    )
    none = make_plan(_policy({"path": "/a", "trash": "none"}), state)
    wanted = make_plan(_policy({"path": "/a"}), state)
    assert ActionKind.PROVISION_TRASH not in [action.kind for action in none.actions]
    assert ActionKind.PROVISION_TRASH in [action.kind for action in wanted.actions]


def test_rights_that_drifted_are_set_again_and_say_what_differed() -> None:
    directory = _directory("/a", owner="mallory", trash_mode=0o1777)
    state = _state(
        zones=(EncryptionZone("/a", "c-a"),), directories={"/a": directory}, kms={"keys": {"c-a": _key("c-a")}}
    )
    actions = make_plan(_policy({"path": "/a", "owner": "etl"}), state).actions
    rights = [action for action in actions if action.kind is ActionKind.SET_RIGHTS]
    assert rights[0].detail["differences"] == ["the owner is mallory, not etl"]


def test_nothing_is_published_to_a_stock_kms() -> None:
    state = _state(kms={"is_ringfence": False, "revision": None})
    plan = make_plan(policy_from_json({"version": 1, "cluster": "c", "zones": [{"path": "/a"}]}), state)
    assert ActionKind.PUBLISH_POLICY not in [action.kind for action in plan.actions]
    assert plan.problems == ()
    assert plan.revision is None


def test_zones_outside_the_policy_are_not_touched() -> None:
    state = _state(zones=(EncryptionZone("/other", "k"),), kms={"keys": {"k": _key("k")}})
    assert all(action.path != "/other" for action in make_plan(_policy({"path": "/a"}), state).actions)


# --- Problems -----------------------------------------------------------------------------------------------------


def _only_problem(policy: Policy, state: ClusterState) -> tuple[Rule, str, str, str | None]:
    plan = make_plan(policy, state)
    assert len(plan.problems) == 1, plan.problems
    problem = plan.problems[0]
    assert problem.severity is Severity.ERROR
    assert plan.refusals == plan.problems
    assert all(action.path != problem.path for action in plan.actions)
    return problem.rule, problem.path, problem.hint, problem.command


def test_a_directory_with_files_is_refused_with_a_way_to_get_them_in() -> None:
    state = _state(directories={"/my data": _directory("/my data", is_empty=False)})
    rule, path, hint, command = _only_problem(_policy({"path": "/my data"}), state)
    assert (rule, path) == (Rule.DIRECTORY_NOT_EMPTY, "/my data")
    assert "copy" in hint
    assert command == "hdfs dfs -mv '/my data' '/my data.before-encryption'"


def test_a_directory_that_holds_a_zone_is_not_offered_to_be_moved() -> None:
    state = _state(
        directories={"/a": _directory("/a", is_empty=False)},
        zones=(EncryptionZone("/a/b", "k"),),
        kms={"keys": {"k": _key("k")}},
    )
    rule, _, hint, command = _only_problem(_policy({"path": "/a"}), state)
    assert (rule, command) == (Rule.DIRECTORY_NOT_EMPTY, None)
    assert "holds no zone" in hint


def test_a_file_is_refused() -> None:
    state = _state(directories={"/a": _directory("/a", is_directory=False, is_empty=False)})
    assert _only_problem(_policy({"path": "/a"}), state)[0] is Rule.NOT_A_DIRECTORY


def test_a_zone_with_another_key_is_refused_and_the_key_to_write_is_named() -> None:
    state = _state(
        zones=(EncryptionZone("/a", "old"),),
        directories={"/a": _directory("/a", trash_mode=0o1777)},
        kms={"keys": {"old": _key("old")}},
    )
    rule, _, hint, _ = _only_problem(_policy({"path": "/a"}), state)
    assert rule is Rule.ZONE_KEY_MISMATCH
    assert "key: old" in hint


def test_a_key_of_another_zone_is_never_used_again() -> None:
    state = _state(zones=(EncryptionZone("/other", "k"),), kms={"keys": {"k": _key("k")}})
    rule, path, hint, _ = _only_problem(_policy({"path": "/a", "key": "k"}), state)
    assert (rule, path) == (Rule.SHARED_KEY, "/a")
    assert "remove 'key'" in hint


def test_zones_that_share_a_key_outside_the_policy_are_said_and_do_not_stop_it() -> None:
    zones = (EncryptionZone("/x", "k"), EncryptionZone("/y", "k"))
    plan = make_plan(_policy({"path": "/a"}), _state(zones=zones, kms={"keys": {"k": _key("k")}}))
    assert [(each.rule, each.severity) for each in plan.problems] == [(Rule.SHARED_KEY, Severity.WARN)]
    assert plan.refusals == ()
    assert plan.actions


def test_a_key_of_another_length_is_refused() -> None:
    rule, _, hint, _ = _only_problem(_policy({"path": "/a"}), _state(kms={"keys": {"c-a": _key("c-a", 128)}}))
    assert rule is Rule.KEY_LENGTH_MISMATCH
    assert "length_bits: 128" in hint


def test_a_zone_whose_key_is_gone_gets_no_new_key_of_that_name() -> None:
    state = _state(
        zones=(EncryptionZone("/a", "c-a"),), directories={"/a": _directory("/a", trash_mode=0o1777, is_empty=False)}
    )
    plan = make_plan(_policy({"path": "/a"}), state)
    assert [problem.rule for problem in plan.problems] == [Rule.KEY_MISSING]
    assert ActionKind.CREATE_KEY not in [action.kind for action in plan.actions]


def test_a_zone_inside_a_zone_of_the_cluster_must_say_so() -> None:
    state = _state(zones=(EncryptionZone("/data", "k"),), kms={"keys": {"k": _key("k")}})
    rule, _, hint, _ = _only_problem(_policy({"path": "/data/a"}), state)
    assert rule is Rule.NESTED_ZONE
    assert "nested: true" in hint
    assert make_plan(_policy({"path": "/data/a", "nested": True}), state).problems == ()


@pytest.mark.parametrize(
    ("top", "kms", "rule"),
    [
        ({"kms": None}, {}, Rule.MISSING_KMS),
        ({}, None, Rule.KMS_UNREACHABLE),
        ({"flows": []}, {"is_ringfence": False, "revision": None}, Rule.NEEDS_RINGFENCE_KMS),
        ({"flows": [], "flow_control": {"mode": "enforce"}}, {"revision": 0}, Rule.FLOWS_UNTRIED),
    ],
)
def test_what_concerns_the_whole_stops_everything(top: dict[str, Any], kms: Any, rule: Rule) -> None:
    document = {"version": 1, "cluster": "c", "kms": KMS_USERS, "zones": [{"path": "/a"}], **top}
    policy = policy_from_json({name: value for name, value in document.items() if value is not None})
    plan = make_plan(policy, _state(kms=kms))
    assert [problem.rule for problem in plan.problems] == [rule]
    assert plan.refusals
    assert plan.actions == ()


def test_the_json_is_json() -> None:
    assert json.loads(json.dumps(make_plan(_policy(*ZONES), _state()).to_json()))["schema"] == 1


@pytest.mark.parametrize(
    ("file", "named"),
    [("zones.yaml", "ringfence apply\n"), ("my policy.yaml", "ringfence apply -f 'my policy.yaml'\n")],
)
def test_a_plan_in_words_ends_with_the_command_that_applies_the_same_file(
    file: str, named: str, capsys: pytest.CaptureFixture[str]
) -> None:
    print_plan(make_plan(_policy(), _state()), Path(file))
    assert capsys.readouterr().out.endswith(named)


@pytest.mark.parametrize(("digest", "warned"), [("of another policy", ["/left"]), (None, [])])
def test_a_zone_that_a_published_policy_would_leave_out_is_told_and_hinders_nothing(
    digest: str | None, warned: list[str]
) -> None:
    state = _state(zones=(EncryptionZone("/left", "k"),), kms={"revision": 1, "revision_digest": digest})
    made = make_plan(_policy({"path": "/a"}), state)
    assert [problem.path for problem in made.problems if problem.rule is Rule.ZONE_OUTSIDE_POLICY] == warned
    assert not made.refusals
    assert made.actions
