"""The header row of a store: made with a store, and opened before anything else of it.

What it opens with gives the root, by which everything else is believed.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Protocol

from ringfence_agent.keystore.authenticator import Ledger
from ringfence_agent.keystore.protection import Protection, find_root
from ringfence_agent.keystore.protector import Protector
from ringfence_agent.keystore.rows.kinds import SLOTTED, SLOTTED_VERSION, HeaderRow, TokenStateRow
from ringfence_agent.keystore.rows.records import RESTORE_HINT, Records
from ringfence_agent.keystore.sealing import SealBrokenError
from ringfence_agent.keystore.slots import FILE_SCHEME, SlotHeader, is_old_header, read_slots
from ringfence_agent.keystore.store_root import ROOT_BYTES, StoreRoot
from ringfence_zones.errors import ConfigError, StoreTamperedError, WrongRootKeyError
from ringfence_zones.secret import Secret

FIRST_TOKEN_STATE = TokenStateRow(next_sequence=1, newest_key_id=0, changes=0)


class StorePlace(Protocol):
    """How messages name a store, and where an operator finds it; an SQL `Database` is one."""

    @property
    def label(self) -> str:
        """A URI without a secret."""

    @property
    def place(self) -> str:
        """A path or a URI."""


def new_header(protector: Protector) -> tuple[HeaderRow, Records]:
    """The header row of a new store, and what opens it."""
    store_id, secret = secrets.token_bytes(16), Secret(secrets.token_bytes(ROOT_BYTES))
    root = StoreRoot(secret, store_id)
    slots = SlotHeader.first(protector.scheme, protector.label, protector.seal_root(store_id, secret))
    content = slots.to_bytes(root)
    header = HeaderRow(store_id, time.time_ns() // 1_000_000, SLOTTED, content, ledger=b"")
    records = Records(header, Protection(root, content, [protector]), "that is being made")
    ledger = Ledger()
    ledger.add(records.slots_element(slots))
    return header._replace(ledger=records.seal_ledger(ledger)), records


def open_header(store: StorePlace, header: HeaderRow, protectors: Sequence[Protector], version: int) -> Records:
    """What the header row of format `version` opens with one of the protectors. Raises
    WrongRootKeyError, StoreTamperedError, ConfigError without a slot of any of them, and when none of them gives the
    root, ProtectorUnavailableError and ProtectorRefusedError.
    """

    def tampered(what: str) -> StoreTamperedError:
        return StoreTamperedError(f"key store {store.place} fails its integrity check: {what}", hint=RESTORE_HINT)

    content = header.protector_header
    try:
        slots = read_slots(content)
        if is_old_header(content) != (version < SLOTTED_VERSION):
            raise tampered("its header is not of its format")
        if not {slot.scheme for slot in slots.slots} & {protector.scheme for protector in protectors}:
            raise _no_protector(store, slots, protectors)
        root = find_root(header.store_id, slots, protectors)
        if root is None:
            raise _not_recognised(store, header, slots, protectors)
        return Records(header, Protection(root, content, protectors), store.label)
    except (SealBrokenError, TypeError):
        raise tampered("its slots were changed") from None


def _no_protector(store: StorePlace, slots: SlotHeader, protectors: Sequence[Protector]) -> ConfigError:
    given = ", ".join(protector.label for protector in protectors) or "no protector"
    return ConfigError(
        f"key store {store.place} is opened by {', '.join(map(str, slots.slots))}, not by {given}",
        hint="name one of them under protector: in kms.yaml, with its settings",
    )


def _none_of(protectors: Sequence[Protector]) -> str:
    labels = [protector.label for protector in protectors]
    return f"{labels[0]} does not open" if len(labels) == 1 else f"neither {' nor '.join(labels)} opens"


def _not_recognised(
    store: StorePlace, header: HeaderRow, slots: SlotHeader, protectors: Sequence[Protector]
) -> StoreTamperedError | WrongRootKeyError:
    """No check value is that of a root key file, or no slot names the key that a remote protector is set up for."""
    for slot in slots.slots:
        for protector in protectors:
            if slot.is_local and protector.scheme == slot.scheme:
                with suppress(SealBrokenError, StoreTamperedError):
                    root = StoreRoot(protector.open_root(header.store_id, slot.body), header.store_id)
                    records = Records(header, Protection(root, header.protector_header, ()), store.label)
                    records.open_ledger(header.ledger)
                    return records.tampered("its check value was changed; the root key is the right one")
    if [protector.scheme for protector in protectors] == [FILE_SCHEME]:
        return WrongRootKeyError(
            f"{protectors[0].label} is not the root key of key store {store.place}",
            hint="give a root key file that has a slot in this store (--root-key); the store was not touched",
        )
    return WrongRootKeyError(
        f"{_none_of(protectors)} key store {store.place}, which is opened by {', '.join(map(str, slots.slots))}",
        hint="correct the protectors' settings in kms.yaml; the store was not touched",
    )
