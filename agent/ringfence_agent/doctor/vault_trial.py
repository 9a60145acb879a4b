"""Transit tried out against the live server: the behaviours that keys depend on, in miniature.

With an administrator's token a temporary key is made, `z-doctor-` and 16 random letters, and destroyed at the end,
whatever comes. Without one the cluster's wrap key is used, which changes nothing, and what needs a key of one's own (a
roll, a deletion) is not tried. The data is random and thrown away.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Sequence
from dataclasses import replace

from ringfence_agent.vault.control import VaultControl
from ringfence_agent.vault.settings import WRAP_KEY
from ringfence_agent.vault.transit_batches import BATCH_ITEMS, TransitBatches
from ringfence_agent.vault.transit_keys import TransitKey
from ringfence_agent.vault.transit_wire import EncryptItem, ItemFault, OpenItem, RewrapItem, TransitCiphertext
from ringfence_zones.errors import ProtectorRefusedError
from ringfence_zones.findings import Finding, Rule, Severity
from ringfence_zones.named_checks import NotChecked, finding
from ringfence_zones.secret import Secret

_KEY_BYTES = 32
_HINT = "keep no keys in this server; report its name and version together with this"


def check_transit(own: VaultControl | None, administrator: VaultControl | None) -> Iterator[Finding]:
    """Tries everything that the identities may. `own` does the key server's part when it is logged in."""
    if administrator is None:
        assert own is not None, "the caller made sure of one"
        yield from _Trial(own.batches, own.transit.get(WRAP_KEY).require_sound(), own.transit.mount).run()
        raise NotChecked("tried with the wrap key; a roll and a deletion take an administrator's token (--token-file)")
    keys = administrator.transit
    name = f"z-doctor-{secrets.token_hex(8)}"
    yield from _may_make_and_destroy(administrator, name)
    key = keys.create(name)
    try:
        batches = own.batches if own is not None else administrator.batches
        trial = _Trial(batches, key, keys.mount)
        yield from trial.run()
        rolled = keys.rotate(name, from_version=key.latest_version)
        if rolled.latest_version != key.latest_version + 1:
            yield trial.fault(f"a roll went from version {key.latest_version} to {rolled.latest_version}")
        yield from trial.run_rewrap(rolled.latest_version)
        if keys.create(name).latest_version != rolled.latest_version:
            yield trial.fault("making a key that exists made another one")
    finally:
        keys.configure(name, deletion_allowed=True)
        keys.delete(name)
    if keys.find(name) is not None:
        yield trial.fault("the temporary key is still there after its deletion")


def _may_make_and_destroy(administrator: VaultControl, name: str) -> Iterator[Finding]:
    """Looked at before, so that no key is left behind. Raises NotChecked."""
    mount = administrator.transit.mount
    wanted = {
        f"{mount}/keys/{name}": {"update", "delete", "read"},
        f"{mount}/keys/{name}/config": {"update"},
        f"{mount}/keys/{name}/rotate": {"update"},
    }
    found = administrator.system.capabilities(list(wanted))
    for path, needed in wanted.items():
        if "root" not in found[path] and not needed <= found[path]:
            raise NotChecked(f"the administrator's token may not {' and '.join(sorted(needed))} {path}")
    yield from ()


class _Trial:
    """One key at work."""

    def __init__(self, batches: TransitBatches, key: TransitKey, mount: str) -> None:
        self._batches = batches
        self._key = key
        self._mount = mount
        self._plain = [Secret(secrets.token_bytes(_KEY_BYTES)) for _ in range(3)]
        self._contexts = [secrets.token_bytes(32) for _ in self._plain]

    def fault(self, message: str) -> Finding:
        """A behaviour that keys cannot depend on."""
        return finding(Severity.ERROR, Rule.VAULT, f"{self._mount}/keys/{self._key.name}", message, _HINT)

    def run(self) -> Iterator[Finding]:
        """What any key does: a round trip, a batch with a bad item, the binding, a rewrap, a full batch."""
        sealed = self._seal()
        if sealed is None:
            yield self.fault("what was encrypted did not come back as ciphertexts")
            return
        yield from self._round_trip(sealed, "what was encrypted does not decrypt to what it was")
        yield from self._bad_item(sealed)
        yield from self._binding(sealed)
        yield from self.run_rewrap(self._key.latest_version)
        yield from self._full_batch()

    def run_rewrap(self, version: int) -> Iterator[Finding]:
        """Whether a rewrap gives the same plaintexts under `version`."""
        sealed = self._seal()
        if sealed is None:
            return
        items = [RewrapItem(each, context, version) for each, context in zip(sealed, self._contexts, strict=True)]
        rewrapped = self._batches.rewrap(self._key.name, items)
        good = [each for each in rewrapped if isinstance(each, TransitCiphertext) and each.version == version]
        if len(good) != len(items):
            yield self.fault(f"a rewrap did not bring everything to version {version}")
        else:
            yield from self._round_trip(good, "a rewrap changed what was sealed")

    def _seal(self) -> list[TransitCiphertext] | None:
        items = [
            EncryptItem(plain, context, self._key.latest_version)
            for plain, context in zip(self._plain, self._contexts, strict=True)
        ]
        found = self._batches.encrypt(self._key.name, items)
        sealed = [each for each in found if isinstance(each, TransitCiphertext)]
        return sealed if len(sealed) == len(items) else None

    def _open(self, sealed: Sequence[TransitCiphertext], contexts: Sequence[bytes]) -> list[Secret | ItemFault]:
        items = [OpenItem(each, context) for each, context in zip(sealed, contexts, strict=True)]
        return self._batches.decrypt(self._key.name, items)

    def _round_trip(self, sealed: Sequence[TransitCiphertext], message: str) -> Iterator[Finding]:
        if self._open(sealed, self._contexts) != self._plain:
            yield self.fault(message)

    def _bad_item(self, sealed: Sequence[TransitCiphertext]) -> Iterator[Finding]:
        spoiled = bytearray(sealed[1].raw)
        spoiled[-1] ^= 1
        found = self._open([sealed[0], replace(sealed[1], raw=bytes(spoiled)), sealed[2]], self._contexts)
        if found[1] is not ItemFault.CORRUPT:
            yield self.fault("a ciphertext that was changed is not refused as such")
        if [found[0], found[2]] != [self._plain[0], self._plain[2]]:
            yield self.fault("one bad item of a batch spoils the others")

    def _binding(self, sealed: Sequence[TransitCiphertext]) -> Iterator[Finding]:
        swapped = [self._contexts[1], self._contexts[0], self._contexts[2]]
        found = self._open(sealed, swapped)
        if found[:2] != [ItemFault.CORRUPT, ItemFault.CORRUPT]:
            yield self.fault("a ciphertext opens with the context of another: nothing is bound to its key and file")

    def _full_batch(self) -> Iterator[Finding]:
        items = [EncryptItem(self._plain[0], self._contexts[0], self._key.latest_version)] * BATCH_ITEMS
        try:
            found = self._batches.encrypt(self._key.name, items)
        except ProtectorRefusedError as error:
            yield self.fault(f"a batch of {BATCH_ITEMS} items is refused: {error.message}")
            return
        if not all(isinstance(each, TransitCiphertext) for each in found):
            yield self.fault(f"not every item of a batch of {BATCH_ITEMS} was encrypted")
