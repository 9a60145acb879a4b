"""Custody `transit` at work: EDEKs made, opened and re-encrypted inside Vault, many in one call.

Rules:

1. A data key is made here, of the system's randomness, and wrapped by Vault; the zone key never comes here.
2. What is bound to each EDEK: the Transit key, which is one zone key's for ever, the key's name and the file's IV. The
   version is in the EDEK, and must be the one that the store has for the version that Hadoop names.
3. Vault is told which version to use, always: nodes that lag, and instances, agree on the store's.
4. Re-encrypting keeps DEK and IV, and the DEK does not come here.
5. Nothing is remembered but where versions are held, which is the key cache's. So revocation needs nothing more here.
6. What Vault refuses is no answer about the caller: 503 for what may pass, 500 for what may not, 400 for an EDEK that
   is none. Never 401 or 403.

Used on one event loop. Whoever calls has authorised the request.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeVar

from ringfence_agent.keystore.held import HeldVersion, TransitVersion
from ringfence_agent.kms.custody.held import TransitHeldKey
from ringfence_agent.promise import Promise
from ringfence_agent.vault.batching import MicroBatcher
from ringfence_agent.vault.servers import VaultServers
from ringfence_agent.vault.transit import LAG_S
from ringfence_agent.vault.transit_wire import (
    EncryptItem,
    ItemFault,
    OpenItem,
    RewrapItem,
    TransitCiphertext,
    ciphertext_in,
    edek_context,
    edek_from,
)
from ringfence_zones.errors import InputError, ProtectorRefusedError, RingfenceError
from ringfence_zones.keys import IV_BYTES
from ringfence_zones.secret import Secret

T = TypeVar("T")
U = TypeVar("U")

# One call waits for others, and may go to a second node: less than a client's own time-out (60 s).
_PATIENCE_S = 10.0
# A thousand EDEKs are eight calls, which take turns with everybody else's.
_BATCH_PATIENCE_S = 25.0
_PROOF_PATIENCE_S = 5.0
# About a millisecond of work.
_SLICE = 200
_PROVER = "ringfence"
_MISSING = ItemFault.NO_SUCH_KEY.name.lower()


class HeldEek(NamedTuple):
    """An EDEK as a client gives it; `number` is Hadoop's number of the version that made it."""

    number: int
    iv: bytes
    edek: bytes


