"""What every key store must do with keys that somebody else holds, on each kind of place in `store_places`."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from local_stores import material_of
from store_places import Place

from ringfence_agent.keystore.held import HeldKey, HeldVersion, TransitVersion, new_transit_name
from ringfence_agent.keystore.interface import ChangeOrigin, ImportedKey, ImportedVersion, KeyStore, NewKey
from ringfence_zones.errors import (
    InputError,
    KeyChangedError,
    KeyConflictError,
    KeyExistsError,
    UnconfirmedChangeError,
)
from ringfence_zones.keys import DEFAULT_CIPHER, KeyMetadata

ATTRIBUTES = {"ringfence.custody": "transit"}
PLACE = TransitVersion("z-" + "a" * 26, 1)
ORIGIN = ChangeOrigin("etl", b"d" * 32)


def held_key(name: str, place: TransitVersion = PLACE) -> NewKey:
    return NewKey(name, DEFAULT_CIPHER, 256, place, None, ATTRIBUTES)


def at(version: int, key: str = PLACE.key) -> TransitVersion:
    return TransitVersion(key, version)


def held(store: KeyStore, name: str) -> dict[int, TransitVersion]:
    found = store.find_key(name)
    assert isinstance(found, HeldKey)
    assert found.metadata.versions == found.current.version + 1
    return {version.version: version.place for version in found.versions}


def test_a_held_key_keeps_where_each_version_is_and_no_material(place: Place) -> None:
    store = place.open()
    assert store.create_key(held_key("k")) == HeldVersion("k", 0, PLACE)
    assert store.roll_key("k", at(2)) == HeldVersion("k", 1, at(2))
    assert store.roll_key("k", at(5)) == HeldVersion("k", 2, at(5)), "Vault may have versions that no roll took"
    again = place.open()
    for each in (store, again):
        assert held(each, "k") == {0: PLACE, 1: at(2), 2: at(5)}
        assert each.find_sealed_key("k") == each.find_key("k")
        assert [key.attributes for key in each.list_metadata()] == [ATTRIBUTES]


def test_a_held_key_takes_a_later_version_of_its_own_and_nothing_else(store: KeyStore) -> None:
    store.create_key(held_key("k"))
    store.roll_key("k", at(3))
    for stale in (at(1), at(2), at(3), at(4, new_transit_name())):
        with pytest.raises(KeyChangedError):
            store.roll_key("k", stale)
    for material in (None, material_of("k", 2)):
        with pytest.raises(InputError, match="takes no material"):
            store.roll_key("k", material)
    assert held(store, "k") == {0: PLACE, 1: at(3)}


def test_a_key_with_material_does_not_go_on_in_vault(store: KeyStore) -> None:
    store.create_key(NewKey("k", DEFAULT_CIPHER, 256, material_of("k", 0), None, {}))
    with pytest.raises(InputError, match="cannot go on in Vault"):
        store.roll_key("k", at(2))
    assert store.roll_key("k", None).version == 1


def test_of_many_who_roll_to_one_version_one_does(place: Place) -> None:
    place.open().create_key(held_key("k"))
    stores = [place.open() for _ in range(4)]
    outcomes: list[str] = []

    def roll(store: KeyStore) -> None:
        try:
            store.roll_key("k", at(2))
        except KeyChangedError:
            outcomes.append("changed")
        else:
            outcomes.append("rolled")

    threads = [threading.Thread(target=roll, args=(store,)) for store in stores]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == ["changed"] * 3 + ["rolled"]
    assert held(stores[0], "k") == {0: PLACE, 1: at(2)}


def test_a_deleted_one_comes_back_and_one_made_again_is_another(store: KeyStore) -> None:
    store.create_key(held_key("k"))
    store.roll_key("k", at(2))
    store.delete_key("k")
    assert store.find_key("k") is None
    store.undelete_key("k", 0)
    assert held(store, "k") == {0: PLACE, 1: at(2)}
    with pytest.raises(KeyExistsError):
        store.create_key(held_key("k"))
    store.delete_key("k")
    other = at(1, new_transit_name())
    assert store.create_key(held_key("k", other)).version == 2
    assert held(store, "k") == {2: other}
    store.delete_key("k")
    assert store.create_key(NewKey("k", DEFAULT_CIPHER, 128, material_of("k", 3, 128), None, {})).version == 3
    assert store.roll_key("k", None).version == 4


def test_a_repeated_roll_is_recognised(store: KeyStore) -> None:
    store.create_key(held_key("k"))
    store.roll_key("k", at(2), ORIGIN)
    with pytest.raises(UnconfirmedChangeError):
        store.roll_key("k", at(3), ORIGIN)
    store.confirm(store.find_unconfirmed("k"))
    assert store.roll_key("k", at(3), ORIGIN).version == 2


def test_material_is_not_imported_into_a_held_key(store: KeyStore) -> None:
    store.create_key(held_key("k"))
    metadata = KeyMetadata("k", DEFAULT_CIPHER, 256, 1, 2)
    versions = [ImportedVersion(number, material_of("k", number), 1) for number in range(2)]
    with pytest.raises(KeyConflictError, match="Vault holds it"):
        store.import_keys([ImportedKey(metadata, versions)])
    assert held(store, "k") == {0: PLACE}


def test_a_snapshot_tells_held_versions_from_others(place: Place) -> None:
    store = place.open()
    store.create_key(held_key("k"))
    store.create_key(NewKey("m", DEFAULT_CIPHER, 256, material_of("m", 0), None, {}))
    store.roll_key("k", at(2))
    store.delete_key("k")
    with store.snapshot() as snapshot:
        assert list(snapshot.held) == [HeldVersion("k", 0, PLACE), HeldVersion("k", 1, at(2))]
        assert [(each.key_name, each.version) for each in snapshot.versions] == [("m", 0)]
        assert (snapshot.facts.keys, snapshot.facts.versions) == (1, 3)
        assert snapshot.open_versions(snapshot.versions) == [material_of("m", 0)]


def test_the_name_in_vault_rests_sealed(place: Place, tmp_path: Path) -> None:
    assert tmp_path.exists()
    name = new_transit_name()
    place.open().create_key(held_key("k", at(1, name)))
    assert name.encode() not in place.stored_bytes()
