"""Transit's named keys: made, looked at, rolled, configured and deleted. No plaintext passes through here.

Rules, each with the fact that asks for it:

1. Every field of a key that comes back from a create is checked: creating a key that exists answers 200 with the key
   that is there, whatever it was asked for.
2. A key that is not derived is refused: Transit ignores the context of such a key silently, and with it the binding of
   a seal to its key and version. So is one that could be exported or backed up in plaintext.
3. A rotation that failed is looked at before it is repeated: it can succeed and still answer 500.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ringfence_agent.vault.caller import Caller, data_of, is_missing, texts
from ringfence_agent.vault.refusal import Reason, VaultRefusedError
from ringfence_zones.errors import ProtectorRefusedError, ProtectorUnavailableError

KEY_TYPE = "aes256-gcm96"
_KDF = "hkdf_sha256"


@dataclass(frozen=True, slots=True, kw_only=True)
class TransitKey:
    """A key as Transit describes it, without its material. `created_s` maps versions still usable to epoch seconds."""

    name: str
    type: str
    derived: bool
    exportable: bool
    allow_plaintext_backup: bool
    kdf: str | None
    latest_version: int
    min_available_version: int
    min_decryption_version: int
    min_encryption_version: int
    deletion_allowed: bool
    soft_deleted: bool
    imported: bool
    created_s: Mapping[int, int]

    def find_faults(self) -> list[str]:
        """Why this key must not protect anything; empty for one as `TransitKeys.create` makes it."""
        faults = []
        if self.type != KEY_TYPE:
            faults.append(f"its type is {self.type}, not {KEY_TYPE}")
        if not self.derived:
            faults.append("it is not derived, so that what it seals is bound to nothing")
        elif self.kdf != _KDF:
            faults.append(f"it derives with {self.kdf}, not {_KDF}")
        if self.exportable:
            faults.append("it can be exported")
        if self.allow_plaintext_backup:
            faults.append("it can be backed up in plaintext")
        return faults

    def require_sound(self) -> TransitKey:
        """The key itself. Raises ProtectorRefusedError naming every fault."""
        faults = self.find_faults()
        if faults:
            raise ProtectorRefusedError(
                f"the Transit key {self.name} must not be used: {'; '.join(faults)}",
                hint="none of this can be undone on a key: use another mount, or another name, and find out who made"
                " or changed it (Vault's audit log)",
                reason="unsound_key",
            )
        return self


class TransitKeys:
    """The keys of one Transit mount. All of it goes to the active node."""

    def __init__(self, caller: Caller, transit: Any, mount: str) -> None:
        """`transit` is hvac's."""
        self._caller = caller
        self._transit = transit
        self.mount = mount

    def create(self, name: str) -> TransitKey:
        """Makes a key, or finds the one of that name: both are sound. Raises ProtectorRefusedError for one that is not.

        Creating is no claim to a name: whoever must be the only one to make a key takes its record by check-and-set.
        """
        answer = self._transit.create_key(
            name=name,
            derived=True,
            exportable=False,
            allow_plaintext_backup=False,
            key_type=KEY_TYPE,
            mount_point=self.mount,
        )
        # HashiCorp's Vault before 1.15 answers without the key.
        made = _described(name, answer) if data_of(answer) else self.get(name)
        return made.require_sound()

    def find(self, name: str) -> TransitKey | None:
        """A key; None when there is none of that name."""
        try:
            answer = self._transit.read_key(name=name, mount_point=self.mount)
        except VaultRefusedError as error:
            if is_missing(error):
                return None
            raise
        return _described(name, answer)

    def get(self, name: str) -> TransitKey:
        """As `find`. Raises ProtectorRefusedError when there is none."""
        found = self.find(name)
        if found is None:
            raise ProtectorRefusedError(
                f"there is no Transit key {name} in {self.mount}",
                hint="`ringfence vault setup` makes the cluster's own; others come back with a snapshot of Vault",
                reason=Reason.KEY_NOT_FOUND,
            )
        return found

    def list_names(self) -> list[str]:
        """Every key's name, sorted."""
        try:
            answer = self._transit.list_keys(mount_point=self.mount)
        except VaultRefusedError as error:
            if is_missing(error):
                return []
            raise
        # `import/` is among them once somebody read the wrapping key.
        return sorted(name for name in texts(data_of(answer), "keys") if not name.endswith("/"))

    def rotate(self, name: str, from_version: int) -> TransitKey:
        """Adds a version after `from_version`, unless there is one already. The key as it is then.

        Raises ProtectorUnavailableError when that cannot be told now.
        """
        try:
            self._transit.rotate_key(name=name, mount_point=self.mount)
        except ProtectorUnavailableError:
            key = self.get(name)
            if key.latest_version <= from_version:
                raise
            return key
        return self.get(name)

    def configure(
        self,
        name: str,
        *,
        min_decryption_version: int | None = None,
        min_encryption_version: int | None = None,
        deletion_allowed: bool | None = None,
    ) -> None:
        """Changes what is given. Lowering `min_decryption_version` again is allowed by Vault: it destroys nothing."""
        # Not hvac's: it refuses equal minima, which Vault takes.
        given = {
            "min_decryption_version": min_decryption_version,
            "min_encryption_version": min_encryption_version,
            "deletion_allowed": deletion_allowed,
        }
        body = {field: value for field, value in given.items() if value is not None}
        self._caller.call("POST", f"{self.mount}/keys/{name}/config", body)

    def soft_delete(self, name: str) -> None:
        """Makes the key refuse every use, reversibly. OpenBao only."""
        self._caller.call("DELETE", f"{self.mount}/keys/{name}/soft-delete")

    def restore(self, name: str) -> TransitKey:
        """Undoes `soft_delete`. Raises ProtectorRefusedError when there is no such key, to which Vault says 204."""
        self._caller.call("POST", f"{self.mount}/keys/{name}/soft-delete-restore")
        return self.get(name)

    def delete(self, name: str) -> None:
        """Destroys the key for good, as far as no snapshot brings it back. Done already is done."""
        try:
            self._transit.delete_key(name=name, mount_point=self.mount)
        except VaultRefusedError as error:
            if error.reason is not Reason.KEY_ALREADY_DELETED:
                raise

    def trim(self, name: str, min_available_version: int) -> None:
        """Destroys the versions below for good. Both minima must be that high already."""
        self._transit.trim_key(name=name, min_version=min_available_version, mount_point=self.mount)

    def is_upsert_disabled(self) -> bool:
        """Whether an encrypt with a name that is none makes no key."""
        return data_of(self._caller.call("GET", f"{self.mount}/config/keys")).get("disable_upsert") is True

    def disable_upsert(self) -> None:
        """From now on only a create makes keys."""
        self._caller.call("POST", f"{self.mount}/config/keys", {"disable_upsert": True})


