from __future__ import annotations

from pathlib import Path

import pytest

from ringfence_agent.keystore.backup.place import S3Options
from ringfence_agent.kms.config import Options, load_settings
from ringfence_agent.kms.keeping_config import BackupSettings, KeepingSettings
from ringfence_zones.errors import ConfigError

S3 = "s3://example/kms"


def keeping(directory: Path, text: str) -> KeepingSettings:
    file = directory / "kms.yaml"
    file.write_text(f"keystore: sqlite:///{directory}/k.db\n{text}")
    return load_settings(Options(config=file)).keeping


def test_left_out_nothing_is_backed_up_and_the_store_is_verified_all_the_same(tmp_path: Path) -> None:
    assert keeping(tmp_path, "") == KeepingSettings(
        backup=None, check_s=300.0, tombstone_s=30 * 86_400.0, mark_directory=tmp_path / "k.db.audit.d"
    )


def test_backups_go_to_a_directory_or_to_s3(tmp_path: Path) -> None:
    settings = keeping(tmp_path, "backup: {to: /mnt/backups}\n").backup
    assert settings == BackupSettings(to="/mnt/backups/", after_changes=True, s3=S3Options())
    text = f"backup: {{to: '{S3}', after_changes: false, sse_kms_key: alias/k, lock_for: 30d}}\n"
    settings = keeping(tmp_path, text).backup
    options = S3Options(kms_key_id="alias/k", lock_s=30 * 86_400.0)
    assert settings == BackupSettings(to=S3, after_changes=False, s3=options)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("backup: {to: backups}", "absolute path"),
        ("backup: {to: ''}", "at least 1 character"),
        ("backup: {}", "'backup.to' is missing"),
        ("backup: {to: /b, lock_for: 30d}", "are for S3"),
        ("backup: {to: /b, sse_kms_key: k}", "are for S3"),
        (f"backup: {{to: '{S3}', lock_for: 1h}}", "must be at least 1d"),
        ("store_check: 0s", "must be at least 1s"),
        ("store_check: 2d", "must be at most 1d"),
        ("tombstone: 30", "must be a duration"),
    ],
)
def test_what_cannot_be_is_named(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        keeping(tmp_path, text + "\n")
