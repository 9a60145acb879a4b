"""Transfers as the agent offers them: takes them, runs a few at a time, answers how they go, ends with the agent.

A transfer is the requester's from the moment its row is on disk; whatever dies afterwards, the next agent on the same
state directory goes on with it. What stands in its way for a while (HDFS, the KMS, a process that copies) is waited
for, `give_up_after` long while it is copying; once the copy is placed there is only one way, which is forward.
"""

from __future__ import annotations

import logging
import threading
import time
import uuid
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol

from ringfence_agent.transfer.clearance import Clearance, Cleared
from ringfence_agent.transfer.config import TransferConfig
from ringfence_agent.transfer.copier import Copier
from ringfence_agent.transfer.engine import Engine, StoppedError, TreeReader, problem_of
from ringfence_agent.transfer.hands import Hands
from ringfence_agent.transfer.ledger import Ledger
from ringfence_agent.transfer.progress import Meter, time_left_s
from ringfence_agent.transfer.receipts import receipt_of
from ringfence_agent.transfer.record import Grant, Item, Problem, Request, State, Tally, Transfer
from ringfence_agent.transfer.signing import Signer
from ringfence_agent.transfer.streams import Streams
from ringfence_zones.errors import RefusedError, RingfenceError, TransferError
from ringfence_zones.findings import Rule
from ringfence_zones.model import DirectoryState, TreeNode
from ringfence_zones.paths import HdfsPath

_log = logging.getLogger(__name__)
_FIRST_WAIT_S, _LONGEST_WAIT_S = 0.5, 30.0
_LISTED = 200
MAX_UNFINISHED = 200
"""Of one user: whoever loops over the files of a directory must neither fill the disk nor keep the others waiting."""
_CLOSE_LOOK_S = 0.05
# What comes after asks the KMS for nothing: a KMS that is away must not keep what was given up from being cleaned up.
_READS = (State.QUEUED, State.COPYING)


MakeJob = Callable[[Request, Hands, Meter, threading.Event], Copier]
"""Makes the copier of one attempt that works on YARN; the event is set when the agent stops."""


class Cluster(TreeReader, Protocol):
    """What the agent itself asks of HDFS for transfers."""

    def find_directory(self, path: str) -> DirectoryState | None:
        """What is at a path."""


class Admission(Protocol):
    """The KMS's leave for one job, where flow rules are enforced; see `admission`."""

    def admit(self, transfer: Transfer) -> None:
        """Makes the grants of a transfer. Made already is success."""

    def end(self, transfer: Transfer) -> None:
        """Ends them. Ended already is success; a KMS that is away ends them by time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A request as it came, paths parsed."""

    user: str
    asked_by: str
    real_user: str | None
    source: HdfsPath
    target: HdfsPath
    purpose: str | None = None
    remove_source: bool = False
    ask_for_approval: bool = False
    idempotency_key: str | None = None


@dataclass(frozen=True, slots=True)
class Going:
    """A transfer with how it goes. `waits_for` says what it is waiting for, None when nothing; seconds are None when
    nobody can tell."""

    transfer: Transfer
    rate: float | None
    time_left_s: float | None
    waits_for: str | None


class _Attempt:
    """What is known in memory of a transfer under way."""

    def __init__(self) -> None:
        self.meter = Meter()
        self.waits_for: str | None = None


class _UntilStopped:
    """The agent's look at HDFS, which no transfer takes any more once the agent stops: it would start Java again."""

    def __init__(self, cluster: Cluster, stop: threading.Event) -> None:
        self._cluster = cluster
        self._stop = stop

    def read_tree(self, path: str, limit: int) -> tuple[TreeNode, ...]:
        """See `engine.TreeReader`."""
        if self._stop.is_set():
            raise StoppedError
        return self._cluster.read_tree(path, limit)


