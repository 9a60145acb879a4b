from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ringfence_agent.keystore.authenticator import Authenticator, Ledger
from ringfence_agent.keystore.sealing import SealBrokenError
from ringfence_agent.keystore.store_root import StoreRoot
from ringfence_zones.secret import Secret


def authenticator(root: bytes = b"r", store: bytes = b"s", header: bytes = b"header") -> Authenticator:
    return Authenticator(StoreRoot(Secret(root * 32), store * 16), header)


AUTHENTICATOR = authenticator()


@given(st.lists(st.tuples(st.booleans(), st.binary(max_size=3)), max_size=30))
def test_the_ledger_depends_on_the_rows_and_not_on_the_way_to_them(steps: list[tuple[bool, bytes]]) -> None:
    stepwise, rows = Ledger(), set()
    for inserting, row in steps:
        if inserting and row not in rows:
            rows.add(row)
            stepwise.add(AUTHENTICATOR.element(row))
        elif not inserting and row in rows:
            rows.remove(row)
            stepwise.remove(AUTHENTICATOR.element(row))
    at_once = Ledger()
    for row in sorted(rows, reverse=True):
        at_once.add(AUTHENTICATOR.element(row))
    assert stepwise == at_once


def test_a_ledger_of_other_rows_differs() -> None:
    rows = [b"a", b"b", b"c"]
    full = Ledger()
    for row in rows:
        full.add(AUTHENTICATOR.element(row))
    for changed in ([b"a", b"b"], [b"a", b"b", b"b"], [b"a", b"b", b"c", b"c"], [b"a", b"b", b"d"]):
        other = Ledger()
        for row in changed:
            other.add(AUTHENTICATOR.element(row))
        assert other != full


def test_the_sealed_ledger_comes_back() -> None:
    ledger = Ledger(writes=2**64 - 1, rows=3, revision=7, total=2**256 - 1)
    sealed = AUTHENTICATOR.seal(ledger)
    assert len(sealed) == 1 + 12 + 56 + 16
    assert AUTHENTICATOR.unseal(sealed) == ledger
    assert AUTHENTICATOR.seal(ledger) != sealed


@pytest.mark.parametrize(
    "other",
    [authenticator(root=b"q"), authenticator(store=b"t"), authenticator(header=b"other")],
    ids=["root", "store", "header"],
)
def test_a_ledger_opens_in_its_own_store_alone(other: Authenticator) -> None:
    with pytest.raises(SealBrokenError):
        other.unseal(AUTHENTICATOR.seal(Ledger()))


def test_tags_and_elements_of_a_row_are_unrelated() -> None:
    assert AUTHENTICATOR.is_tag_of(AUTHENTICATOR.tag(b"row"), b"row")
    assert not AUTHENTICATOR.is_tag_of(AUTHENTICATOR.tag(b"row"), b"other")
    assert not AUTHENTICATOR.is_tag_of(b"", b"row")
    assert int.from_bytes(AUTHENTICATOR.tag(b"row"), "big") != AUTHENTICATOR.element(b"row")
