"""Files read whole, within bounds."""

from __future__ import annotations

from pathlib import Path

import pytest

from ringfence_zones.bounded_file import read_bounded
from ringfence_zones.errors import ConfigError, InputError


def test_a_file_of_just_the_bound_is_read_whole(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"12345")
    assert read_bounded(tmp_path / "f", 5, ConfigError) == b"12345"


def test_a_larger_file_is_refused_by_what_it_cannot_be(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"123456")
    with pytest.raises(ConfigError, match=r"^the key /.*f is larger than 5 bytes: not a PEM file$"):
        read_bounded(tmp_path / "f", 5, ConfigError, what="the key", kind="a PEM file")


def test_what_cannot_be_read_is_told_as_the_caller_tells_it(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"^cannot read /.*absent: No such file or directory$"):
        read_bounded(tmp_path / "absent", 5, InputError)
    with pytest.raises(InputError, match="Is a directory"):
        read_bounded(tmp_path, 5, InputError)