class TransitCustody:
    """One worker's."""

    def __init__(self, batcher: MicroBatcher, servers: VaultServers) -> None:
        self._batcher = batcher
        self._servers = servers

    def gauges(self) -> dict[str, tuple[str, float]]:
        """For the metrics: name -> what it is, and its value now."""
        return {
            "transit_waiting": ("EDEKs that wait for Vault in the answering worker.", self._batcher.waiting),
            "transit_nodes_left_alone": (
                "Nodes of Vault that the answering worker does not ask, for they failed too often.",
                self._servers.left_alone,
            ),
        }

    async def generate(self, key: TransitHeldKey, ivs: Sequence[bytes], caller: str) -> list[tuple[bytes, bytes]]:
        """Each of these new IVs with the EDEK of a random DEK as long as the key says, under its current version.

        Raises ProtectorUnavailableError, ProtectorRefusedError.
        """
        dek_bytes = key.metadata.length_bits // 8
        deks = [Secret(secrets.token_bytes(dek_bytes)) for _ in ivs]
        edeks = await self._wrap(key.current, list(zip(ivs, deks, strict=True)), caller, _patience_s(len(ivs)))
        return list(zip(ivs, edeks, strict=True))

    def open(self, key: TransitHeldKey, eek: HeldEek, caller: str) -> Promise[Secret]:
        """The DEK. Raises InputError for an EDEK that was not made for this key, version and IV, else as `generate`;
        at once, or in the promise.
        """
        version = key.get_version(eek.number)
        item = OpenItem(_ciphertext(version, eek), _context(version, eek.iv))
        waiting = self._batcher.decrypt_one(version.place.key, item, caller, _by(_PATIENCE_S))
        return waiting.then(lambda found: _good(version, found))

    async def reencrypt(self, key: TransitHeldKey, eeks: Sequence[HeldEek], caller: str) -> list[bytes]:
        """Each EDEK under the current version, with the same DEK and IV; as it is when it was made with that."""
        current = key.current

        def to_rewrap(eek: HeldEek) -> RewrapItem | None:
            version = key.get_version(eek.number)
            ciphertext = _ciphertext(version, eek)
            if version is current:
                return None
            return RewrapItem(ciphertext, _context(version, eek.iv), current.place.version)

        asked = await in_slices(to_rewrap, eeks)
        items = [item for item in asked if item is not None]
        if not items:
            return [eek.edek for eek in eeks]
        found = iter(await self._batcher.rewrap(current.place.key, items, caller, _by(_patience_s(len(items)))))

        def again(pair: tuple[HeldEek, RewrapItem | None]) -> bytes:
            eek, item = pair
            if item is None:
                return eek.edek
            return edek_from(_of_version(current, _good(key.get_version(eek.number), next(found))))

        return await in_slices(again, list(zip(eeks, asked, strict=True)))

    async def prove(self, place: TransitVersion) -> None:
        """That what is encrypted with a version comes back: a new one is believed after that, and not before.

        A node that has not heard of the key yet is asked again. Raises as `generate`.
        """
        deadline = _by(_PROOF_PATIENCE_S)
        while True:
            try:
                await self._round_trip(HeldVersion("ringfence.canary", 0, place))
            except ProtectorRefusedError as error:
                if error.reason != _MISSING or _by(LAG_S) >= deadline:
                    raise
            else:
                return
            await asyncio.sleep(LAG_S)

    async def _round_trip(self, version: HeldVersion) -> None:
        iv, plain = secrets.token_bytes(IV_BYTES), Secret(secrets.token_bytes(32))
        (edek,) = await self._wrap(version, [(iv, plain)], _PROVER, _PROOF_PATIENCE_S)
        item = OpenItem(_ciphertext(version, HeldEek(0, iv, edek)), _context(version, iv))
        (found,) = await self._batcher.decrypt(version.place.key, [item], _PROVER, _by(_PROOF_PATIENCE_S))
        if _good(version, found) != plain:
            raise ProtectorRefusedError(f"{version.place} gives back what was not put into it; it is not used")

    async def _wrap(
        self, version: HeldVersion, pairs: Sequence[tuple[bytes, Secret]], caller: str, patience_s: float
    ) -> list[bytes]:
        """The EDEK for each IV and DEK."""
        number = version.place.version
        items = await in_slices(lambda pair: EncryptItem(pair[1], _context(version, pair[0]), number), pairs)
        found = await self._batcher.encrypt(version.place.key, items, caller, _by(patience_s))
        return await in_slices(lambda each: edek_from(_of_version(version, _good(version, each))), found)


async def in_slices(make: Callable[[T], U], of: Sequence[T]) -> list[U]:
    """`make` of each; between some of a thousand others are answered."""
    made: list[U] = []
    for start in range(0, len(of), _SLICE):
        if start:
            await asyncio.sleep(0)
        made += [make(each) for each in of[start : start + _SLICE]]
    return made


def _context(version: HeldVersion, iv: bytes) -> bytes:
    return edek_context(version.place.key, version.key_name, iv)


def _ciphertext(version: HeldVersion, eek: HeldEek) -> TransitCiphertext:
    return ciphertext_in(eek.edek, version.name, version.place.version)


def _by(patience_s: float) -> float:
    return asyncio.get_running_loop().time() + patience_s


def _patience_s(count: int) -> float:
    return _PATIENCE_S if count == 1 else _BATCH_PATIENCE_S


def _good(version: HeldVersion, found: T | ItemFault) -> T:
    if not isinstance(found, ItemFault):
        return found
    raise _failed(version, found)


def _failed(version: HeldVersion, fault: ItemFault) -> RingfenceError:
    if fault is ItemFault.CORRUPT:
        return InputError(f"the EDEK given for {version.name} {fault.value}")
    return fault.error(f"an EDEK of {version.name}, held as {version.place},", "its minimum versions")


def _of_version(version: HeldVersion, ciphertext: TransitCiphertext) -> TransitCiphertext:
    """That Vault used the version it was told to."""
    if ciphertext.version != version.place.version:
        raise ProtectorRefusedError(
            f"Vault used version {ciphertext.version} of {version.place.key} where {version.place} was asked for",
            reason="wrong_version",
        )
    return ciphertext
