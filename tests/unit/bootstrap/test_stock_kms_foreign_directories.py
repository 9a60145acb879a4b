"""The key store's directory is the KMS user's: nothing that is put into it costs more than that user's own rights."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from ringfence_bootstrap.stock_kms.file_changes import FileChange, Owner, put, read_if_there
from ringfence_bootstrap.stock_kms.foreign_directories import acting_for, read_regular
from ringfence_bootstrap.stock_kms.key_store import read_key_store
from ringfence_zones.errors import ConfigError, InstallError

KMS = 65533

pytestmark = pytest.mark.usefixtures("root")


@pytest.fixture
def root() -> None:
    assert os.geteuid() == 0, "these tests take other users' rights: run the suite as root, as elsewhere"


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory that everybody may go into, with one of root's and one of the KMS user's in it."""
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        directory.chmod(0o755)
        for each in ("root", "kms"):
            (directory / each).mkdir(mode=0o755)
        os.chown(directory / "kms", KMS, KMS)
        (directory / "root/secret").write_bytes(b"root's")
        (directory / "root/secret").chmod(0o600)
        yield directory


def _as_root_again() -> None:
    assert (os.geteuid(), os.getegid()) == (0, 0)


def test_a_link_of_the_kms_user_gets_nothing_written(place: Path) -> None:
    link = place / "kms/kms.keystore"
    link.symlink_to(place / "root/secret")
    with pytest.raises(InstallError, match="cannot write"):
        put(link, b"keys", 0o600, Owner(KMS, KMS))
    assert (place / "root/secret").read_bytes() == b"root's"
    assert (place / "root/secret").stat().st_uid == 0
    _as_root_again()


def test_a_directory_that_became_a_link_gets_nothing_written(place: Path) -> None:
    (place / "kms/keys").symlink_to(place / "root")
    with pytest.raises(InstallError, match="cannot write"):
        put(place / "kms/keys/sudoers", b"keys", 0o600, Owner(KMS, KMS))
    assert [each.name for each in (place / "root").iterdir()] == ["secret"]
    _as_root_again()


def test_a_link_of_the_kms_user_gives_nothing_away(place: Path) -> None:
    link = place / "kms/kms.keystore"
    link.symlink_to(place / "root/secret")
    with pytest.raises(InstallError, match="Permission denied"):
        read_key_store(link)
    with pytest.raises(ConfigError, match="Permission denied"):
        read_if_there(link)
    _as_root_again()


def test_undoing_removes_nothing_behind_a_link(place: Path) -> None:
    path = place / "kms/keys/secret"
    step = FileChange(path, lambda _: b"", 0o600, Owner(KMS, KMS), forced=True).step("keys", "", place)
    undo = step.prepare()
    (place / "kms/keys").symlink_to(place / "root")
    with pytest.raises(InstallError):
        step.undo(undo)
    assert (place / "root/secret").exists()


def test_what_is_wanted_still_works(place: Path) -> None:
    path = place / "kms/kms.keystore"
    put(path, b"keys", 0o400, Owner(KMS, KMS))
    found = path.stat()
    assert (read_key_store(path), found.st_uid, found.st_gid, found.st_mode & 0o777) == (b"keys", KMS, KMS, 0o400)
    put(path, b"root's own", 0o600, Owner(0, 0))  # as an undo finds it
    assert (path.stat().st_uid, path.read_bytes()) == (0, b"root's own")
    # A link of root's stays one, as that of /etc/alternatives.
    (place / "conf").symlink_to("root")
    put(place / "conf/secret", b"new", 0o644, Owner(0, 0))
    assert (place / "root/secret").read_bytes() == b"new"
    _as_root_again()


def test_links_in_a_circle_are_an_error(place: Path) -> None:
    (place / "a").symlink_to("b")
    (place / "b").symlink_to("a")
    with pytest.raises(OSError, match="Too many levels"), acting_for(place / "a"):
        pass


def test_a_pipe_is_not_waited_for(place: Path) -> None:
    os.mkfifo(place / "kms.keystore")
    with pytest.raises(OSError, match="not a regular file"):
        read_regular(place / "kms.keystore", 10)
    with pytest.raises(InstallError, match="not a regular file"):
        read_key_store(place / "kms.keystore")
