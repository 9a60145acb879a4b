"""What protects key material at rest: the interface every protector implements.

A protector turns one root of trust (a root key file today) into the three things a store needs: a header to
recognise itself by, sealing of one version's material, and the keys of the store's integrity check. The store never
sees the root key; the protector never sees the store's tables.

A protector refuses to open what was sealed for another store, key, version, cipher, length or creation time: all of
these are bound into every seal (`MaterialBinding`).
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Protocol

from ringfence_agent.keystore.sql.row_encoding import encode_row
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


class StoreKeys(Protocol):
    """A protector opened for one store."""

    def seal_material(self, binding: MaterialBinding, material: Secret) -> bytes:
        """Material in the form that rests in a row."""

    def open_material(self, binding: MaterialBinding, sealed: bytes) -> Secret:
        """The material again. Raises SealBrokenError."""

    def derive(self, purpose: str) -> bytes:
        """32 bytes that only this root of trust and this store give, one value for each purpose."""


class Protector(Protocol):
    """One root of trust."""

    @property
    def scheme(self) -> str:
        """The word in the store's header that says which protector opens it."""

    @property
    def label(self) -> str:
        """How messages name this root of trust; never the secret."""

    def new_header(self) -> bytes:
        """What a new store keeps to recognise this root of trust by; not secret."""

    def recognises(self, header: bytes) -> bool:
        """Whether `header` was made with this root of trust."""

    def open(self, store_id: bytes) -> StoreKeys:
        """The keys of the store with this id."""
