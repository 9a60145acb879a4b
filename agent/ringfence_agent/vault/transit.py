"""Encrypt, decrypt and rewrap by Vault Transit: lists in, one result for each item out.

Rules:

1. A call carries at most 128 items. Where that is too much for a server or what stands in front of it, half as many
   are sent from then on.
2. A batch that is refused as a whole is halved until the item is found that spoils it; that one alone fails.
3. On 403 Vault does not say whether the token or the policy is at fault. `lookup-self` does: when it is refused too the
   token is dead, and the file is read again for a new one, once; else the policy is wrong, and nothing is tried again.
   An encrypt with a key that is not there is 403 as well, so that is looked at then. A token that was just handed over
   may only be unknown to a standby yet: its first 403 is not believed.
4. All three operations change nothing, so a call may be repeated, and is (`servers`).

It knows nothing of users and files; who may ask was decided before.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import cast

from ringfence_agent.vault.connection import Answer, NoAnswerError
from ringfence_agent.vault.servers import LOOKUP_SELF, PureRequest, VaultServers
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
from ringfence_zones.errors import ConfigError, InputError, ProtectorRefusedError, ProtectorUnavailableError
from ringfence_zones.secret import Secret

_log = logging.getLogger(__name__)

BATCH_ITEMS = 128
LAG_S = 0.3
"""Longer than a standby was ever seen to lag (250 ms)."""

# For so long a token counts as just handed over.
_NEW_TOKEN_S = 1.0
# Enough to find one bad item among 128; a server that refuses everything is not asked about each.
_HALVINGS = 16
# What Transit takes for a key (framework.GenericNameRegex), in ASCII; good for the parts of a mount's path, too.
_KEY = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_.-]{0,253}[A-Za-z0-9_])?", re.ASCII)

_Outcome = list[Result] | Refusal


@dataclass(slots=True)
class _Halvings:
    """How often one list may still be divided in search of what spoils it."""

    left: int = _HALVINGS


class Transit:
    """The Transit engine mounted at `mount`. On one event loop.

    Deadlines are in the loop's time. Every method raises ProtectorUnavailableError and ProtectorRefusedError for what
    concerns all items; what concerns one is its result.
    batch_items  how many one call carries at most, at present
    """

    def __init__(self, servers: VaultServers, mount: str) -> None:
        """Connects to nothing yet. Raises ConfigError for a mount that would be another path."""
        if any(_KEY.fullmatch(part) is None for part in mount.split("/")):
            raise ConfigError(f"vault.transit_mount {mount!r} is not a path that an engine can be mounted at")
        self._servers = servers
        self._mount = mount
        self.batch_items = BATCH_ITEMS

    async def encrypt(
        self, key: str, items: Sequence[EncryptItem], deadline: float
    ) -> list[TransitCiphertext | ItemFault]:
        """Ciphertexts with the version that each item names."""
        rows = [encrypt_row(item) for item in items]
        return cast("list[TransitCiphertext | ItemFault]", await self.call(Operation.ENCRYPT, key, rows, deadline))

    async def decrypt(self, key: str, items: Sequence[OpenItem], deadline: float) -> list[Secret | ItemFault]:
        """Plaintexts."""
        rows = [open_row(item) for item in items]
        return cast("list[Secret | ItemFault]", await self.call(Operation.DECRYPT, key, rows, deadline))

    async def rewrap(
        self, key: str, items: Sequence[RewrapItem], deadline: float
    ) -> list[TransitCiphertext | ItemFault]:
        """The same plaintexts under the versions that are named; what is under one already becomes another text."""
        rows = [rewrap_row(item) for item in items]
        return cast("list[TransitCiphertext | ItemFault]", await self.call(Operation.REWRAP, key, rows, deadline))

    async def call(self, operation: Operation, key: str, rows: Sequence[bytes], deadline: float) -> list[Result]:
        """`rows` are items as `encrypt_row` and `open_row` make them."""
        if _KEY.fullmatch(key) is None:
            raise InputError(f"{key!r} is not a name that a key of Vault Transit can have")
        results: list[Result] = []
        halvings = _Halvings()
        while len(results) < len(rows):
            chunk = rows[len(results) : len(results) + self.batch_items]
            results += await self._call_dividing(operation, key, chunk, deadline, halvings)
        return results

    async def _call_dividing(
        self, operation: Operation, key: str, rows: Sequence[bytes], deadline: float, halvings: _Halvings
    ) -> list[Result]:
        outcome = await self._call_allowed(operation, key, rows, deadline)
        if isinstance(outcome, list):
            return outcome
        if outcome is Refusal.NO_SUCH_PATH:
            raise ProtectorRefusedError(
                f"Vault has no Transit engine at {self._mount}",
                hint="are vault.transit_mount and vault.namespace in kms.yaml right? `ringfence vault setup` mounts it",
                reason="no_transit_engine",
            )
        if len(rows) == 1 or halvings.left == 0:
            _log.error("Vault does not understand %s of %d items with %s", operation.value, len(rows), key)
            return [ItemFault.OUR_BUG] * len(rows)
        half = len(rows) // 2
        if outcome is Refusal.NOT_UNDERSTOOD:
            halvings.left -= 1
        elif half < self.batch_items:
            self.batch_items = half
            _log.warning("Vault takes no batch of %d items; from now on at most %d are sent", len(rows), half)
        results = await self._call_dividing(operation, key, rows[:half], deadline, halvings)
        return results + await self._call_dividing(operation, key, rows[half:], deadline, halvings)

    async def _call_allowed(self, operation: Operation, key: str, rows: Sequence[bytes], deadline: float) -> _Outcome:
        """Any outcome but FORBIDDEN: what is behind that is found out here."""
        path = f"{self._mount}/{operation.value}/{key}"
        request = PureRequest("POST", path, batch_body(operation, rows), is_batch=len(rows) > 1)
        read = functools.partial(read_answer, operation, len(rows))
        tokens = self._servers.tokens
        token = tokens.current() if tokens is not None else None
        outcome = await self._ask(request, token, deadline, read)
        if outcome is not Refusal.FORBIDDEN:
            return outcome
        if not await self._is_alive(token, deadline):
            fresh = tokens.read_again() if tokens is not None else None
            if fresh == token:
                raise _dead_token()
            token = fresh
            outcome = await self._ask(request, token, deadline, read)
            if outcome is not Refusal.FORBIDDEN:
                return outcome
            if not await self._is_alive(token, deadline):
                raise _dead_token()
        if operation is Operation.ENCRYPT:
            look_up = PureRequest("GET", f"{self._mount}/keys/{key}")
            if await self._servers.ask(look_up, token, deadline, _status) == 404:
                return [ItemFault.NO_SUCH_KEY] * len(rows)
        raise _not_allowed(operation, path)

    async def _ask(
        self, request: PureRequest, token: Secret | None, deadline: float, read: Callable[[Answer], _Outcome]
    ) -> _Outcome:
        outcome = await self._servers.ask(request, token, deadline, read)
        tokens = self._servers.tokens
        if outcome is not Refusal.FORBIDDEN or tokens is None or not 0 <= tokens.written_s_ago() < _NEW_TOKEN_S:
            return outcome
        if asyncio.get_running_loop().time() + LAG_S >= deadline:
            return outcome
        await asyncio.sleep(LAG_S)
        return await self._servers.ask(request, token, deadline, read)

    async def _is_alive(self, token: Secret | None, deadline: float) -> bool:
        return await self._servers.ask(LOOKUP_SELF, token, deadline, _status) == 200


def _status(answer: Answer) -> int:
    if answer.status >= 500:
        raise NoAnswerError(f"answers {answer.status}")
    return answer.status


def _not_allowed(operation: Operation, path: str) -> ProtectorRefusedError:
    or_missing = ", or the key is not there" if operation is Operation.ENCRYPT else ""
    return ProtectorRefusedError(
        f"the policy of Vault's token does not allow {path}{or_missing}",
        hint="`ringfence vault policy` prints what the key server needs",
        reason="policy",
    )


def _dead_token() -> ProtectorUnavailableError:
    return ProtectorUnavailableError(
        "Vault does not take this token: it has expired or was revoked, or may not look itself up",
        hint="log in again; `ringfence vault policy` prints what the token's policy has to allow",
        reason="token_dead",
    )
