"""Carries out a plan: keys, then the published revision, then the zones.

The order is what keeps clear files out (contracts 2): key, revision, closed directory, zone, trash, and the rights
that open the directory last. Rules:

1. A plan with an error among its problems is refused; nothing is done.
2. Every step may find its work already done, by an earlier run that was killed or by somebody else: that is success
   when what is there is what was asked for, and a failure that names the difference otherwise. So a killed run is
   finished by running the same command again.
3. Keys are made concurrently, then independent zones; the steps of one zone in order, a nested zone after the zone
   around it. One zone's failure does not stop the others. Without its key, or when publishing failed, a zone is not
   begun: nobody could use it, or the wrong people could.
4. `on_step` sees every boundary: before a step and after it. It is called from several threads.
"""

from __future__ import annotations

import enum
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import Any

from ringfence_zones.custody import custody_word
from ringfence_zones.errors import KeyExistsError, KmsError, PlanRefusedError, RevisionConflictError, RingfenceError
from ringfence_zones.hdfs_interface import Hdfs
from ringfence_zones.kms_admin import AdminClient
from ringfence_zones.kms_client import KmsClient
from ringfence_zones.plan import Action, ActionKind, Plan

# Calls wait for the NameNode's edit log and its KMS; more threads fill one log sync with more edits.
_THREADS = 16


class Moment(enum.StrEnum):
    """Which side of a step a boundary is on."""

    BEFORE = "before"
    AFTER = "after"


@dataclass(frozen=True, slots=True)
class Boundary:
    """A point between two steps: a process killed here is completed by a re-run."""

    moment: Moment
    action: Action


@dataclass(frozen=True, slots=True)
class Failure:
    """A step that failed, and why."""

    action: Action
    error: RingfenceError


@dataclass(frozen=True, slots=True)
class ApplyResult:
    """What became of each action, every list in plan order. `revision` is None unless one was published."""

    done: tuple[Action, ...]
    failed: tuple[Failure, ...]
    # Not begun, because a step they need is among the failed.
    not_attempted: tuple[Action, ...]
    revision: int | None

    @property
    def is_complete(self) -> bool:
        """Whether the cluster is now as the plan wanted it."""
        return not self.failed and not self.not_attempted


OnStep = Callable[[Boundary], None]
# Actions that follow each other: the steps of one zone, or a single one.
Steps = Sequence[Action]


def apply_plan(
    plan: Plan, hdfs: Hdfs, kms: KmsClient, admin: AdminClient | None, on_step: OnStep = lambda _boundary: None
) -> ApplyResult:
    """Carries out every action of `plan`. `admin` may be None when the plan publishes nothing.

    Raises PlanRefusedError before anything is changed; later errors are in the result.
    """
    if plan.refusals:
        raise PlanRefusedError("the plan has problems that have to be solved first; nothing was changed", plan.refusals)
    run = _Run(_Hands(plan, hdfs, kms, admin), on_step)
    run.in_parallel([action] for action in plan.actions if action.kind is ActionKind.CREATE_KEY)
    run.in_parallel([action] for action in plan.actions if action.kind is ActionKind.PUBLISH_POLICY)
    for level in _levels(_zones(plan.actions)):
        run.in_parallel(level)
    return run.result(plan.actions)


class _Run:
    """One execution: who failed so far, and what that holds back."""

    def __init__(self, hands: _Hands, on_step: OnStep) -> None:
        self._hands = hands
        self._on_step = on_step
        self._lock = threading.Lock()
        self._done: set[str] = set()
        self._failures: dict[str, Failure] = {}

    def in_parallel(self, sequences: Iterable[Steps]) -> None:
        """Each sequence in order, the sequences at the same time. An error outside our tree stops everything."""
        waiting = [steps for steps in sequences if self._may_begin(steps)]
        if not waiting:
            return
        with ThreadPoolExecutor(min(_THREADS, len(waiting)), thread_name_prefix="apply") as pool:
            futures = [pool.submit(self._attempt, steps) for steps in waiting]
            try:
                for future in wait(futures, return_when=FIRST_EXCEPTION).done:
                    future.result()
            except BaseException:
                # A bug, or Ctrl-C: begin nothing new. What was begun is finished by the next run.
                pool.shutdown(wait=False, cancel_futures=True)
                raise

    def result(self, actions: Sequence[Action]) -> ApplyResult:
        return ApplyResult(
            done=tuple(action for action in actions if action.id in self._done),
            failed=tuple(self._failures[action.id] for action in actions if action.id in self._failures),
            not_attempted=tuple(
                action for action in actions if action.id not in self._done and action.id not in self._failures
            ),
            revision=self._hands.revision,
        )

    def _attempt(self, steps: Steps) -> None:
        for action in steps:
            self._on_step(Boundary(Moment.BEFORE, action))
            try:
                self._hands.carry_out(action)
            except RingfenceError as error:
                with self._lock:
                    self._failures[action.id] = Failure(action, error)
                return
            with self._lock:
                self._done.add(action.id)
            self._on_step(Boundary(Moment.AFTER, action))

    def _may_begin(self, steps: Steps) -> bool:
        """Zones wait for the publication, for their own key and for the zones around them."""
        first = steps[0]
        if first.kind in (ActionKind.CREATE_KEY, ActionKind.PUBLISH_POLICY):
            return True
        failed = [failure.action for failure in self._failures.values()]
        if any(action.kind is ActionKind.PUBLISH_POLICY for action in failed):
            return False
        # A key's action carries the path of its zone, so this covers the zone's own key as well.
        return {action.path for action in failed}.isdisjoint({first.path, *_ancestors(first.path)})


