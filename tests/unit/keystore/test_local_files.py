from __future__ import annotations

import fcntl
import os
from pathlib import Path

import pytest

from ringfence_agent.keystore import local_files
from ringfence_agent.keystore.local_files import (
    check_directory,
    check_local,
    check_writable,
    directory_locked,
    file_system_of,
)
from ringfence_zones.errors import ConfigError, StoreUnavailableError

MOUNT_TABLE = r"""22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw
23 22 0:21 / /proc rw shared:2 - proc proc rw
30 22 0:30 / /mnt/share rw - nfs4 server:/export rw,vers=4.2
31 22 0:31 / /mnt/with\040space rw shared:5 master:6 - fuse.sshfs user@host: rw
32 30 0:32 / /mnt/share/local rw - xfs /dev/vdb rw
33 22 0:33 / /mnt/over rw - ext4 /dev/vdc rw
34 33 0:34 / /mnt/over rw - cifs //server/share rw
a line that is none
"""


@pytest.fixture
def mounts(tmp_path: Path) -> Path:
    table = tmp_path / "mountinfo"
    table.write_text(MOUNT_TABLE)
    return table


@pytest.mark.parametrize(
    ("directory", "kind"),
    [
        ("/var/lib", "ext4"),
        ("/", "ext4"),
        ("/mnt/share", "nfs4"),
        ("/mnt/share/deep/er", "nfs4"),
        ("/mnt/share2", "ext4"),
        ("/mnt/share/local/x", "xfs"),
        ("/mnt/with space/x", "fuse.sshfs"),
        ("/mnt/over", "cifs"),
    ],
)
def test_the_file_system_is_that_of_the_nearest_mount_point(mounts: Path, directory: str, kind: str) -> None:
    assert file_system_of(Path(directory), mounts) == kind


@pytest.mark.parametrize("directory", ["/mnt/share/keys", "/mnt/with space", "/mnt/over/keys"])
def test_a_network_file_system_is_refused(mounts: Path, directory: str) -> None:
    with pytest.raises(ConfigError, match="network file system"):
        check_local(Path(directory), mounts)


def test_a_local_file_system_passes(mounts: Path, tmp_path: Path) -> None:
    check_local(Path("/mnt/share/local"), mounts)
    check_local(tmp_path)


def test_without_a_mount_table_nothing_is_known_and_nothing_refused(tmp_path: Path) -> None:
    assert file_system_of(tmp_path, tmp_path / "none") is None
    check_local(tmp_path, tmp_path / "none")


def test_a_file_is_no_directory_for_a_store(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="not a directory"):
        check_directory(tmp_path / "file", "key store")
    with pytest.raises(ConfigError, match="cannot be reached"):
        check_directory(tmp_path / "file" / "below", "key store")


def test_a_directory_of_another_user_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mode, uid = 0o40700, os.geteuid() + 1
    theirs = os.stat_result((mode, 0, 0, 2, uid, 0, 0, 0, 0, 0))
    with monkeypatch.context() as patch, pytest.raises(ConfigError, match="could replace the key store"):
        patch.setattr(Path, "stat", lambda *_: theirs)
        check_directory(tmp_path, "key store")


def test_a_directory_without_write_permission_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(StoreUnavailableError, match="not writable"):
        check_writable(tmp_path)


def test_a_directory_is_locked_by_one_holder_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local_files, "_LOCK_WAIT_S", 0.05)
    with (
        directory_locked(tmp_path),
        pytest.raises(StoreUnavailableError, match="another process"),
        directory_locked(tmp_path),
    ):
        pytest.fail("locked twice")
    with directory_locked(tmp_path):
        pass


def test_the_lock_is_let_go_with_its_holder(tmp_path: Path) -> None:
    descriptor = os.open(tmp_path, os.O_RDONLY)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    os.close(descriptor)
    with directory_locked(tmp_path):
        pass
