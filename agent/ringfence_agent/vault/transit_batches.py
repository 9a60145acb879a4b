"""Encrypt, decrypt and rewrap for the control plane: a protector opening its keys, a doctor trying them out.

What requests and answers look like is `transit_wire`'s, as on the data path; this is the synchronous way to the same
endpoints, over `control`. A batch of more than 128 items goes in several calls. All three change nothing, so a call
that got no answer is repeated, and a standby may do it while no node is active.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from ringfence_agent.vault.caller import Caller
from ringfence_agent.vault.connection import Answer, NoAnswerError
from ringfence_agent.vault.exchange import VaultRequest
from ringfence_agent.vault.refusal import POLICY_HINT, Reason
from ringfence_agent.vault.transit_keys import TransitKeys
from ringfence_agent.vault.transit_wire import (
    EncryptItem,
    ItemFault,
    OpenItem,
    Operation,
    Refusal,
    Result,
    RewrapItem,
    TransitCiphertext,
    batch_body,
    encrypt_row,
    open_row,
    read_answer,
    rewrap_row,
)
from ringfence_zones.errors import ProtectorRefusedError, ProtectorUnavailableError
from ringfence_zones.secret import Secret

BATCH_ITEMS = 128


class TransitBatches:
    """The keys of one Transit mount at work. Results stand in the order of the items, one for each.

    What concerns all items is raised: ProtectorUnavailableError, ProtectorRefusedError.
    """

    def __init__(self, caller: Caller, keys: TransitKeys) -> None:
        self._caller = caller
        self._keys = keys

    def encrypt(self, key: str, items: Sequence[EncryptItem]) -> list[TransitCiphertext | ItemFault]:
        """Ciphertexts made with the version that each item names."""
        rows = [encrypt_row(item) for item in items]
        return cast("list[TransitCiphertext | ItemFault]", self._call(Operation.ENCRYPT, key, rows))

    def decrypt(self, key: str, items: Sequence[OpenItem]) -> list[Secret | ItemFault]:
        """Plaintexts."""
        return cast("list[Secret | ItemFault]", self._call(Operation.DECRYPT, key, [open_row(item) for item in items]))

    def rewrap(self, key: str, items: Sequence[RewrapItem]) -> list[TransitCiphertext | ItemFault]:
        """The same plaintexts under the versions named. Never a no-op: the ciphertext always is another."""
        rows = [rewrap_row(item) for item in items]
        return cast("list[TransitCiphertext | ItemFault]", self._call(Operation.REWRAP, key, rows))

    def _call(self, operation: Operation, key: str, rows: Sequence[bytes]) -> list[Result]:
        results: list[Result] = []
        for start in range(0, len(rows), BATCH_ITEMS):
            results += self._call_once(operation, key, rows[start : start + BATCH_ITEMS])
        return results

    def _call_once(self, operation: Operation, key: str, rows: Sequence[bytes]) -> list[Result]:
        request = VaultRequest(
            method="POST",
            path=f"{self._keys.mount}/{operation.value}/{key}",
            body=batch_body(operation, rows),
            namespace=self._caller.namespace,
        )
        answer = self._caller.send(request, pure=True)
        try:
            outcome = read_answer(operation, len(rows), Answer(answer.status, answer.body))
        except NoAnswerError as error:
            why = error.reason
        else:
            if not isinstance(outcome, Refusal):
                return outcome
            if outcome is Refusal.TOO_LARGE and len(rows) > 1:
                middle = len(rows) // 2
                halves = rows[:middle], rows[middle:]
                return [result for half in halves for result in self._call_once(operation, key, half)]
            raise self._refused(operation, key, outcome)
        raise ProtectorUnavailableError(f"Vault {why}", hint="is an audit device of Vault's full?")

    def _refused(self, operation: Operation, key: str, refusal: Refusal) -> ProtectorRefusedError:
        what = f"{operation.value} with the Transit key {self._keys.mount}/{key}"
        # An encrypt with a key that is not there is 403 to whoever may not create it.
        if refusal is Refusal.FORBIDDEN and operation is Operation.ENCRYPT and self._is_missing(key):
            return ProtectorRefusedError(
                f"Vault refuses {what}: there is no such key",
                hint="`ringfence vault setup` makes it",
                reason=Reason.KEY_NOT_FOUND,
            )
        return ProtectorRefusedError(
            f"Vault refuses {what}: {refusal.value}", hint=POLICY_HINT, reason=refusal.name.lower()
        )

    def _is_missing(self, key: str) -> bool:
        try:
            return self._keys.find(key) is None
        except ProtectorRefusedError:
            return False
