"""What a job is given to do, and which of the words of its tasks are believed. More of the latter in `test_job`."""

from __future__ import annotations

import json
import random

import pytest

from ringfence_agent.transfer.job_records import MAX_PART_BYTES, PART, Records, encode_listing, numbers_of
from ringfence_agent.transfer.record import Item
from ringfence_zones.errors import TransferError
from ringfence_zones.paths import MAX_PATH_BYTES

_DIGEST = "ab" * 32


def item(path: str, size: int = 5, *, is_directory: bool = False) -> Item:
    facts = {"mode": 0o640, "owner": "o", "group": "g", "modified_ms": 1, "accessed_ms": 2, "file_id": 7}
    return Item(path=path, is_directory=is_directory, bytes=size, key_version=None, **facts)  # type: ignore[arg-type]


def listing(items: list[Item], at_least: int = 1) -> list[list[dict[str, object]]]:
    """The shares, as the maps will read them."""
    encoded = encode_listing(items, numbers_of(items), at_least)
    assert encoded.isascii()
    return [json.loads(line) for line in encoded.decode().split("\n")[:-1]]


@pytest.mark.parametrize(
    ("sizes", "at_least", "maps"),
    [
        ([5], 8, 1),
        ([0], 1, 1),
        ([5] * 10, 8, 8),
        ([5] * 64, 1, 2),
        ([5] * 65, 1, 3),
        ([10 << 30, 5], 1, 2),
        ([1 << 29] * 16, 2, 8),
    ],
)
def test_files_spread_over_maps(sizes: list[int], at_least: int, maps: int) -> None:
    assert len(listing([item(f"f{number:03}", size) for number, size in enumerate(sizes)], at_least)) == maps


def test_every_file_is_in_one_share_and_no_share_is_much_heavier_than_another() -> None:
    chance = random.Random(6)
    items = [item(f"f{number:04}", chance.randrange(1 << 28)) for number in range(500)]
    shares = listing(items)
    told = sorted((file["path"], file["number"], file["bytes"]) for share in shares for file in share)  # type: ignore[type-var]
    assert told == [(each.path, number, each.bytes) for number, each in enumerate(items)]
    weights = [sum(int(str(file["bytes"])) for file in share) for share in shares]
    assert max(weights) < 1.2 * min(weights)
    assert max(len(share) for share in shares) <= 32


def test_a_name_is_one_line_whatever_it_holds() -> None:
    awkward = "a\nb\u2028\U0001f980'\"\\"
    [[file]] = listing([item(awkward)])
    assert file["path"] == awkward


def test_numbers_are_of_files_and_the_same_whatever_is_left_to_do() -> None:
    items = [item("", is_directory=True), item("a"), item("sub", is_directory=True), item("sub/b")]
    assert numbers_of(items) == {"a": 0, "sub/b": 1}
    [[file]] = [json.loads(encode_listing(items[3:], numbers_of(items), 1))]
    assert file["number"] == 1


def line(path: str = "a", copy: str = "0.m_000000_0", size: int = 5) -> dict[str, object]:
    read = {"bytes_read": size, "sha256_read": _DIGEST, "bytes_back": size, "sha256_back": _DIGEST}
    return {"path": path, "copy": copy, **read}


def test_a_file_is_told_once_whichever_part_tells_it() -> None:
    records = Records({"a": 0, "b": 1})
    content = json.dumps(line()).encode()
    [(path, copy, copied)] = records.take("part-00000", content + b"\t\n")
    assert (path, copy, copied.bytes_back, copied.sha256_read) == ("a", "0.m_000000_0", 5, _DIGEST)
    with pytest.raises(TransferError, match=r"one file twice \(part-00001\)"):
        records.take("part-00001", content)


@pytest.mark.parametrize(
    "content",
    [
        b"\n",
        b"null",
        b"[]",
        b"\xff\xfe",
        b"{",
        b"9" * 5000,
        b"[" * 10_000,
        json.dumps({**line(), "bytes_read": "5"}).encode(),
        json.dumps({**line(), "bytes_read": 5.0}).encode(),
        json.dumps({**line(), "bytes_back": 2**63}).encode(),
        json.dumps({**line(), "sha256_back": _DIGEST.upper()}).encode(),
        json.dumps({**line(), "sha256_back": _DIGEST + "\n"}).encode(),
        json.dumps({**line(), "copy": "0" * 100}).encode(),
        json.dumps({**line(), "error": "x"}).encode(),
        json.dumps({**line(), "path": None}).encode(),
        json.dumps({"path": "a"}).encode(),
        json.dumps({"path": "a", "error": 7}).encode(),
    ],
)
def test_what_is_no_record_is_refused(content: bytes) -> None:
    with pytest.raises(TransferError, match=r"no record \(part-00000\)"):
        Records({"a": 0}).take("part-00000", content)


@pytest.mark.parametrize(
    "copy",
    ["0", "1.m_000000_0", "00.m_000000_0", "0.m_000000_0/..", "../0.m_000000_0", "0.m_0_0\n", "0.m__0", "٠.m_0_0"],
)
def test_a_copy_that_this_file_cannot_have_is_refused(copy: str) -> None:
    with pytest.raises(TransferError, match="not this file's"):
        Records({"a": 0}).take("part-00000", json.dumps(line(copy=copy)).encode())


@pytest.mark.parametrize("path", ["", "/a", "a/", "./a", "A", "a\u0000", "../a"])
def test_a_path_that_was_not_listed_is_refused(path: str) -> None:
    with pytest.raises(TransferError, match="was not given"):
        Records({"a": 0}).take("part-00000", json.dumps(line(path=path)).encode())


def test_a_task_s_words_are_shown_cut_and_printable() -> None:
    failed = json.dumps({"path": "a", "error": "denied\x1b[2J\u202e" + "x" * 1000}).encode()
    with pytest.raises(TransferError) as raised:
        Records({"a": 0}).take("part-00000", failed)
    assert raised.value.message.startswith("the job could not copy a: denied?[2J?xxx")
    assert len(raised.value.message) < 450


def test_the_longest_honest_part_fits() -> None:
    # HDFS bounds a path in bytes of UTF-8; a character of three of them takes six in JSON.
    longest = json.dumps({**line(), "path": "\u20ac" * (MAX_PATH_BYTES // 3), "error": "x" * 400})
    assert 32 * len(longest) < MAX_PART_BYTES


@pytest.mark.parametrize("name", ["part-0", "part-00000.gz", "_SUCCESS", "_temporary/0/part-00000", "part-00000\n"])
def test_what_is_no_part_is_not_read(name: str) -> None:
    assert PART.fullmatch(name) is None
    assert PART.fullmatch("part-00000") is not None
