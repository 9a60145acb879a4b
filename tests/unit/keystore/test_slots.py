"""Slots as they rest in the header, and what is believed of them."""

from __future__ import annotations

import json

import pytest

from ringfence_agent.keystore.sealing import SealBrokenError
from ringfence_agent.keystore.slots import Slot, SlotHeader, check_slots, is_old_header, read_slots
from ringfence_agent.keystore.store_root import StoreRoot
from ringfence_zones.errors import InputError
from ringfence_zones.secret import Secret

ROOT = StoreRoot(Secret(b"r" * 32), b"s" * 16)
FIRST = SlotHeader.first("file", "root key file /k", b"body")
TWO = FIRST.with_slot("vault-transit", "Transit key z-wrap", b"{}")


def test_a_header_comes_back_as_it_was_written() -> None:
    for header in (FIRST, TWO, TWO.activated(1), TWO.without(1)):
        assert check_slots(header.to_bytes(ROOT), ROOT) == header
        assert not is_old_header(header.to_bytes(ROOT))


def test_a_new_slot_is_active_and_every_change_counts() -> None:
    assert (FIRST.active_id, FIRST.next_id, FIRST.revision) == (1, 2, 1)
    assert (TWO.active, TWO.next_id, TWO.revision) == (Slot(2, "vault-transit", "Transit key z-wrap", b"{}"), 3, 2)
    assert (TWO.activated(1).active_id, TWO.activated(1).revision) == (1, 3)


def test_numbers_of_slots_are_never_used_again() -> None:
    header = TWO.activated(1).without(2).with_slot("file", "another", b"x")
    assert [slot.id for slot in header.slots] == [1, 3]


def test_a_slot_that_is_not_there_is_refused_with_those_that_are() -> None:
    with pytest.raises(InputError, match="no slot 7; there are 1, 2"):
        TWO.activated(7)
    assert TWO.find(7) is None


def test_after_65535_slots_there_are_no_more_numbers() -> None:
    last = SlotHeader(FIRST.slots, 1, 0xFFFF, 1).with_slot("file", "the last", b"x")
    assert last.active_id == 0xFFFF
    with pytest.raises(InputError, match="no more numbers"):
        last.with_slot("file", "one more", b"x")


def test_a_header_that_was_edited_anywhere_is_not_believed() -> None:
    content = TWO.to_bytes(ROOT)
    for position in range(len(content)):
        edited = content[:position] + bytes([content[position] ^ 1]) + content[position + 1 :]
        with pytest.raises(SealBrokenError):
            check_slots(edited, ROOT)


def test_only_one_spelling_of_a_header_is_believed() -> None:
    content = TWO.to_bytes(ROOT)
    for spelling in (b" " + content, json.dumps(json.loads(content)).encode(), content + b"\n"):
        with pytest.raises(SealBrokenError):
            check_slots(spelling, ROOT)


def test_a_header_of_another_root_or_store_is_not_believed() -> None:
    for other in (StoreRoot(Secret(b"q" * 32), b"s" * 16), StoreRoot(Secret(b"r" * 32), b"t" * 16)):
        with pytest.raises(SealBrokenError):
            check_slots(TWO.to_bytes(other), ROOT)


def test_the_tag_covers_every_field() -> None:
    others = [
        TWO,
        TWO.activated(1),
        FIRST,
        TWO.without(1),
        SlotHeader(TWO.slots, 2, 4, 2),
        SlotHeader(TWO.slots, 2, 3, 3),
        *(
            SlotHeader((FIRST.slots[0], changed), 2, 3, 2)
            for changed in (
                Slot(2, "aws-kms", "Transit key z-wrap", b"{}"),
                Slot(2, "vault-transit", "another", b"{}"),
                Slot(2, "vault-transit", "Transit key z-wrap", b"{ }"),
            )
        ),
    ]
    assert len({header.encode(b"s" * 16) for header in others}) == len(others)


@pytest.mark.parametrize(
    "change",
    [
        {"active": 3},
        {"active": "1"},
        {"active": True},
        {"next": 2},
        {"revision": 0},
        {"revision": 1.0},
        {"slots": []},
        {"slots": None},
        {"slots": [1]},
        {"tag": None},
        {"revision": 2**70},
    ],
    ids=str,
)
def test_nonsense_is_not_a_header(change: dict[str, object]) -> None:
    content = {**json.loads(TWO.to_bytes(ROOT)), **change}
    with pytest.raises(SealBrokenError):
        check_slots(json.dumps(content, sort_keys=True, separators=(",", ":")).encode(), ROOT)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b"\xff" * 47, b"{}", b"[" * 100_000], ids=repr)
def test_what_is_no_header_cannot_be_read(content: bytes) -> None:
    with pytest.raises(SealBrokenError):
        read_slots(content)


def test_48_bytes_are_the_one_file_slot_of_an_old_format() -> None:
    header = check_slots(b"x" * 48, ROOT)
    assert header.revision == 0
    assert header.active == Slot(1, "file", "root key file", b"x" * 48)
    assert header.with_slot("aws-kms", "key", b"").to_bytes(ROOT) != b"x" * 48
