"""What is particular to one SQL engine, as the store built on it sees it.

An engine gives connections that are durable, bounded in time and set up to compare text byte for byte; it knows how
its schema is made and checked; it can tell whether another handle is alive; and it turns every error of its driver
into a sentence. It knows nothing of keys, seals or tags.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from sqlalchemy import Connection

from ringfence_zones.errors import RingfenceError


@dataclass(frozen=True, slots=True)
class Called:
    """What messages call what rests in a database, and the hint when it is damaged."""

    kind: str
    when_damaged: str


class Database(Protocol):
    """One place that holds a store, or what rests beside one."""

    called: Called

    @property
    def label(self) -> str:
        """How messages name it: a URI without a secret."""

    @property
    def place(self) -> str:
        """How an operator finds it: a path or a URI."""

    @property
    def owner_id(self) -> int:
        """A random positive number of 62 bits that `hold_owner` makes known."""

    def check_reachable(self) -> None:
        """Checks before anything is opened. Raises ConfigError, StoreUnavailableError, StoreTamperedError."""

    def reader(self) -> Connection:
        """A connection whose statements each see the newest committed state."""

    def writer(self) -> Connection:
        """A connection for transactions that change something."""

    def snapshot(self) -> Connection:
        """A connection whose transactions read one state throughout."""

    def check_format(self, connection: Connection) -> int:
        """The version of the store that is there, one that this release reads. Raises ConfigError for what is no
        store, StoreUnavailableError for a newer one, StoreTamperedError.
        """

    def check_structure(self, connection: Connection, version: int) -> None:
        """That tables and whatever the engine keeps beside them are as Ringfence made them. Raises
        StoreTamperedError.
        """

    def upgrade(self, connection: Connection, version: int, target: int) -> None:
        """Makes the tables of the version `target` of those of `version`, inside the connection's transaction."""

    def hold_owner(self, connection: Connection) -> None:
        """Lets others see that this owner is alive, for as long as the writer's `connection` is open. Idempotent."""

    def is_alive(self, connection: Connection, owner_id: int) -> bool:
        """Whether a handle with this owner is open anywhere."""

    def remember_identity(self) -> None:
        """Notes what is open now, for `check_in_place`; a connection that holds it open exists and stays."""

    def check_in_place(self) -> None:
        """That a commit now would reach the store that others open. Raises StoreUnavailableError."""

    def is_lost(self, exc: Exception) -> bool:
        """Whether the error says that the connection is gone, so that a new one may do."""

    def translate(self, exc: Exception, *, committing: bool = False) -> RingfenceError:
        """The sentence for an error of SQLAlchemy or the driver; `committing` when it came from a commit."""

    def close(self) -> None:
        """Releases what the engine itself holds."""