class TransferService:
    """See the module. Thread-safe."""

    def __init__(
        self,
        config: TransferConfig,
        ledger: Ledger,
        clearance: Clearance,
        cluster: Cluster,
        signer: Signer,
        admission: Admission,
        *,
        cluster_name: str,
        make_hands: Callable[[Request], Hands],
        make_job: MakeJob,
        clock_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
    ) -> None:
        """Nothing runs before `start`. `make_hands` starts the process that copies as `copy_as`, `make_job` is the way
        for more than a process can."""
        self._config = config
        self._ledger = ledger
        self._clearance = clearance
        self._cluster = cluster
        self._signer = signer
        self._admission = admission
        self._cluster_name = cluster_name
        self._make_hands = make_hands
        self._make_job = make_job
        self._clock_ms = clock_ms
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._attempts: dict[str, _Attempt] = {}
        self._hands: set[Hands] = set()
        self._running = 0
        self._pool = ThreadPoolExecutor(config.at_once, thread_name_prefix="transfers")

    @property
    def public_key(self) -> bytes:
        """The key that receipts are verified with, as PEM."""
        return self._signer.public_pem

    def start(self) -> None:
        """Goes on with what an earlier agent left unfinished."""
        for transfer in self._ledger.list_unfinished():
            if transfer.state is not State.WAITING:
                self._queue(transfer.id)

    def close(self, within_s: float) -> None:
        """Cuts off what is under way; the next agent goes on with it. What does not end in time is left to the end of
        the process: the ledger says nothing that is not so."""
        self._stop.set()
        self._pool.shutdown(wait=False, cancel_futures=True)
        deadline = time.monotonic() + within_s
        while time.monotonic() < deadline:
            with self._lock:
                hands, is_over = list(self._hands), not self._running
            for each in hands:
                each.close()
            if is_over:
                break
            time.sleep(_CLOSE_LOOK_S)

    # What callers ask for. All of these may block for a moment.

    def submit(self, asked: Asked) -> Transfer:
        """Takes a transfer, or finds the one that was asked for with the same idempotency key.

        Raises RefusedError and others of `Clearance.clear`, TransferError.
        """
        known = self._find_repeated(asked)
        if known is not None:
            return known
        found = self._cluster.find_directory(str(asked.target))
        into = found is not None and found.is_directory
        cleared = self._clearance.clear(asked.user, asked.source, asked.target, into=into)
        if cleared.refused is not None and not asked.ask_for_approval:
            raise cleared.refused
        if cleared.refused is not None and not asked.purpose:
            raise TransferError("whoever approves a transfer has to know what for", hint="give a purpose")
        if asked.remove_source:
            _check_removal(str(asked.source), asked.user, cleared)
        self._check_room(asked.user)
        request = Request(
            user=asked.user,
            copy_as=cleared.copy_as,
            source=str(asked.source),
            target=str(cleared.target),
            source_zones=cleared.source_zones,
            target_zone=cleared.target_zone,
            purpose=asked.purpose,
            remove_source=asked.remove_source,
            keep=tuple(self._config.keep),
            asked_target=str(asked.target),
            real_user=asked.real_user,
            asked_by=asked.asked_by,
        )
        state = State.WAITING if cleared.refused is not None else State.QUEUED
        transfer_id = uuid.uuid4().hex
        self._ledger.add(transfer_id, request, cleared.allowed, self._clock_ms(), state, asked.idempotency_key)
        transfer = self._ledger.get(transfer_id)
        _log.info("transfer %s of %s: %s to %s", transfer_id, asked.asked_by, request.source, request.target)
        if transfer.state is State.QUEUED:
            self._queue(transfer_id)
        return transfer

    def _find_repeated(self, asked: Asked) -> Transfer | None:
        if asked.idempotency_key is None:
            return None
        known = self._ledger.find_repeated(asked.user, asked.idempotency_key)
        if known is None:
            return None
        request = known.request
        now = (str(asked.source), str(asked.target), asked.purpose, asked.remove_source)
        if (request.source, request.asked_target, request.purpose, request.remove_source) != now:
            raise TransferError("this idempotency key was used for another transfer", hint="use a new key")
        return known

    def _check_room(self, user: str) -> None:
        if self._ledger.count_unfinished(user) >= MAX_UNFINISHED:
            raise TransferError(
                f"{MAX_UNFINISHED} transfers of {user} are not over yet",
                hint="wait for them, or cancel some; a directory is one transfer",
            )

    def approve(self, transfer_id: str, approver: str, behind: Collection[str] = ()) -> Transfer:
        """Lets a waiting transfer go on. Raises TransferError when it does not wait, or when `approver`, or who stands
        `behind` that name, asked for it."""
        request = self._ledger.get(transfer_id).request
        for each in (approver, *behind):
            if each in (request.user, request.real_user):
                raise TransferError(f"{each} asked for this transfer: somebody else has to approve it")
        grant = Grant(id=uuid.uuid4().hex, approver=approver, purpose=request.purpose or "")
        self._ledger.approve(transfer_id, grant)
        _log.info("transfer %s approved by %s", transfer_id, approver)
        self._queue(transfer_id)
        return self._ledger.get(transfer_id)

    def cancel(self, transfer_id: str, by: str) -> Transfer:
        """Ends a transfer that is not placed yet. Raises TransferError when it is too late."""
        problem = Problem(kind="CancelledError", message=f"cancelled by {by}")
        self._ledger.cancel(transfer_id, problem, self._clock_ms())
        return self._ledger.get(transfer_id)

    def get(self, transfer_id: str) -> Going:
        """One transfer. Raises TransferNotFoundError."""
        return self._going(self._ledger.get(transfer_id))

    def list_transfers(self, owner: str | None) -> list[Going]:
        """The newest of a user, of everybody when None."""
        return [self._going(transfer) for transfer in self._ledger.list_transfers(owner, _LISTED)]

    def tally(self) -> Tally:
        """All transfers, counted."""
        return self._ledger.tally()

    def get_receipt(self, transfer_id: str) -> bytes:
        """The signed receipt. Raises TransferError while there is none."""
        receipt = self._ledger.find_receipt(transfer_id)
        if receipt is None:
            state = self._ledger.get(transfer_id).state
            raise TransferError(f"the transfer {transfer_id} is {state.value.replace('_', ' ')}: it has no receipt")
        return receipt

    def _going(self, transfer: Transfer) -> Going:
        with self._lock:
            attempt = self._attempts.get(transfer.id)
        if attempt is None or transfer.state.is_final:
            return Going(transfer, None, None, None)
        rate = attempt.meter.pace().rate if transfer.state is State.COPYING else None
        left = time_left_s(transfer.bytes - transfer.bytes_verified, rate)
        return Going(transfer, rate, left if transfer.state is State.COPYING else None, attempt.waits_for)

    # Running them

    def _queue(self, transfer_id: str) -> None:
        with self._lock:
            self._attempts[transfer_id] = _Attempt()
        self._pool.submit(self._drive, transfer_id)

    def _drive(self, transfer_id: str) -> None:
        """Until the transfer is over or the agent stops."""
        attempt = self._attempts.setdefault(transfer_id, _Attempt())
        wait_s, before, since_s = _FIRST_WAIT_S, -1, time.monotonic()
        with self._lock:
            self._running += 1
        try:
            while not self._stop.is_set():
                error = self._try(transfer_id, attempt)
                if error is None:
                    return
                try:
                    verified = self._ledger.get(transfer_id).files_verified
                    if verified != before:
                        wait_s, before, since_s = _FIRST_WAIT_S, verified, time.monotonic()
                    elif time.monotonic() - since_s > self._config.give_up_after:
                        self._give_up(transfer_id, error)
                except TransferError as unwritten:
                    # A full disk is emptied some day: nobody else would go on with this transfer then.
                    error = unwritten
                attempt.waits_for = error.message
                _log.warning("transfer %s waits: %s", transfer_id, error.message)
                self._stop.wait(wait_s)
                wait_s = min(wait_s * 2, _LONGEST_WAIT_S)
        except StoppedError:
            return
        finally:
            with self._lock:
                self._running -= 1
                self._attempts.pop(transfer_id, None)

    def _try(self, transfer_id: str, attempt: _Attempt) -> RingfenceError | None:
        """One attempt: None when the transfer is over, else what stands in its way for now."""
        hands: Hands | None = None
        try:
            transfer = self._ledger.get(transfer_id)
            if transfer.state in _READS:
                self._admission.admit(transfer)
            hands = self._make_hands(transfer.request)
            with self._lock:
                self._hands.add(hands)
            attempt.waits_for = None
            self._engine(transfer_id, transfer.request, hands, attempt.meter).run()
            self._admission.end(self._ledger.get(transfer_id))
        except RingfenceError as error:
            if self._stop.is_set():
                raise StoppedError from error
            return error
        except StoppedError:
            raise
        except Exception as error:  # noqa: BLE001 - a bug must not end the thread; it is logged, and waits
            _log.exception("transfer %s failed unexpectedly", transfer_id)
            return TransferError(f"the agent failed: {type(error).__name__}")
        finally:
            if hands is not None:
                with self._lock:
                    self._hands.discard(hands)
                hands.close()
        transfer = self._ledger.get(transfer_id)
        _log.info("transfer %s is %s", transfer_id, transfer.state.value)
        return None

    def _engine(self, transfer_id: str, request: Request, hands: Hands, meter: Meter) -> Engine:
        return Engine(
            transfer_id,
            self._ledger,
            hands,
            _UntilStopped(self._cluster, self._stop),
            check_allowed=self._check_allowed,
            make_receipt=self._receipt,
            streams=Streams(hands, meter, self._config.streams),
            job=self._make_job(request, hands, meter, self._stop),
            job_above=None if self._config.job is None else self._config.job.above,
            max_nodes=self._config.max_files,
            max_bytes=self._config.max_size,
            stop=self._stop,
            clock_ms=self._clock_ms,
        )

    def _check_allowed(self, transfer: Transfer) -> None:
        request = transfer.request
        source, target = HdfsPath.parse(request.source), HdfsPath.parse(request.target)
        approved = transfer.grant is not None
        cleared = self._clearance.clear(request.user, source, target, into=False, approved=approved)
        if cleared.refused is not None:
            raise cleared.refused
        if request.remove_source:
            _check_removal(request.source, request.user, cleared)
        if (cleared.source_zones, cleared.target_zone, cleared.copy_as) != (
            request.source_zones,
            request.target_zone,
            request.copy_as,
        ):
            raise TransferError(
                "the zones or the service principal are not what they were when this was asked for",
                hint="look at what changed, then ask again",
            )

    def _receipt(self, transfer: Transfer, items: Sequence[Item], finished_ms: int) -> bytes:
        return self._signer.sign(
            receipt_of(transfer, items, cluster=self._cluster_name, finished_ms=finished_ms, signer=self._signer.name)
        )

    def _give_up(self, transfer_id: str, error: RingfenceError) -> None:
        if self._ledger.get(transfer_id).state in _READS:
            problem = problem_of(error)
            since = f"{problem.message}; given up after {self._config.give_up_after:g} s without getting further"
            self._ledger.failing(transfer_id, problem.model_copy(update={"message": since}))


def _check_removal(source: str, user: str, cleared: Cleared) -> None:
    if cleared.moves_root:
        raise RefusedError(f"{source} is or holds the root of an encryption zone, which is not removed", Rule.ZONE_ROOT)
    if not cleared.may_remove:
        raise RefusedError(
            f"{cleared.copy_as} would remove {source} for {user}, who is no writer of its zone in the policy",
            Rule.ZONE_TO_ZONE,
            hint="transfer it without removing the source",
        )
