"""What a change of rows makes of the record of a key: read once, written as a whole, with the ledger kept along."""

from __future__ import annotations

from typing import cast

import pytest

from ringfence_agent.keystore.authenticator import Ledger
from ringfence_agent.keystore.rows.kinds import HeaderRow, KeyVersionRow, ZoneKeyRow
from ringfence_agent.keystore.rows.records import Records
from ringfence_agent.keystore.vault_kv.documents import Document, VaultDocuments
from ringfence_agent.keystore.vault_kv.head import Head
from ringfence_agent.keystore.vault_kv.index import KeyIndex
from ringfence_agent.keystore.vault_kv.journal import HeadChange
from ringfence_agent.keystore.vault_kv.row_changes import VaultRowChange
from ringfence_agent.keystore.vault_kv.rows import KeyRecord, key_path

CIPHER = "AES/CTR/NoPadding"
KEY = ZoneKeyRow("k", CIPHER, 128, 5, 1, 2, None, None, "{}")
EARLIER, CURRENT, NEXT = (KeyVersionRow("k", number, CIPHER, 128, 5, b"sealed %d" % number) for number in range(3))


class Documents:
    """One key's, whose first version is that of an earlier key of its name."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def find(self, path: str) -> Document | None:
        self.asked.append(path)
        return Document(path, 7, KeyRecord(KEY, [EARLIER, CURRENT]).to_body()) if path == key_path("k") else None


class Elements:
    """Shares in the ledger that can be told apart."""

    def element(self, row: ZoneKeyRow | KeyVersionRow) -> int:
        return hash(row.encode())


@pytest.fixture
def documents() -> Documents:
    return Documents()


@pytest.fixture
def head_change(documents: Documents) -> HeadChange:
    head = Head(version=1, format=3, header=HeaderRow(b"s", 5, "slots", b"", b""))
    return HeadChange(head, Ledger(), cast("VaultDocuments", documents), cast("Records", Elements()))


@pytest.fixture
def change(head_change: HeadChange) -> VaultRowChange:
    return VaultRowChange(head_change.records, cast("KeyIndex", None), head_change)


def ledger_of(*, removed: list[ZoneKeyRow | KeyVersionRow], added: list[ZoneKeyRow | KeyVersionRow]) -> Ledger:
    ledger = Ledger()
    for row in removed:
        ledger.remove(Elements().element(row))
    for row in added:
        ledger.add(Elements().element(row))
    return ledger


def test_a_rolled_key_is_read_once_and_keeps_the_versions_of_an_earlier_one(
    change: VaultRowChange, head_change: HeadChange, documents: Documents
) -> None:
    rolled = KEY._replace(next_version=3)

    assert change.find_key("k") == KEY
    assert change.find_version("k", 1) == CURRENT
    assert change.live_versions(KEY) == [CURRENT]
    change.write_key(KEY, rolled, [NEXT])

    assert change.find_key("k") == rolled
    assert change.live_versions(rolled) == [CURRENT, NEXT]
    assert documents.asked == [key_path("k")]
    assert head_change.versions == {key_path("k"): 7}
    assert head_change.bodies == {key_path("k"): KeyRecord(rolled, [EARLIER, CURRENT, NEXT]).to_body()}
    assert head_change.ledger == ledger_of(removed=[KEY], added=[rolled, NEXT])


def test_a_new_key_takes_the_place_of_none(change: VaultRowChange, head_change: HeadChange) -> None:
    made, first = KEY._replace(name="new", first_version=0, next_version=1), EARLIER._replace(key_name="new")

    assert change.find_key("new") is None
    assert change.find_version("new", 0) is None
    change.write_key(None, made, [first])

    assert head_change.versions == {key_path("new"): 0}
    assert head_change.bodies == {key_path("new"): KeyRecord(made, [first]).to_body()}
    assert head_change.ledger == ledger_of(removed=[], added=[made, first])


def test_another_seal_takes_the_place_of_one_version(change: VaultRowChange, head_change: HeadChange) -> None:
    moved = EARLIER._replace(sealed=b"elsewhere")

    change.find_version("k", 0)
    change.replace_version(EARLIER, moved)

    assert change.find_version("k", 0) == moved
    assert head_change.bodies == {key_path("k"): KeyRecord(KEY, [moved, CURRENT]).to_body()}
    assert head_change.ledger == ledger_of(removed=[EARLIER], added=[moved])
