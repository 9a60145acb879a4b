"""What one open store is protected by: its root, its slots, and the protectors that this process has for them.

A seal begins with 0x01 when it was made under the root itself, and with 0x02 and the number of its slot when a remote
protector made it (packaging/decisions/0020-protectors-and-slots.md). What a remote protector made is sealed under the
root once more, bound to its place in the store. 0x03 is no material, but where it is held (0025): sealed under the root
alone, it belongs to no slot.

Used from any thread. Methods that take a batch may ask a remote protector and block for seconds; the others do not.
They raise SealBrokenError for what this store did not write, ProtectorUnavailableError and ProtectorRefusedError.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ringfence_agent.keystore.held import TransitVersion
from ringfence_agent.keystore.protector import MaterialBinding, Materials, Protector, ResealingMaterials
from ringfence_agent.keystore.rows.encoding import encode_row
from ringfence_agent.keystore.sealing import SealBrokenError
from ringfence_agent.keystore.slots import Slot, SlotHeader, check_slots
from ringfence_agent.keystore.store_root import StoreRoot
from ringfence_zones.errors import ProtectorRefusedError, ProtectorUnavailableError
from ringfence_zones.secret import Secret

REMOTE_SEAL = b"\x02"
"""The first byte of what a remote protector sealed; its slot's number follows."""
HELD_SEAL = b"\x03"
"""The first byte of what says where material is held, and holds none."""
_ID_BYTES = 2
REMOTE_PREFIX_BYTES = len(REMOTE_SEAL) + _ID_BYTES


@dataclass(frozen=True, slots=True)
class _State:
    """One header as this process can use it. Replaced as a whole, so that no lock is needed."""

    content: bytes
    header: SlotHeader
    materials: dict[int, Materials]


