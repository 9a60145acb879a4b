"""Whether Vault still has what the key store says it holds: every Transit key, in every version that a record names."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from ringfence_agent.keystore.held import HeldVersion
from ringfence_agent.vault.transit_keys import TransitKey


@dataclass(frozen=True, slots=True)
class HeldProblem:
    """A version of a key whose EDEKs do not open, and why; or do, and should not be made."""

    version: HeldVersion
    message: str


def find_held_problems(held: Sequence[HeldVersion], find: Callable[[str], TransitKey | None]) -> Iterator[HeldProblem]:
    """`find` looks a Transit key up by its name; each is looked up once. Raises what that raises."""
    found: dict[str, TransitKey | None] = {}
    for version in held:
        name = version.place.key
        if name not in found:
            found[name] = find(name)
        message = _problem(version.place.version, found[name])
        if message is not None:
            yield HeldProblem(version, message)


def _problem(version: int, key: TransitKey | None) -> str | None:
    if key is None:
        return "Vault does not have it any more: no file of it opens until a snapshot of Vault that has it is restored"
    if key.latest_version < version:
        return (
            f"Vault has it up to version {key.latest_version} alone: Vault was put back to an earlier state, and files"
            " made since do not open until a later snapshot is restored"
        )
    if key.soft_deleted:
        return "it is disabled in Vault (soft-deleted)"
    oldest = max(key.min_decryption_version, key.min_available_version)
    if version < oldest:
        return f"Vault opens nothing older than version {oldest} (min_decryption_version)"
    faults = key.find_faults()
    return f"it must not be used: {'; '.join(faults)}" if faults else None
