"""A store of the first release becomes one of this release: by itself, wholly or not at all, and only when genuine."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path

import pytest
from frozen_store import frozen_store
from local_stores import LocalStore, in_child, new_key, read_all

from ringfence_agent.keystore.protectors.file import new_root_key_text
from ringfence_agent.keystore.sql.sqlite_schema import STATEMENTS
from ringfence_agent.keystore.token_store import TokenRecord
from ringfence_zones.errors import StoreTamperedError, WrongRootKeyError


@pytest.fixture
def old(tmp_path: Path) -> LocalStore:
    """A store as the first release left it."""
    return frozen_store(tmp_path)


def version_of(place: LocalStore) -> int:
    connection = sqlite3.connect(place.path)
    try:
        version: int = connection.execute("PRAGMA user_version").fetchone()[0]
        return version
    finally:
        connection.close()


def edit(place: LocalStore, statement: str) -> None:
    connection = sqlite3.connect(place.path)
    with connection:
        connection.execute(statement)
    connection.close()


def test_opening_upgrades_a_store_and_keeps_what_it_holds(old: LocalStore) -> None:
    assert version_of(old) == 1
    store = old.open()
    assert [metadata.name for metadata in store.list_metadata()] == ["analytics-data-pii", "recreated"]
    assert store.change_number() == 9
    assert store.changes_since(8).keys is None
    store.create_key(new_key("k"))
    assert store.changes_since(9).keys == frozenset({"k"})
    assert store.next_sequence() == 1
    store.add_token(TokenRecord(1, b"identifier", 5))
    store.close()
    assert version_of(old) == 2
    again = old.open()
    assert again.find_token(1) == TokenRecord(1, b"identifier", 5)
    again.close()


def test_an_upgraded_store_has_the_schema_of_a_new_one(old: LocalStore, tmp_path: Path) -> None:
    old.open().close()
    connection = sqlite3.connect(old.path)
    schema = dict(connection.execute("SELECT name, sql FROM sqlite_schema WHERE sql IS NOT NULL"))
    connection.close()
    assert schema == STATEMENTS[2]


def test_a_wrong_root_key_upgrades_nothing(old: LocalStore) -> None:
    old.root_key.write_bytes(new_root_key_text())
    with pytest.raises(WrongRootKeyError):
        old.open()
    assert version_of(old) == 1


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE zone_key SET description = 'edited' WHERE name = 'recreated'",
        "DELETE FROM key_version WHERE key_name = 'gone'",
        STATEMENTS[2]["delegation_token"],
        "CREATE VIEW sneaky AS SELECT 1",
    ],
    ids=["row edited", "row removed", "table of version 2", "view"],
)
def test_a_store_that_was_tampered_with_is_not_upgraded(old: LocalStore, statement: str) -> None:
    edit(old, statement)
    with pytest.raises(StoreTamperedError):
        old.open()
    assert version_of(old) == 1


def test_a_version_number_put_back_is_found(old: LocalStore) -> None:
    old.open().close()
    edit(old, "PRAGMA user_version = 1")
    with pytest.raises(StoreTamperedError):
        old.open()


def test_several_processes_that_open_an_old_store_at_once_all_get_it_upgraded(old: LocalStore) -> None:
    def act(report: int) -> None:
        store = old.open()
        numbers = [store.next_sequence() for _ in range(3)]
        store.close()
        os.write(report, f"{numbers[0]}\n".encode())

    ends = [in_child(act)[1] for _ in range(4)]
    firsts = [read_all(end)[0] for end in ends]
    assert len(set(firsts)) == 4
