"""Files copied by one job on YARN: `copier.Copier` for what is too much for one machine.

    SOURCE ──hdfs dfs -cat──> task ──hdfs dfs -put──> JOB/N/copies/NUMBER.ATTEMPT ──read back──> record in JOB/N/out
    the agent:  record checked ─> renamed into the staging place ─> the engine's own checks ─> ledger

JOB is `_ringfence_job_ID` beside the target: in the target's zone, closed (0700), since names of files are data. N
counts submissions. Rules:

1. A job is on disk here (N) before it is submitted, and found again by its tag and name: the application's id is looked
   up, not taken from what a command printed. While one of a transfer's jobs may run, no second one is started; one
   that is not the ledger's own is killed.
2. Before N + 1, everything that N's tasks had finished is taken. A job that YARN says has failed fails the transfer:
   its tasks had their attempts.
3. What the tasks write counts only as far as `job_records` believes it, for a copy that lies where it must.
4. Where the KMS would need a grant for the copying user the transfer is refused: a grant is for one machine's address,
   and a job has as many as there are nodes.
"""

from __future__ import annotations

import logging
import re
import threading
import time
from collections.abc import Callable, Sequence
from typing import Protocol

from ringfence_agent.transfer.copier import Take
from ringfence_agent.transfer.hands import Hands
from ringfence_agent.transfer.job_records import MAX_PART_BYTES, PART, Records, encode_listing, numbers_of
from ringfence_agent.transfer.ledger import Ledger
from ringfence_agent.transfer.progress import Meter
from ringfence_agent.transfer.record import Item, Job, Transfer, Zone
from ringfence_agent.transfer.yarn_commands import JobOrder
from ringfence_zones.errors import ConfigError, TransferError, YarnUnavailableError
from ringfence_zones.yarn import Application

_POLL_S = 3.0
_APPEARS_S = 30.0
_ENDS_S = 120.0
# Hadoop takes the input for a list of patterns, and a setting with `${` for a reference.
_TARGET = re.compile(r"[^\x00-\x1f\x7f,{}\[\]*?^\\$]+")
_log = logging.getLogger(__name__)
_USER = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.@/-]*")


class Yarn(Protocol):
    """What a transfer asks of YARN; see `yarn_commands.Yarn`."""

    def check(self) -> None: ...
    def find(self, tag: str) -> list[Application]: ...
    def submit(self, order: JobOrder) -> None: ...
    def kill(self, application: str) -> None: ...


