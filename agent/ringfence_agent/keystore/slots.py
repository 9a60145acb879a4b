"""The slots of a store's header: which protectors open it, and which of them seals new material.

Format 3 is JSON with a tag under the store's root (packaging/decisions/0020-protectors-and-slots.md). A header of 48
bytes is that of formats 1 and 2: one `file` slot, whose root is the root key file's own 32 bytes, and no tag.

Nothing in a header is believed before one of its slots gave the root and the tag was checked under it. A header that
cannot be read is SealBrokenError, like one whose tag is wrong.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import json
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from ringfence_agent.keystore.rows.encoding import Field, encode_row
from ringfence_agent.keystore.sealing import SealBrokenError
from ringfence_agent.keystore.store_root import StoreRoot
from ringfence_zones.errors import InputError

T = TypeVar("T")

OLD_HEADER_BYTES = 48
FILE_SCHEME = "file"
_MAX_ID = 0xFFFF


@dataclass(frozen=True, slots=True)
class Slot:
    """One way to the root. `body` is its protector's; `label` says how that named itself when the slot was made."""

    id: int
    scheme: str
    label: str
    body: bytes

    @property
    def is_local(self) -> bool:
        """Whether what it seals is sealed under the root itself, so that opening it takes no I/O."""
        return self.scheme == FILE_SCHEME

    def __str__(self) -> str:
        return f"slot {self.id} ({self.scheme}: {self.label})"


@dataclass(frozen=True, slots=True)
class SlotHeader:
    """All slots by id. `revision` grows with every change, `next_id` with every slot ever added."""

    slots: tuple[Slot, ...]
    active_id: int
    next_id: int
    revision: int

    @classmethod
    def first(cls, scheme: str, label: str, body: bytes) -> SlotHeader:
        """The header of a new store."""
        return cls((Slot(1, scheme, label, body),), active_id=1, next_id=2, revision=1)

    @property
    def active(self) -> Slot:
        """The slot that seals new material."""
        return self.get(self.active_id)

    def get(self, slot_id: int) -> Slot:
        """Raises InputError without such a slot."""
        found = self.find(slot_id)
        if found is None:
            raise InputError(
                f"there is no slot {slot_id}; there are {', '.join(str(slot.id) for slot in self.slots)}",
                hint="slots are listed by: ringfence keystore slots",
            )
        return found

    def find(self, slot_id: int) -> Slot | None:
        """The slot with this id."""
        return next((slot for slot in self.slots if slot.id == slot_id), None)

    def with_slot(self, scheme: str, label: str, body: bytes) -> SlotHeader:
        """One slot more, active. Ids are never used again: seals name them."""
        if self.next_id > _MAX_ID:
            raise InputError(f"{_MAX_ID} slots were made in this store, and there are no more numbers for another")
        slots = (*self.slots, Slot(self.next_id, scheme, label, body))
        return SlotHeader(slots, self.next_id, self.next_id + 1, self.revision + 1)

    def activated(self, slot_id: int) -> SlotHeader:
        """The same slots, another one active. Raises InputError without it."""
        return replace(self, active_id=self.get(slot_id).id, revision=self.revision + 1)

    def without(self, slot_id: int) -> SlotHeader:
        """One slot less."""
        slots = tuple(slot for slot in self.slots if slot.id != slot_id)
        return replace(self, slots=slots, revision=self.revision + 1)

    def encode(self, store_id: bytes) -> bytes:
        """What tag and ledger are computed over."""
        fields: list[Field] = [store_id, self.revision, self.active_id, self.next_id]
        for slot in self.slots:
            fields += (slot.id, slot.scheme, slot.label, slot.body)
        return encode_row("protector_header", *fields)

    def to_bytes(self, root: StoreRoot) -> bytes:
        """The header as it rests, tagged."""
        slots = [
            {"body": _text(slot.body), "id": slot.id, "label": slot.label, "scheme": slot.scheme} for slot in self.slots
        ]
        content = {
            "active": self.active_id,
            "next": self.next_id,
            "revision": self.revision,
            "slots": slots,
            "tag": _text(_tag(root, self)),
        }
        return json.dumps(content, sort_keys=True, separators=(",", ":")).encode()


def is_old_header(content: bytes) -> bool:
    """Whether it is that of format 1 or 2."""
    return len(content) == OLD_HEADER_BYTES


def read_slots(content: bytes) -> SlotHeader:
    """A header before anything of it is believed. Raises SealBrokenError for what is none."""
    if is_old_header(content):
        slot = Slot(1, FILE_SCHEME, "root key file", content)
        return SlotHeader((slot,), active_id=1, next_id=2, revision=0)
    try:
        return _read(json.loads(content))
    except (ValueError, TypeError, KeyError, binascii.Error, RecursionError):
        raise SealBrokenError from None


def check_slots(content: bytes, root: StoreRoot) -> SlotHeader:
    """A header that this root tagged. Raises SealBrokenError. One of an old format has no tag: its ledger stands for
    it.
    """
    header = read_slots(content)
    if is_old_header(content):
        return header
    try:
        genuine = header.to_bytes(root)
    except (ValueError, OverflowError):
        raise SealBrokenError from None
    # Compared as a whole, so that there is one spelling of a header.
    if not hmac.compare_digest(genuine, content):
        raise SealBrokenError
    return header


def _read(content: dict[str, Any]) -> SlotHeader:
    slots = tuple(_read_slot(each) for each in content["slots"])
    active, next_id, revision = (_typed(content[name], int) for name in ("active", "next", "revision"))
    ids = [slot.id for slot in slots]
    if ids != sorted(set(ids)) or active not in ids or not 0 < ids[0] <= ids[-1] < next_id or revision < 1:
        raise ValueError("slots out of order")
    return SlotHeader(slots, active, next_id, revision)


def _read_slot(content: dict[str, Any]) -> Slot:
    body = base64.b64decode(_typed(content["body"], str), validate=True)
    return Slot(_typed(content["id"], int), _typed(content["scheme"], str), _typed(content["label"], str), body)


def _typed(value: object, kind: type[T]) -> T:
    if type(value) is not kind:
        raise TypeError
    return value


def _tag(root: StoreRoot, header: SlotHeader) -> bytes:
    return hmac.digest(root.derive("slots"), header.encode(root.store_id), "sha256")


def _text(content: bytes) -> str:
    return base64.b64encode(content).decode()
