"""Many files as one stream: sorted out by what is in them, merged by time, and what cannot be read is said."""

from __future__ import annotations

import gzip
import json
import os
import tracemalloc
from pathlib import Path

import pytest

from ringfence_zones.errors import InputError
from ringfence_zones.replay.access import LogKind
from ringfence_zones.replay.log_files import MAX_LINE_BYTES, LogFiles


def _record(second: int, user: str = "etl") -> str:
    time = f"2026-11-22T06:{second // 60:02}:{second % 60:02}.000000Z"
    return json.dumps({"time": time, "op": "DECRYPT_EEK", "key": "k", "user": user, "outcome": "ok"})


def _kms(second: int) -> str:
    return f"2026-11-22 06:00:{second:02},000 OK[op=GET_METADATA, key=k, user=hdfs] "


def _namenode(second: int) -> str:
    who = "allowed=true\tugi=etl (auth:SIMPLE)\tip=/127.0.0.1"
    return f"2026-11-22 06:00:{second:02},000 {who}\tcmd=open\tsrc=/f\tdst=null\tperm=null\tproto=rpc"


def _write(path: Path, *lines: str) -> Path:
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path


def _open_files() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def _users(files: LogFiles, kind: LogKind = LogKind.AUDIT) -> list[str | None]:
    return [placed.access.user for placed in files.read(kind)]


def test_a_file_is_what_its_lines_are_whatever_it_is_called(tmp_path: Path) -> None:
    audit = _write(tmp_path / "hdfs-audit.log", _record(1))
    kms = _write(tmp_path / "worker-0.jsonl", _kms(1))
    namenode = _write(tmp_path / "kms-audit.log", "STARTUP_MSG: a line of the daemon", _namenode(1))
    files = LogFiles([audit, kms, namenode])
    assert {kind: reading.files for kind, reading in files.readings.items()} == {
        LogKind.AUDIT: [audit],
        LogKind.KMS: [kms],
        LogKind.NAMENODE: [namenode],
    }
    assert [placed.where for placed in files.read(LogKind.NAMENODE)] == [f"{namenode}:2"]


def test_the_files_of_a_kind_are_merged_by_time_in_whatever_order_they_are_named(tmp_path: Path) -> None:
    paths = [
        _write(tmp_path / "aa", _record(70, "g"), _record(71, "h")),
        _write(tmp_path / "a", _record(1, "a"), _record(5, "c"), _record(60, "e")),
        _write(tmp_path / "b", _record(2, "b"), _record(7, "d"), _record(61, "f"), _record(90, "i")),
    ]
    assert _users(LogFiles(paths)) == list("abcdefghi")
    assert _users(LogFiles(list(reversed(paths)))) == list("abcdefghi")


def test_rotated_files_are_opened_one_after_another(tmp_path: Path) -> None:
    paths = [_write(tmp_path / f"{at:03}", _record(at * 10), _record(at * 10 + 5)) for at in range(300)]
    stream = LogFiles(paths).read(LogKind.AUDIT)
    before = _open_files()
    seen = 0
    for _ in stream:
        seen += 1
        assert _open_files() <= before + 2
    assert seen == 600


def test_packed_files_are_read_by_what_they_begin_with(tmp_path: Path) -> None:
    packed = tmp_path / "worker-0.20261122.jsonl"
    packed.write_bytes(gzip.compress(f"{_record(1)}\n".encode()) + gzip.compress(f"{_record(2)}\n".encode()))
    assert len(_users(LogFiles([packed]))) == 2


def test_a_packed_file_that_breaks_off_is_named_and_what_came_before_counts(tmp_path: Path) -> None:
    packed = tmp_path / "worker-0.jsonl.gz"
    whole = gzip.compress("".join(f"{_record(at % 3000, os.urandom(8).hex())}\n" for at in range(5000)).encode())
    packed.write_bytes(whole[: len(whole) // 2])
    files = LogFiles([packed])
    count = len(_users(files))
    assert 1000 < count < 5000
    (broken,) = files.readings[LogKind.AUDIT].broken
    assert broken.startswith(f"{packed}:{count + 1}: ")


def test_lines_that_cannot_be_read_are_counted_and_the_first_are_named(tmp_path: Path) -> None:
    lines = [_record(1), "nonsense", "", "   ", "x" * (3 * MAX_LINE_BYTES), _record(2), *["{"] * 9]
    path = _write(tmp_path / "log", *lines)
    files = LogFiles([path])
    assert len(_users(files)) == 2
    reading = files.readings[LogKind.AUDIT]
    assert (reading.lines, reading.unreadable) == (len(lines), 11)
    assert reading.unreadable_at == [f"{path}:{line}" for line in (2, 5, 7, 8, 9)]


def test_a_file_without_any_line_of_a_log_is_refused_and_an_empty_one_is_not(tmp_path: Path) -> None:
    nothing = _write(tmp_path / "zones.yaml", "version: 1", "zones: []")
    with pytest.raises(InputError, match="has no line of an audit log"):
        LogFiles([nothing])
    empty = _write(tmp_path / "empty", "", "")
    assert not any(reading.files for reading in LogFiles([empty]).readings.values())


def test_what_is_no_readable_file_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="No such file"):
        LogFiles([tmp_path / "none"])
    with pytest.raises(InputError, match="is not a file") as caught:
        LogFiles([tmp_path])
    assert caught.value.hint == f"name the files in it: {tmp_path}/*"
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InputError, match="is not a file"):
        LogFiles([tmp_path / "pipe"])
    (tmp_path / "bad.gz").write_bytes(b"\x1f\x8b not gzip at all")
    with pytest.raises(InputError, match=r"cannot read the log .*bad\.gz"):
        LogFiles([tmp_path / "bad.gz"])


def test_a_file_that_is_named_twice_is_read_once(tmp_path: Path) -> None:
    path = _write(tmp_path / "log", _record(1))
    (tmp_path / "link").symlink_to(path)
    assert len(_users(LogFiles([path, tmp_path / "link", path]))) == 1


def test_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    packed = tmp_path / "big.gz"
    with gzip.open(packed, "wb", compresslevel=1) as stream:
        block = "".join(f"{_record(at % 3000)}\n" for at in range(3000)).encode()
        for _ in range(7):
            stream.write(block)
        stream.write(b"x" * (32 * 1024 * 1024))
    files = LogFiles([packed])
    tracemalloc.start()
    try:
        assert sum(1 for _ in files.read(LogKind.AUDIT)) == 21_000
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 8 * 1024 * 1024
