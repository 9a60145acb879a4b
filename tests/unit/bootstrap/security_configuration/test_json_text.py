"""JSON with lines: the same values as Python's reader, and refusals that say where."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ringfence_bootstrap.security_configuration.json_text import (
    MAX_DEPTH,
    MAX_DOCUMENT_BYTES,
    MAX_VALUES,
    read_json,
    spelled,
)
from ringfence_zones.findings import Rule

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@given(VALUES, st.sampled_from([None, 2]), st.booleans())
def test_it_reads_what_python_reads(value: object, indent: int | None, ascii_only: bool) -> None:
    text = json.dumps(value, indent=indent, ensure_ascii=ascii_only)
    read = read_json(text, "d")
    assert (read.data, read.findings, read.is_read) == (json.loads(text), [], True)


@given(st.text(alphabet='{}[]:,"\\tfn01.eE-+ \n', max_size=40))
def test_it_refuses_what_python_refuses(text: str) -> None:
    read = read_json(text, "d")
    try:
        expected = json.loads(text)
    except ValueError:
        assert not read.is_read
        assert [finding.rule for finding in read.findings if finding.rule is Rule.EMR_JSON]
    else:
        if Rule.EMR_DUPLICATE_MEMBER not in [finding.rule for finding in read.findings]:
            assert read.data == expected


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("", 1, "empty"),
        ("  \n", 2, "empty"),
        ('{"a": 1,}', 1, "in double quotes"),
        ('{"a": 1\n "b": 2}', 2, "comma"),
        ('{"a"\n}', 2, "colon"),
        ("{a: 1}", 1, "in double quotes"),
        ('{"a": True}', 1, "'True'"),
        ('{"a": NaN}', 1, "'NaN'"),
        ("{\"a\": 'x'}", 1, '"\'"'),
        ('{\n"a": "x\n"}', 2, "not well-formed"),
        ('{"a": [1, 2}', 1, "comma or ]"),
        ('{"a": [1, 2', 1, "comma or ]"),
        ('{"a":', 1, "ends too early"),
        ('{"a": 1}\n{}', 2, "after the end"),
        ("// no\n{}", 1, "'/'"),
        ('{"a": 01}', 1, "comma"),
        ('{"a": 1e999}', 1, "too large"),
        ('{"a": ' + "9" * 101 + "}", 1, "digits"),
        ("\ufeff{}", 1, "begin with"),
    ],
)
def test_what_is_no_json_is_one_finding_with_its_line(text: str, line: int, words: str) -> None:
    read = read_json(text, "d.json")
    (finding,) = read.findings
    assert (finding.rule, finding.path) == (Rule.EMR_JSON, f"d.json:{line}")
    assert words in finding.message
    assert not read.is_read


def test_a_member_that_is_written_twice_is_refused_with_both_lines_and_the_first_holds() -> None:
    read = read_json('{"a": {"b": 1,\n"c": 2,\n"b": {"x": 3}}, "a": 4}', "d")
    assert [(each.rule, each.path, each.message) for each in read.findings] == [
        (Rule.EMR_DUPLICATE_MEMBER, "d:3", "a.b is written twice; the first is on line 1"),
        (Rule.EMR_DUPLICATE_MEMBER, "d:3", "a is written twice; the first is on line 1"),
    ]
    assert read.data == {"a": {"b": 1, "c": 2}}


def test_every_value_has_its_line() -> None:
    read = read_json('{\n"a":\n[1,\n{"b":\n2}],\n"c": null}', "d")
    places = [(), ("a",), ("a", 0), ("a", 1), ("a", 1, "b"), ("c",)]
    assert [read.where(place) for place in places] == ["d:1", "d:3", "d:3", "d:4", "d:5", "d:6"]
    assert read.where(("a", 1, "absent", 7)) == "d:4"
    assert spelled(("a", 1, "b")) == "a[1].b"


@pytest.mark.parametrize(
    "text",
    [
        "[" * (MAX_DEPTH + 2) + "]" * (MAX_DEPTH + 2),
        "[" * 200_000,
        "[" + "1," * MAX_VALUES + "1]",
        '"' + "x" * MAX_DOCUMENT_BYTES + '"',
    ],
    ids=["deep", "deeper than a stack", "many", "large"],
)
def test_what_is_too_much_is_refused(text: str) -> None:
    read = read_json(text, "d")
    assert [finding.rule for finding in read.findings] == [Rule.EMR_JSON]
    assert not read.is_read


def test_a_long_name_is_not_repeated_in_every_finding() -> None:
    inner = ",".join(['"a": 1'] * 10_000)
    read = read_json(f'{{"{"A" * 500_000}": {{{inner}}}}}', "d")
    assert len(read.findings) == 9_999
    assert sum(len(each.message) for each in read.findings) < 5_000_000
