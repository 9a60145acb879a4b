"""One past access, as a log tells it. What a log does not tell is None."""

from __future__ import annotations

import enum
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Protocol, TypeAlias

from ringfence_zones.flow_labels import Kind


class LogKind(enum.StrEnum):
    """The logs that can be read; the value is what people call one."""

    AUDIT = "Ringfence audit"
    KMS = "Hadoop KMS audit"
    NAMENODE = "NameNode audit"


class Outcome(enum.Enum):
    """What became of it then. FAILED is refused or gone wrong: nothing was handed out."""

    DONE = enum.auto()
    FAILED = enum.auto()
    OTHER = enum.auto()  # neither: a change about to be made, which another record tells the end of


@dataclass(frozen=True, slots=True)
class KmsAccess:
    """What somebody asked of a KMS.

    time_s   seconds since the epoch, of the clock of the log: some are written in local time
    count    how many accesses of the log this one line stands for
    session  who is taken to be one actor: hashable, equal for the same one
    realm    the name had a realm, which was taken away
    claimed  nobody proved the name
    opened   what an opening did to its zone; BOTH is a KMS that counted it as both
    """

    time_s: float
    time: str
    op: str
    key: str | None
    user: str | None
    outcome: Outcome
    session: Hashable
    count: int = 1
    opened: Kind | None = None
    realm: bool = False
    claimed: bool = False


@dataclass(frozen=True, slots=True)
class NameNodeAccess:
    """What somebody asked of a NameNode. `op` is the command without its options; `dst` is None for most.

    `to_trash`: a rename that put something into the trash, by the option that Hadoop's clients give for that.
    """

    time_s: float
    time: str
    op: str
    src: str | None
    dst: str | None
    user: str
    outcome: Outcome
    session: Hashable
    realm: bool = False
    to_trash: bool = False


Access: TypeAlias = KmsAccess | NameNodeAccess


class LineParser(Protocol):
    """Reads the lines of one file, one after another."""

    def parse(self, line: bytes) -> Access | None:
        """The access that a line tells of; None when it is not a line of this log."""


def short_name(full: str) -> tuple[str, bool]:
    """`etl/host@REALM` as `etl`, and whether there was a realm: Hadoop's default rule, for any realm."""
    name, at, _ = full.partition("@")
    return name.partition("/")[0], bool(at)
