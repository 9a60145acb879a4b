"""An open store as those see it who change what protects it: `ringfence keystore protect` and its like."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from ringfence_agent.keystore.interface import OpenStore
from ringfence_agent.keystore.protector import Protector
from ringfence_agent.keystore.slots import Slot

OnProgress = Callable[[int, int], None]
"""Told after each version that was moved: how many are done, and of how many."""


@dataclass(frozen=True, slots=True)
class SlotUse:
    """A slot, how many versions it sealed, and whether this process has its protector.

    Local slots are ways to one root, so a version that one of them sealed counts for each.
    """

    slot: Slot
    is_active: bool
    has_protector: bool
    versions: int


class StoreSlots(Protocol):
    """What protects one store, and how that is changed. Methods block, and may ask remote protectors."""

    def describe(self) -> Sequence[SlotUse]:
        """All slots as they are now, by id."""

    def have_slot_of(self, protector: Protector) -> bool:
        """Whether one of the slots was made with this very root of trust."""

    def protect_with(self, protector: Protector) -> Slot:
        """Gives the protector a slot, unless it has one, and makes it the active one.

        The slot is tried before it is kept: the root comes back from it, and material that it seals opens. Raises
        ProtectorUnavailableError and ProtectorRefusedError when not.
        """

    def remove(self, slot_id: int) -> Slot:
        """Takes a slot away that no version needs, while another one opens the store here and now. Raises InputError
        when it may not go.
        """

    def rewrap(self, report: OnProgress = ...) -> int:
        """Moves every version that the active slot did not seal, one change each, and says how many it moved.

        May be interrupted and begun again; serves on while others create and roll. Each new seal that was made here
        is opened again before it takes the place of the old one.
        """

    def give_new_root(self) -> None:
        """A new root for the store, sealed for every slot; this handle of the store is of no use afterwards."""


class ProtectedStore(OpenStore, Protocol):
    """A store with its slots, and with what a restore of an earlier state needs."""

    slots: StoreSlots

    def skip_changes(self, number: int) -> None:
        """Makes `number` the store's change number, for a restore of an earlier state: later ones were given out."""

    def skip_sequences(self, count: int) -> None:
        """Leaves a gap in the numbers of tokens, for a restore of an earlier state."""
