"""Rows of versions that Vault holds: sealed and bound like any row, of no slot, and unknown to older formats."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from frozen_store import frozen_store
from local_stores import LocalStore, material_of, new_key
from lockbox import Lockbox, LockboxProtector
from protected_store import ProtectedStore

from ringfence_agent.keystore.held import HeldKey, HeldVersion, TransitVersion, is_zone_key_name, new_transit_name
from ringfence_agent.keystore.interface import NewKey
from ringfence_agent.keystore.sql.store import SqlKeyStore
from ringfence_zones.errors import StoreTamperedError
from ringfence_zones.keys import DEFAULT_CIPHER

KEY = "z-" + "k" * 26


def held_key(name: str, transit_key: str = KEY) -> NewKey:
    return NewKey(name, DEFAULT_CIPHER, 256, TransitVersion(transit_key, 1), None, {"ringfence.custody": "transit"})


@pytest.fixture
def place(tmp_path: Path) -> ProtectedStore:
    return ProtectedStore(tmp_path, [Lockbox()])


@pytest.fixture
def opened(place: ProtectedStore) -> Iterator[Callable[[], SqlKeyStore]]:
    stores: list[SqlKeyStore] = []

    def open_one() -> SqlKeyStore:
        stores.append(place.open())
        return stores[-1]

    yield open_one
    for store in stores:
        store.close()


def fill(store: SqlKeyStore) -> None:
    store.create_key(held_key("held"))
    store.roll_key("held", TransitVersion(KEY, 4))
    store.create_key(new_key("plain"))


def check(store: SqlKeyStore) -> None:
    held = store.find_key("held")
    assert isinstance(held, HeldKey)
    assert held.versions == (
        HeldVersion("held", 0, TransitVersion(KEY, 1)),
        HeldVersion("held", 1, TransitVersion(KEY, 4)),
    )
    plain = store.find_key("plain")
    assert not isinstance(plain, HeldKey) and plain is not None
    assert [version.material for version in plain.versions] == [material_of("plain", 0)]


def edit(path: Path, statement: str, *values: object) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute(statement, values)
    connection.close()


def test_what_vault_holds_belongs_to_no_slot_and_moves_with_none(
    place: ProtectedStore, opened: Callable[[], SqlKeyStore]
) -> None:
    store = opened()
    fill(store)
    (box,) = place.boxes
    store.slots.protect_with(LockboxProtector(box))
    assert [(use.slot.id, use.versions) for use in store.slots.describe()] == [(1, 1), (2, 0)]
    box.calls.clear()
    assert store.slots.rewrap() == 1, "the one version whose material is here"
    store.slots.remove(1)
    check(store)
    place.with_file = False
    box.is_away = True
    assert isinstance(store.find_key("held"), HeldKey), "no protector is asked for it"
    box.is_away = False
    check(opened())


def test_a_new_root_seals_it_again(place: ProtectedStore, opened: Callable[[], SqlKeyStore]) -> None:
    store = opened()
    fill(store)
    before = rows(place.path)
    store.slots.give_new_root()
    assert all(after != was for after, was in zip(rows(place.path), before, strict=True))
    check(opened())


def rows(path: Path) -> list[bytes]:
    with sqlite3.connect(path) as connection:
        found = connection.execute("SELECT sealed FROM key_version ORDER BY key_name, version").fetchall()
    connection.close()
    return [row[0] for row in found]


def test_a_record_that_was_put_for_another_is_noticed(place: ProtectedStore, opened: Callable[[], SqlKeyStore]) -> None:
    store = opened()
    fill(store)
    store.create_key(held_key("other", new_transit_name()))
    swap = "UPDATE key_version SET sealed = (SELECT sealed FROM key_version WHERE key_name = ? AND version = ?)"
    for name, number in (("other", 0), ("held", 1), ("plain", 0)):
        edit(place.path, f"{swap} WHERE key_name = 'held' AND version = 0", name, number)
        with pytest.raises(StoreTamperedError):
            store.find_sealed_key("held")


def test_a_version_that_was_removed_is_noticed(place: ProtectedStore, opened: Callable[[], SqlKeyStore]) -> None:
    store = opened()
    fill(store)
    edit(place.path, "DELETE FROM key_version WHERE key_name = 'held' AND version = 1")
    with pytest.raises(StoreTamperedError, match="missing"):
        store.find_sealed_key("held")
    with pytest.raises(StoreTamperedError, match="missing"):
        store.roll_key("held", TransitVersion(KEY, 9))


def test_a_store_of_an_older_format_becomes_one_of_this_with_its_first_held_key(tmp_path: Path) -> None:
    place: LocalStore = frozen_store(tmp_path)
    store, other = place.open(), place.open()
    try:
        store.create_key(new_key("plain"))
        assert format_of(place.path) == 2
        store.create_key(held_key("held"))
        assert format_of(place.path) == 3
        store.roll_key("held", TransitVersion(KEY, 2))
        other.create_key(new_key("more"))
        for each in (store, other):
            assert isinstance(each.find_key("held"), HeldKey)
            with each.snapshot() as snapshot:
                assert len(snapshot.held) == 2
    finally:
        store.close()
        other.close()
    place.open().close()


def format_of(path: Path) -> int:
    connection = sqlite3.connect(path)
    try:
        version: int = connection.execute("PRAGMA user_version").fetchone()[0]
        return version
    finally:
        connection.close()


def test_a_place_has_one_form(opened: Callable[[], SqlKeyStore]) -> None:
    names = {new_transit_name() for _ in range(100)}
    assert len(names) == 100 and all(is_zone_key_name(name) for name in names)
    place = TransitVersion(KEY, 258)
    assert place.to_bytes() == b"\x00\x00\x01\x02" + KEY.encode()
    assert TransitVersion.from_bytes(place.to_bytes()) == place
    for wrong in (
        b"",
        b"\x00\x00\x00\x01",
        b"\x00\x00\x00\x00" + KEY.encode(),
        b"\x00\x00\x00\x01z-wrap",
        b"\xff" * 40,
    ):
        with pytest.raises(ValueError, match=r"Transit|codec"):
            TransitVersion.from_bytes(wrong)
    for name, version in ((KEY, 0), (KEY, 2**32), ("z-wrap", 1), ("../" + KEY, 1), (KEY + "\n", 1)):
        with pytest.raises(ValueError, match="Transit"):
            TransitVersion(name, version)
