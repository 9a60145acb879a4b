"""Where a key store in Vault is: a URI, completed by the `vault` block of kms.yaml.

    vault://[MOUNT/]PREFIX        MOUNT is the block's `kv_mount`, and may be left out

The block says which Vault, as whom, and by which way; none of that is in the URI. PREFIX is the store's own: nothing
else may be there. `ringfence vault setup` prepares the engine and gives the policies that place, and no other.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from ringfence_agent.vault.settings import VaultSettings
from ringfence_zones.errors import ConfigError, InputError

SCHEME = "vault"
FORM = "vault://[MOUNT/]PREFIX"
# As the block's own paths: every server takes these, and no policy gives them another meaning.
_PREFIX = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*(?:/[A-Za-z0-9_][A-Za-z0-9_.-]*)*")
_MAX_BYTES = 200


@dataclass(frozen=True, slots=True)
class VaultKvAddress:
    """A KV version 2 mount and the path below which the store's documents are, without slashes at the ends."""

    mount: str
    prefix: str

    @property
    def label(self) -> str:
        """The URI, for messages."""
        return f"{SCHEME}://{self.mount}/{self.prefix}"


def is_vault_uri(uri: str) -> bool:
    """Whether a key store's URI names Vault."""
    return uri.partition(":")[0].lower() == SCHEME


def parse_vault_uri(uri: str, kv_mount: str = "") -> VaultKvAddress:
    """Raises InputError. Without a mount the whole path is taken for the prefix."""
    _, colon, rest = uri.partition(":")
    path = rest.removeprefix("//").removesuffix("/")
    if not colon or not rest.startswith("//") or _PREFIX.fullmatch(path) is None or len(path) > _MAX_BYTES:
        raise InputError(
            "a vault: URI names the place of the store in a KV engine and nothing else: letters, digits and ._- between"
            " single slashes",
            hint=f"write {FORM}, vault://ringfence/CLUSTER/keystore for instance; addresses and login are in the block"
            " vault of kms.yaml",
        )
    prefix = path.removeprefix(f"{kv_mount}/")
    if prefix == kv_mount:
        raise InputError("the vault: URI names a mount and no place in it", hint=f"write {FORM}")
    return VaultKvAddress(kv_mount, prefix)


def require_vault(settings: VaultSettings | None) -> VaultSettings:
    """Raises ConfigError without the block."""
    if settings is None:
        raise ConfigError(
            "the key store is in Vault, but there is no vault block that sets it up",
            hint="write vault: {...} in kms.yaml; packaging/docs/kms.yaml shows every setting",
        )
    return settings
