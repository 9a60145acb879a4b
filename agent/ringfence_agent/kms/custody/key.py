"""A live key as one worker remembers it, whoever has its material."""

from __future__ import annotations

from dataclasses import dataclass, field

from ringfence_agent.kms.eek import EekWords
from ringfence_zones import kms_wire
from ringfence_zones.keys import KeyMetadata

# `KeyAuthorizationKeyProvider.KEY_ACL_NAME`: the attribute that names another entry of the ACLs.
KEY_ACL_NAME = "key.acl.name"


@dataclass(slots=True)
class KeyWords:
    """What is encoded once for a key, and is not secret."""

    metadata_json: bytes = b""
    _of_versions: dict[int, EekWords] = field(default_factory=dict)

    def of_version(self, name: str, number: int) -> EekWords:
        """What the answers about one version say."""
        words = self._of_versions.get(number)
        if words is None:
            words = self._of_versions[number] = EekWords(name, number)
        return words


@dataclass(slots=True)
class RememberedKey:
    """What both custodies remember of a key. `until_s` is on the cache's clock."""

    metadata: KeyMetadata
    until_s: float
    _words: KeyWords

    @property
    def metadata_json(self) -> bytes:
        """The metadata as the KMS answers it, encoded once."""
        words = self._words
        if not words.metadata_json:
            words.metadata_json = kms_wire.encode(kms_wire.metadata_json(self.metadata))
        return words.metadata_json

    @property
    def acl_name(self) -> str:
        """The name that key ACLs know it by."""
        return self.metadata.attributes.get(KEY_ACL_NAME) or self.metadata.name
