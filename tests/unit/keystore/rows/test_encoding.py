from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ringfence_agent.keystore.rows.encoding import encode_row

FIELDS = st.none() | st.integers(-(2**63), 2**63 - 1) | st.text() | st.binary()
ROWS = st.lists(FIELDS, max_size=6)


def test_the_encoding_is_the_one_that_the_format_describes() -> None:
    assert encode_row("é", 1, None, b"\x00") == (
        b"t\x00\x00\x00\x02\xc3\xa9"
        b"i\x00\x00\x00\x08\x00\x00\x00\x00\x00\x00\x00\x01"
        b"n\x00\x00\x00\x00"
        b"b\x00\x00\x00\x01\x00"
    )


@given(ROWS, ROWS)
def test_two_rows_encode_alike_only_when_they_are_the_same(first: list[object], second: list[object]) -> None:
    same = list(map(repr, first)) == list(map(repr, second))
    assert (encode_row(*first) == encode_row(*second)) is same  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("first", "second"),
    [(("ab", "c"), ("a", "bc")), ((None,), ("",)), ((1,), ("1",)), ((b"a",), ("a",)), ((), (None,))],
)
def test_rows_that_look_alike_encode_differently(first: tuple[str, ...], second: tuple[str, ...]) -> None:
    assert encode_row(*first) != encode_row(*second)


@pytest.mark.parametrize(
    ("value", "error"),
    [
        (1.0, TypeError),
        (True, TypeError),
        (2**63, OverflowError),
        (-(2**63) - 1, OverflowError),
        ("\ud800", UnicodeEncodeError),
    ],
)
def test_what_no_row_can_hold_is_refused(value: object, error: type[Exception]) -> None:
    with pytest.raises(error):
        encode_row(value)  # type: ignore[arg-type]
