"""The comparison itself: it fails on what is not listed, and on what is listed and not there."""

from __future__ import annotations

from differences import Row, Tally, find_differences, judge
from table import JAVA_CASES, KERBEROS_CASES, RAW_CASES, ROWS

STOCK = {"get": {"status": "500", "body": "x"}, "put": {"status": "200"}}
OURS = {"get": {"status": "404", "body": "x"}, "put": {"status": "200", "cookie": "c"}}
STATUS = Row("case/get", None, {"status": ("500", "404")}, "because it is so")
COOKIE = Row("case/put", None, {"cookie": ("absent", "c")}, "because it is so")


def test_every_row_is_about_a_case_that_there_is() -> None:
    assert {row.where.partition("/")[0] for row in ROWS} <= {*RAW_CASES, *KERBEROS_CASES, *JAVA_CASES}


def test_listed_differences_are_allowed() -> None:
    assert judge("case", find_differences(STOCK, OURS), [STATUS, COOKIE]) == []


def test_an_unlisted_difference_is_reported_as_the_row_it_would_be() -> None:
    (complaint,) = judge("case", find_differences(STOCK, OURS), [STATUS])
    assert "not in differences.yaml" in complaint
    assert "where: case/put" in complaint
    assert "cookie: absent" in complaint


def test_a_listed_difference_that_vanished_is_reported() -> None:
    (complaint,) = judge("case", find_differences(STOCK, {**OURS, "get": STOCK["get"]}), [STATUS, COOKIE])
    assert "in differences.yaml, but not so" in complaint
    assert "where: case/get" in complaint


def test_a_difference_with_another_value_than_listed_is_reported_both_ways() -> None:
    changed = {**OURS, "get": {"status": "405", "body": "x"}}
    assert len(judge("case", find_differences(STOCK, changed), [STATUS, COOKIE])) == 2


def test_a_step_of_one_side_only_is_a_difference() -> None:
    found = find_differences(STOCK, {"get": STOCK["get"]})
    assert found == {"put": {"step": ("there", "absent")}}


def test_the_table_counts_steps_alike_and_steps_listed() -> None:
    tally = Tally()
    assert tally.lines() == []
    tally.add("raw", 5, 1)
    tally.add("raw", 2, 0)
    assert [line.split() for line in tally.lines()] == [["steps", "alike", "listed"], ["raw", "7", "6", "1"]]


def test_a_row_for_one_client_version_says_nothing_about_the_others() -> None:
    row = Row("case/get", ("3.3.6",), STATUS.fields, STATUS.reason)
    found = find_differences({"get": STOCK["get"]}, {"get": OURS["get"]})
    assert judge("case", found, [row], "3.3.6") == []
    assert len(judge("case", found, [row], "3.4.2")) == 1
