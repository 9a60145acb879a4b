"""Whether Vault has what the key store says it holds (custody `transit`), and the key server may make and roll it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from http import HTTPStatus

from ringfence_agent.keystore.held import HeldVersion, is_zone_key_name, new_transit_name
from ringfence_agent.keystore.held_check import find_held_problems
from ringfence_agent.vault.control import VaultControl
from ringfence_agent.vault.policy import transit_custody_capabilities
from ringfence_agent.vault.refusal import VaultRefusedError
from ringfence_agent.vault.transit_keys import TransitKeys
from ringfence_zones.errors import RingfenceError
from ringfence_zones.findings import Finding, Rule, Severity
from ringfence_zones.named_checks import NotChecked, finding

FindHeld = Callable[[], Sequence[HeldVersion]]
"""Every version that the key store's records say Vault holds. Raises what opening the store raises."""


def _check_making(own: VaultControl) -> Iterator[Finding]:
    """Whether the key server's token may make and roll the Transit key of a zone."""
    settings = own.settings
    required = transit_custody_capabilities(settings, new_transit_name())
    found = own.system.capabilities(list(required))
    missing = [path for path, needed in required.items() if not found[path] & {needed, "root"}]
    if missing:
        message = "the key server's token may not make and roll keys, though some are in custody transit"
        hint = "attach what this prints to its role as well"
        place = ", ".join(missing)
        yield finding(Severity.WARN, Rule.VAULT_POLICY, place, message, hint, "ringfence vault policy --role keyadmin")


def check_records(own: VaultControl, keys: TransitKeys, find_held: FindHeld) -> Iterator[Finding]:
    """Whether Vault has every version that is on record, and how many keys it has that are on none; with any on record,
    whether `own` may roll them. `keys` are looked at by whoever may see most.

    Raises NotChecked when the store cannot be read, or Vault's keys not listed.
    """
    try:
        held = find_held()
    except RingfenceError as error:
        raise NotChecked(f"the key store could not be read: {error.message}") from None
    if held:
        yield from _check_making(own)
    for problem in find_held_problems(held, keys.find):
        place = f"{keys.mount}/keys/{problem.version.place.key}"
        message = f"{problem.version.name} is held here in version {problem.version.place.version}: {problem.message}"
        hint = "see Vault's audit log for who changed it; a snapshot of Vault brings it back"
        yield finding(Severity.ERROR, Rule.VAULT_KEY, place, message, hint)
    try:
        names = keys.list_names()
    except VaultRefusedError as error:
        if error.status != HTTPStatus.FORBIDDEN:
            raise
        raise NotChecked("whether Vault has keys that no record names: the token may not list keys") from None
    unused = {name for name in names if is_zone_key_name(name)} - {version.place.key for version in held}
    if unused:
        count = "a key" if len(unused) == 1 else f"{len(unused)} keys"
        message = f"Vault has {count} for zones that no record of the key store names, {min(unused)} for one"
        hint = (
            "a create that was cut off leaves one, which nobody uses and which does no harm; but first make sure that"
            " no other key store, and no backup of this one, names it"
        )
        yield finding(Severity.INFO, Rule.VAULT_KEY, f"{keys.mount}/keys", message, hint)
