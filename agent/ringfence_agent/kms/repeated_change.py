"""A create or roll that comes twice, because its first answer never arrived.

Java's HTTP client sends a POST again by itself when the connection closed without an answer, and Hadoop's goes on to
the next instance. The first request may have been committed by a server that died before it could say so. A second
create would then fail because the key is there, and a second roll would make a version that nobody asked for.

So each create and roll leaves a note in the store, in its own transaction: who sent it, and a keyed digest of all that
it asked for. The note is removed once the answer was written (`Confirmations`). The same request coming again meets the
note, or the key, inside its own transaction: a commit that a dying server had under way cannot slip past it. It then
waits a moment for the note's removal. If whoever made the change is gone, or has not answered after all, the second
request gets the first one's answer.

Hadoop's client rolls again on the next instance even after it was answered, when the `_invalidatecache` that it sends
right after a roll fails (`KMSClientProvider.rollNewVersionInternal`). So an answered roll keeps its note until that
has come and was answered too; from a client that sends none, for a second.

It may come to another worker or instance than the one that rolled. There it settles the user's changes of that key by
servers that are gone, and the only one there is. Of several by living ones, nobody else can tell which is meant: their
makers wait out the second.

What cannot be told: a server may die after its answer left and before the note was removed, milliseconds later. When
the same user asks for another such roll of that key within minutes, they are told of the version made then.
"""

from __future__ import annotations

import asyncio
import functools
import hmac
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass

import msgspec

from ringfence_agent.keystore.held import AnyVersion, HeldKey
from ringfence_agent.keystore.interface import ChangeOrigin, OpenStore, UnconfirmedChange
from ringfence_agent.kms.store_access import StoreAccess
from ringfence_zones.errors import RingfenceError
from ringfence_zones.secret import Secret

_log = logging.getLogger(__name__)

DIGEST_PURPOSE = "digests of changes"
# An answer leaves within milliseconds of its commit; after this it was never written, whoever is alive.
_ANSWER_WAIT_S = 3.0
_POLL_S = 0.02
# Hadoop's client is done with a roll milliseconds after it. Less than others wait for an answer.
_INVALIDATION_WAIT_S = 1.0
# A client gives up on a request after two time-outs of 60 s.
_KEEP_MS = 180_000
_MOST_AT_ONCE = 500


class Confirmations:
    """Removes notes in the background, as many at once as have gathered. Used on the event loop."""

    def __init__(self, store: StoreAccess) -> None:
        self._store = store
        self._due: list[UnconfirmedChange] = []
        self._task: asyncio.Task[None] | None = None
        # Answered rolls whose client has not said yet that it is done with them, with what ends the wait.
        self._expected: dict[UnconfirmedChange, asyncio.TimerHandle] = {}

    def add(self, change: UnconfirmedChange) -> None:
        """The answer to this change was written, and the client will not ask for it again."""
        self._due.append(change)
        self.remove_due()

    def expect(self, change: UnconfirmedChange) -> None:
        """The answer to this change was written, but the client may yet ask for it again."""
        if change not in self._expected:
            loop = asyncio.get_running_loop()
            self._expected[change] = loop.call_later(_INVALIDATION_WAIT_S, self._end_wait, change)

    def settle(self, name: str, user: str) -> bool:
        """This user is done with whatever they changed of this key. Whether anything was expected to be done with."""
        done = [each for each in self._expected if each.key_name == name and each.origin.user == user]
        for change in done:
            self._end_wait(change)
        return bool(done)

    def _end_wait(self, change: UnconfirmedChange) -> None:
        self._expected.pop(change).cancel()
        self.add(change)

    def remove_due(self) -> None:
        """Begins to remove what is due, unless that is under way."""
        if self._due and self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._remove())

    async def _remove(self) -> None:
        try:
            while self._due:
                due = self._due[:_MOST_AT_ONCE]
                await self._store.note(functools.partial(_confirm, due))
                del self._due[: len(due)]
        except RingfenceError as error:
            # They stay due. Until then, the same request sent once more would get the same answer.
            _log.warning("answered changes could not be marked as answered yet: %s", error.message)
        finally:
            self._task = None

    async def close(self) -> None:
        """Waits until every note is removed, or cannot be."""
        for change in tuple(self._expected):
            self._end_wait(change)
        if self._task is not None:
            await self._task


