"""Pins are merged into the administrator's list, and nothing of his is ever lost."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ringfence_agent.pins import (
    PROPERTY,
    PinMemory,
    canonical_entry,
    edit_pin_file,
    is_pinnable,
    merge_pins,
    read_pin_file,
    split_entries,
)
from ringfence_zones.errors import ConfigError

PATHS = st.sampled_from(["/a", "/b", "/c/d", "/c/d/e", "/zoneA", "/zoneA2"])
SPELLED = st.tuples(PATHS, st.sampled_from(["", "/", "//"])).map("".join)


def test_roots_are_added_after_the_administrators_entries() -> None:
    plan = merge_pins(["/apps/", "/tmp//x"], ["/data/b", "/data/a"], [], live=["/apps", "/tmp/x"])
    assert plan.entries == ("/apps/", "/tmp//x", "/data/a", "/data/b")
    assert plan.owned == {"/data/a", "/data/b"}
    assert plan.describe() == "pin /data/a, /data/b"
    assert plan.reload


def test_a_root_that_left_is_taken_out_again() -> None:
    plan = merge_pins(["/apps", "/data/a", "/data/b"], ["/data/a"], ["/data/a", "/data/b"], live=None)
    assert plan.entries == ("/apps", "/data/a")
    assert plan.removed == ("/data/b",)
    assert plan.owned == {"/data/a"}


def test_an_administrators_entry_that_is_a_root_too_stays_his() -> None:
    during = merge_pins(["/data/a/"], ["/data/a"], [], live=["/data/a"])
    assert during.is_nothing
    after = merge_pins(during.entries, [], during.owned, live=["/data/a"])
    assert after.entries == ("/data/a/",)
    assert after.is_nothing


def test_an_edit_that_no_namenode_has_loaded_yet_is_reloaded() -> None:
    assert merge_pins(["/a"], ["/a"], ["/a"], live=[]).reload
    assert merge_pins([], [], ["/a"], live=["/a"]).reload
    assert not merge_pins(["/a", "/admin"], ["/a"], ["/a"], live=["/a"]).reload


def test_an_entry_the_administrator_took_out_is_pinned_again_while_it_is_a_root() -> None:
    assert merge_pins([], ["/a"], ["/a"], live=["/a"]).added == ("/a",)


@given(
    entries=st.lists(SPELLED, unique_by=canonical_entry),
    roots=st.sets(PATHS),
    owned=st.sets(PATHS),
    later=st.sets(PATHS),
)
def test_merging_never_loses_an_entry_that_is_not_the_agents(
    entries: list[str], roots: set[str], owned: set[str], later: set[str]
) -> None:
    admins = [entry for entry in entries if canonical_entry(entry) not in owned]
    plan = merge_pins(entries, roots, owned, live=entries)
    assert [entry for entry in plan.entries if entry in admins] == admins
    assert roots <= {canonical_entry(entry) for entry in plan.entries}
    assert plan.owned <= roots
    assert not plan.owned & {canonical_entry(entry) for entry in admins}

    again = merge_pins(plan.entries, roots, plan.owned, live=plan.entries)
    assert again.is_nothing
    assert again.entries == plan.entries

    gone = merge_pins(plan.entries, later, plan.owned, live=plan.entries)
    empty = merge_pins(gone.entries, set(), gone.owned, live=gone.entries)
    assert [canonical_entry(entry) for entry in empty.entries] == [canonical_entry(entry) for entry in admins]


@pytest.mark.parametrize("root", ["/a,b", "/a\nb", "/a ", "/${user.name}", "/a/", "//a"])
def test_a_root_the_list_cannot_name_is_known(root: str) -> None:
    assert not is_pinnable(root)


@pytest.mark.parametrize("root", ["/a", "/a b", "/zoné", "/a$b", "/a{b}", "/a&b"])
def test_any_other_root_can_be_listed(root: str) -> None:
    assert is_pinnable(root)


def test_the_list_splits_as_hadoop_does() -> None:
    assert split_entries(" /a , /b\n/c,,\n /d e ") == ("/a", "/b", "/c", "/d e")


def _site(path: Path, value: str, extra: str = "") -> None:
    path.write_text(
        f"<configuration>\n<property><name>{PROPERTY}</name><value>{value}</value>{extra}</property>\n</configuration>"
    )


def test_the_file_is_read_and_edited(tmp_path: Path) -> None:
    _site(tmp_path / "core-site.xml", "/apps")
    (tmp_path / "hdfs-site.xml").write_text("<configuration/>")
    before = read_pin_file(tmp_path)
    assert before.entries == ("/apps",)
    assert before.problem is None
    plan = merge_pins(before.entries, ["/zone"], [], live=None)
    edit_pin_file(before.path, before.entries, plan)
    assert read_pin_file(tmp_path).entries == ("/apps", "/zone")


def test_an_edit_in_between_is_not_overwritten(tmp_path: Path) -> None:
    _site(tmp_path / "core-site.xml", "/apps")
    before = read_pin_file(tmp_path)
    _site(tmp_path / "core-site.xml", "/apps,/new")
    with pytest.raises(ConfigError, match="changed since"):
        edit_pin_file(before.path, before.entries, merge_pins(before.entries, ["/zone"], [], live=None))
    assert read_pin_file(tmp_path).entries == ("/apps", "/new")


def test_a_value_in_hdfs_site_that_would_win_is_a_problem(tmp_path: Path) -> None:
    _site(tmp_path / "core-site.xml", "/apps")
    _site(tmp_path / "hdfs-site.xml", "/other")
    assert "wins over core-site.xml" in (read_pin_file(tmp_path).problem or "")
    _site(tmp_path / "core-site.xml", "/apps", "<final>true</final>")
    assert read_pin_file(tmp_path).problem is None


def test_a_missing_or_strange_file_is_a_problem_not_a_crash(tmp_path: Path) -> None:
    assert "core-site.xml" in (read_pin_file(tmp_path).problem or "")
    (tmp_path / "core-site.xml").write_text("<configuration><xi:include href='x'/></configuration>")
    assert "XInclude" in (read_pin_file(tmp_path).problem or "")


def test_what_is_ours_survives_a_restart(tmp_path: Path) -> None:
    PinMemory(tmp_path / "state", Path("/etc/core-site.xml")).save({"/b", "/a"})
    assert PinMemory(tmp_path / "state", Path("/etc/core-site.xml")).load() == {"/a", "/b"}


@pytest.mark.parametrize("content", ["", "[]", "{", '{"schema": 2, "pinned": ["/a"]}', '{"schema": 1}'])
def test_a_damaged_memory_means_nothing_is_ours(tmp_path: Path, content: str) -> None:
    (tmp_path / "pins.json").write_text(content)
    assert PinMemory(tmp_path, Path("/etc/core-site.xml")).load() == frozenset()


def test_the_memory_of_another_file_is_not_used(tmp_path: Path) -> None:
    PinMemory(tmp_path, Path("/old/core-site.xml")).save({"/a"})
    assert PinMemory(tmp_path, Path("/new/core-site.xml")).load() == frozenset()


def test_a_state_directory_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("a file")
    with pytest.raises(ConfigError, match="state"):
        PinMemory(tmp_path / "state", Path("/x")).save({"/a"})


def test_an_entry_that_left_long_ago_is_forgotten_so_that_the_administrator_may_list_it() -> None:
    plan = merge_pins(["/apps"], [], ["/old"], live=["/apps"])
    assert plan.forget
    assert not plan.changes_cluster
    later = merge_pins(["/apps", "/old"], [], plan.owned, live=["/apps", "/old"])
    assert later.is_nothing
