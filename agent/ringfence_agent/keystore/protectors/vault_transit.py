"""The Transit key `z-wrap` of a cluster in Vault or OpenBao as a root of trust.

Rules:

1. Everything is bound by the context of a derived key to the cluster, and to the key, version, cipher and length of the
   material, or to the store whose root it is. A context is a SHA-256 over fields with their lengths.
2. The key's description is looked at before anything is sealed, and again every minute: Transit ignores the context of
   a key that is not derived, silently, and a key that can be exported protects nothing.
3. A ciphertext is kept as its version and its bytes and written anew for each call; no text of a slot or row goes to
   Vault.
4. Only the cluster, mount and namespace that kms.yaml names are asked, whatever a slot says.

    body of a slot = JSON, keys sorted, no spaces: {"cluster", "form": 1, "key", "mount", "namespace" or null, "root"}
    a seal         = version of the Transit key (4, big-endian) ‖ nonce, ciphertext and tag; `root` is one in base64
    contexts       = SHA-256 over length-prefixed "ringfence-zone-1", cluster, key, version, cipher, bits (numbers as
                     decimal text), and "ringfence-root-1", cluster, the store's id
"""

from __future__ import annotations

import base64
import binascii
import json
import struct
import threading
import time
from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

from ringfence_agent.keystore.protector import MaterialBinding
from ringfence_agent.keystore.sealing import SealBrokenError
from ringfence_agent.keystore.store_root import ROOT_BYTES
from ringfence_agent.vault.settings import WRAP_KEY, VaultSettings
from ringfence_agent.vault.transit_keys import TransitKey
from ringfence_agent.vault.transit_wire import EncryptItem, ItemFault, OpenItem, TransitCiphertext, bound_context
from ringfence_zones.errors import ProtectorRefusedError, ProtectorUnavailableError
from ringfence_zones.secret import Secret

SCHEME = "vault-transit"

T = TypeVar("T")

_FORM = 1
_VERSION = struct.Struct(">I")
_LOOK_AGAIN_S = 60.0


class KeyDescriptions(Protocol):
    """What is needed of `vault.transit_keys.TransitKeys`."""

    def get(self, name: str) -> TransitKey:
        """Raises ProtectorRefusedError without such a key, ProtectorUnavailableError."""


class Batches(Protocol):
    """What is needed of `vault.transit_batches.TransitBatches`."""

    def encrypt(self, key: str, items: Sequence[EncryptItem]) -> list[TransitCiphertext | ItemFault]:
        """A ciphertext or a fault for each item, in order."""

    def decrypt(self, key: str, items: Sequence[OpenItem]) -> list[Secret | ItemFault]:
        """A plaintext or a fault for each item, in order."""


