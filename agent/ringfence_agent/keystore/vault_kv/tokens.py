"""Delegation tokens in documents: see `token_store` for the rules.

Numbers are taken from the head in blocks, and tokens of a block lie in one document, so that a handle writes to
documents of its own. Issuing one writes that document alone; whatever ends what others may remember goes through the
head, where it is counted.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence

from ringfence_agent.keystore.rows.kinds import TokenRow
from ringfence_agent.keystore.rows.records import Records
from ringfence_agent.keystore.token_store import MasterKey, TokenRecord
from ringfence_agent.keystore.vault_kv.documents import VaultDocuments
from ringfence_agent.keystore.vault_kv.head import Head
from ringfence_agent.keystore.vault_kv.journal import HeadChange, Journal
from ringfence_agent.keystore.vault_kv.rows import TOKEN_BLOCK, TOKENS, token_path, tokens_body, tokens_of
from ringfence_zones.secret import Secret


class VaultTokens:
    """See `token_store.TokenStore`."""

    def __init__(self, documents: VaultDocuments, records: Records, journal: Journal) -> None:
        self._documents = documents
        self._records = records
        self._journal = journal
        self._block = iter(range(0))
        self._block_lock = threading.Lock()

    def list_master_keys(self) -> Sequence[MasterKey]:
        """See TokenStore."""
        return [self._records.open_master_key(row) for row in self._journal.read().master_keys]

    def add_master_key(self, after: int, secret: Secret, created_ms: int, expires_ms: int) -> MasterKey:
        """See TokenStore."""

        def attempt(change: HeadChange) -> MasterKey:
            head = change.head
            if head.tokens.newest_key_id != after:
                change.drop()
                return self._records.open_master_key(head.master_keys[-1])
            made = MasterKey(after + 1, secret, created_ms, expires_ms)
            head.master_keys.append(self._records.seal_master_key(made))
            head.tokens = head.tokens._replace(newest_key_id=made.key_id)
            _count(head)
            return made

        return self._journal.change_rest(attempt)

    def next_sequence(self) -> int:
        """See TokenStore."""
        with self._block_lock:
            number = next(self._block, None)
            if number is None:
                self._block = iter(self._journal.change_rest(_take_block))
                number = next(self._block)
            return number

    def skip_sequences(self, count: int) -> None:
        """Leaves a gap, for a restore of an earlier state: the numbers after it were given out."""

        def attempt(change: HeadChange) -> None:
            tokens = change.head.tokens
            change.head.tokens = tokens._replace(next_sequence=tokens.next_sequence + count)

        self._journal.change_rest(attempt)

    def add_token(self, token: TokenRecord) -> None:
        """See TokenStore."""
        path = token_path(token.sequence)
        while True:
            document = self._documents.find(path)
            tokens = tokens_of(document)
            tokens[token.sequence] = TokenRow(token.sequence, token.identifier, token.expires_ms)
            as_of, version = (0, 0) if document is None else (document.body["as_of"], document.version)
            if self._documents.write(path, {**tokens_body(tokens), "as_of": as_of}, version):
                return

    def find_token(self, sequence: int) -> TokenRecord | None:
        """See TokenStore."""
        row = tokens_of(self._documents.find(token_path(sequence))).get(sequence)
        return None if row is None else TokenRecord(*row)

    def renew_token(self, sequence: int, expires_ms: int) -> TokenRecord | None:
        """See TokenStore."""

        def attempt(change: HeadChange) -> TokenRecord | None:
            path = token_path(sequence)
            row = tokens_of(change.find(path)).get(sequence)
            if row is None:
                change.drop()
                return None
            change.change_tokens(path, "renew", sequence, expires_ms)
            _count(change.head)
            return TokenRecord(sequence, row.identifier, max(row.expires_ms, expires_ms))

        return self._journal.change_rest(attempt)

    def cancel_token(self, sequence: int) -> bool:
        """See TokenStore."""

        def attempt(change: HeadChange) -> bool:
            path = token_path(sequence)
            if sequence not in tokens_of(change.find(path)):
                change.drop()
                return False
            change.change_tokens(path, "cancel", sequence)
            _count(change.head)
            return True

        return self._journal.change_rest(attempt)

    def remove_expired(self, now_ms: int) -> int:
        """See TokenStore. Reads every document of tokens, 256 at most."""
        paths = [f"{TOKENS}/{name}" for name in self._documents.list_names(TOKENS)]
        due = [path for path in paths if self._expired(path, now_ms)]

        def attempt(change: HeadChange) -> int:
            head = change.head
            newest = head.tokens.newest_key_id
            keys = [key for key in head.master_keys if key.expires_ms >= now_ms or key.key_id == newest]
            # Counted again: somebody may have been here meanwhile.
            counts = {path: self._expired(path, now_ms) for path in due}
            if not any(counts.values()) and len(keys) == len(head.master_keys):
                change.drop()
                return 0
            for path in (path for path, count in counts.items() if count):
                change.change_tokens(path, "expire", now_ms)
            head.master_keys = keys
            _count(head)
            return sum(counts.values())

        return self._journal.change_rest(attempt)

    def token_change_number(self) -> int:
        """See TokenStore."""
        return self._journal.read().tokens.changes

    def _expired(self, path: str, now_ms: int) -> int:
        return sum(row.expires_ms < now_ms for row in tokens_of(self._documents.find(path)).values())


def _take_block(change: HeadChange) -> range:
    first = change.head.tokens.next_sequence
    # To the end of the block that it is in: tokens of one handle lie in one document.
    following = (first // TOKEN_BLOCK + 1) * TOKEN_BLOCK
    change.head.tokens = change.head.tokens._replace(next_sequence=following)
    return range(first, following)


def _count(head: Head) -> None:
    head.tokens = head.tokens._replace(changes=head.tokens.changes + 1)
