"""Backups of a store whose material a remote protector seals: it is asked as little as can be, and may be away."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from backups import fill
from local_stores import new_key
from lockbox import Lockbox, LockboxProtector
from protected_store import ProtectedStore

from ringfence_agent.keystore.backup.drill import KeyDrill, drill
from ringfence_agent.keystore.backup.make import BackupMade, make_backup
from ringfence_agent.keystore.backup.place import S3Options
from ringfence_agent.keystore.backup.places import opened_backup, parse_place
from ringfence_agent.keystore.backup.restore import restore
from ringfence_agent.keystore.backup.targets import find_target
from ringfence_agent.keystore.backup.unpacked import check_opened_by, unpacked
from ringfence_agent.keystore.protector import Protector
from ringfence_agent.keystore.protectors.file import FileProtector
from ringfence_zones.errors import ConfigError, ProtectorUnavailableError, WrongRootKeyError


class Scene:
    """A store opened by a root key file and by a lockbox, which seals all of its keys."""

    def __init__(self, directory: Path) -> None:
        for name in ("store", "backups"):
            (directory / name).mkdir(mode=0o700)
        self.box = Lockbox()
        self.backups = directory / "backups"
        self.place = ProtectedStore(directory / "store", [self.box])
        with closing(self.place.open()) as store:
            fill(store)
            store.slots.protect_with(LockboxProtector(self.box))
            store.slots.rewrap()
        self.box.calls.clear()

    @property
    def protectors(self) -> list[Protector]:
        return [FileProtector.from_file(self.place.root_key), LockboxProtector(self.box)]

    def back_up(self) -> BackupMade:
        with closing(self.place.open()) as store:
            return make_backup(store, parse_place(str(self.backups), S3Options()))

    def drill(self, where: str, protectors: list[Protector] | None = None) -> list[KeyDrill]:
        with opened_backup(where) as backup:
            return drill(backup, self.protectors if protectors is None else protectors)


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    yield Scene(tmp_path)


def test_each_version_is_opened_once_for_all_backups(scene: Scene) -> None:
    scene.back_up()
    assert scene.box.count("open") == 6
    assert scene.box.calls == [("open", 6)]
    scene.back_up()
    assert scene.box.count("open") == 6
    with closing(scene.place.open()) as store:
        store.roll_key("plain", None)
    scene.back_up()
    assert scene.box.count("open") == 7


@pytest.mark.parametrize("how", ["is_away", "refuses"])
def test_a_protector_that_cannot_be_asked_stops_no_backup(scene: Scene, how: str) -> None:
    setattr(scene.box, how, True)
    made = scene.back_up()
    assert made.missing == 6
    assert made.why is not None
    assert "lockbox box" in made.why
    setattr(scene.box, how, False)
    keys = scene.drill(made.where)
    assert {problem for key in keys for problem in key.problems.values()} == {
        "it opens, but there is no canary to prove it with: its protector could not be asked at backup time"
    }
    assert scene.back_up().missing == 0


def test_a_drill_shows_what_only_the_remote_protector_opens(scene: Scene) -> None:
    made = scene.back_up()
    assert all(key.passed for key in scene.drill(made.where))
    keys = scene.drill(made.where, [FileProtector.from_file(scene.place.root_key)])
    assert not any(key.passed for key in keys)
    assert "this process does not open slot 2" in keys[0].problems[0]
    scene.box.is_away = True
    keys = scene.drill(made.where)
    assert {problem for key in keys for problem in key.problems.values()} == {"lockbox box is away"}


def test_a_root_key_file_that_opens_nothing_is_told_although_another_protector_opens_all(scene: Scene) -> None:
    made = scene.back_up()
    foreign = scene.backups.parent / "foreign.root-key"
    foreign.write_text("ab" * 32)
    foreign.chmod(0o600)
    wrong, right = FileProtector.from_file(foreign), FileProtector.from_file(scene.place.root_key)
    assert all(key.passed for key in scene.drill(made.where, [wrong, LockboxProtector(scene.box)]))
    with opened_backup(made.where) as backup:
        check_opened_by(backup, right)
        with pytest.raises(WrongRootKeyError, match=r"foreign\.root-key does not open backup"):
            check_opened_by(backup, wrong)


def test_versions_that_one_protector_has_lost_do_not_hide_the_others(scene: Scene) -> None:
    with closing(scene.place.open()) as store:
        # The active slot is the lockbox's; one version more is sealed by another one, which is then lost.
        other = Lockbox("other")
        scene.place.boxes.append(other)
        store.slots.protect_with(LockboxProtector(other))
    with closing(scene.place.open()) as store:
        store.create_key(new_key("new"))
    made = scene.back_up()
    assert made.missing == 0
    other.refuses = True
    keys = scene.drill(made.where, [*scene.protectors, LockboxProtector(other)])
    assert [key.key_name for key in keys if not key.passed] == ["new"]


def test_a_store_is_restored_without_asking_whom_its_material_needs(scene: Scene, tmp_path: Path) -> None:
    made = scene.back_up()
    scene.box.calls.clear()
    scene.box.is_away = True
    target = tmp_path / "elsewhere"
    target.mkdir(mode=0o700)
    with opened_backup(made.where) as backup:
        restore(backup, scene.protectors, find_target(f"sqlite:///{target}/keys.db", None), [])
    assert scene.box.calls == []
    place = ProtectedStore(target, [scene.box])
    place.root_key.write_bytes(scene.place.root_key.read_bytes())
    place.root_key.chmod(0o600)
    with closing(place.open()) as store:
        with pytest.raises(ProtectorUnavailableError):
            store.find_key("plain")
        scene.box.is_away = False
        assert store.find_key("plain") is not None


def test_a_backup_from_before_a_change_of_slots_opens_with_those_of_its_time(scene: Scene) -> None:
    made = scene.back_up()
    with closing(scene.place.open()) as store:
        store.slots.give_new_root()
    after = scene.back_up()
    for where in (made.where, after.where):
        assert all(key.passed for key in scene.drill(where))
    assert after.manifest.protector_header != made.manifest.protector_header


def test_slots_are_seen_in_the_state_that_a_snapshot_reads(scene: Scene) -> None:
    """A snapshot that began before a slot was added is no tampering, nor is one after another handle added it."""
    other = Lockbox("other")
    scene.place.boxes.append(other)
    with closing(scene.place.open()) as store, closing(scene.place.open()) as changer:
        with store.snapshot() as snapshot:
            before = snapshot.facts.protector_header
            changer.slots.protect_with(LockboxProtector(other))
            store.create_key(new_key("sealed-by-other"))
            assert [row.kind for row in snapshot.rows()].count("zone_key") == 4
        with store.snapshot() as snapshot:
            assert snapshot.facts.protector_header != before
            assert len(snapshot.open_versions(snapshot.versions)) == 7


def test_an_unpacked_backup_is_the_store_that_it_was(scene: Scene) -> None:
    with opened_backup(scene.back_up().where) as backup, unpacked(backup, scene.protectors) as store:
        assert [use.slot.scheme for use in store.slots.describe()] == ["file", "vault-transit"]
        found = store.find_key("rolled")
        assert found is not None
        assert len(found.versions) == 2


def test_a_root_key_file_that_is_gone_is_not_called_the_only_way_in(scene: Scene) -> None:
    """Lost after the store was moved to others: taking `file` out of `protector` opens it."""
    with closing(scene.place.open()) as store:
        store.slots.remove(1)
    scene.place.root_key.unlink()
    with pytest.raises(ConfigError, match="names file") as caught:
        scene.place.open()
    assert "take file out of protector" in str(caught.value.hint)
    assert not scene.place.root_key.exists()
