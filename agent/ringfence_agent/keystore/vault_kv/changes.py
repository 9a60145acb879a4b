"""What instances tell each other through the head: which keys changed, and which answers may not have left."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ringfence_agent.keystore.interface import Changes, UnconfirmedChange
from ringfence_agent.keystore.rows.records import Records
from ringfence_agent.keystore.vault_kv.head import Head
from ringfence_agent.keystore.vault_kv.journal import HeadChange, Journal
from ringfence_agent.keystore.vault_kv.owners import VaultOwners


class VaultChanges:
    """The part of `interface.KeyStore` that is about changes rather than keys."""

    def __init__(self, journal: Journal, records: Records, owners: VaultOwners) -> None:
        self._journal = journal
        self._records = records
        self._owners = owners

    def number(self) -> int:
        """See KeyStore.change_number."""
        head = self._journal.read()
        self._owners.count_up()
        return self.number_of(head)

    def number_of(self, head: Head) -> int:
        """The change number of a head."""
        return self._records.open_ledger(head.header.ledger).writes

    def since(self, number: int) -> Changes:
        """See KeyStore.changes_since."""
        head = self._journal.read()
        self._owners.count_up()
        newest = self.number_of(head)
        if not head.changes_after <= number <= newest:
            return Changes(newest, None)
        return Changes(newest, frozenset(name for name, changed in head.changed.items() if changed > number))

    def find_unconfirmed(self, name: str) -> Sequence[UnconfirmedChange]:
        """See KeyStore."""
        notes = [note for note in self._journal.read().notes if note.key_name == name]
        return sorted(notes, key=lambda note: note.version)

    def confirm(self, changes: Sequence[UnconfirmedChange]) -> None:
        """See KeyStore."""
        places = {_place(change) for change in changes}
        if places:
            self._remove(lambda note: _place(note) in places)

    def remove_unconfirmed(self, before_ms: int) -> int:
        """See KeyStore."""
        old = {note.owner_id for note in self._journal.read().notes if note.made_ms < before_ms}
        gone = {owner for owner in old if owner == self._owners.owner_id or not self._owners.is_alive(owner)}
        return self._remove(lambda note: note.owner_id in gone and note.made_ms < before_ms) if gone else 0

    def _remove(self, is_due: Callable[[UnconfirmedChange], bool]) -> int:
        def attempt(change: HeadChange) -> int:
            notes = change.head.notes
            change.head.notes = [note for note in notes if not is_due(note)]
            if len(notes) == len(change.head.notes):
                change.drop()
            return len(notes) - len(change.head.notes)

        return self._journal.change_rest(attempt)


def _place(change: UnconfirmedChange) -> tuple[str, int, int]:
    return change.key_name, change.version, change.owner_id
