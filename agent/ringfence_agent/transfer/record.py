"""A transfer as the agent remembers it: what was asked, how far it is, what became of it. Plain values, no I/O."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field

from pydantic import BaseModel, ConfigDict

from ringfence_zones.paths import HdfsPath

STAGING_PREFIX = "_ringfence_transfer_"
REMOVAL_PREFIX = "_ringfence_removal_"
JOB_PREFIX = "_ringfence_job_"


class State(enum.StrEnum):
    """Where a transfer is. Each but the last three is left again, after a crash too."""

    WAITING = "waiting_for_approval"
    QUEUED = "queued"
    COPYING = "copying"  # into a staging place beside the target, and verified there
    PLACING = "placing"  # all verified: renamed to where it belongs
    REMOVING = "removing"  # the source, which was asked for
    CLEANING = "cleaning"  # it failed: what was staged is removed
    DONE = "done"
    FAILED = "failed"

    @property
    def is_final(self) -> bool:
        """Nothing happens any more."""
        return self in (State.DONE, State.FAILED)


class _Value(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Zone(_Value):
    """An encryption zone: its root and its key."""

    path: str
    key: str


class Grant(_Value):
    """The approval of one transfer. `purpose` is what the requester gave."""

    id: str
    approver: str
    purpose: str


class Allowed(_Value):
    """Under which policy it was allowed: the revision that the KMS enforces (None when another policy decided), and the
    SHA-256 of the policy's canonical JSON (None without a policy)."""

    revision: int | None
    digest: str | None


class Request(_Value):
    """What was asked for, with what was found out then. Paths are canonical; `target` is final, never a directory
    that the source goes into.

    `copy_as` is the HDFS user who reads and writes: `user`, or the service principal of the edge.
    """

    user: str
    copy_as: str
    source: str
    target: str
    source_zones: tuple[Zone, ...]
    target_zone: Zone | None
    purpose: str | None = None
    remove_source: bool = False
    keep: tuple[str, ...] = ()
    # The target as it was asked for; whoever asked, when that is not `user`; and how the agent's log names them.
    asked_target: str = ""
    real_user: str | None = None
    asked_by: str = ""


class Problem(_Value):
    """Why a transfer failed, or its source stayed. `kind` is the problem's word in the API."""

    kind: str
    message: str
    hint: str | None = None
    command: str | None = None
    rule: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Transfer:
    """One row of the ledger. Times are epoch milliseconds; counts are of files, without directories."""

    id: str
    state: State
    request: Request
    allowed: Allowed
    grant: Grant | None
    problem: Problem | None
    submitted_ms: int
    finished_ms: int | None
    files: int
    bytes: int
    files_verified: int
    bytes_verified: int
    source_id: int | None
    staging_id: int | None
    source_removed: bool

    @property
    def staging(self) -> str:
        """Where the copy is until it is verified: beside the target, in the target's zone."""
        return _beside(self.request.target, STAGING_PREFIX + self.id)

    @property
    def job_directory(self) -> str:
        """What a job on YARN reads and writes for this transfer: beside the target, in the target's zone."""
        return _beside(self.request.target, JOB_PREFIX + self.id)

    @property
    def removal(self) -> str:
        """Where the source is moved before it is removed, so that nobody writes to it by its name any more."""
        return _beside(self.request.source, REMOVAL_PREFIX + self.id)


@dataclass(frozen=True, slots=True)
class Job:
    """The job of a transfer that is copied on YARN. `number` counts those that were submitted, 0 before the first;
    `application` is the present one's id, None until YARN has told it."""

    number: int
    application: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """A file or directory of a transfer: the source as it was listed, and the copy once it was verified.

    `path` is below the source, empty for itself. `file_id` is the inode's number. `key_version` is None in clear.
    """

    path: str
    is_directory: bool
    bytes: int
    mode: int
    owner: str
    group: str
    modified_ms: int
    accessed_ms: int
    file_id: int
    key_version: str | None
    sha256: str | None = None
    copy_id: int | None = None
    copy_modified_ms: int | None = None
    copy_key_version: str | None = None

    def below(self, root: str) -> str:
        """Where this is when the source is, or was copied to, `root`."""
        return f"{root}/{self.path}" if self.path else root


@dataclass(frozen=True, slots=True)
class Tally:
    """How many transfers there are in each state (none: absent), and how many bytes of all were verified."""

    by_state: Mapping[State, int] = field(default_factory=dict)
    bytes_verified: int = 0


def _beside(path: str, name: str) -> str:
    parent = HdfsPath.from_namenode(path).parent
    assert parent is not None, "the root of the file system is never transferred"
    return str(parent.child(name))
