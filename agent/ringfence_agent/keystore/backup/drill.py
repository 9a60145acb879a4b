"""A restore drill: whether a backup alone, with a protector, gives every key version back.

The backup is unpacked as a restore would, each version's material is opened by its protector, and the canary EDEK that
was made with it when the backup was made has to give the same DEK again. Nothing else is looked at, least of all the
store that the backup came from, or Vault: of versions that Vault holds it is told that their key is in no backup of a
store.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from ringfence_agent.keystore.backup import canary
from ringfence_agent.keystore.backup.canary import Canary, is_opened_by, row_digest
from ringfence_agent.keystore.backup.file_format import BackupFile
from ringfence_agent.keystore.backup.make import batched, read_canaries
from ringfence_agent.keystore.backup.unpacked import unpacked
from ringfence_agent.keystore.protector import Protector
from ringfence_agent.keystore.snapshot import SealedVersion, StoreSnapshot
from ringfence_zones.errors import ProtectorRefusedError, ProtectorUnavailableError, StoreTamperedError
from ringfence_zones.secret import Secret

# A protector that is down takes seconds to say so, for each version.
_PATIENCE_S = 60.0


@dataclass(slots=True)
class KeyDrill:
    """One key: the numbers of all its versions, and what is wrong with any of them, by number.

    `held` are the versions whose key is not in the backup, for Vault has it: nothing here can prove that it comes back.
    """

    key_name: str
    versions: list[int] = field(default_factory=list)
    held: list[int] = field(default_factory=list)
    problems: dict[int, str] = field(default_factory=dict)

    @property
    def passed(self) -> bool:
        """Whether every version that can come back from a backup did."""
        return not self.problems


def drill(backup: BackupFile, protectors: Sequence[Protector]) -> list[KeyDrill]:
    """Every key in the backup, deleted ones too, by name. Raises what `unpacked` raises."""
    keys: dict[str, KeyDrill] = {}
    give_up_s = time.monotonic() + _PATIENCE_S
    with unpacked(backup, protectors) as store:
        canaries, digest_key = read_canaries(backup), store.derive_secret(canary.PURPOSE)
        with store.snapshot() as snapshot:
            pass
        for batch in batched(snapshot.versions):
            for version, opened in zip(batch, _open(snapshot, batch, give_up_s), strict=True):
                key = keys.setdefault(version.key_name, KeyDrill(version.key_name))
                key.versions.append(version.version)
                problem = _judge(version, opened, canaries.get((version.key_name, version.version)), digest_key)
                if problem is not None:
                    key.problems[version.version] = problem
        for held in snapshot.held:
            key = keys.setdefault(held.key_name, KeyDrill(held.key_name))
            key.versions.append(held.version)
            key.held.append(held.version)
    for key in keys.values():
        key.versions.sort()
    return [keys[name] for name in sorted(keys)]


def _open(snapshot: StoreSnapshot, batch: Sequence[SealedVersion], give_up_s: float) -> list[Secret | str]:
    """The material of each, or why there is none. What fails together is tried one by one, while there is time."""
    try:
        return list(snapshot.open_versions(batch))
    except (ProtectorUnavailableError, ProtectorRefusedError, StoreTamperedError) as error:
        if len(batch) == 1 or time.monotonic() > give_up_s:
            return [error.message] * len(batch)
    return [opened for version in batch for opened in _open(snapshot, [version], give_up_s)]


def _judge(version: SealedVersion, opened: Secret | str, canary: Canary | None, digest_key: Secret) -> str | None:
    if isinstance(opened, str):
        return opened
    if canary is None or canary.row != row_digest(version):
        return "it opens, but there is no canary to prove it with: its protector could not be asked at backup time"
    if not is_opened_by(canary, opened, digest_key):
        return "its canary EDEK does not give the DEK that it was made of"
    return None
