"""Custody `transit` in a worker's memory: a key without material, which nobody but Vault has."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from ringfence_agent.keystore.held import HeldKey, HeldVersion
from ringfence_agent.kms.custody.key import RememberedKey
from ringfence_agent.kms.eek import EekWords


@dataclass(slots=True)
class TransitHeldKey(RememberedKey):
    """A live key that Vault Transit holds: where each of its versions is there."""

    _held: HeldKey

    @property
    def numbers(self) -> Collection[int]:
        """Its live versions, oldest first."""
        versions = self._held.versions
        return range(versions[0].version, versions[-1].version + 1)

    @property
    def current(self) -> HeldVersion:
        """The version that new EDEKs are made with."""
        return self._held.current

    def get_version(self, number: int) -> HeldVersion:
        """One of `numbers`."""
        return self._held.versions[number - self._held.versions[0].version]

    def words_of(self, number: int) -> EekWords:
        """What the answers about one version say."""
        return self._words.of_version(self.metadata.name, number)

    def __repr__(self) -> str:
        return f"<TransitHeldKey {self.metadata.name}>"