class Protection:
    """See the module."""

    def __init__(self, root: StoreRoot, content: bytes, protectors: Sequence[Protector]) -> None:
        """`content` is the header as it rests. Raises SealBrokenError when this root did not tag it."""
        self.root = root
        self._protectors = tuple(protectors)
        self._state = self._read(content)
        self._read_header: Callable[[], bytes] = lambda: content

    @property
    def header(self) -> SlotHeader:
        """The slots as they were last seen."""
        return self._state.header

    def reread_with(self, read_header: Callable[[], bytes]) -> None:
        """How `refresh` reads the header."""
        self._read_header = read_header

    def refresh(self) -> None:
        """Reads the header again. Raises SealBrokenError, and what reading the store raises."""
        newer = self._read(self._read_header())
        if newer.header.revision > self._state.header.revision:  # else somebody was quicker
            self._state = newer

    def add_protector(self, protector: Protector) -> None:
        """One more that this process has, tried after the others."""
        self._protectors = (*self._protectors, protector)
        self._state = self._read(self._state.content)

    def adopt(self, content: bytes) -> None:
        """The header as whoever holds the store's write lock reads it.

        Raises SealBrokenError when it is not genuine, or older than what was seen.
        """
        state = self._state
        if content == state.content:
            return
        newer = self._read(content)
        # So is a header of an old format that is not the one that was seen: it has no number.
        if newer.header.revision <= state.header.revision:
            raise SealBrokenError
        self._state = newer

    def find_protector(self, slot: Slot) -> Protector | None:
        """The protector of this process that a slot was made with."""
        for protector in self._protectors:
            if protector.scheme == slot.scheme and protector.recognises(slot.body):
                return protector
        return None

    def is_sealed_by(self, slot: Slot, sealed: bytes) -> bool:
        """Whether this slot made the seal of material; of local slots each made every local seal."""
        return not self.is_held(sealed) and _slot_id(sealed) == (None if slot.is_local else slot.id)

    def is_remote(self, sealed: bytes) -> bool:
        """Whether opening it asks somebody else."""
        return sealed[:1] == REMOTE_SEAL

    def find_slot_id(self, sealed: bytes) -> int | None:
        """The slot whose protector opening it asks; None for what is opened here."""
        return _slot_id(sealed)

    def is_held(self, sealed: bytes) -> bool:
        """Whether it says where material is held, and holds none."""
        return sealed[:1] == HELD_SEAL

    def seal_held(self, binding: MaterialBinding, place: TransitVersion) -> bytes:
        """Where a version is held, as it rests."""
        return HELD_SEAL + self.root.seal_held(place.to_bytes(), _held_binding(binding))

    def open_held(self, binding: MaterialBinding, sealed: bytes) -> TransitVersion:
        """What `seal_held` sealed."""
        try:
            return TransitVersion.from_bytes(self.root.open_held(sealed[len(HELD_SEAL) :], _held_binding(binding)))
        except ValueError:
            raise SealBrokenError from None

    def reseal_held(self, new_root: StoreRoot, binding: MaterialBinding, sealed: bytes) -> bytes:
        """The same under another root of the store."""
        place = self.open_held(binding, sealed)
        return HELD_SEAL + new_root.seal_held(place.to_bytes(), _held_binding(binding))

    def seal_here(self, binding: MaterialBinding, material: Secret) -> bytes:
        """Sealed under the root, for an active slot that is local."""
        return self.root.seal_material(material, binding.encoded)

    def open_here(self, binding: MaterialBinding, sealed: bytes) -> Secret:
        """What `seal_here` sealed."""
        return self.root.open_material(sealed, binding.encoded)

    def seal(self, slot: Slot, items: Sequence[tuple[MaterialBinding, Secret]]) -> list[bytes]:
        """One seal of this slot for each item."""
        if slot.is_local:
            return [self.seal_here(binding, material) for binding, material in items]
        made = self._materials(slot.id).seal(items)
        return [self._wrap(slot, binding, each) for each, (binding, _) in zip(made, items, strict=True)]

    def can_reseal(self, slot: Slot, sealed: bytes) -> bool:
        """Whether `reseal` can take over a seal: its slot's protector and this one's see to it between themselves."""
        source = _slot_id(sealed)
        if source is None or slot.is_local:
            return False
        materials = self._materials(slot.id)
        return isinstance(materials, ResealingMaterials) and materials.can_reseal(self._materials(source))

    def reseal(self, slot: Slot, items: Sequence[tuple[MaterialBinding, bytes]]) -> list[bytes]:
        """One seal of this slot for each seal of another, asked about before; no material comes here."""
        materials = self._materials(slot.id)
        assert isinstance(materials, ResealingMaterials), "asked before"
        moved: dict[int, bytes] = {}
        for source, batch in self._remote_batches(items).items():
            made = materials.reseal(self._materials(source), [(binding, inner) for _, binding, inner in batch])
            for (index, binding, _), each in zip(batch, made, strict=True):
                moved[index] = self._wrap(slot, binding, each)
        return [moved[index] for index in range(len(items))]

    def open(self, items: Sequence[tuple[MaterialBinding, bytes]]) -> list[Secret]:
        """The material of each item, whoever sealed it."""
        opened = {
            index: self.open_here(binding, sealed)
            for index, (binding, sealed) in enumerate(items)
            if not self.is_remote(sealed)
        }
        for slot_id, batch in self._remote_batches(items).items():
            found = self._materials(slot_id).open([(binding, inner) for _, binding, inner in batch])
            opened.update(zip((index for index, *_ in batch), found, strict=True))
        return [opened[index] for index in range(len(items))]

    def reseal_remote(self, new_root: StoreRoot, binding: MaterialBinding, sealed: bytes) -> bytes:
        """What a remote protector made, under another root of the store; the protector is not asked."""
        slot_id = _slot_id(sealed)
        if slot_id is None:
            raise SealBrokenError
        bound = _remote_binding(slot_id, binding)
        return sealed[:REMOTE_PREFIX_BYTES] + new_root.seal_remote(
            self.root.open_remote(sealed[REMOTE_PREFIX_BYTES:], bound), bound
        )

    def _wrap(self, slot: Slot, binding: MaterialBinding, made: bytes) -> bytes:
        """What a remote protector made, as it rests."""
        prefix = REMOTE_SEAL + slot.id.to_bytes(_ID_BYTES, "big")
        return prefix + self.root.seal_remote(made, _remote_binding(slot.id, binding))

    def _remote_batches(
        self, items: Sequence[tuple[MaterialBinding, bytes]]
    ) -> dict[int, list[tuple[int, MaterialBinding, bytes]]]:
        """By slot, what its protector made of the remote ones among the items, each with its place among them."""
        batches: dict[int, list[tuple[int, MaterialBinding, bytes]]] = {}
        for index, (binding, sealed) in enumerate(items):
            slot_id = _slot_id(sealed)
            if slot_id is not None:
                inner = self.root.open_remote(sealed[REMOTE_PREFIX_BYTES:], _remote_binding(slot_id, binding))
                batches.setdefault(slot_id, []).append((index, binding, inner))
        return batches

    def _materials(self, slot_id: int) -> Materials:
        found = self._state.materials.get(slot_id)
        if found is None and self._state.header.find(slot_id) is None:
            self.refresh()  # a slot is committed before the first seal that names it
            found = self._state.materials.get(slot_id)
        if found is not None:
            return found
        slot = self._state.header.find(slot_id)
        if slot is None:
            raise SealBrokenError  # slots go only when nothing names them
        raise ProtectorUnavailableError(
            f"this process does not open {slot}",
            hint=f"name {slot.scheme} under protector: in kms.yaml, with its settings, and restart the key server",
        )

    def _read(self, content: bytes) -> _State:
        header = check_slots(content, self.root)
        materials: dict[int, Materials] = {}
        for slot in header.slots:
            protector = None if slot.is_local else self.find_protector(slot)
            found = None if protector is None else protector.materials(slot.body)
            if found is not None:
                materials[slot.id] = found
        return _State(content, header, materials)


def find_root(store_id: bytes, header: SlotHeader, protectors: Sequence[Protector]) -> StoreRoot | None:
    """The root from the first slot that gives it; None when no protector recognises a slot as its own.

    The protectors are tried in their order. One that is not there is passed over when another gives the root; else
    its error is raised. Raises SealBrokenError for a slot that was changed. Nothing of the header is proven yet.
    """
    failure: ProtectorUnavailableError | ProtectorRefusedError | None = None
    for protector in protectors:
        for slot in header.slots:
            if slot.scheme != protector.scheme or not protector.recognises(slot.body):
                continue
            try:
                return StoreRoot(protector.open_root(store_id, slot.body), store_id)
            except (ProtectorUnavailableError, ProtectorRefusedError) as error:
                failure = failure or error
    if failure is not None:
        raise failure
    return None


def how_sealed(sealed: bytes) -> bytes:
    """The same for seals made in the same way: without I/O, or by one slot of a remote protector."""
    return sealed[: REMOTE_PREFIX_BYTES if sealed[:1] == REMOTE_SEAL else 1]


def _slot_id(sealed: bytes) -> int | None:
    """The slot that a seal names, None for a local seal. What is neither does not open as a local one."""
    if sealed[:1] != REMOTE_SEAL:
        return None
    return int.from_bytes(sealed[1:REMOTE_PREFIX_BYTES], "big")


def _remote_binding(slot_id: int, binding: MaterialBinding) -> bytes:
    return encode_row("ringfence/remote", slot_id, binding.encoded)


def _held_binding(binding: MaterialBinding) -> bytes:
    return encode_row("ringfence/held", binding.encoded)