class _Hands:
    """Does one action of each kind, or finds it done."""

    def __init__(self, plan: Plan, hdfs: Hdfs, kms: KmsClient, admin: AdminClient | None) -> None:
        self._plan = plan
        self._hdfs = hdfs
        self._kms = kms
        self._admin = admin
        self.revision: int | None = None
        self._made_by_others: set[str] = set()

    def carry_out(self, action: Action) -> None:
        kind, path, key = action.kind, action.path, action.key
        if kind is ActionKind.PUBLISH_POLICY:
            self._publish(action)
            return
        assert path is not None and key is not None, f"{action.id} concerns a zone"
        if kind is ActionKind.CREATE_KEY:
            self._create_key(key, action.detail)
        elif kind is ActionKind.MAKE_DIRECTORY:
            self._hdfs.make_directory(path)
        elif kind is ActionKind.CREATE_ZONE:
            if action.detail["roll_key"] or key in self._made_by_others:
                self._kms.roll_key(key)
            self._hdfs.create_zone(path, key)
        elif kind is ActionKind.PROVISION_TRASH:
            self._hdfs.provision_trash(path)
        else:
            rights = action.detail
            self._hdfs.set_rights(path, rights["owner"], rights["group"], int(rights["mode"], 8), rights["acl"])

    def _create_key(self, key: str, detail: Mapping[str, Any]) -> None:
        try:
            self._kms.create_key(
                key, detail["length_bits"], cipher=detail["cipher"], attributes=dict(detail["attributes"])
            )
        except KeyExistsError:
            found = self._kms.find_key(key)
            wanted = (detail["cipher"], detail["length_bits"], custody_word(detail["attributes"]))
            made = None if found is None else (found.cipher, found.length_bits, custody_word(found.attributes))
            if made in (None, wanted):
                self._made_by_others.add(key)
                return
            raise KmsError(
                f"the key {key} was made meanwhile as {_described(*made)}, not {_described(*wanted)}",
                hint="run the same command again to see what to do",
            ) from None

    def _publish(self, action: Action) -> None:
        assert self._admin is not None, "a plan that publishes needs the admin endpoint"
        try:
            published = self._admin.publish(action.detail["expected_revision"], self._plan.policy_json)
        except RevisionConflictError:
            # Somebody published in between: fine if it was this very policy.
            published = self._admin.get_publication()
            if published.digest != action.detail["digest"]:
                raise
        self.revision = published.revision


def _described(cipher: str, length_bits: int, custody: str) -> str:
    return f"{cipher} with {length_bits} bits in custody {custody}"


def _zones(actions: Iterable[Action]) -> list[list[Action]]:
    """The steps of each zone, in plan order."""
    zones: dict[str, list[Action]] = {}
    for action in actions:
        if action.path is not None and action.kind is not ActionKind.CREATE_KEY:
            zones.setdefault(action.path, []).append(action)
    return list(zones.values())


def _levels(zones: Sequence[list[Action]]) -> list[list[list[Action]]]:
    """Zones inside no other of these, then the zones nested in those, and so on."""
    paths = {steps[0].path for steps in zones}
    levels: dict[int, list[list[Action]]] = {}
    for steps in zones:
        depth = sum(ancestor in paths for ancestor in _ancestors(steps[0].path))
        levels.setdefault(depth, []).append(steps)
    return [levels[depth] for depth in sorted(levels)]


def _ancestors(path: str | None) -> Iterator[str]:
    """`/a` and `/` for `/a/b`."""
    while path is not None and path != "/":
        path = path.rpartition("/")[0] or "/"
        yield path
