"""What a store keeps of delegation tokens, for every instance that shares it.

A token is verified with three things: a master key (its password is a MAC of the identifier under it), the record that
says it was issued and not cancelled, and the time until which it was renewed. All three rest here. What a token's
bytes mean is not known here: the identifier is kept as it was issued.

Rules every store keeps:

1. A method that changes something returns when the change is durable.
2. Numbers never repeat: neither a token's sequence nor a master key's, not after a crash, a cancel or an expiry, and
   not between instances. They may leave gaps.
3. The secret of a master key rests sealed, and rows carry a tag: an edited one is StoreTamperedError. Unlike keys and
   policy, tokens are not in the store's ledger, so that a removed row is simply an unknown token.
4. A change of tokens is no change of keys: `KeyStore.change_number` stays, `token_change_number` grows.

Every method raises StoreUnavailableError, and StoreTamperedError for a row that the store did not write.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from ringfence_zones.secret import Secret


@dataclass(frozen=True, slots=True)
class MasterKey:
    """A key that token passwords are made with. `key_id` counts from 1; times are epoch milliseconds.

    New tokens use the newest; an older one verifies until `expires_ms`, when the last token made with it is past its
    maximum life.
    """

    key_id: int
    secret: Secret
    created_ms: int
    expires_ms: int


@dataclass(frozen=True, slots=True)
class TokenRecord:
    """An issued token. `identifier` is what its password authenticates; `expires_ms` moves with each renewal."""

    sequence: int
    identifier: bytes
    expires_ms: int


class TokenStore(Protocol):
    """See the module's rules."""

    def list_master_keys(self) -> Sequence[MasterKey]:
        """Every master key that was not removed, oldest first."""

    def add_master_key(self, after: int, secret: Secret, created_ms: int, expires_ms: int) -> MasterKey:
        """Compare-and-set: adds a key when `after` is the newest one's id (0 for none), and gives the newest.

        When another instance was quicker, its key is given instead and `secret` is dropped: both go on with one key.
        """

    def next_sequence(self) -> int:
        """A number for one new token, from 1 up. Cheap: numbers are taken from the store in blocks."""

    def add_token(self, token: TokenRecord) -> None:
        """Keeps a new token. Its sequence comes from `next_sequence` and is used once."""

    def find_token(self, sequence: int) -> TokenRecord | None:
        """An issued token, None when it was cancelled, removed or never issued. Not None when it has expired."""

    def renew_token(self, sequence: int, expires_ms: int) -> TokenRecord | None:
        """Moves a token's expiry, never backwards, and gives it as it is now. None without such a token."""

    def cancel_token(self, sequence: int) -> bool:
        """Removes a token. False when there was none: someone was quicker, or it never was."""

    def remove_expired(self, now_ms: int) -> int:
        """Removes tokens and master keys that expired before `now_ms`, and says how many tokens went.

        The newest master key stays, whatever its expiry.
        """

    def token_change_number(self) -> int:
        """Grows whenever anyone renews, cancels or removes a token or adds a master key: a cache asks this.

        One read of one row. A new token does not count, since nobody can have remembered that it is there; whoever
        remembers that a token is *not* there must not keep that.
        """
