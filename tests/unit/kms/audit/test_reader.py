from __future__ import annotations

import json
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ringfence_agent.kms.audit.reader import find_files, follow, known_sizes, last_sequence
from ringfence_agent.kms.audit.record import utc_text


def line(time_s: float, sequence: int, key: str = "k") -> str:
    return json.dumps({"time": utc_text(time_s), "sequence": sequence, "key": key, "outcome": "ok"}) + "\n"


def keys(directory: Path, since: str | None = None) -> list[str]:
    return [record.fields["key"] for record in find_files([directory]).read(since)]


def test_workers_are_merged_in_time_order_and_each_ones_files_in_the_order_written(tmp_path: Path) -> None:
    (tmp_path / "worker-0.20261122T000000.000Z.jsonl").write_text(line(1, 1, "a") + line(4, 2, "d"))
    (tmp_path / "worker-0.jsonl").write_text(line(6, 3, "f"))
    (tmp_path / "worker-1.jsonl-20261122").write_text(line(2, 1, "b"))
    (tmp_path / "worker-1.jsonl.1").write_text(line(3, 2, "c"))
    (tmp_path / "worker-1.jsonl").write_text(line(5, 3, "e") + line(7, 4, "g"))
    (tmp_path / "worker-1.lock").write_text("")
    (tmp_path / "notes.txt").write_text("x")
    assert keys(tmp_path) == list("abcdefg")
    assert keys(tmp_path, utc_text(4)) == list("defg")
    assert [record.fields["key"] for record in find_files([tmp_path]).last(3)] == list("efg")
    assert [record.fields["key"] for record in find_files([tmp_path]).last(100)] == list("abcdefg")
    assert find_files([tmp_path]).last(0) == []
    assert (last_sequence(tmp_path, 0), last_sequence(tmp_path, 1), last_sequence(tmp_path, 2)) == (3, 4, 0)


def test_several_directories_are_read_as_one(tmp_path: Path) -> None:
    for number, name in enumerate(("one", "two")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "worker-0.jsonl").write_text(line(number, 1, name) + line(10 + number, 2, name))
    files = find_files([tmp_path / "one", tmp_path / "two"])
    assert [record.fields["key"] for record in files.read()] == ["one", "two", "one", "two"]


def test_torn_lines_are_counted_and_compressed_files_named(tmp_path: Path) -> None:
    bad = (b'{"time":"2026', b"\x00\x00", b'{"time":"\xff"}', b'{"time":' + b"[" * 10_000)
    lines = (line(1, 1, "a").encode(), *(each + b"\n" for each in bad), line(2, 2, "b").encode())
    (tmp_path / "worker-0.jsonl").write_bytes(b"".join(lines))
    (tmp_path / "worker-0.jsonl.2.gz").write_bytes(b"\x1f\x8b")
    files = find_files([tmp_path])
    assert [record.fields["key"] for record in files.read()] == ["a", "b"]
    assert (files.torn, [path.name for path in files.skipped]) == (4, ["worker-0.jsonl.2.gz"])


def test_hadoops_format_is_read_where_there_is_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "worker-0.kms-audit.log").write_text("2026-11-22 06:45:01,123 OK[op=GET_KEYS, user=alice] \n")
    assert [record.fields["user"] for record in find_files([tmp_path]).read()] == ["alice"]
    (tmp_path / "worker-0.jsonl").write_text(line(1, 1))
    assert keys(tmp_path) == ["k"]


def test_what_is_put_aside_between_listing_and_reading_is_read_all_the_same(tmp_path: Path) -> None:
    path = tmp_path / "worker-0.jsonl"
    path.write_text(line(1, 1, "a"))
    (tmp_path / "worker-1.jsonl.1").write_text(line(2, 1, "b"))
    (tmp_path / "worker-1.jsonl").write_text(line(3, 2, "c"))
    (tmp_path / "worker-2.jsonl").write_text(line(4, 1, "removed"))

    found = find_files([tmp_path])
    path.rename(tmp_path / "worker-0.20261122T000000.000Z.jsonl")
    path.write_text(line(5, 2, "written after the listing"))
    for old, new in (("1.jsonl.1", "1.jsonl.2"), ("1.jsonl", "1.jsonl.1")):
        (tmp_path / f"worker-{old}").rename(tmp_path / f"worker-{new}")
    (tmp_path / "worker-2.jsonl").unlink()

    assert [record.fields["key"] for record in found.read()] == ["a", "b", "c"]
    assert [record.fields["key"] for record in found.last(2)] == ["b", "c"]
    assert sorted(known_sizes(found).values()) == [len(line(1, 1, "a"))] * 3


def test_memory_does_not_grow_with_the_files(tmp_path: Path) -> None:
    for worker in range(3):
        with (tmp_path / f"worker-{worker}.jsonl").open("w") as stream:
            stream.writelines(line(number + worker / 10, number, "k" * 200) for number in range(20_000))
    tracemalloc.start()
    try:
        count = sum(1 for _ in find_files([tmp_path]).read())
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert count == 60_000
    assert peak_bytes < 2_000_000


@pytest.mark.parametrize("count", [1, 9, 1000, 3000])
def test_the_newest_are_found_from_the_end_of_large_files(tmp_path: Path, count: int) -> None:
    with (tmp_path / "worker-0.jsonl").open("w") as stream:
        stream.writelines(line(number, number, f"k{number}") for number in range(2000))
    found = [record.fields["key"] for record in find_files([tmp_path]).last(count)]
    assert found == [f"k{number}" for number in range(max(0, 2000 - count), 2000)]


def test_following_shows_each_new_record_once_through_half_lines_and_rotations(tmp_path: Path) -> None:
    path = tmp_path / "worker-0.jsonl"
    path.write_text(line(1, 1, "old"))
    whole = line(3, 3, "halved")

    def append(text: str) -> None:
        with path.open("a") as stream:
            stream.write(text)

    def rotate() -> None:
        append(line(4, 4, "last before"))
        path.rename(tmp_path / "worker-0.20261122T000000.000Z.jsonl")
        path.write_text(line(5, 5, "first after"))
        (tmp_path / "worker-7.jsonl").write_text(line(4.5, 1, "another worker"))

    steps: Iterator[Callable[[], None]] = iter(
        [
            lambda: append(line(2, 2, "new") + whole[:20]),
            lambda: append(whole[20:]),
            rotate,
            lambda: append(line(6, 6, "end")),
        ]
    )

    def pause() -> None:
        next(steps)()

    found = []
    for record in follow([tmp_path], known_sizes(find_files([tmp_path])), pause):
        found.append(record.fields["key"])
        if found[-1] == "end":
            break
    assert found == ["new", "halved", "last before", "another worker", "first after", "end"]
