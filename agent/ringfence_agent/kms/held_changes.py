"""Creates and rolls of keys that Vault holds: in Vault first, then in the store; each step may be the last.

What is kept and for how long a repeated request is recognised is as for other keys (`repeated_change`).
"""

from __future__ import annotations

from ringfence_agent.keystore.held import AnyVersion, HeldKey, TransitVersion
from ringfence_agent.keystore.interface import ChangeOrigin, KeyStore, NewKey, UnconfirmedChange
from ringfence_agent.kms.call import Call
from ringfence_agent.kms.custody.transit_changes import TransitChanges
from ringfence_agent.kms.kms import Kms
from ringfence_zones.errors import KeyChangedError, KeyExistsError, KeyNotFoundError, UnconfirmedChangeError

# Each failure of one is a success of somebody else's.
_TRIES = 8


async def create_held(
    kms: Kms, call: Call, changes: TransitChanges, new: NewKey, place: TransitVersion, origin: ChangeOrigin
) -> AnyVersion:
    """Makes the Transit key that `new` names, then its record. Raises as `KeyStore.create_key`, and what Vault says."""
    await kms.begin_change(call)
    if await kms.store.read(lambda store: store.find_sealed_key(new.name)) is not None:
        raise KeyExistsError(new.name, kms.store.label)
    await changes.make_key(place)
    return await kms.commit(lambda store: store.create_key(new, origin))


async def roll_held(kms: Kms, call: Call, changes: TransitChanges, name: str, origin: ChangeOrigin) -> AnyVersion:
    """Finds or makes a later version in Vault, then records it. Raises as `KeyStore.roll_key`, and what Vault says."""
    await kms.begin_change(call)
    tries = _TRIES
    while True:
        key, unconfirmed = await kms.store.read(lambda store: _find(store, name))
        # Looked at first, so that a request that comes twice makes no version in Vault that nobody asked for.
        if any(change.origin == origin and change.version in key.numbers for change in unconfirmed):
            raise UnconfirmedChangeError(name)
        place = await changes.next_version(key.current.place)
        call.detail = {**(call.detail or {}), "transit_key": place.key, "transit_version": place.version}
        try:
            return await _record(kms, name, place, origin)
        except KeyChangedError:
            tries -= 1
            if not tries:
                raise


async def _record(kms: Kms, name: str, place: TransitVersion, origin: ChangeOrigin) -> AnyVersion:
    return await kms.commit(lambda store: store.roll_key(name, place, origin))


def _find(store: KeyStore, name: str) -> tuple[HeldKey, list[UnconfirmedChange]]:
    key = store.find_sealed_key(name)
    if key is None:
        raise KeyNotFoundError(name)
    if not isinstance(key, HeldKey):
        raise KeyChangedError(name)  # deleted, and made again in another custody
    return key, list(store.find_unconfirmed(name))
