"""Carries out one transfer, step by step, from wherever the ledger says it is: the same way after a crash as before.

    QUEUED ─> COPYING ─> PLACING ─> REMOVING ─> DONE
       └────────┴──────────┴─> CLEANING ─> FAILED

Rules:

1. Nothing is where readers look for it before all of it is verified: files are copied to a staging place beside the
   target, in the target's zone, read back from there, and placed by one rename, which never replaces anything.
2. A step is recorded after it was done and before the next begins; each can be done again. What a step finds half done
   by a predecessor that died, it recognises by inode numbers, never by names alone.
3. The source is what was listed at first: the same names, inode numbers, lengths and times of change, and no file open
   for writing. It is looked at again after everything was copied, and once more before it is removed, when it was moved
   to a name that nobody knows; what differs is refused, and moved back.
4. Which zones data is read from and written to is what its keys say, not what a path said a moment ago.
5. The policy is asked before copying and again before placing: a permission that was withdrawn meanwhile counts.
6. A failure before the copy is placed leaves nothing behind but the source; one after it leaves source and copy.

Attributes that are kept are mode, times, owner and group, as asked for; ACLs, extended attributes, replication, erasure
coding and times of directories are not, and the receipt says so.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

from ringfence_agent.transfer.copier import Copier
from ringfence_agent.transfer.hands import Attributes, Copied, Hands
from ringfence_agent.transfer.ledger import Ledger
from ringfence_agent.transfer.listing import check_keys, check_owners, copies_of, items_of, same_source, with_copies
from ringfence_agent.transfer.record import Item, Problem, State, Transfer
from ringfence_agent.transfer.transient import TRANSIENT
from ringfence_zones.errors import HdfsNotFoundError, RingfenceError, SourceChangedError, TransferError
from ringfence_zones.model import TreeNode

_CLOSED_DIRECTORY = 0o700
_FILE_MODE, _DIRECTORY_MODE = 0o644, 0o755


class TreeReader(Protocol):
    """What the agent's own look at HDFS gives beside the user's: inode numbers, key versions, open files."""

    def read_tree(self, path: str, limit: int) -> tuple[TreeNode, ...]:
        """See `hdfs_tree.read_tree`."""


class StoppedError(Exception):
    """The agent is being stopped: the transfer stays where the ledger says it is."""


class Engine:
    """Runs one transfer; see the module. Made anew for each attempt."""

    def __init__(
        self,
        transfer_id: str,
        ledger: Ledger,
        hands: Hands,
        trees: TreeReader,
        *,
        check_allowed: Callable[[Transfer], None],
        make_receipt: Callable[[Transfer, Sequence[Item], int], bytes],
        streams: Copier,
        job: Copier,
        job_above: int | None,
        max_nodes: int,
        max_bytes: int,
        stop: threading.Event,
        clock_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
    ) -> None:
        """`check_allowed` raises when policy does not allow the transfer now; `make_receipt` signs one. A source of
        more than `job_above` bytes is copied by the job, others by the streams; None: all of them."""
        self._id = transfer_id
        self._ledger = ledger
        self._hands = hands
        self._trees = trees
        self._check_allowed = check_allowed
        self._make_receipt = make_receipt
        self._streams = streams
        self._job = job
        self._job_above = job_above
        self._max_nodes = max_nodes
        self._max_bytes = max_bytes
        self._stop = stop
        self._clock_ms = clock_ms

    def run(self) -> None:
        """Goes on until the transfer is over. Raises StoppedError, and what `TRANSIENT` names: try again later."""
        steps = {
            State.QUEUED: self._begin,
            State.COPYING: self._copy,
            State.PLACING: self._place,
            State.REMOVING: self._remove,
            State.CLEANING: self._clean,
        }
        while (state := self._transfer.state) in steps:
            self._check_stop()
            try:
                steps[state]()
            except TRANSIENT:
                raise
            except RingfenceError as error:
                self._fail(state, error)

    @property
    def _transfer(self) -> Transfer:
        return self._ledger.get(self._id)

    # The steps

    def _begin(self) -> None:
        transfer = self._transfer
        self._check_allowed(transfer)
        source = transfer.request.source
        items = self._list_source(source)
        if not items:
            raise HdfsNotFoundError(f"there is nothing at {source}")
        check_keys(source, (item.key_version for item in items), transfer.request.source_zones)
        total = sum(item.bytes for item in items)
        if total > self._max_bytes:
            raise TransferError(
                f"{source} holds {total} bytes, more than this agent transfers ({self._max_bytes})",
                hint="raise transfers.max_size in agent.yaml, or transfer it in parts",
            )
        by_job = self._job_above is not None and total > self._job_above
        if by_job:
            self._job.check(transfer)
        self._ledger.begin(self._id, items, items[0].file_id, by_job=by_job)

    def _copy(self) -> None:
        transfer, items = self._transfer, self._ledger.items(self._id)
        request, staging = transfer.request, transfer.staging
        self._check_allowed(transfer)
        self._refuse_taken(request.target)
        for item in items:
            if item.is_directory:
                self._hands.make_directory(item.below(staging), _CLOSED_DIRECTORY)
        copier = self._streams if self._ledger.find_job(self._id) is None else self._job
        files = [item for item in items if not item.is_directory and item.sha256 is None]
        copier.copy(transfer, files, self._take, self._check_going)
        for item in reversed(items):  # what is below first: a directory may be closed to its own owner
            if item.is_directory:
                self._hands.set_attributes(item.below(staging), _attributes(item, request.keep))
        self._check_source(request.source, items)
        copies = self._trees.read_tree(staging, self._max_nodes)
        target_zones = () if request.target_zone is None else (request.target_zone,)
        check_keys(staging, (copy.key_version for copy in copies), target_zones)
        owners = {item.path: item.owner if "owner" in request.keep else self._hands.user for item in items}
        check_owners(staging, self._hands.list_tree(staging, self._max_nodes) or [], owners)
        self._ledger.ready(self._id, with_copies(items, copies), copies[0].file_id)

    def _place(self) -> None:
        transfer, items = self._transfer, self._ledger.items(self._id)
        target = transfer.request.target
        if self._root_id(transfer.staging) == transfer.staging_id:
            self._check_allowed(transfer)
            self._hands.rename(transfer.staging, target)
        placed = self._trees.read_tree(target, self._max_nodes)
        if copies_of(placed) != [(item.path, item.copy_id, item.copy_modified_ms) for item in items if item.copy_id]:
            raise TransferError(
                f"what is at {target} is not what was verified: somebody changed or replaced it",
                hint="the source is as it was; see who writes to the target",
            )
        if transfer.request.remove_source:
            self._ledger.placed(self._id)
        else:
            self._finish()

    def _remove(self) -> None:
        transfer, items = self._transfer, self._ledger.items(self._id)
        if not transfer.source_removed and transfer.problem is None:
            self._ledger.removed(self._id, self._remove_source(transfer, items))
        self._finish()

    def _clean(self) -> None:
        transfer = self._transfer
        assert transfer.problem is not None
        problem = transfer.problem
        try:
            self._job.end(transfer)
            self._hands.delete(transfer.staging)
        except TRANSIENT:
            raise
        except RingfenceError as error:
            left = f"{problem.message}; {transfer.staging} could not be removed: {error.message}"
            problem = problem.model_copy(update={"message": left})
        self._ledger.failed(self._id, problem, self._clock_ms())

    # What they are made of

    def _list_source(self, source: str) -> list[Item]:
        request = self._transfer.request
        entries = self._hands.list_tree(source, self._max_nodes)
        nodes = self._trees.read_tree(source, self._max_nodes)
        # A zone's root goes without its trash, which holds what was to go away.
        without_trash = source in {zone.path for zone in request.source_zones}
        return items_of(source, entries or [], nodes, without_trash=without_trash)

    def _take(self, item: Item, copied: Copied) -> None:
        """A file lies in the staging place and was read back."""
        request = self._transfer.request
        _check_copied(item.below(request.source), item, copied)
        self._hands.set_attributes(item.below(self._transfer.staging), _attributes(item, request.keep))
        self._ledger.verified(self._id, item.path, copied.sha256_back)

    def _check_going(self) -> None:
        self._check_stop()
        if self._transfer.state is not State.COPYING:
            raise TransferError("the transfer was ended while it copied")

    def _check_source(self, source: str, items: Sequence[Item]) -> None:
        changed = same_source(items, self._list_source(source))
        if changed is not None:
            raise SourceChangedError(
                f"{source} changed while it was copied: {changed}",
                hint="transfer it when nobody writes to it, or transfer a snapshot of it",
            )

    def _refuse_taken(self, target: str) -> None:
        if self._root_id(target) is not None:
            raise TransferError(f"{target} is there already", hint="name a target that does not exist yet")

    def _root_id(self, path: str) -> int | None:
        nodes = self._trees.read_tree(path, self._max_nodes)
        return nodes[0].file_id if nodes else None

    def _is_anywhere(self, file_id: int | None) -> bool:
        """Whether this inode has a name, whatever that is; one that a snapshot alone keeps has none."""
        try:
            return bool(self._trees.read_tree(f"/.reserved/.inodes/{file_id}", self._max_nodes))
        except HdfsNotFoundError:
            return False

    def _remove_source(self, transfer: Transfer, items: Sequence[Item]) -> Problem | None:
        """None when the source is gone; else why it stays."""
        source, removal = transfer.request.source, transfer.removal
        try:
            if self._root_id(source) == transfer.source_id:
                self._hands.rename(source, removal)
            if self._root_id(removal) != transfer.source_id:
                if self._is_anywhere(transfer.source_id):
                    raise SourceChangedError(f"{source} was moved elsewhere after it was copied, and is not removed")
                # Nowhere: an earlier attempt removed it, and died before it said so.
                return None
            changed = same_source(items, self._list_source(removal))
            if changed is not None:
                self._hands.rename(removal, source)
                raise SourceChangedError(f"{source} changed after it was copied, and stays: {changed}")
            self._hands.delete(removal)
        except TRANSIENT:
            raise
        except RingfenceError as error:
            return problem_of(error)
        return None

    def _finish(self) -> None:
        finished_ms = self._clock_ms()
        receipt = self._make_receipt(self._transfer, self._ledger.items(self._id), finished_ms)
        self._ledger.done(self._id, receipt, finished_ms)

    def _fail(self, state: State, error: RingfenceError) -> None:
        """What was not placed yet is cleaned up; what was placed stays where it is."""
        transfer = self._transfer
        is_staged = state in (State.QUEUED, State.COPYING) or (
            state is State.PLACING and self._root_id(transfer.staging) == transfer.staging_id
        )
        if is_staged:
            self._ledger.failing(self._id, problem_of(error))
        else:
            self._ledger.failed(self._id, problem_of(error), self._clock_ms())

    def _check_stop(self) -> None:
        if self._stop.is_set():
            raise StoppedError


def problem_of(error: RingfenceError) -> Problem:
    """An error as the ledger keeps it."""
    rule = getattr(error, "rule", None)
    return Problem(
        kind=type(error).__name__,
        message=error.message,
        hint=error.hint,
        command=error.command,
        rule=rule.value if rule is not None else None,
    )


def _check_copied(source: str, item: Item, copied: Copied) -> None:
    if copied.bytes_read != item.bytes:
        raise SourceChangedError(
            f"{source} held {item.bytes} bytes when it was listed and {copied.bytes_read} when read"
        )
    if (copied.bytes_back, copied.sha256_back) != (copied.bytes_read, copied.sha256_read):
        raise TransferError(
            f"the copy of {source} does not hold what was read: {copied.bytes_back} bytes with the digest"
            f" {copied.sha256_back}, not {copied.bytes_read} with {copied.sha256_read}",
            hint="something between here and the DataNodes' disks alters data: look at their logs before trying again",
        )


def _attributes(item: Item, keep: Iterable[str]) -> Attributes:
    kept = set(keep)
    times = "times" in kept and not item.is_directory
    return Attributes(
        mode=item.mode if "mode" in kept else _DIRECTORY_MODE if item.is_directory else _FILE_MODE,
        owner=item.owner if "owner" in kept else None,
        group=item.group if "group" in kept else None,
        modified_ms=item.modified_ms if times else None,
        accessed_ms=item.accessed_ms if times else None,
    )
