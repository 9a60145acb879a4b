"""A remote protector for tests: a key in another place than the store, which can be away, refuse, dawdle and count.

What it seals is real AES-GCM, bound to cluster, key and version as the remote protectors' seals are.
"""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable, Sequence

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from ringfence_agent.keystore.protector import MaterialBinding
from ringfence_agent.keystore.sealing import SealBrokenError, seal, unseal
from ringfence_zones.errors import ProtectorRefusedError, ProtectorUnavailableError
from ringfence_zones.secret import Secret


class Lockbox:
    """One key. `calls` are (operation, items); `on_call` runs in each call, in the caller's thread."""

    def __init__(self, name: str = "box", key: bytes | None = None) -> None:
        self.name = name
        self._cipher = AESGCM(key or secrets.token_bytes(32))
        self._lock = threading.Lock()
        self.calls: list[tuple[str, int]] = []
        self.is_away = False
        self.refuses = False
        self.on_call: Callable[[str], None] = lambda _operation: None

    def seal(self, items: Sequence[tuple[bytes, Secret]]) -> list[bytes]:
        """Each item's bytes under its context."""
        self._called("seal", len(items))
        return [seal(self._cipher, plain.reveal(), context) for context, plain in items]

    def open(self, items: Sequence[tuple[bytes, bytes]]) -> list[Secret]:
        """What `seal` sealed."""
        self._called("open", len(items))
        return [Secret(unseal(self._cipher, sealed, context)) for context, sealed in items]

    def count(self, operation: str) -> int:
        """How many items were sealed or opened."""
        return sum(items for called, items in self.calls if called == operation)

    def _called(self, operation: str, items: int) -> None:
        with self._lock:
            self.calls.append((operation, items))
        self.on_call(operation)
        if self.is_away:
            raise ProtectorUnavailableError(f"lockbox {self.name} is away")
        if self.refuses:
            raise ProtectorRefusedError(f"lockbox {self.name} refuses", reason="policy")


class LockboxProtector:
    """See `ringfence_agent.keystore.protector.Protector`."""

    def __init__(self, box: Lockbox, scheme: str = "vault-transit") -> None:
        self._box = box
        self.scheme = scheme
        self.label = f"lockbox {box.name}"

    def seal_root(self, store_id: bytes, root: Secret) -> bytes:
        (sealed,) = self._box.seal([(b"root" + store_id, root)])
        return self._box.name.encode() + b":" + sealed

    def recognises(self, slot_body: bytes) -> bool:
        return slot_body.startswith(self._box.name.encode() + b":")

    def open_root(self, store_id: bytes, slot_body: bytes) -> Secret:
        if not self.recognises(slot_body):
            raise SealBrokenError
        (root,) = self._box.open([(b"root" + store_id, slot_body[len(self._box.name) + 1 :])])
        return root

    def materials(self, slot_body: bytes) -> LockboxMaterials:
        assert self.recognises(slot_body)
        return LockboxMaterials(self._box)


class LockboxMaterials:
    """See `ringfence_agent.keystore.protector.Materials`."""

    def __init__(self, box: Lockbox) -> None:
        self._box = box

    def seal(self, items: Sequence[tuple[MaterialBinding, Secret]]) -> list[bytes]:
        return self._box.seal([(_context(binding), material) for binding, material in items])

    def open(self, items: Sequence[tuple[MaterialBinding, bytes]]) -> list[Secret]:
        return self._box.open([(_context(binding), sealed) for binding, sealed in items])


def _context(binding: MaterialBinding) -> bytes:
    return f"{binding.key_name}@{binding.version}".encode()