class WrapKey:
    """The cluster's wrap key at work: seals and opens bytes under contexts. Used from any thread."""

    def __init__(
        self,
        settings: VaultSettings,
        keys: KeyDescriptions,
        batches: Batches,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.settings = settings
        self._keys = keys
        self._batches = batches
        self._clock = clock
        self._lock = threading.Lock()
        self._looked: tuple[float, TransitKey] | None = None

    def encrypt(self, items: Sequence[tuple[bytes, Secret]]) -> list[bytes]:
        """A seal for each (context, plaintext). Raises ProtectorUnavailableError, ProtectorRefusedError."""
        version = self._sound_key().latest_version
        found = self._batches.encrypt(WRAP_KEY, [EncryptItem(plain, context, version) for context, plain in items])
        return [_VERSION.pack(each.version) + each.raw for each in self._all_good(found)]

    def decrypt(self, items: Sequence[tuple[bytes, bytes]]) -> list[Secret]:
        """The plaintext for each (context, seal). Raises SealBrokenError too. Asks for nothing else, so that a standby
        can answer when no node is active.
        """
        found = self._batches.decrypt(WRAP_KEY, [OpenItem(_ciphertext(sealed), context) for context, sealed in items])
        return self._all_good(found)

    def _sound_key(self) -> TransitKey:
        """The key's description, at most a minute old. After a rotation the version before it goes on for so long."""
        with self._lock:
            looked = self._looked
            if looked is None or self._clock() - looked[0] >= _LOOK_AGAIN_S:
                looked = self._looked = self._clock(), self._keys.get(WRAP_KEY).require_sound()
            return looked[1]

    def _all_good(self, found: Sequence[T | ItemFault]) -> list[T]:
        good = [each for each in found if not isinstance(each, ItemFault)]
        faults = [each for each in found if isinstance(each, ItemFault)]
        for fault in faults:
            if fault is not ItemFault.CORRUPT:
                raise self._failed(fault)
        if faults:
            raise SealBrokenError
        return good

    def _failed(self, fault: ItemFault) -> ProtectorRefusedError | ProtectorUnavailableError:
        what = f"key material sealed by Vault ({self.settings.transit_mount}/keys/{WRAP_KEY})"
        return fault.error(what, "its min_decryption_version")


class VaultTransitMaterials:
    """See `keystore.protector.Materials`. One call to Vault for up to 128 items."""

    def __init__(self, key: WrapKey) -> None:
        self._key = key

    def seal(self, items: Sequence[tuple[MaterialBinding, Secret]]) -> list[bytes]:
        """See Materials."""
        return self._key.encrypt([(self._context(binding), material) for binding, material in items])

    def open(self, items: Sequence[tuple[MaterialBinding, bytes]]) -> list[Secret]:
        """See Materials."""
        return self._key.decrypt([(self._context(binding), sealed) for binding, sealed in items])

    def _context(self, binding: MaterialBinding) -> bytes:
        return zone_key_context(self._key.settings.cluster, binding)


class VaultTransitProtector:
    """Protects with the wrap key of one cluster: see `keystore.protector.Protector`."""

    scheme = SCHEME

    def __init__(self, key: WrapKey) -> None:
        self._key = key
        settings = key.settings
        self.label = f"Transit key {settings.transit_mount}/{WRAP_KEY} of cluster {settings.cluster}"
        self._place = {
            "cluster": settings.cluster,
            "form": _FORM,
            "key": WRAP_KEY,
            "mount": settings.transit_mount,
            "namespace": settings.namespace,
        }

    def __repr__(self) -> str:
        return f"<VaultTransitProtector {self.label}>"

    def seal_root(self, store_id: bytes, root: Secret) -> bytes:
        """See Protector."""
        (sealed,) = self._key.encrypt([(self._root_context(store_id), root)])
        body = {**self._place, "root": base64.b64encode(sealed).decode()}
        return json.dumps(body, sort_keys=True, separators=(",", ":")).encode()

    def recognises(self, slot_body: bytes) -> bool:
        """See Protector. Cluster, mount and namespace; at which addresses it is reached does not matter."""
        return _sealed_root(slot_body, self._place) is not None

    def open_root(self, store_id: bytes, slot_body: bytes) -> Secret:
        """See Protector."""
        sealed = _sealed_root(slot_body, self._place)
        if sealed is None:
            raise SealBrokenError
        (root,) = self._key.decrypt([(self._root_context(store_id), sealed)])
        if len(root) != ROOT_BYTES:
            raise SealBrokenError
        return root

    def materials(self, slot_body: bytes) -> VaultTransitMaterials:  # noqa: ARG002 -- one key, which it recognised
        """See Protector."""
        return VaultTransitMaterials(self._key)

    def _root_context(self, store_id: bytes) -> bytes:
        return bound_context(b"ringfence-root-1", self._key.settings.cluster.encode(), store_id)


def zone_key_context(cluster: str, binding: MaterialBinding) -> bytes:
    """What material is bound to in Vault; 32 bytes."""
    return bound_context(
        b"ringfence-zone-1",
        cluster.encode(),
        binding.key_name.encode(),
        str(binding.version).encode(),
        binding.cipher.encode(),
        str(binding.length_bits).encode(),
    )


def _ciphertext(sealed: bytes) -> TransitCiphertext:
    try:
        (version,) = _VERSION.unpack_from(sealed)
        return TransitCiphertext(version, sealed[_VERSION.size :])
    except (struct.error, ValueError):
        raise SealBrokenError from None


def _sealed_root(body: bytes, place: dict[str, object]) -> bytes | None:
    """None for a slot that another key made, and for what this release did not write."""
    try:
        fields = json.loads(body)
        if not isinstance(fields, dict) or {name: fields.get(name) for name in place} != place:
            return None
        return base64.b64decode(fields["root"], validate=True)
    except (ValueError, KeyError, TypeError, RecursionError, binascii.Error):
        return None
