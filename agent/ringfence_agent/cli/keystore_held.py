"""What the keystore commands tell of keys that Vault holds: the store has their records, Vault the keys themselves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import click

from ringfence_agent.keystore.backup.drill import KeyDrill
from ringfence_agent.keystore.held import HeldVersion
from ringfence_agent.keystore.held_check import HeldProblem, find_held_problems
from ringfence_agent.kms.config import StoreSettings
from ringfence_zones.cli.render import counted, shown
from ringfence_zones.errors import RingfenceError


@dataclass(frozen=True, slots=True)
class HeldCheck:
    """What Vault says of versions that it holds. `unasked` says why it was not asked, None when it was."""

    versions: int
    problems: Sequence[HeldProblem] = ()
    unasked: str | None = None

    def to_json(self) -> dict[str, Any]:
        """For programs."""
        problems = [
            {"version": each.version.name, "transit_key": each.version.place.key, "problem": each.message}
            for each in self.problems
        ]
        return {"versions": self.versions, "checked": self.unasked is None, "problems": problems}

    def print(self) -> None:
        """For people; nothing where no version is held."""
        held = f"{counted(self.versions, 'version')} held by Vault"
        if self.unasked is not None:
            click.echo(shown(f"{held}: whether it still has them was not checked, for {self.unasked}"), err=True)
        elif self.versions and not self.problems:
            click.echo(f"{held}, and there")
        for each in self.problems:
            click.echo(shown(f"{each.version.name} is {each.version.place}: {each.message}"), err=True)


def check_held(settings: StoreSettings, held: Sequence[HeldVersion]) -> HeldCheck:
    """Asks Vault with the key server's own token. That it cannot be asked is no fault of the store."""
    if not held:
        return HeldCheck(0)
    vault = settings.protectors.vault
    if vault is None:
        return HeldCheck(len(held), unasked="kms.yaml has no vault block")
    from ringfence_agent.vault.open import open_control  # noqa: PLC0415 -- the extra `vault`

    try:
        with open_control(vault) as control:
            return HeldCheck(len(held), list(find_held_problems(held, control.transit.find)))
    except RingfenceError as error:
        return HeldCheck(len(held), unasked=error.message)


def drill_verdict(key: KeyDrill) -> str:
    """What a drill says of one key."""
    if key.problems:
        return "; ".join(f"version {number}: {key.problems[number]}" for number in sorted(key.problems))
    return "held by Vault: its key is in no backup but Vault's own" if key.held else "ok"
