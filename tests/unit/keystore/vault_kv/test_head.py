"""What a head remembers of the changes before it, and that all of it comes back from its document."""

from __future__ import annotations

import json

from ringfence_agent.keystore.interface import ChangeOrigin, UnconfirmedChange
from ringfence_agent.keystore.rows.changes import KEPT_CHANGES, NO_KEY, SEVERAL_KEYS
from ringfence_agent.keystore.rows.kinds import HeaderRow, TokenMasterKeyRow, TokenStateRow
from ringfence_agent.keystore.vault_kv.documents import Document
from ringfence_agent.keystore.vault_kv.head import Head


def head() -> Head:
    return Head(version=1, format=3, header=HeaderRow(b"i" * 16, 5, "slots", b"{}", b"ledger"))


def test_only_the_newest_change_of_a_key_is_remembered() -> None:
    made = head()
    for number, name in enumerate(["a", "b", "a", NO_KEY], start=1):
        made.note_change(number, name)
    assert made.changed == {"b": 2, "a": 3}
    assert list(made.changed) == ["b", "a"]
    assert made.changes_after == 0


def test_an_import_is_a_change_of_everything() -> None:
    made = head()
    made.note_change(1, "a")
    made.note_change(2, SEVERAL_KEYS)
    assert (made.changes_after, made.changed) == (2, {})


def test_changes_are_remembered_as_far_back_as_other_stores_do() -> None:
    made = head()
    for number in range(1, KEPT_CHANGES + 3):
        made.note_change(number, f"k{number}")
    assert made.changes_after == 2
    assert len(made.changed) == KEPT_CHANGES
    assert "k2" not in made.changed


def test_long_names_are_remembered_for_less_long() -> None:
    made = head()
    for number in range(1, 101):
        made.note_change(number, f"{number}-" + "x" * 990)
    assert 10 <= len(made.changed) <= 17
    assert made.changes_after == 100 - len(made.changed)
    assert len(json.dumps(made.changed)) <= 17_000


def test_everything_comes_back_from_the_document() -> None:
    made = head()
    made.policy = "policies/1-a"
    made.note_change(1, "ключ\0")
    made.notes = [UnconfirmedChange("k", 2, ChangeOrigin("etl", b"\x00\xff"), 1 << 61, 7)]
    made.tokens = TokenStateRow(5, 6, 7)
    made.master_keys = [TokenMasterKeyRow(1, 2, 3, b"\x01sealed")]
    made.pending = [["tokens", "tokens/0", "cancel", 3]]
    body = json.loads(json.dumps(made.to_body()))
    assert Head.of(Document("head", 1, body)) == made


def test_a_successor_shares_nothing_and_has_nothing_pending() -> None:
    made = head()
    made.pending = [["put", "keys/a", {}]]
    after = made.successor()
    after.note_change(1, "a")
    assert (after.version, after.pending) == (2, [])
    assert (made.changed, made.pending) == ({}, [["put", "keys/a", {}]])