class JobCopier:
    """See the module; for one transfer."""

    def __init__(
        self,
        ledger: Ledger,
        hands: Hands,
        yarn: Yarn,
        meter: Meter,
        *,
        find_ungranted: Callable[[Transfer], Zone | None],
        queue: str | None,
        at_least: int,
        stop: threading.Event,
        poll_s: float = _POLL_S,
    ) -> None:
        """`find_ungranted` names a source zone that the KMS would need a grant for; a job has `at_least` so many
        maps."""
        self._ledger = ledger
        self._hands = hands
        self._yarn = yarn
        self._meter = meter
        self._find_ungranted = find_ungranted
        self._queue = queue
        self._at_least = at_least
        self._stop = stop
        self._poll_s = poll_s

    def check(self, transfer: Transfer) -> None:
        """See `Copier`. Raises ConfigError and TransferError."""
        request = transfer.request
        zone = self._find_ungranted(transfer)
        if zone is not None:
            raise ConfigError(
                f"no edge of the policy lets {request.copy_as} copy from {zone.path}, and a job cannot have a grant of"
                " the KMS: a grant is for one address, and a job reads from every node's",
                hint="add a flow for the copying user, transfer it in parts below transfers.job.above, or raise that",
            )
        if _TARGET.fullmatch(transfer.job_directory) is None:
            raise TransferError(
                f"a job cannot work beside {request.target}: Hadoop takes characters of that name for a pattern",
                hint="transfer it to a directory with a plain name, and rename that within its zone",
            )
        if _USER.fullmatch(request.copy_as) is None:
            raise TransferError(f"a job cannot run as {request.copy_as!r}")
        self._yarn.check()

    def copy(self, transfer: Transfer, items: Sequence[Item], take: Take, check_going: Callable[[], None]) -> None:
        """See `Copier`."""
        job = self._ledger.get_job(transfer.id)
        numbers = numbers_of(self._ledger.items(transfer.id))
        work = _Work(self._hands, self._meter, transfer, items, numbers, take, is_under_way=job.number > 0)
        if work.left:
            application = self._find_current(transfer, job)
            if application is None and job.number:
                work.gather(job)
            if work.left:
                self._follow(transfer, application or self._start(transfer, job, work.left), work, check_going)
        self._hands.delete(transfer.job_directory)

    def end(self, transfer: Transfer) -> None:
        """See `Copier`. Raises YarnUnavailableError until YARN says that nothing runs any more."""
        job = self._ledger.find_job(transfer.id)
        if job is not None and job.number:
            self._kill(transfer, [app for app in self._find(transfer) if not app.is_over])
            self._hands.delete(transfer.job_directory)

    def _start(self, transfer: Transfer, before: Job, items: Sequence[Item]) -> Application:
        self.check(transfer)
        job = Job(before.number + 1, None)
        self._ledger.job_started(transfer.id, job.number)
        directory = _directory(transfer, job)
        self._hands.delete(transfer.job_directory)
        for path in (transfer.job_directory, directory, f"{directory}/copies"):
            self._hands.make_directory(path, 0o700)
        numbers = numbers_of(self._ledger.items(transfer.id))
        self._hands.write_new(f"{directory}/listing", encode_listing(items, numbers, self._at_least))
        order = JobOrder(
            name=_name(transfer, job),
            tag=_tag(transfer),
            source=transfer.request.source,
            directory=directory,
            queue=self._queue,
        )
        try:
            self._yarn.submit(order)
        except TransferError:
            # Also who was told of an error may have submitted it.
            application = self._find_current(transfer, job)
            if application is None:
                raise
            return application
        deadline = time.monotonic() + _APPEARS_S
        while (application := self._find_current(transfer, job)) is None:
            if time.monotonic() > deadline:
                raise YarnUnavailableError("YARN took the job, and its ResourceManager does not show it yet")
            self._stop.wait(self._poll_s)
        return application

    def _follow(
        self, transfer: Transfer, application: Application, work: _Work, check_going: Callable[[], None]
    ) -> None:
        """Until the job is over and everything of it is taken."""
        while True:
            check_going()
            job = self._ledger.get_job(transfer.id)
            work.gather(job)  # after the look at the application: when that was over, this is all there is
            if application.is_over:
                break
            self._stop.wait(self._poll_s)
            check_going()
            found = self._find_current(transfer, job)
            if found is None:
                raise YarnUnavailableError(f"the ResourceManager does not know {application.id} any more")
            application = found
        if work.left and not application.has_succeeded:
            raise TransferError(
                f"the job {application.id} failed: {application.says or 'YARN says no more'}",
                hint="its logs say more",
                command=f"yarn logs -applicationId {application.id}",
            )
        if work.left:
            raise TransferError(f"the job {application.id} left out {work.left[0].path or 'the source'}")

    def _find(self, transfer: Transfer) -> list[Application]:
        """This transfer's applications; others may carry any tag, but not another's name."""
        return [app for app in self._yarn.find(_tag(transfer)) if app.user == transfer.request.copy_as]

    def _find_current(self, transfer: Transfer, job: Job) -> Application | None:
        """The job's application, noted in the ledger; every other one of this transfer that still runs is killed."""
        current, strays = choose(job, _name(transfer, job), self._find(transfer))
        self._kill(transfer, strays)
        if current is not None and job.application is None:
            self._ledger.job_found(transfer.id, current.id)
            _log.info("transfer %s is copied by %s", transfer.id, current.id)
        return current

    def _kill(self, transfer: Transfer, applications: Sequence[Application]) -> None:
        """Returns when they are over."""
        ids, why = {app.id for app in applications}, ""
        for each in sorted(ids):
            try:
                self._yarn.kill(each)
            except TransferError as error:  # also for one that has just ended
                why = f": {error.message}"
        deadline = time.monotonic() + _ENDS_S
        while ids and any(app.id in ids and not app.is_over for app in self._find(transfer)):
            if time.monotonic() > deadline or self._stop.is_set():
                raise YarnUnavailableError(f"YARN has not ended {' and '.join(sorted(ids))} yet{why}")
            self._stop.wait(self._poll_s)


