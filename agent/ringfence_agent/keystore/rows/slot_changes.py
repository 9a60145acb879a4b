"""Slots of a store: added, made active, removed; and versions moved to the active one while servers serve.

Each step is one transaction that leaves every version openable (packaging/decisions/0020-protectors-and-slots.md). A
process killed between two steps leaves a store that works, and the same command goes on from what it finds.
"""

from __future__ import annotations

import itertools
import secrets
from collections import Counter
from collections.abc import Iterator, Sequence

from ringfence_agent.keystore.protected_store import OnProgress, SlotUse
from ringfence_agent.keystore.protection import Protection
from ringfence_agent.keystore.protector import Protector
from ringfence_agent.keystore.rows.changes import NO_KEY, RowChange, StoreRows
from ringfence_agent.keystore.rows.kinds import KeyVersionRow
from ringfence_agent.keystore.rows.records import Records
from ringfence_agent.keystore.sealing import SealBrokenError
from ringfence_agent.keystore.slots import Slot, SlotHeader
from ringfence_zones.errors import InputError, ProtectorRefusedError
from ringfence_zones.secret import Secret

_BATCH = 128
_CANARY_BITS = 256


class SlotChanges:
    """See `protected_store.StoreSlots`. The slots of one store, wherever its rows are."""

    def __init__(self, records: Records, rows: StoreRows) -> None:
        self._records = records
        self._protection = records.protection
        self._rows = rows

    def describe(self) -> Sequence[SlotUse]:
        """All slots as they are now, by id."""
        self._records.refresh_slots()
        header, uses = self._protection.header, Counter[int]()
        for row in self._all_sealed():
            uses.update(slot.id for slot in header.slots if self._protection.is_sealed_by(slot, row.sealed))
        return [
            SlotUse(slot, slot.id == header.active_id, self._protection.find_protector(slot) is not None, uses[slot.id])
            for slot in header.slots
        ]

    def have_slot_of(self, protector: Protector) -> bool:
        """Whether one of the slots was made with this very root of trust."""
        self._records.refresh_slots()
        return self._slot_of(protector) is not None

    def protect_with(self, protector: Protector) -> Slot:
        """Gives the protector a slot, unless it has one, and makes it the active one.

        The slot is tried before it is kept: the root comes back from it, and material that it seals opens. Raises
        ProtectorUnavailableError and ProtectorRefusedError when not.
        """
        self._records.refresh_slots()
        own = self._slot_of(protector)
        if own is not None and own.id == self._protection.header.active_id:
            return own
        root = self._protection.root
        body = own.body if own is not None else protector.seal_root(root.store_id, root.secret)
        self._try(protector, body)
        self._protection.add_protector(protector)

        def attempt(change: RowChange) -> None:
            own = self._slot_of(protector)  # somebody may have been quicker
            header = self._protection.header
            change.set_slots(
                header,
                header.activated(own.id)
                if own is not None
                else header.with_slot(protector.scheme, protector.label, body),
            )

        self._rows.change(NO_KEY, attempt)
        self._records.refresh_slots()
        return self._protection.header.active

    def remove(self, slot_id: int) -> Slot:
        """Takes a slot away that no version needs, while another one opens the store here and now. Raises InputError
        when it may not go.
        """
        self._records.refresh_slots()
        slot = self._protection.header.get(slot_id)
        if not any(self._opens(other) for other in self._protection.header.slots if other.id != slot_id):
            raise InputError(
                f"{slot} may be the last way into the store: no other slot opens it here",
                hint="name another slot's protector under protector: in kms.yaml, or its root key file with --root-key",
            )

        def attempt(change: RowChange) -> Slot:
            header = self._protection.header
            slot = header.get(slot_id)
            if slot_id == header.active_id:
                raise InputError(f"{slot} seals new versions", hint="first: ringfence keystore protect --with ANOTHER")
            needing = [row for row in change.all_versions() if self._needs(row, slot, header)]
            if needing:
                raise InputError(
                    f"{len(needing)} versions are sealed by {slot}", hint="first: ringfence keystore rewrap"
                )
            change.set_slots(header, header.without(slot_id))
            return slot

        slot = self._rows.change(NO_KEY, attempt)
        self._records.refresh_slots()
        return slot

    def rewrap(self, report: OnProgress = lambda _done, _of: None) -> int:
        """Moves every version that the active slot did not seal, one transaction each, and says how many it moved.

        May be interrupted and begun again; serves on while others create and roll. Each new seal that was made here
        is opened again before it takes the place of the old one.
        """
        moved = 0
        while True:
            self._records.refresh_slots()
            slot = self._protection.header.active
            waiting = [row for row in self._all_sealed() if not self._protection.is_sealed_by(slot, row.sealed)]
            if not waiting:
                return moved
            total = moved + len(waiting)
            for batch in _batched(waiting, _BATCH):
                for row, sealed in self._reseal(slot, batch):
                    moved += self._move(slot, row, sealed)
                    report(moved, total)

    def give_new_root(self) -> None:
        """See `new_root`; this handle of the store is of no use afterwards."""
        self._rows.give_new_root()

    def _reseal(self, slot: Slot, rows: Sequence[KeyVersionRow]) -> Iterator[tuple[KeyVersionRow, bytes]]:
        """Each row with its new seal. Where two protectors see to it between themselves no material comes here."""
        direct = [row for row in rows if self._protection.can_reseal(slot, row.sealed)]
        seals = [(self._records.binding(row), row.sealed) for row in direct]
        yield from zip(direct, self._protection.reseal(slot, seals) if direct else (), strict=True)
        rest = [row for row in rows if row not in direct]
        yield from zip(rest, self._open_and_seal(slot, rest) if rest else (), strict=True)

    def _open_and_seal(self, slot: Slot, rows: Sequence[KeyVersionRow]) -> Sequence[bytes]:
        materials = self._records.open_rows(rows)
        items = [(self._records.binding(row), material) for row, material in zip(rows, materials, strict=True)]
        sealed = self._protection.seal(slot, items)
        try:
            again = self._protection.open([(binding, each) for (binding, _), each in zip(items, sealed, strict=True)])
        except SealBrokenError:
            again = []
        if again != materials:
            raise ProtectorRefusedError(f"{slot} gives other material back than it was given; nothing was moved")
        return sealed

    def _move(self, slot: Slot, row: KeyVersionRow, sealed: bytes) -> bool:
        """False when somebody else moved the version, or made another slot active, in between."""

        def attempt(change: RowChange) -> bool:
            if self._protection.header.active_id != slot.id:
                return False
            if change.find_version(row.key_name, row.version) != row:
                return False
            change.replace_version(row, row._replace(sealed=sealed))
            return True

        return self._rows.change(row.key_name, attempt)

    def _try(self, protector: Protector, body: bytes) -> None:
        """That root and material come back. What a protector only seals would be lost."""
        root = self._protection.root
        if not protector.recognises(body) or self._root_of(protector, body) != root.secret:
            raise ProtectorRefusedError(f"{protector.label} does not give back what it sealed; nothing was changed")
        materials = protector.materials(body)
        if materials is None:
            return
        canary = Secret(secrets.token_bytes(_CANARY_BITS // 8))
        row = KeyVersionRow("ringfence.canary", 0, "AES/CTR/NoPadding", _CANARY_BITS, 0, b"")
        binding = self._records.binding(row)
        try:
            if materials.open([(binding, each) for each in materials.seal([(binding, canary)])]) == [canary]:
                return
        except SealBrokenError:
            pass
        raise ProtectorRefusedError(f"{protector.label} does not open what it sealed; nothing was changed")

    def _slot_of(self, protector: Protector) -> Slot | None:
        for slot in self._protection.header.slots:
            if slot.scheme == protector.scheme and protector.recognises(slot.body):
                return slot
        return None

    def _opens(self, slot: Slot) -> bool:
        protector = self._protection.find_protector(slot)
        return protector is not None and self._root_of(protector, slot.body) == self._protection.root.secret

    def _root_of(self, protector: Protector, body: bytes) -> Secret | None:
        try:
            return protector.open_root(self._protection.root.store_id, body)
        except SealBrokenError:
            return None

    def _needs(self, row: KeyVersionRow, slot: Slot, header: SlotHeader) -> bool:
        """A local seal needs a local slot, whichever: what only remote slots give the root of would not be local."""
        others = any(other.is_local for other in header.slots if other.id != slot.id)
        return self._protection.is_sealed_by(slot, row.sealed) and not (slot.is_local and others)

    def _all_sealed(self) -> Sequence[KeyVersionRow]:
        """Every version whose material is here. What is held elsewhere belongs to no slot."""
        return [row for row in self._rows.all_versions() if not self._protection.is_held(row.sealed)]


def make_newest(protection: Protection, change: RowChange) -> None:
    """Makes a store of an older format one of this format, for a record that the older one does not know: with the
    slots it has. `Records.refresh_slots` is to follow after the change.
    """
    header = protection.header
    if header.revision == 0:
        change.set_slots(header, header.activated(header.active_id))


def _batched(rows: Sequence[KeyVersionRow], size: int) -> Iterator[Sequence[KeyVersionRow]]:
    waiting = iter(rows)
    while batch := list(itertools.islice(waiting, size)):
        yield batch
