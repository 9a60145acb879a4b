"""Paths: what is accepted and what it means. What is refused stands in `tests/vectors/moves.yaml`."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ringfence_zones.errors import PathError
from ringfence_zones.paths import MAX_COMPONENTS, MAX_PATH_BYTES, HdfsPath, PathKind


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("/", "/"),
        ("/zoneA/f", "/zoneA/f"),
        ("/zoneA/f/", "/zoneA/f"),
        ("hdfs:///zoneA/f", "/zoneA/f"),
        ("/zone%41/f", "/zone%41/f"),
        ("/zoneA%2f..%2fzoneB", "/zoneA%2f..%2fzoneB"),
        ("/zoneA/f?op=x", "/zoneA/f?op=x"),
        ("/zoneA/f#frag", "/zoneA/f#frag"),
        ("/zoneA/{a,b}*", "/zoneA/{a,b}*"),
        ("/zoneA/...", "/zoneA/..."),
        ("/zoneA/ f ", "/zoneA/ f "),
        ("/zoneA/a\\b", "/zoneA/a\\b"),
        ("/donne\u0301es", "/donne\u0301es"),
    ],
)
def test_a_canonical_path_is_taken_letter_for_letter(text: str, canonical: str) -> None:
    assert str(HdfsPath.parse(text)) == canonical


@pytest.mark.parametrize("text", ["hdfs://nn:8020/a", "HDFS://NN:8020/a", "hdfs://nn:8020/a/"])
def test_the_callers_own_file_system_may_be_named(text: str) -> None:
    assert str(HdfsPath.parse(text, default_fs="hdfs://nn:8020/")) == "/a"


@pytest.mark.parametrize("text", ["hdfs://nn2:8020/a", "hdfs://nn/a", "webhdfs://nn:8020/a", "hdfs://nn:8020//a"])
def test_any_other_file_system_is_foreign(text: str) -> None:
    with pytest.raises(PathError):
        HdfsPath.parse(text, default_fs="hdfs://nn:8020")


@pytest.mark.parametrize(
    ("text", "kind", "live"),
    [
        ("/a/b", PathKind.NORMAL, "/a/b"),
        ("/.reserved/raw/a/b", PathKind.RAW, "/a/b"),
        ("/.reserved/raw", PathKind.RAW, "/"),
        ("/a/.snapshot/s1/b", PathKind.SNAPSHOT, "/a/b"),
        ("/a/.snapshot/s1", PathKind.SNAPSHOT, "/a"),
        ("/a/.snapshot", PathKind.SNAPSHOT, "/a"),
        ("/.snapshot/s1/a", PathKind.SNAPSHOT, "/a"),
        ("/.reserved/raw/a/.snapshot/s1/b", PathKind.RAW, "/a/b"),
        ("/a/.snapshots/b", PathKind.NORMAL, "/a/.snapshots/b"),
    ],
)
def test_raw_and_snapshot_paths_are_told_apart_and_lead_to_the_live_path(text: str, kind: PathKind, live: str) -> None:
    path = HdfsPath.parse(text)
    assert path.kind is kind
    assert str(path.live) == live


def test_paths_beyond_the_bounds_of_hdfs_are_refused() -> None:
    with pytest.raises(PathError, match="longer"):
        HdfsPath.parse("/" + "é" * (MAX_PATH_BYTES // 2))
    with pytest.raises(PathError, match="deeper"):
        HdfsPath.parse("/a" * (MAX_COMPONENTS + 1))
    assert HdfsPath.parse("/a" * MAX_COMPONENTS)


def test_a_path_that_is_not_utf8_is_refused() -> None:
    with pytest.raises(PathError, match="UTF-8"):
        HdfsPath.parse("/caf\udce9")


def test_a_look_alike_is_not_inside() -> None:
    assert not HdfsPath.parse("/zoneA2/f").is_inside(HdfsPath.parse("/zoneA"))
    assert HdfsPath.parse("/zoneA").is_inside(HdfsPath.parse("/zoneA"))


def test_a_directory_sorts_directly_before_what_is_below_it() -> None:
    paths = sorted(HdfsPath.parse(text) for text in ("/a b", "/a/c", "/a", "/a-b"))
    assert [str(path) for path in paths] == ["/a", "/a/c", "/a b", "/a-b"]


@given(st.text(max_size=40))
def test_what_is_accepted_reads_back_as_itself(text: str) -> None:
    try:
        path = HdfsPath.parse(text)
    except PathError:
        return
    assert HdfsPath.parse(str(path)) == path
    assert not {"", ".", ".."} & set(path.components)
