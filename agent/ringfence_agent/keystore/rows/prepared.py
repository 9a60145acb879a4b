"""Seals that a change needs from a remote protector, made before the change takes the store's write lock.

A change runs as if everything were at hand. What it lacks it asks for here, gets an empty value, and then ends
without having changed anything (`SealsMissing`); what it lacked is made outside of the lock, in one call, and the
change runs again. Seals under the store's own root are made at once.

A seal is for one slot, version and material. One that was made for a version number that somebody else took meanwhile
is not found by the next run, which asks for another.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from ringfence_agent.keystore.held import Material, TransitVersion
from ringfence_agent.keystore.protection import Protection
from ringfence_agent.keystore.protector import MaterialBinding
from ringfence_agent.keystore.rows.kinds import KeyVersionRow
from ringfence_agent.keystore.rows.records import Records
from ringfence_zones.errors import StoreUnavailableError
from ringfence_zones.secret import Secret

T = TypeVar("T")

# Others may take the number that a seal was made for again and again; each time one of them has made a change.
_WAIT_S = 15.0


class SealsMissing(Exception):  # noqa: N818 - no error: it ends a transaction that is to run again
    """What the change lacks was noted in its `Prepared`."""


class Prepared:
    """What one change has from remote protectors, and what it lacks."""

    def __init__(self, records: Records) -> None:
        self._records = records
        self._sealed: dict[tuple[int, bytes], tuple[Secret, bytes]] = {}
        self._opened: dict[KeyVersionRow, Secret] = {}
        self._to_seal: dict[int, list[tuple[MaterialBinding, Secret]]] = {}
        self._to_open: list[KeyVersionRow] = []

    def seal(self, binding: MaterialBinding, material: Material) -> bytes:
        """The seal of the slot that is active now; empty when it has to be made. What is held needs no slot."""
        protection = self._protection
        if isinstance(material, TransitVersion):
            return protection.seal_held(binding, material)
        slot = protection.header.active
        if slot.is_local:
            return protection.seal_here(binding, material)
        found = self._sealed.get((slot.id, binding.encoded))
        if found is not None and found[0] == material:
            return found[1]
        self._to_seal.setdefault(slot.id, []).append((binding, material))
        return b""

    def open(self, row: KeyVersionRow) -> Secret | None:
        """The material of a version that is there already; None when it has to be opened."""
        if not self._protection.is_remote(row.sealed):
            return self._records.open_rows([row])[0]
        found = self._opened.get(row)
        if found is None:
            self._to_open.append(row)
        return found

    def check_complete(self) -> None:
        """Called before the commit. Raises SealsMissing."""
        if self._to_seal or self._to_open:
            raise SealsMissing

    def check_opened(self) -> None:
        """Called before anything is concluded from what is there already. Raises SealsMissing."""
        if self._to_open:
            raise SealsMissing

    def make(self) -> None:
        """Makes what was lacking; asks protectors, so never under a lock."""
        to_seal, self._to_seal = self._to_seal, {}
        to_open, self._to_open = self._to_open, []
        for row, material in zip(to_open, self._records.open_rows(to_open) if to_open else (), strict=True):
            self._opened[row] = material
        for slot_id, items in to_seal.items():
            slot = self._protection.header.find(slot_id)
            made = self._protection.seal(slot, items) if slot is not None else []
            for (binding, material), sealed in zip(items, made, strict=False):
                self._sealed[slot_id, binding.encoded] = material, sealed

    @property
    def _protection(self) -> Protection:
        return self._records.protection


def with_seals(records: Records, attempt: Callable[[Prepared], T]) -> T:
    """Runs a change until it has the seals that it needs. Raises what it raises, and what protectors raise."""
    prepared = Prepared(records)
    deadline = time.monotonic() + _WAIT_S
    while True:
        try:
            return attempt(prepared)
        except SealsMissing:
            if time.monotonic() > deadline:
                raise StoreUnavailableError(
                    "others changed the same keys each time this change had its seals; nothing was changed",
                    hint="try again",
                ) from None
        prepared.make()
