"""Custody `envelope` in a worker's memory: a key whose material the store gives, and this worker has while it is used.

What the store's own root sealed is opened when the key is read. What a remote protector sealed is opened version by
version when it is first used: by one call, whoever waits for it meanwhile, and it goes when the key does.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field
from typing import NoReturn

from ringfence_agent.keystore.interface import SealedKey
from ringfence_agent.kms.custody.key import RememberedKey
from ringfence_agent.kms.eek import EekCipher
from ringfence_agent.kms.store_access import StoreAccess
from ringfence_agent.kms.unready import Unready
from ringfence_zones.keys import KeyVersion


@dataclass(slots=True)
class EnvelopeKey(RememberedKey):
    """A live key with its ciphers, which are made when first used.

    What asks for material raises Unready while a remote protector has to open it.
    """

    _sealed: SealedKey
    _open: Callable[[EnvelopeKey, Collection[int]], Awaitable[None]]
    _opened: dict[int, KeyVersion] = field(default_factory=dict)
    _ciphers: dict[int, EekCipher] = field(default_factory=dict)
    _opening: dict[int, asyncio.Task[None]] = field(default_factory=dict)

    def for_one_request(self) -> EnvelopeKey:
        """The same key with no cipher made yet: what is opened for a request goes with it."""
        return EnvelopeKey(self.metadata, self.until_s, self._words, self._sealed, self._open)

    @property
    def numbers(self) -> Collection[int]:
        """Its live versions, oldest first."""
        return self._sealed.numbers

    def require(self, numbers: Iterable[int]) -> None:
        """Raises Unready once for all of these versions that have to be opened; none of the others does then."""
        missing = [number for number in numbers if number in self._sealed.remote and number not in self._opened]
        if missing:
            self._raise_unready(missing)

    def get_version(self, number: int) -> KeyVersion:
        """One of `numbers` with its material."""
        version = self._opened.get(number)
        if version is None:
            if number in self._sealed.remote:
                self._raise_unready([number])
            (version,) = self._sealed.open_versions([number])
        return version

    def remember(self, opened: Iterable[KeyVersion]) -> None:
        """Keeps material that is open already."""
        self._opened.update((version.version, version) for version in opened)

    def _raise_unready(self, numbers: Sequence[int]) -> NoReturn:
        raise Unready(lambda: self._open(self, numbers))

    async def open_with(self, store: StoreAccess, numbers: Collection[int]) -> None:
        """Opens versions where their protector is. Who asks for one that is being opened waits for that.

        A failure is the answer to all who waited for it.
        """
        begun = [number for number in numbers if number not in self._opened and number not in self._opening]
        if begun:
            task = asyncio.get_running_loop().create_task(self._open_now(store, begun))
            task.add_done_callback(retrieve)
            self._opening.update(dict.fromkeys(begun, task))
        for task in {self._opening[number] for number in numbers if number in self._opening}:
            await asyncio.shield(task)  # who asked first may go away in the middle of it

    async def _open_now(self, store: StoreAccess, numbers: Sequence[int]) -> None:
        try:
            opened = await store.open_versions(self._sealed, numbers)
            self._opened.update(zip(numbers, opened, strict=True))
        finally:
            for number in numbers:
                del self._opening[number]

    @property
    def current(self) -> EekCipher:
        """The version that new EDEKs are made with."""
        cipher = self.find_cipher(self.metadata.versions - 1)
        assert cipher is not None, "a live key has its current version"
        return cipher

    def find_cipher(self, number: int) -> EekCipher | None:
        """The cipher of one version, None when there is no such version."""
        cipher = self._ciphers.get(number)
        if cipher is None and number in self.numbers:
            words = self._words.of_version(self.metadata.name, number)
            cipher = self._ciphers[number] = EekCipher(self.get_version(number), words)
        return cipher

    def __repr__(self) -> str:
        return f"<EnvelopeKey {self.metadata.name}>"


def retrieve(task: asyncio.Task[None]) -> None:
    """Everybody who waited may have gone away; then nobody else looks at what became of it."""
    if not task.cancelled():
        task.exception()
