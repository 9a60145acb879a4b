"""Settings for a Vault of a test's own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ringfence_agent.vault.settings import VaultAuthBlock, VaultBlock, VaultSettings, vault_settings

TOKEN_FILE_ONLY: dict[str, Any] = {"method": "token_file"}


def make_settings(address: str | list[str], directory: Path, **fields: Any) -> VaultSettings:
    """Settings as kms.yaml would give them: cluster `c1`, the token in `directory`; `auth` is a mapping."""
    addresses = [address] if isinstance(address, str) else address
    auth = VaultAuthBlock(**fields.pop("auth", TOKEN_FILE_ONLY))
    given: dict[str, Any] = {"cluster": "c1", "token_file": directory / "vault-token", **fields}
    return vault_settings(VaultBlock(addresses=addresses, auth=auth, **given))


def write_private(path: Path, content: str | bytes) -> Path:
    """A file of mode 0600."""
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    path.chmod(0o600)
    return path
