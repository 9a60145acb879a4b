"""What every store does so that keys are never lost: snapshots, backups, restores into any engine, undelete."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path

import pytest
from backups import fill
from local_stores import LocalStore, material_of, new_key
from store_places import Place, ServerPlace, SqlitePlace, VaultKvPlace

from ringfence_agent.keystore.backup.drill import drill
from ringfence_agent.keystore.backup.make import make_backup
from ringfence_agent.keystore.backup.place import S3Options
from ringfence_agent.keystore.backup.places import opened_backup, parse_place
from ringfence_agent.keystore.backup.restore import restore
from ringfence_agent.keystore.backup.targets import RestoreTarget, find_target
from ringfence_agent.keystore.interface import OpenStore
from ringfence_agent.keystore.protector import Protector
from ringfence_agent.keystore.protectors.file import FileProtector
from ringfence_zones.errors import BackupError, KeyExistsError, KeyNotFoundError


def protectors_of(place: Place) -> Sequence[Protector]:
    assert isinstance(place, SqlitePlace | ServerPlace | VaultKvPlace)
    opened = place.protectors()
    if not opened.with_file:
        return opened.others
    path = place.directory / "keys.db.root-key" if isinstance(place, SqlitePlace) else place.root_key
    return [FileProtector.from_file(path), *opened.others]


def target_at(uri: str, place: Place) -> RestoreTarget:
    """With what is needed to reach the place's own server."""
    password = place.server.password_file if isinstance(place, ServerPlace) else None
    vault = place.cluster.settings() if isinstance(place, VaultKvPlace) else None
    return find_target(uri, password, vault)


def test_a_snapshot_is_one_state_whatever_others_write(store: OpenStore, place: Place) -> None:
    fill(store)
    with store.snapshot() as snapshot:
        before = list(snapshot.rows())
        other = place.open()
        other.create_key(new_key("meanwhile"))
        other.delete_key("plain")
        assert list(snapshot.rows()) == before
        assert (snapshot.facts.keys, snapshot.facts.versions) == (3, 6)
    with store.snapshot() as snapshot:
        assert snapshot.facts.change_number == store.change_number()
        assert list(snapshot.rows()) != before
        assert [version.key_name for version in snapshot.versions].count("meanwhile") == 1


def test_snapshots_verify_while_others_write_without_pause(store: OpenStore, place: Place) -> None:
    """What is read is never half of a change, and nothing of it looks tampered with."""
    stop = threading.Event()
    other = place.open()
    other.create_key(new_key("busy"))

    def write() -> None:
        number = 0
        while not stop.is_set():
            number += 1
            other.roll_key("busy", None)
            other.create_key(new_key(f"k{number}"))
            other.delete_key(f"k{number}")

    writer = threading.Thread(target=write)
    writer.start()
    try:
        deadline, numbers = time.monotonic() + 30, set[int]()
        while len(numbers) < 12:
            assert time.monotonic() < deadline
            with store.snapshot() as snapshot:
                numbers.add(snapshot.facts.change_number)
                assert len(snapshot.versions) == sum(1 for row in snapshot.rows() if row.kind == "key_version")
    finally:
        stop.set()
        writer.join()


def test_a_backup_is_restored_into_a_file_and_into_the_same_engine(
    store: OpenStore, place: Place, new_place: Callable[[], Place], tmp_path: Path
) -> None:
    fill(store)
    made = make_backup(store, parse_place(str(tmp_path), S3Options()))
    protectors = protectors_of(place)
    with opened_backup(made.where) as backup:
        assert all(key.passed for key in drill(backup, protectors))
    uris = [f"sqlite:///{tmp_path}/keys.db"]
    again = new_place()
    if isinstance(again, ServerPlace):
        again.uri = again.server.new_database()
        uris.append(again.uri)
    elif isinstance(again, VaultKvPlace):
        uris.append(again.uri)
    for uri in uris:
        with opened_backup(made.where) as backup:
            target = target_at(uri, place)
            assert not target.is_there()
            done = restore(backup, protectors, target, [])
            assert restore(backup, protectors, target_at(uri, place), []).was_there
        with closing(target.open(protectors)) as restored:
            assert [key.name for key in restored.list_metadata()] == ["again", "plain", "rolled"]
            found = restored.find_key("rolled")
            assert found is not None
            assert found.versions[0].material == material_of("rolled", 0)
            assert restored.change_number() == done.facts.change_number == store.change_number()
            restored.roll_key("plain", None)
        with opened_backup(made.where) as backup, pytest.raises(BackupError, match="never writes over"):
            restore(backup, protectors, target_at(uri, place), [])


def test_a_backup_of_a_file_is_restored_into_this_engine(place: Place, tmp_path: Path) -> None:
    source = LocalStore(tmp_path)
    with closing(source.open()) as store:
        fill(store)
        made = make_backup(store, parse_place(str(tmp_path), S3Options()))
    uri = f"sqlite:///{tmp_path}/copy.db"
    if isinstance(place, ServerPlace):
        uri = place.uri = place.server.new_database()
    elif isinstance(place, VaultKvPlace):
        uri = place.uri
    protectors = [FileProtector.from_file(source.root_key)]
    with opened_backup(made.where) as backup:
        restore(backup, protectors, target_at(uri, place), [])
    with closing(target_at(uri, place).open(protectors)) as restored:
        assert [key.name for key in restored.list_metadata()] == ["again", "plain", "rolled"]


def now_ms() -> int:
    return time.time_ns() // 1_000_000


def test_a_deleted_key_comes_back_with_all_its_versions(store: OpenStore, place: Place) -> None:
    store.create_key(new_key("k"))
    store.roll_key("k", material_of("k", 1))
    before = store.find_key("k")
    store.delete_key("k")
    (deleted,) = store.list_deleted()
    assert (deleted.metadata.name, deleted.metadata.versions) == ("k", 2)
    assert abs(deleted.deleted_ms - now_ms()) < 60_000
    number = store.change_number()
    metadata = place.open().undelete_key("k", deleted.deleted_ms)
    assert metadata.versions == 2
    assert store.find_key("k") == before
    assert store.list_deleted() == []
    assert store.changes_since(number).keys == {"k"}
    assert store.roll_key("k", None).version == 2


def test_a_key_that_was_made_again_is_not_replaced(store: OpenStore) -> None:
    store.create_key(new_key("k"))
    store.delete_key("k")
    store.create_key(new_key("k", 1))
    assert store.list_deleted() == []
    with pytest.raises(KeyExistsError):
        store.undelete_key("k", 0)
    # The newer of the two is what comes back; the older one's version stays gone, and its number taken.
    store.delete_key("k")
    store.undelete_key("k", 0)
    found = store.find_key("k")
    assert found is not None
    assert [version.version for version in found.versions] == [1]
    assert store.roll_key("k", None).version == 2


def test_nothing_comes_back_that_was_never_there_or_is_gone_too_long(store: OpenStore) -> None:
    store.create_key(new_key("k"))
    store.delete_key("k")
    number = store.change_number()
    with pytest.raises(KeyNotFoundError, match="too long ago"):
        store.undelete_key("k", now_ms() + 60_000)
    for name in ("other", "", "\ud800"):
        with pytest.raises(KeyNotFoundError):
            store.undelete_key(name, 0)
    assert store.find_key("k") is None
    assert store.change_number() == number
