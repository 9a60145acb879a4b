"""How the store is kept from being lost or altered unnoticed: `backup`, `store_check` and `tombstone` of kms.yaml."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pydantic import Field

from ringfence_agent.keystore.backup.place import S3Options
from ringfence_agent.keystore.backup.places import S3_SCHEME
from ringfence_zones.config_file import ConfigModel, DurationS
from ringfence_zones.errors import ConfigError

DEFAULT_CHECK_S = 300.0
DEFAULT_TOMBSTONE_S = 30 * 86_400.0
_YEAR_S = 366 * 86_400.0


class BackupBlock(ConfigModel):
    """`backup:` in kms.yaml.

    to             a directory, or s3://BUCKET/PREFIX
    after_changes  a backup is made right after each change of keys or policy; without it, only by the command
    sse_kms_key    the AWS KMS key that S3 seals the objects with; the bucket's own default unless given
    lock_for       each object is held so long by the bucket's Object Lock; the bucket's own default unless given
    """

    to: str = Field(min_length=1)
    after_changes: bool = True
    sse_kms_key: str | None = None
    lock_for: DurationS | None = Field(None, ge=86_400, le=10 * _YEAR_S)


@dataclass(frozen=True, slots=True, kw_only=True)
class BackupSettings:
    """Decided."""

    to: str
    after_changes: bool
    s3: S3Options


@dataclass(frozen=True, slots=True, kw_only=True)
class KeepingSettings:
    """Everything about keeping the store. Times are seconds; `mark_directory` is where its high-water mark is."""

    backup: BackupSettings | None
    check_s: float
    tombstone_s: float
    mark_directory: Path


def backup_settings(block: BackupBlock | None) -> BackupSettings | None:
    """None without backups. Raises ConfigError."""
    if block is None:
        return None
    is_s3 = block.to.startswith(S3_SCHEME)
    if not is_s3 and not Path(block.to).is_absolute():
        raise ConfigError(
            f"backup.to is {block.to!r}: name a directory by its absolute path, or s3://BUCKET/PREFIX",
            hint="a directory on another disk than the key store's, or best a bucket",
        )
    if not is_s3 and (block.sse_kms_key is not None or block.lock_for is not None):
        raise ConfigError("backup.sse_kms_key and backup.lock_for are for S3", hint="leave them out, or name s3://...")
    options = S3Options(kms_key_id=block.sse_kms_key, lock_s=block.lock_for)
    to = block.to if is_s3 or block.to.endswith("/") else block.to + "/"
    return BackupSettings(to=to, after_changes=block.after_changes, s3=options)
