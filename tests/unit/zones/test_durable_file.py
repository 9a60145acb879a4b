"""Files that come into being whole, durable and private, and never through a link."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from ringfence_zones import durable_file
from ringfence_zones.durable_file import install_durably, prepared_name, replace_file, write_new_file


def test_a_new_file_is_private_whatever_the_umask(tmp_path: Path) -> None:
    old = os.umask(0o777)
    try:
        write_new_file(tmp_path / "file", b"content")
    finally:
        os.umask(old)
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "file").read_bytes() == b"content"


def test_a_new_file_replaces_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"old")
    (tmp_path / "link").symlink_to(tmp_path / "target")
    for name in ("file", "link"):
        with pytest.raises(FileExistsError):
            write_new_file(tmp_path / name, b"new")
    write_new_file(tmp_path / "prepared", b"new")
    with pytest.raises(FileExistsError):
        install_durably(tmp_path / "prepared", tmp_path / "file")
    assert (tmp_path / "file").read_bytes() == b"old"
    assert not (tmp_path / "target").exists()


def test_a_prepared_file_gets_its_name(tmp_path: Path) -> None:
    write_new_file(tmp_path / "prepared", b"new")
    install_durably(tmp_path / "prepared", tmp_path / "file")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_file_is_replaced_in_one_step_and_what_a_dead_process_left_is_cleared(tmp_path: Path) -> None:
    place = tmp_path / "file"
    place.write_bytes(b"old")
    prepared_name(place).write_bytes(b"half")
    replace_file(place, b"new", 0o640)
    assert (place.read_bytes(), place.stat().st_mode & 0o777) == (b"new", 0o640)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_link_in_the_drafts_place_is_not_written_through(tmp_path: Path) -> None:
    (tmp_path / "victim").write_bytes(b"old")
    place = tmp_path / "file"
    prepared_name(place).symlink_to(tmp_path / "victim")
    place.symlink_to(tmp_path / "victim")
    replace_file(place, b"new")
    assert ((tmp_path / "victim").read_bytes(), place.read_bytes(), place.is_symlink()) == (b"old", b"new", False)


def test_a_full_disk_leaves_the_old_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = tmp_path / "file"
    place.write_bytes(b"old")

    def fail(_descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(durable_file.os, "fsync", fail)
    with pytest.raises(OSError, match="No space left"):
        replace_file(place, b"new")
    assert place.read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
