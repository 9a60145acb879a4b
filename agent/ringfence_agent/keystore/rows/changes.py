"""Changes of a store's rows, as each kind of store makes them: what `store` and `slot_changes` stand on.

A store says how the rows of a key are found and written, and what commits a change. It knows nothing of what a change
means; whoever makes one knows nothing of where rows rest.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

from ringfence_agent.keystore.authenticator import Ledger
from ringfence_agent.keystore.interface import UnconfirmedChange
from ringfence_agent.keystore.rows.kinds import KeyVersionRow, ZoneKeyRow
from ringfence_agent.keystore.rows.prepared import Prepared
from ringfence_agent.keystore.slots import SlotHeader

KEPT_CHANGES = 512
"""How many of the newest changes a store tells one by one."""
NO_KEY = ""
"""What a change of no key is told as: of policy or slots."""
SEVERAL_KEYS = None
"""What a change of more than one key is told as: an import."""
WRITE_WAIT_S = 10.0
"""How long a writer waits for the others before it gives up with StoreUnavailableError."""

T = TypeVar("T")


class RowChange(Protocol):
    """A change under way; what it writes is there wholly or not at all, and the ledger is kept along."""

    @property
    def ledger(self) -> Ledger:
        """What the header is to seal."""

    def find_key(self, name: str) -> ZoneKeyRow | None:
        """A key, deleted or not; only for a name that a key could have. Raises StoreTamperedError."""

    def live_versions(self, key: ZoneKeyRow) -> Sequence[KeyVersionRow]:
        """Those of the key as it is now, not of an earlier one of its name, oldest first."""

    def all_versions(self) -> Sequence[KeyVersionRow]:
        """Every version, by key and number, with nobody writing until the change is committed."""

    def find_version(self, key_name: str, version: int) -> KeyVersionRow | None:
        """One version."""

    def write_key(self, old: ZoneKeyRow | None, new: ZoneKeyRow, added: Sequence[KeyVersionRow] = ()) -> None:
        """`new` in the place of `old`, or beside the others, with more versions; ledger included."""

    def replace_version(self, old: KeyVersionRow, new: KeyVersionRow) -> None:
        """Another seal for a version; ledger included."""

    def set_slots(self, old: SlotHeader, new: SlotHeader) -> None:
        """Other slots; ledger and format included."""

    def find_unconfirmed(self, key_name: str) -> Sequence[UnconfirmedChange]:
        """See KeyStore."""

    def note_unconfirmed(self, change: UnconfirmedChange) -> None:
        """Keeps a version's origin."""

    def drop(self) -> None:
        """There is nothing to change after all: the change ends without being made, and nobody is told of one."""


class StoreRows(Protocol):
    """The rows of one store."""

    @property
    def label(self) -> str:
        """See KeyStore."""

    def hold_owner(self) -> int:
        """The `owner_id` of this handle, which others can see to be alive from then on."""

    def all_versions(self) -> Sequence[KeyVersionRow]:
        """Every version, by key and number."""

    def change(self, key_name: str | None, attempt: Callable[[RowChange], T], prepared: Prepared | None = None) -> T:
        """One change, told to others as one of `key_name`. `attempt` may be called again before it is committed, and
        sees the newest slots; an exception in it changes nothing.

        Raises SealsMissing, without a change, when the attempt asked `prepared` for what is not there yet.
        """

    def give_new_root(self) -> None:
        """See `new_root`; this handle of the store is of no use afterwards."""