@dataclass(frozen=True, slots=True)
class Made:
    """A version that a request made. `answered` is to be called once its answer was written.

    `again` when it was made by the same request, sent before and never answered.
    """

    version: AnyVersion
    answered: Callable[[], None]
    again: bool = False


class RepeatedChanges:
    """Recognises a change that was made before. `secret` keys the digests, because a request may hold key material."""

    def __init__(self, store: StoreAccess, secret: Secret) -> None:
        self._store = store
        self._secret = secret
        self._confirmations = Confirmations(store)
        self._settling: set[asyncio.Task[None]] = set()

    def origin(self, user: str, *request: object) -> ChangeOrigin:
        """Who asks for what: `request` is all that decides the outcome, as JSON values."""
        return ChangeOrigin(user, hmac.digest(self._secret.reveal(), msgspec.json.encode(request), "sha256"))

    def created(self, version: AnyVersion, origin: ChangeOrigin) -> Made:
        """A key that this worker just committed."""
        change = UnconfirmedChange(version.key_name, version.version, origin, self._store.owner_id, 0)
        return Made(version, lambda: self._confirmations.add(change))

    def rolled(self, version: AnyVersion, origin: ChangeOrigin) -> Made:
        """A version that this worker just committed."""
        change = UnconfirmedChange(version.key_name, version.version, origin, self._store.owner_id, 0)
        return Made(version, lambda: self._confirmations.expect(change))

    async def find(self, name: str, origin: ChangeOrigin) -> Made | None:
        """What the same request made without ever being answered, None without it."""
        clock = asyncio.get_running_loop().time
        deadline_s = clock() + _ANSWER_WAIT_S
        # Answered by this very worker, which still serves: whoever asks here asks for another one.
        self._confirmations.settle(name, origin.user)
        while True:
            change, is_alive = await self._store.read(lambda store: _find_newest(store, name, origin))
            if change is None:
                return None
            if not is_alive or clock() > deadline_s:
                break
            await asyncio.sleep(_POLL_S)
        key = await self._store.read(lambda store: store.find_sealed_key(name))
        if key is None or change.version not in key.numbers:
            return None
        version: AnyVersion
        if isinstance(key, HeldKey):
            version = next(each for each in key.versions if each.version == change.version)
        else:
            (version,) = await self._store.open_versions(key, [change.version])
        return Made(version, lambda: self._confirmations.expect(change), again=True)

    def settle(self, name: str, user: str) -> None:
        """The user's client said that it is done with its change of a key, be it another server that made it."""
        if not self._confirmations.settle(name, user):
            task = asyncio.get_running_loop().create_task(self._settle_elsewhere(name, user))
            self._settling.add(task)
            task.add_done_callback(self._settling.discard)

    async def _settle_elsewhere(self, name: str, user: str) -> None:
        try:
            for change in await self._store.read(lambda store: _find_settled(store, name, user)):
                self._confirmations.add(change)
        except RingfenceError as error:
            _log.warning("unanswered changes of key %s could not be looked for: %s", name, error.message)

    def remove_due(self) -> None:
        """Tries again to remove notes of answers that were written while the store was away."""
        self._confirmations.remove_due()

    async def remove_old(self) -> None:
        """Forgets requests that nobody sends again so long after: their server is gone, or their client."""
        before_ms = time.time_ns() // 1_000_000 - _KEEP_MS
        await self._store.note(lambda store: store.remove_unconfirmed(before_ms))

    async def close(self) -> None:
        """Waits until every note that is due is removed."""
        await asyncio.gather(*self._settling)
        await self._confirmations.close()


def _confirm(due: list[UnconfirmedChange], store: OpenStore) -> None:
    store.confirm(due)


def _find_newest(store: OpenStore, name: str, origin: ChangeOrigin) -> tuple[UnconfirmedChange | None, bool]:
    for change in reversed(store.find_unconfirmed(name)):
        if change.origin == origin:
            return change, store.is_alive(change.owner_id)
    return None, False


def _find_settled(store: OpenStore, name: str, user: str) -> list[UnconfirmedChange]:
    changes = [change for change in store.find_unconfirmed(name) if change.origin.user == user]
    return changes if len(changes) == 1 else [change for change in changes if not store.is_alive(change.owner_id)]
