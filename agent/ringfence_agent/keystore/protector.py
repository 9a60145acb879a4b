"""What protects key material at rest: the interface every protector implements.

A store has one secret, its *root* (32 bytes), from which the keys of its integrity check, of its tokens and of its
cookies derive (`store_root`). A protector is a root of trust outside the store: a root key file, a Vault Transit key,
an AWS KMS key. It does two things:

1. It keeps the root in a *slot* of the store's header. A store may have several slots; any one of them opens it.
2. It seals the material of key versions, one seal for each. A local protector (a file) leaves that to the store, which
   seals under its root; a remote one does it itself, so that material cannot be opened without asking it.

Rules for remote protectors:

- Every seal is bound to cluster, key and version. The store binds what it gets to every field of `MaterialBinding`
  once more, under its root: neither the store's database nor the protector alone can put one material for another.
- Calls take and give lists, so that what takes one call takes one call.
- Methods block and may be called from several threads at once, never from an event loop. Each call returns or raises
  within about 10 seconds.
- What they raise: SealBrokenError for what does not open because it is not what was sealed there, or was sealed for
  another key; ProtectorUnavailableError when the same call may do later; ProtectorRefusedError when it will not until
  somebody changes something, which it names. No error, label or `repr` holds a secret or a body of an answer.

The store never sees a root of trust; a protector never sees the store's tables.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from ringfence_agent.keystore.rows.encoding import encode_row
from ringfence_zones.secret import Secret


@dataclass(frozen=True)
class MaterialBinding:
    """What one version's sealed material belongs to; `created_ms` is the version's creation, epoch milliseconds."""

    schema: int
    store_id: bytes
    key_name: str
    version: int
    cipher: str
    length_bits: int
    created_ms: int

    @functools.cached_property
    def encoded(self) -> bytes:
        """The additional authenticated data of the seal; a seal may be opened for each request."""
        return encode_row(
            "ringfence/material",
            self.schema,
            self.store_id,
            self.key_name,
            self.version,
            self.cipher,
            self.length_bits,
            self.created_ms,
        )


class Materials(Protocol):
    """A remote protector's sealing of the material of key versions, for one slot. See the module's rules."""

    def seal(self, items: Sequence[tuple[MaterialBinding, Secret]]) -> list[bytes]:
        """One seal for each item, in order; all of them or an error. Raises ProtectorUnavailableError,
        ProtectorRefusedError.
        """

    def open(self, items: Sequence[tuple[MaterialBinding, bytes]]) -> list[Secret]:
        """The materials again, in order; all of them or an error. Raises SealBrokenError when one does not open,
        ProtectorUnavailableError, ProtectorRefusedError.
        """


@runtime_checkable
class ResealingMaterials(Materials, Protocol):
    """Materials that take over seals of their own kind inside the remote protector: the material never comes here."""

    def can_reseal(self, source: Materials) -> bool:
        """Whether `reseal` takes the seals of `source`. No I/O."""

    def reseal(self, source: Materials, items: Sequence[tuple[MaterialBinding, bytes]]) -> list[bytes]:
        """One seal of this slot for each seal of `source`, in order; all of them or an error. Raises as `open`."""


class Protector(Protocol):
    """One root of trust. `slot_body` is what its own `seal_root` gave: format and content are the protector's."""

    @property
    def scheme(self) -> str:
        """The kind, as the header and kms.yaml name it: `file`, `vault-transit`, `aws-kms`."""

    @property
    def label(self) -> str:
        """How messages name this root of trust; it also rests in the header. Never a secret."""

    def seal_root(self, store_id: bytes, root: Secret) -> bytes:
        """The body of a new slot: the root sealed for this store, and what `recognises` needs. Raises
        ProtectorUnavailableError, ProtectorRefusedError.
        """

    def recognises(self, slot_body: bytes) -> bool:
        """Whether the slot was made with this very root of trust, as far as can be told without asking anybody."""

    def open_root(self, store_id: bytes, slot_body: bytes) -> Secret:
        """The root again. Raises SealBrokenError, ProtectorUnavailableError, ProtectorRefusedError."""

    def materials(self, slot_body: bytes) -> Materials | None:
        """Seals and opens material with the root of trust that the slot names. No I/O.

        None for a local protector: material is then sealed under the store's root itself, without I/O.
        """


@dataclass(frozen=True, slots=True)
class Protectors:
    """Which protectors a process has for a store: its root key file, and others in the order they are tried."""

    with_file: bool = True
    others: tuple[Protector, ...] = ()


FILE_ALONE = Protectors()
"""What a store has when nobody says."""
