"""The plan: from an observed cluster and a policy to ordered changes and the problems that stand in the way. Pure.

Rules:

1. Order: every `create_key`, then one `publish_policy`, then zone by zone `make_directory`, `create_zone`,
   `provision_trash`, `set_rights`; a zone before the zones nested in it. No clear file can slip in, and nobody can
   read before the KMS knows who may.
2. A plan made after a plan was carried out is empty. Nothing is ever taken away: zones outside the policy are left
   to `check`.
3. One key per zone: a key that any other zone of the cluster uses is a problem, never an action.
4. A zone with a problem gets no action; a problem of severity error stops `apply` before its first step. Each names
   a way out that works today.
5. A key that is there before its zone is not trusted: key names can be guessed, and whoever made it may know its
   material. It is rolled after the publication, which closes GET, and before the zone's first EDEK.
6. Action ids depend on what is done to what, so the same change has the same id in every plan.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from ringfence_zones.custody import CUSTODY_ATTRIBUTE
from ringfence_zones.findings import Finding, Severity
from ringfence_zones.keys import DEFAULT_CIPHER
from ringfence_zones.model import ClusterState, KmsState
from ringfence_zones.plan_problems import find_problems
from ringfence_zones.policy import Policy, ZonePolicy, canonical_json, policy_digest
from ringfence_zones.rights import DirectoryRights, find_differences, zone_rights

PLAN_SCHEMA = 1
TRASH_MODE = 0o1777


class ActionKind(enum.StrEnum):
    """What an action does."""

    CREATE_KEY = "create_key"
    PUBLISH_POLICY = "publish_policy"
    MAKE_DIRECTORY = "make_directory"
    CREATE_ZONE = "create_zone"
    PROVISION_TRASH = "provision_trash"
    SET_RIGHTS = "set_rights"


@dataclass(frozen=True, slots=True, kw_only=True)
class Action:
    """One change. `path` and `key` are the zone's; both are None for `publish_policy`, which concerns all.

    `detail` is JSON and depends on the kind:

    - create_key: `length_bits`, `cipher`, `attributes`
    - publish_policy: `expected_revision`, `digest`
    - make_directory: `mode`
    - create_zone: `roll_key`: the key was there before, so it gets a new version that nobody has seen
    - provision_trash: `mode`
    - set_rights: `owner` and `group` (null: left as they are), `mode` (octal text), `acl` (a list in the form of
      `DirectoryState.acl`; the mask is HDFS's own union), `differences` (sentences; empty for a new directory)
    """

    kind: ActionKind
    path: str | None
    key: str | None
    detail: Mapping[str, Any] = field(default_factory=dict)

    @property
    def id(self) -> str:
        """`KIND:WHAT`; the same change has the same id in every plan."""
        what = self.key if self.kind is ActionKind.CREATE_KEY else self.path
        return f"{self.kind.value}:{what}" if what is not None else self.kind.value

    def to_json(self) -> dict[str, Any]:
        """The JSON object of contracts, section 1."""
        return {
            "id": self.id,
            "kind": self.kind.value,
            "path": self.path,
            "key": self.key,
            "detail": dict(self.detail),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Ordered actions, problems, and the policy they come from.

    `revision` is the published revision the plan was made against: 0 before the first, None on a stock KMS or when
    the KMS did not answer. `policy_json` is what `publish_policy` publishes.
    """

    revision: int | None
    actions: tuple[Action, ...]
    problems: tuple[Finding, ...]
    policy_json: bytes

    @property
    def refusals(self) -> tuple[Finding, ...]:
        """The problems that `apply` does not pass."""
        return tuple(problem for problem in self.problems if problem.severity is Severity.ERROR)

    @property
    def is_empty(self) -> bool:
        """Nothing to do and nothing in the way."""
        return not self.actions and not self.problems

    def to_json(self) -> dict[str, Any]:
        """The JSON object of contracts, section 1; `plan.schema.json` describes it."""
        return {
            "schema": PLAN_SCHEMA,
            "revision": self.revision,
            "actions": [action.to_json() for action in self.actions],
            "problems": [problem.to_json() for problem in self.problems],
        }


def make_plan(policy: Policy, state: ClusterState) -> Plan:
    """What would make the cluster as the policy says."""
    problems = tuple(find_problems(policy, state))
    errors = [problem for problem in problems if problem.severity is Severity.ERROR]
    blocked = {problem.path for problem in errors}
    actions: list[Action] = []
    # A problem without a key is one of the whole: nothing can be planned then.
    if state.kms is not None and all(problem.key is not None for problem in errors):
        zones = [zone for zone in policy.zones if zone.path not in blocked]
        actions += _key_actions(zones, state.kms)
        actions += _publication(policy, state.kms)
        for zone in zones:
            actions += _zone_actions(zone, state)
    return Plan(
        revision=state.kms.revision if state.kms is not None else None,
        actions=tuple(actions),
        problems=problems,
        policy_json=canonical_json(policy),
    )


def _key_actions(zones: Iterable[ZonePolicy], kms: KmsState) -> Iterator[Action]:
    for zone in zones:
        if zone.key not in kms.keys:
            detail = {
                "length_bits": zone.length_bits,
                "cipher": DEFAULT_CIPHER,
                "attributes": {CUSTODY_ATTRIBUTE: zone.custody},
            }
            yield Action(kind=ActionKind.CREATE_KEY, path=zone.path, key=zone.key, detail=detail)


def _publication(policy: Policy, kms: KmsState) -> Iterator[Action]:
    digest = policy_digest(policy)
    if kms.is_ringfence and kms.revision_digest != digest:
        detail = {"expected_revision": kms.revision or 0, "digest": digest}
        yield Action(kind=ActionKind.PUBLISH_POLICY, path=None, key=None, detail=detail)


def _zone_actions(zone: ZonePolicy, state: ClusterState) -> Iterator[Action]:
    directory = state.directories.get(zone.path)
    if directory is None:
        yield _action(ActionKind.MAKE_DIRECTORY, zone, {"mode": "0700"})
    if state.zone_at(zone.path) is None:
        yield _action(ActionKind.CREATE_ZONE, zone, {"roll_key": state.kms is not None and zone.key in state.kms.keys})
    if zone.trash == "provision" and (directory is None or directory.trash_mode != TRASH_MODE):
        yield _action(ActionKind.PROVISION_TRASH, zone, {"mode": f"{TRASH_MODE:04o}"})
    wanted = zone_rights(zone)
    if directory is None:
        yield _action(ActionKind.SET_RIGHTS, zone, _rights_detail(wanted, ()))
        return
    differences = find_differences(wanted, directory)
    if differences:
        yield _action(ActionKind.SET_RIGHTS, zone, _rights_detail(wanted, differences))


def _rights_detail(wanted: DirectoryRights, differences: tuple[str, ...]) -> dict[str, Any]:
    return {
        "owner": wanted.owner,
        "group": wanted.group,
        "mode": f"{wanted.mode:04o}",
        "acl": list(wanted.acl),
        "differences": list(differences),
    }


def _action(kind: ActionKind, zone: ZonePolicy, detail: Mapping[str, Any]) -> Action:
    return Action(kind=kind, path=zone.path, key=zone.key, detail=detail)
