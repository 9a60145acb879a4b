"""A new root for a store: every slot, seal, tag and sum again, in one change. What of that is the same in every store.

For when the root, or a root key file of a store that was made before there were slots, may be known to somebody. No
server may use the store meanwhile: one that does finds a ledger that it cannot open, and refuses until it is restarted.
What remote protectors sealed is not asked for: it is tied to the new root without being opened.

Sessions and delegation tokens of clients: cookies end, since their keys derive from the root; tokens stay good, since
their master keys are random and only sealed again.
"""

from __future__ import annotations

import secrets
from dataclasses import replace

from ringfence_agent.keystore.protection import Protection
from ringfence_agent.keystore.rows.kinds import KeyVersionRow
from ringfence_agent.keystore.rows.records import Records
from ringfence_agent.keystore.sealing import SealBrokenError
from ringfence_agent.keystore.slots import Slot, SlotHeader
from ringfence_agent.keystore.store_root import ROOT_BYTES, StoreRoot
from ringfence_zones.errors import InputError, ProtectorRefusedError
from ringfence_zones.secret import Secret


def new_records(old: Records, slots: SlotHeader) -> Records:
    """A new root, sealed for each of these slots, with whose protectors it was tried. Raises InputError without one of
    them, ProtectorUnavailableError, ProtectorRefusedError.
    """
    store_id, secret = old.protection.root.store_id, Secret(secrets.token_bytes(ROOT_BYTES))
    root = StoreRoot(secret, store_id)
    made = tuple(_sealed_again(old.protection, slot, store_id, secret) for slot in slots.slots)
    header = replace(slots, slots=made, revision=slots.revision + 1)
    return Records(old.header, Protection(root, header.to_bytes(root), ()), "that is given a new root")


def _sealed_again(protection: Protection, slot: Slot, store_id: bytes, secret: Secret) -> Slot:
    protector = protection.find_protector(slot)
    if protector is None:
        raise InputError(
            f"{slot} cannot be given a new root: its protector is not at hand",
            hint="name its protector with its settings, or remove the slot first: ringfence keystore unprotect",
        )
    body = protector.seal_root(store_id, secret)
    try:
        comes_back = protector.open_root(store_id, body) == secret
    except SealBrokenError:
        comes_back = False
    if not comes_back:
        raise ProtectorRefusedError(f"{slot} does not give back what it sealed; nothing was changed")
    return replace(slot, body=body)


def sealed_under(root: StoreRoot, old: Records, row: KeyVersionRow) -> bytes:
    """A version's seal under another root. No protector is asked. Raises StoreTamperedError."""
    binding = old.binding(row)
    try:
        if old.protection.is_held(row.sealed):
            return old.protection.reseal_held(root, binding, row.sealed)
        if old.protection.is_remote(row.sealed):
            return old.protection.reseal_remote(root, binding, row.sealed)
        return root.seal_material(old.protection.open_here(binding, row.sealed), binding.encoded)
    except SealBrokenError:
        raise old.tampered(f"version {row.version} of key {row.key_name!r} was changed") from None
