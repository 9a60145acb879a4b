"""The order and the failures of `apply`, against hands that only take notes."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import pytest

from ringfence_zones.apply import Boundary, Moment, apply_plan
from ringfence_zones.errors import (
    HdfsError,
    KeyExistsError,
    KmsUnavailableError,
    PlanRefusedError,
    RevisionConflictError,
)
from ringfence_zones.findings import Finding, Rule, Severity
from ringfence_zones.hdfs_interface import Hdfs
from ringfence_zones.keys import KeyMetadata
from ringfence_zones.kms_admin import AdminClient, Publication
from ringfence_zones.kms_client import KmsClient
from ringfence_zones.plan import Action, ActionKind, Plan

KEY_DETAIL = {"length_bits": 256, "cipher": "AES/CTR/NoPadding", "attributes": {"ringfence.custody": "envelope"}}
RIGHTS_DETAIL = {"owner": "etl", "group": None, "mode": "0750", "acl": ["user:a:r-x"], "differences": []}
PUBLISH = Action(
    kind=ActionKind.PUBLISH_POLICY, path=None, key=None, detail={"expected_revision": 4, "digest": "right"}
)


@dataclass
class Notes:
    """HDFS, KMS and admin endpoint in one: writes down what was called, fails where told to."""

    calls: list[tuple[Any, ...]] = field(default_factory=list)
    errors: dict[tuple[Any, ...], Exception] = field(default_factory=dict)
    keys: dict[str, KeyMetadata] = field(default_factory=dict)
    published: Publication = field(default_factory=lambda: Publication(5, "right"))

    def _note(self, *call: Any) -> None:
        self.calls.append(call)
        if call[:2] in self.errors:
            raise self.errors[call[:2]]

    def create_key(self, name: str, length_bits: int, *, cipher: str, attributes: dict[str, str]) -> None:
        self._note("create_key", name, length_bits, cipher, attributes)

    def roll_key(self, name: str) -> str:
        self._note("roll_key", name)
        return f"{name}@1"

    def find_key(self, name: str) -> KeyMetadata | None:
        return self.keys.get(name)

    def publish(self, expected_revision: int, document: bytes) -> Publication:
        self._note("publish", expected_revision, document)
        return self.published

    def get_publication(self) -> Publication:
        return self.published

    def make_directory(self, path: str) -> None:
        self._note("make_directory", path)

    def create_zone(self, path: str, key_name: str) -> None:
        self._note("create_zone", path, key_name)

    def provision_trash(self, path: str) -> None:
        self._note("provision_trash", path)

    def set_rights(self, path: str, owner: str | None, group: str | None, mode: int, acl: Sequence[str]) -> None:
        self._note("set_rights", path, owner, group, mode, list(acl))


def zone_steps(path: str, *, roll_key: bool = False) -> list[Action]:
    key = f"k{path.replace('/', '-')}"
    details: dict[ActionKind, dict[str, Any]] = {
        ActionKind.CREATE_ZONE: {"roll_key": roll_key},
        ActionKind.SET_RIGHTS: RIGHTS_DETAIL,
    }
    kinds = (ActionKind.MAKE_DIRECTORY, ActionKind.CREATE_ZONE, ActionKind.PROVISION_TRASH, ActionKind.SET_RIGHTS)
    return [Action(kind=kind, path=path, key=key, detail=details.get(kind, {})) for kind in kinds]


def plan_of(*paths: str, publish: bool = True, problems: tuple[Finding, ...] = ()) -> Plan:
    keys = [
        Action(kind=ActionKind.CREATE_KEY, path=path, key=f"k{path.replace('/', '-')}", detail=KEY_DETAIL)
        for path in paths
    ]
    zones = [action for path in paths for action in zone_steps(path)]
    actions = (*keys, *([PUBLISH] if publish else []), *zones)
    return Plan(revision=4, actions=actions, problems=problems, policy_json=b'{"version":1}')


def run(plan: Plan, notes: Notes, on_step: Callable[[Boundary], None] = lambda _boundary: None) -> Any:
    return apply_plan(plan, cast(Hdfs, notes), cast(KmsClient, notes), cast(AdminClient, notes), on_step)


def finding(severity: Severity) -> Finding:
    return Finding(severity=severity, rule=Rule.DIRECTORY_NOT_EMPTY, path="/a", message="m", hint="h")


def test_keys_come_first_then_the_revision_then_each_zone_in_the_order_that_lets_no_clear_file_in() -> None:
    notes = Notes()
    result = run(plan_of("/a"), notes)
    assert notes.calls == [
        ("create_key", "k-a", 256, "AES/CTR/NoPadding", {"ringfence.custody": "envelope"}),
        ("publish", 4, b'{"version":1}'),
        ("make_directory", "/a"),
        ("create_zone", "/a", "k-a"),
        ("provision_trash", "/a"),
        ("set_rights", "/a", "etl", None, 0o750, ["user:a:r-x"]),
    ]
    assert result.is_complete
    assert result.revision == 5
    assert result.done == plan_of("/a").actions


def test_no_zone_is_begun_before_every_key_was_tried_and_the_policy_published() -> None:
    notes = Notes()
    run(plan_of(*(f"/z{number}" for number in range(40))), notes)
    kinds = [call[0] for call in notes.calls]
    assert set(kinds[:40]) == {"create_key"}
    assert kinds[40] == "publish"
    for number in range(40):
        own = [call[0] for call in notes.calls[41:] if call[1] == f"/z{number}"]
        assert own == ["make_directory", "create_zone", "provision_trash", "set_rights"]


def test_independent_zones_are_under_way_together() -> None:
    both = threading.Barrier(2, timeout=10)

    def meet(boundary: Boundary) -> None:
        if boundary.action.kind is ActionKind.CREATE_ZONE and boundary.moment is Moment.BEFORE:
            both.wait()

    assert run(plan_of("/a", "/b"), Notes(), meet).is_complete


def test_a_nested_zone_begins_after_the_zone_around_it_is_finished() -> None:
    notes = Notes()
    run(plan_of("/a", "/a/b", "/a/b/c", "/ab"), notes)
    order = [(call[0], call[1]) for call in notes.calls]
    for outer, inner in (("/a", "/a/b"), ("/a/b", "/a/b/c")):
        assert order.index(("make_directory", inner)) > order.index(("set_rights", outer))


def test_every_boundary_of_every_step_is_seen_once() -> None:
    seen: list[tuple[str, str]] = []
    lock = threading.Lock()

    def on_step(boundary: Boundary) -> None:
        with lock:
            seen.append((boundary.moment.value, boundary.action.id))

    plan = plan_of("/a", "/b")
    run(plan, Notes(), on_step)
    assert sorted(seen) == sorted((moment, action.id) for action in plan.actions for moment in ("before", "after"))


def test_one_zones_failure_does_not_stop_the_others() -> None:
    notes = Notes(errors={("create_zone", "/a"): HdfsError("no")})
    result = run(plan_of("/a", "/b"), notes)
    assert [failure.action.id for failure in result.failed] == ["create_zone:/a"]
    assert [action.id for action in result.not_attempted] == ["provision_trash:/a", "set_rights:/a"]
    assert "set_rights:/b" in [action.id for action in result.done]
    assert not result.is_complete


def test_a_directory_whose_zone_failed_is_never_opened() -> None:
    notes = Notes(errors={("create_zone", "/a"): HdfsError("no")})
    run(plan_of("/a"), notes)
    assert "set_rights" not in [call[0] for call in notes.calls]


def test_a_zone_without_its_key_is_not_begun_nor_what_is_nested_in_it() -> None:
    notes = Notes(errors={("create_key", "k-a"): KmsUnavailableError("down")})
    result = run(plan_of("/a", "/a/b", "/c"), notes)
    touched = {call[1] for call in notes.calls if call[0] not in ("create_key", "publish")}
    assert touched == {"/c"}
    assert len(result.not_attempted) == 8


def test_nothing_is_made_in_hdfs_when_publishing_failed() -> None:
    notes = Notes(errors={("publish", 4): KmsUnavailableError("down")})
    result = run(plan_of("/a", "/b"), notes)
    assert [call[0] for call in notes.calls] == ["create_key", "create_key", "publish"]
    assert [failure.action.id for failure in result.failed] == ["publish_policy"]


@pytest.mark.parametrize(
    ("length_bits", "attributes", "told"),
    [
        (256, {}, None),
        (256, {"ringfence.custody": "envelope"}, None),
        (128, {}, "with 128 bits in custody envelope, not AES/CTR/NoPadding with 256 bits"),
        (256, {"ringfence.custody": "transit"}, "in custody transit, not"),
    ],
)
def test_a_key_made_meanwhile_is_fine_only_when_it_is_the_key_asked_for(
    length_bits: int, attributes: dict[str, str], told: str | None
) -> None:
    notes = Notes(errors={("create_key", "k-a"): KeyExistsError("k-a", "kms")})
    notes.keys["k-a"] = KeyMetadata("k-a", "AES/CTR/NoPadding", length_bits, 1, 1, attributes=attributes)
    result = run(plan_of("/a"), notes)
    assert result.is_complete == (told is None)
    if told is not None:
        assert told in result.failed[0].error.message


def test_a_key_that_somebody_else_made_is_rolled_after_the_publication_and_before_its_zone() -> None:
    # Planned, and in a race: key names can be guessed, so whoever made one may know its material.
    raced = Notes(errors={("create_key", "k-a"): KeyExistsError("k-a", "kms")})
    raced.keys["k-a"] = KeyMetadata("k-a", "AES/CTR/NoPadding", 256, 1, 1)
    assert run(plan_of("/a"), raced).is_complete
    planned = Notes()
    actions = (PUBLISH, *zone_steps("/a", roll_key=True))
    assert run(Plan(revision=4, actions=actions, problems=(), policy_json=b"{}"), planned).is_complete
    for notes in (raced, planned):
        kinds = [call[0] for call in notes.calls]
        assert kinds.index("publish") < kinds.index("roll_key") < kinds.index("create_zone")


def test_a_zone_whose_key_cannot_be_rolled_is_not_made() -> None:
    notes = Notes(errors={("roll_key", "k-a"): KmsUnavailableError("down")})
    actions = (PUBLISH, *zone_steps("/a", roll_key=True))
    result = run(Plan(revision=4, actions=actions, problems=(), policy_json=b"{}"), notes)
    assert [failure.action.id for failure in result.failed] == ["create_zone:/a"]
    assert "create_zone" not in [call[0] for call in notes.calls]


@pytest.mark.parametrize(("digest", "complete"), [("right", True), ("another", False)])
def test_a_lost_compare_and_set_is_fine_only_when_this_very_policy_won(digest: str, complete: bool) -> None:
    notes = Notes(errors={("publish", 4): RevisionConflictError(4, 7)}, published=Publication(7, digest))
    result = run(plan_of("/a"), notes)
    assert result.is_complete == complete
    assert result.revision == (7 if complete else None)


def test_a_plan_with_an_error_changes_nothing() -> None:
    notes = Notes()
    with pytest.raises(PlanRefusedError) as caught:
        run(plan_of("/a", problems=(finding(Severity.WARN), finding(Severity.ERROR))), notes)
    assert notes.calls == []
    assert [found.severity for found in caught.value.findings] == [Severity.ERROR]


def test_a_warning_stops_nothing() -> None:
    assert run(plan_of("/a", problems=(finding(Severity.WARN),)), Notes()).is_complete


def test_an_unexpected_exception_is_not_swallowed() -> None:
    notes = Notes(errors={("create_zone", "/a"): ZeroDivisionError()})
    with pytest.raises(ZeroDivisionError):
        run(plan_of("/a", "/b"), notes)
