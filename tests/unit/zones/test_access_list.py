from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ringfence_zones.access_list import EVERYBODY, AccessList, parse_access_list

NAMES = st.frozensets(
    st.text(st.characters(codec="ascii", categories=("L", "N", "P", "S"), exclude_characters=",*"), min_size=1)
)


def users(*names: str) -> AccessList:
    return AccessList(frozenset(names))


@pytest.mark.parametrize(
    ("listed", "text"),
    [
        (AccessList(), " "),
        (EVERYBODY, "*"),
        (users("bob", "alice"), "alice,bob"),
        (AccessList(groups=frozenset({"staff"})), " staff"),
        (AccessList(frozenset({"alice"}), frozenset({"ops", "staff"})), "alice ops,staff"),
    ],
)
def test_a_list_is_written_as_hadoop_reads_it(listed: AccessList, text: str) -> None:
    assert listed.to_text() == text
    assert parse_access_list(text) == listed


@given(NAMES, NAMES)
def test_what_is_written_is_read_back(some: frozenset[str], others: frozenset[str]) -> None:
    listed = AccessList(some, others)
    if not any("${" in name for name in some | others):
        assert parse_access_list(listed.to_text()) == listed


@pytest.mark.parametrize("name", ["a b", "a,b", "*", "", " a", "${user.name}", "a\n"])
def test_a_name_that_would_be_read_as_something_else_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="cannot be written"):
        users(name).to_text()


def test_a_list_covers_what_it_names_by_name() -> None:
    assert EVERYBODY.covers(EVERYBODY)
    assert EVERYBODY.covers(users("a"))
    assert users("a", "b").covers(users("a"))
    assert users("a").covers(AccessList())
    assert not users("a").covers(users("b"))
    assert not users("a").covers(AccessList(groups=frozenset({"a"})))
    assert not users("a").covers(EVERYBODY)


def test_who_acts_for_a_user_is_on_a_list_that_says_so() -> None:
    listed = users("alice", "~hive")
    none = frozenset[str]()
    assert listed.admits("bob", lambda _: none, real_user="hive")
    assert not listed.admits("hive", lambda _: none)
    assert not listed.admits("bob", lambda _: none, real_user="oozie")