class _Work:
    """What is still to be copied, and what of a job's output was taken."""

    def __init__(
        self,
        hands: Hands,
        meter: Meter,
        transfer: Transfer,
        items: Sequence[Item],
        numbers: dict[str, int],
        take: Take,
        *,
        is_under_way: bool,
    ) -> None:
        self._hands = hands
        self._meter = meter
        self._transfer = transfer
        self._waiting = {item.path: item for item in items}
        self._numbers = numbers
        self._take = take
        self._parts: set[tuple[int, str]] = set()
        self._records = Records(numbers)
        self._taken_bytes = 0
        # What an earlier agent's job had written is no progress of this attempt.
        self._known_bytes = None if is_under_way else 0
        # Four attempts of each file in as many maps, and what Hadoop puts beside them.
        self._limit = 10 * len(numbers) + 1000

    @property
    def left(self) -> list[Item]:
        """The files that nobody has vouched for, by path."""
        return list(self._waiting.values())

    def gather(self, job: Job) -> None:
        """Takes what the job's maps have finished since the last time."""
        directory = _directory(self._transfer, job)
        listed = self._hands.list_tree(f"{directory}/out", self._limit) or []
        copies = self._hands.list_tree(f"{directory}/copies", self._limit) or []
        there = {copy.path for copy in copies if not copy.is_directory}
        self._count(sum(copy.bytes for copy in copies))
        for part in sorted(entry.path for entry in listed if PART.fullmatch(entry.path) and not entry.is_directory):
            if (job.number, part) in self._parts:
                continue
            content = self._hands.read_whole(f"{directory}/out/{part}", MAX_PART_BYTES)
            for path, copy, copied in self._records.take(part, content):
                item = self._waiting.get(path)
                if item is not None:  # or it was taken before the agent died
                    self._bring(f"{directory}/copies/{copy}", copy in there, item)
                    self._take(item, copied)
                    self._taken_bytes += item.bytes
                    del self._waiting[path]
            self._parts.add((job.number, part))

    def _bring(self, copy: str, is_there: bool, item: Item) -> None:
        place = item.below(self._transfer.staging)
        if is_there:
            self._hands.rename(copy, place)
        elif not self._hands.list_tree(place, 1):
            raise TransferError(f"the job wrote of a copy of {item.path or 'the source'} that is not there")

    def _count(self, lying_bytes: int) -> None:
        """`lying_bytes` are in copies that were not taken yet. Each byte is read on both sides."""
        now_bytes = lying_bytes + self._taken_bytes
        if self._known_bytes is not None and now_bytes > self._known_bytes:
            self._meter.moved(2 * (now_bytes - self._known_bytes))
        self._known_bytes = now_bytes


def choose(job: Job, name: str, found: Sequence[Application]) -> tuple[Application | None, list[Application]]:
    """Of a transfer's applications: the one that the ledger means, and those that must not run beside it.

    An application that the ledger knows by its id is that one or none; before it has one, the oldest of the name.
    """
    named = [app for app in found if app.name == name]
    if job.application is not None:
        current = next((app for app in named if app.id == job.application), None)
    else:
        current = min(named, key=lambda app: app.id, default=None)
    return current, [app for app in found if app is not current and not app.is_over]


def _directory(transfer: Transfer, job: Job) -> str:
    return f"{transfer.job_directory}/{job.number}"


def _tag(transfer: Transfer) -> str:
    return f"ringfence-transfer-{transfer.id}"


def _name(transfer: Transfer, job: Job) -> str:
    return f"{_tag(transfer)}-{job.number}"