def _described(name: str, answer: Mapping[str, Any]) -> TransitKey:
    """The key that an answer describes. Raises ProtectorRefusedError for another's, or for what makes no sense.

    A field that a server leaves out counts as the dangerous value: nothing is taken to be sound that did not say so.
    """
    data = data_of(answer)
    try:
        key = TransitKey(
            name=data.get("name", name),
            type=str(data["type"]),
            derived=data.get("derived") is True,
            exportable=data.get("exportable") is not False,
            allow_plaintext_backup=data.get("allow_plaintext_backup") is not False,
            kdf=data.get("kdf"),
            latest_version=int(data["latest_version"]),
            min_available_version=int(data.get("min_available_version", 0)),
            min_decryption_version=int(data.get("min_decryption_version", 1)),
            min_encryption_version=int(data.get("min_encryption_version", 0)),
            deletion_allowed=data.get("deletion_allowed") is True,
            soft_deleted=data.get("soft_deleted") is True,
            imported=data.get("imported_key") is True,
            created_s={int(version): int(created) for version, created in (data.get("keys") or {}).items()},
        )
    except (KeyError, TypeError, ValueError, OverflowError, AttributeError):
        key = None
    if key is None or key.name != name or key.latest_version < 1:
        raise ProtectorRefusedError(f"what Vault says of the Transit key {name} is no description of it")
    return key
