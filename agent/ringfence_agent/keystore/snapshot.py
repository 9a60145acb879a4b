"""One committed state of a store, read beside its use: what backups and verification stand on.

A store that can be backed up gives snapshots. Taking one reads and verifies everything as the opening of the store
does, over a connection of its own, while others read and write; what is then read from it is of that one state.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol, TypeVar

from ringfence_agent.keystore.backup.records import Record
from ringfence_agent.keystore.held import HeldVersion
from ringfence_zones.secret import Secret

T = TypeVar("T")
Pause = Callable[[], None]
"""Called between some rows, for a thread that must let others run."""
_BETWEEN_PAUSES = 64


def paced(items: Iterable[T], pause: Pause) -> Iterator[T]:
    """The same items, with a pause after every few."""
    for number, item in enumerate(items, start=1):
        yield item
        if number % _BETWEEN_PAUSES == 0:
            pause()


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreFacts:
    """What a store says of itself. `keys` are live ones; `versions` counts those of deleted keys too, held or not."""

    store_id: str
    created_ms: int
    schema_version: int
    change_number: int
    policy_revision: int
    protector: str
    protector_header: bytes
    keys: int
    versions: int


class SealedVersion(Protocol):
    """A key version as it rests in the store."""

    @property
    def key_name(self) -> str:
        """The key's name; it may be a deleted one's."""

    @property
    def version(self) -> int:
        """The version's number."""

    def encode(self) -> bytes:
        """All of its row, unambiguously."""


class StoreSnapshot(Protocol):
    """See the module. Methods raise StoreUnavailableError and StoreTamperedError."""

    @property
    def facts(self) -> StoreFacts:
        """As of this state."""

    @property
    def columns(self) -> Mapping[str, Sequence[str]]:
        """The tables that a backup takes, each with its columns."""

    @property
    def versions(self) -> Sequence[SealedVersion]:
        """Every key version with material, those of deleted keys too."""

    @property
    def held(self) -> Sequence[HeldVersion]:
        """Every key version that somebody else holds, those of deleted keys too."""

    def rows(self) -> Iterator[Record]:
        """Every row of those tables as it rests, each time in the same order."""

    def open_versions(self, wanted: Sequence[SealedVersion]) -> Sequence[Secret]:
        """The material of some of `versions`, in their order; possible after the snapshot ended, too.

        May ask a protector elsewhere. Raises ProtectorUnavailableError, ProtectorRefusedError, StoreTamperedError.
        """


class BackedUpStore(Protocol):
    """What making a backup needs of a store."""

    @property
    def label(self) -> str:
        """See KeyStore."""

    def derive_secret(self, purpose: str) -> Secret:
        """See KeyStore."""

    def snapshot(self, pause: Pause = ...) -> AbstractContextManager[StoreSnapshot]:
        """One state, verified. Raises StoreTamperedError, StoreUnavailableError."""
