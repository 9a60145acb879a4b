"""Keys that Vault Transit holds in a key store that rests in Vault too: what the suites over every engine do not do."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from frozen_store import frozen_store
from local_stores import TRANSIT_KEY, LocalStore, held_key, material_of, new_key
from store_places import VAULT_KV, VaultKvPlace, storing_cluster

from ringfence_agent.keystore.backup.make import make_backup
from ringfence_agent.keystore.backup.place import S3Options
from ringfence_agent.keystore.backup.places import opened_backup, parse_place
from ringfence_agent.keystore.backup.restore import restore
from ringfence_agent.keystore.backup.targets import find_target
from ringfence_agent.keystore.held import HeldKey, HeldVersion, TransitVersion
from ringfence_agent.keystore.interface import KeyStore, OpenStore
from ringfence_agent.keystore.open import open_protected
from ringfence_agent.keystore.protectors.file import FileProtector


@pytest.fixture(params=VAULT_KV)
def place(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[VaultKvPlace]:
    made = VaultKvPlace(storing_cluster(request, request.param), tmp_path_factory.mktemp("store"))
    yield made
    made.close()


def moved(store: OpenStore, root_key: Path, place: VaultKvPlace, directory: Path) -> None:
    """The store's backup restored into the place, and its root key brought along."""
    made = make_backup(store, parse_place(str(directory), S3Options()))
    target = find_target(place.uri, None, place.cluster.settings())
    with opened_backup(made.where) as backup:
        restore(backup, [FileProtector.from_file(root_key)], target, [])
    shutil.copy(root_key, place.root_key)


def of_an_older_format(place: VaultKvPlace, directory: Path) -> None:
    source = frozen_store(directory)
    with closing(source.open()) as store:
        store.create_key(new_key("added"))
        moved(store, source.root_key, place, directory)
    assert format_of(place) == 2


def format_of(place: VaultKvPlace) -> int:
    version: int = json.loads(place.document("head")["body"])["format"]
    return version


def check_added(store: KeyStore) -> None:
    found = store.find_key("added")
    assert found is not None and not isinstance(found, HeldKey)
    assert [version.material for version in found.versions] == [material_of("added", 0)]


def test_a_store_of_an_older_format_becomes_one_of_this_with_its_first_held_key(
    place: VaultKvPlace, tmp_path: Path
) -> None:
    of_an_older_format(place, tmp_path)
    store, other = place.open(), place.open()
    store.create_key(held_key("held"))
    assert format_of(place) == 3
    store.roll_key("held", TransitVersion(TRANSIT_KEY, 2))
    other.create_key(new_key("more"))
    for each in (store, other, place.open()):
        assert isinstance(each.find_key("held"), HeldKey)
        check_added(each)
        with each.snapshot() as snapshot:
            assert len(snapshot.held) == 2


def test_a_store_of_an_older_format_is_given_a_new_root(place: VaultKvPlace, tmp_path: Path) -> None:
    of_an_older_format(place, tmp_path)
    settings = place.cluster.settings()
    with closing(open_protected(place.uri, place.root_key, False, None, place.protectors(), settings)) as store:
        before = store.derive_secret("cookies")
        store.slots.give_new_root()
    again = place.open()
    assert again.derive_secret("cookies") != before
    check_added(again)


def test_a_backup_keeps_where_each_version_is_held_into_vault_and_out_of_it(
    place: VaultKvPlace, tmp_path: Path
) -> None:
    directory = tmp_path / "file"
    directory.mkdir(mode=0o700)
    first, last = VaultKvPlace(place.cluster, tmp_path), LocalStore(directory)
    with closing(first.open()) as store:
        store.create_key(held_key("held"))
        store.roll_key("held", TransitVersion(TRANSIT_KEY, 4))
        store.create_key(new_key("added"))
        moved(store, first.root_key, place, tmp_path)
    copy = place.open()
    made = make_backup(copy, parse_place(str(directory), S3Options()))
    with opened_backup(made.where) as backup:
        restore(backup, [FileProtector.from_file(place.root_key)], find_target(last.uri, None), [])
    shutil.copy(place.root_key, last.root_key)
    with closing(last.open()) as file:
        for each in (copy, file):
            check_added(each)
            found = each.find_key("held")
            assert isinstance(found, HeldKey)
            assert found.versions == tuple(
                HeldVersion("held", number, TransitVersion(TRANSIT_KEY, there)) for number, there in ((0, 1), (1, 4))
            )
