"""Tamper evidence for a store: a tag on each row and one sealed ledger over all rows.

- A *tag* (HMAC-SHA256 over the row's encoding) shows that this store wrote the row. It is checked on every read.
- The *ledger* is a keyed additive multiset hash: the sum modulo 2^256 of HMAC-SHA256 of every row, under another
  key, with the number of rows, a write counter and the newest policy revision. Changing a row adds one element and
  takes one away, so a write costs the same whatever the store's size. The ledger rests sealed with AES-256-GCM in
  the header row and changes in the same transaction as the rows.

So rows that were removed, duplicated, swapped, edited or put back from an earlier state no longer add up. What this
cannot see is the whole file put back from an earlier state: that needs a counter kept elsewhere.

Elements stay secret (own key, sum only ever stored encrypted): an attacker who knew them could look for another set
of old rows with the same sum.
"""

from __future__ import annotations

import hmac
import struct
from dataclasses import dataclass

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from ringfence_agent.keystore.rows.encoding import encode_row
from ringfence_agent.keystore.sealing import SealBrokenError, seal, unseal
from ringfence_agent.keystore.store_root import StoreRoot

_MODULUS = 1 << 256
_LEDGER = struct.Struct(">QQQ32s")


@dataclass(slots=True)
class Ledger:
    """The sum over all rows. `writes` counts transactions, `revision` is the newest policy's number or 0."""

    writes: int = 0
    rows: int = 0
    revision: int = 0
    total: int = 0

    def add(self, element: int) -> None:
        """A row came in."""
        self.rows += 1
        self.total = (self.total + element) % _MODULUS

    def remove(self, element: int) -> None:
        """A row, or the earlier state of one, went out."""
        self.rows -= 1
        self.total = (self.total - element) % _MODULUS


class Authenticator:
    """Computes tags, elements and the seal of one store."""

    def __init__(self, root: StoreRoot, header_binding: bytes) -> None:
        """`header_binding` is the encoded header: the seal opens beside no other."""
        self._tag_key = root.derive("row-tag")
        self._element_key = root.derive("row-element")
        self._ledger_cipher = AESGCM(root.derive("ledger"))
        self._binding = encode_row("ringfence/ledger", header_binding)

    def tag(self, encoded: bytes) -> bytes:
        """32 bytes that rest beside the row."""
        return hmac.digest(self._tag_key, encoded, "sha256")

    def is_tag_of(self, tag: bytes, encoded: bytes) -> bool:
        """Constant-time."""
        return hmac.compare_digest(tag, self.tag(encoded))

    def element(self, encoded: bytes) -> int:
        """The row's share of the ledger's sum."""
        return int.from_bytes(hmac.digest(self._element_key, encoded, "sha256"), "big")

    def seal(self, ledger: Ledger) -> bytes:
        """The ledger as it rests in the header row."""
        plain = _LEDGER.pack(ledger.writes, ledger.rows, ledger.revision, ledger.total.to_bytes(32, "big"))
        return seal(self._ledger_cipher, plain, self._binding)

    def unseal(self, sealed: bytes) -> Ledger:
        """Raises SealBrokenError."""
        plain = unseal(self._ledger_cipher, sealed, self._binding)
        if len(plain) != _LEDGER.size:
            raise SealBrokenError
        writes, rows, revision, total = _LEDGER.unpack(plain)
        return Ledger(writes, rows, revision, int.from_bytes(total, "big"))
