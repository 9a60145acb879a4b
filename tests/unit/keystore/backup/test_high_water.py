from __future__ import annotations

from pathlib import Path

import pytest

from ringfence_agent.keystore.backup.high_water import Mark, find_mark, mark_file, put_mark, raise_mark
from ringfence_zones.errors import BackupError

STORE = "ab" * 16


def test_a_mark_grows_and_never_falls_by_itself(tmp_path: Path) -> None:
    assert find_mark(tmp_path, STORE) is None
    raise_mark(tmp_path, STORE, Mark(5, 1))
    raise_mark(tmp_path, STORE, Mark(3, 2))
    assert find_mark(tmp_path, STORE) == Mark(5, 1)
    raise_mark(tmp_path, STORE, Mark(6, 3))
    assert find_mark(tmp_path, STORE) == Mark(6, 3)
    put_mark(tmp_path, STORE, Mark(1, 4))
    assert find_mark(tmp_path, STORE) == Mark(1, 4)


def test_stores_have_marks_of_their_own(tmp_path: Path) -> None:
    raise_mark(tmp_path, STORE, Mark(5, 1))
    assert find_mark(tmp_path, "cd" * 16) is None
    assert find_mark(tmp_path / "missing", STORE) is None


@pytest.mark.parametrize(
    "content", [b"", b"{}", b"[]", b"[" * 4096, b'{"change_number":"5","seen_ms":1,"store_id":"x"}', b"\xff"]
)
def test_a_mark_that_cannot_be_read_is_no_absence(tmp_path: Path, content: bytes) -> None:
    mark_file(tmp_path, STORE).write_bytes(content)
    with pytest.raises(BackupError, match="cannot be read"):
        find_mark(tmp_path, STORE)
    with pytest.raises(BackupError, match="cannot be read"):
        raise_mark(tmp_path, STORE, Mark(9, 9))


def test_another_stores_mark_under_this_name_is_refused(tmp_path: Path) -> None:
    raise_mark(tmp_path, "cd" * 16, Mark(5, 1))
    mark_file(tmp_path, "cd" * 16).rename(mark_file(tmp_path, STORE))
    with pytest.raises(BackupError, match="cannot be read"):
        find_mark(tmp_path, STORE)
