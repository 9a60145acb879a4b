"""Restoring: to where nothing is, all or nothing, and never back in time unknowingly."""

from __future__ import annotations

import io
import os
import shutil
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import pytest
from backups import BackupScene
from local_stores import LocalStore, new_key

from ringfence_agent.keystore.backup.drill import drill
from ringfence_agent.keystore.backup.file_format import BodyDigest, write_file, write_records
from ringfence_agent.keystore.backup.high_water import find_mark
from ringfence_agent.keystore.backup.places import find_change_beside, opened_backup
from ringfence_agent.keystore.backup.restore import Restored, Seen, restore
from ringfence_agent.keystore.backup.targets import find_target
from ringfence_agent.keystore.interface import OpenStore
from ringfence_agent.keystore.rows.kinds import TableRow
from ringfence_agent.keystore.sql.sqlite_database import create_file
from ringfence_zones.errors import BackupError, StoreRollbackError, WrongRootKeyError
from ringfence_zones.secret import Secret


@pytest.fixture
def scene(tmp_path: Path) -> BackupScene:
    return BackupScene.make(tmp_path)


def lose_store(scene: BackupScene) -> None:
    """The disk is gone; the root key comes from its own backup."""
    root_key = scene.store.root_key.read_bytes()
    shutil.rmtree(scene.store.directory)
    scene.store.directory.mkdir(mode=0o700)
    scene.store.root_key.write_bytes(root_key)
    scene.store.root_key.chmod(0o600)


def bring_back(
    scene: BackupScene, where: str, seen: Sequence[Seen] = (), *, allow_rollback: bool = False, to: str | None = None
) -> Restored:
    with opened_backup(where) as backup:
        target = find_target(to or scene.store.uri, None)
        return restore(backup, scene.protectors, target, seen, allow_rollback=allow_rollback)


def what_is_there(store: OpenStore) -> dict[str, list[bytes]]:
    found = {}
    for metadata in store.list_metadata():
        key = store.find_key(metadata.name)
        assert key is not None
        found[metadata.name] = [version.material.reveal() for version in key.versions]
    return found


def test_a_lost_store_comes_back_with_every_key_version_policy_and_number(scene: BackupScene) -> None:
    with closing(scene.store.open()) as store:
        before, number, policy = what_is_there(store), store.change_number(), store.find_policy()
        secret = store.derive_secret("cookies")
    made = scene.back_up()
    lose_store(scene)
    done = bring_back(scene, made.where)
    assert (done.was_there, done.undone, done.facts.change_number) == (False, 0, number)
    with closing(scene.store.open()) as store:
        assert what_is_there(store) == before
        assert store.change_number() == number
        assert store.find_policy() == policy
        assert store.derive_secret("cookies") == secret
        assert [key.metadata.name for key in store.list_deleted()] == ["gone"]
        assert store.create_key(new_key("gone", 1)).version == 1
    assert sorted(path.name for path in scene.store.directory.iterdir()) == ["keys.db", "keys.db.root-key"]


def test_numbers_of_tokens_go_on_above_all_that_were_given_out(scene: BackupScene) -> None:
    made = scene.back_up()
    with closing(scene.store.open()) as store:
        given = max(store.next_sequence() for _ in range(200))
    lose_store(scene)
    bring_back(scene, made.where)
    with closing(scene.store.open()) as store:
        assert store.next_sequence() > given


def test_a_store_that_is_there_is_left_alone(scene: BackupScene) -> None:
    made = scene.back_up()
    with closing(scene.store.open()) as store:
        store.roll_key("plain", None)
        before = what_is_there(store)
    number = made.manifest.change_number
    with pytest.raises(
        BackupError,
        match=rf"holds this key store already, at change {number + 1}; .* at change {number}; .* never writes",
    ):
        bring_back(scene, made.where)
    with closing(scene.store.open()) as store:
        assert what_is_there(store) == before


def test_another_store_that_is_there_is_named_and_left_alone(scene: BackupScene, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    other = BackupScene.make(tmp_path / "other")
    made, theirs = scene.back_up(), other.back_up()
    with opened_backup(made.where) as backup, pytest.raises(BackupError, match="holds another key store") as caught:
        restore(backup, [*scene.protectors, *other.protectors], find_target(other.store.uri, None), [])
    for told in (theirs.manifest.store_id, made.manifest.store_id, made.manifest.source, "never writes over"):
        assert told in caught.value.message
    with pytest.raises(BackupError, match=r"is there already, and does not open: .* is not the root key"):
        bring_back(scene, made.where, to=other.store.uri)
    with closing(other.store.open()) as store:
        assert store.change_number() == theirs.manifest.change_number


def test_a_link_that_leads_nowhere_is_called_one(scene: BackupScene) -> None:
    made = scene.back_up()
    lose_store(scene)
    scene.store.path.symlink_to(scene.store.directory / "elsewhere.db")
    with pytest.raises(BackupError, match=r"is a symbolic link to .*elsewhere\.db, and nothing is there") as caught:
        bring_back(scene, made.where)
    assert "remove the link" in (caught.value.hint or "")
    assert scene.store.path.is_symlink() and not scene.store.path.exists()


@pytest.mark.parametrize("suffix", ["-wal", "-journal"])
def test_a_log_without_its_store_is_left_alone(scene: BackupScene, suffix: str) -> None:
    made = scene.back_up()
    lose_store(scene)
    log = scene.store.path.with_name(scene.store.path.name + suffix)
    log.write_bytes(b"the last changes")
    with pytest.raises(BackupError, match="nor beside a store's log"):
        bring_back(scene, made.where)
    assert log.read_bytes() == b"the last changes"
    assert not scene.store.path.exists()


def test_a_restore_that_was_done_already_is_told_so(scene: BackupScene) -> None:
    made = scene.back_up()
    lose_store(scene)
    bring_back(scene, made.where)
    assert bring_back(scene, made.where).was_there


def test_going_back_is_refused_and_says_how_far(scene: BackupScene) -> None:
    made = scene.back_up()
    number = made.manifest.change_number
    lose_store(scene)
    with pytest.raises(StoreRollbackError, match="3 changes would be undone") as raised:
        bring_back(scene, made.where, [Seen("here", number + 3), Seen("there", number)])
    assert (raised.value.backup_number, raised.value.seen_number) == (number, number + 3)
    assert not scene.store.path.exists()


def test_going_back_with_leave_never_uses_a_change_number_twice(scene: BackupScene) -> None:
    made = scene.back_up()
    seen = [Seen("here", made.manifest.change_number + 3)]
    lose_store(scene)
    done = bring_back(scene, made.where, seen, allow_rollback=True)
    assert (done.undone, done.facts.change_number) == (3, made.manifest.change_number + 4)
    assert bring_back(scene, made.where, seen, allow_rollback=True).was_there
    with closing(scene.store.open()) as store:
        assert store.changes_since(made.manifest.change_number + 3).keys is None
        store.roll_key("plain", None)
    assert scene.back_up().manifest.change_number == made.manifest.change_number + 5


def test_the_directory_of_backups_knows_the_newest(scene: BackupScene) -> None:
    first = scene.back_up()
    store_id = first.manifest.store_id
    with closing(scene.store.open()) as store:
        store.roll_key("plain", None)
    second = scene.back_up()
    assert find_change_beside(first.where, store_id) == second.manifest.change_number
    mark = find_mark(scene.backups, store_id)
    assert mark is not None
    assert mark.change_number == second.manifest.change_number
    Path(second.where).unlink()
    assert find_change_beside(first.where, store_id) == second.manifest.change_number
    for name in scene.backups.glob("*.high-water"):
        name.unlink()
    assert find_change_beside(first.where, store_id) == first.manifest.change_number
    assert find_change_beside(first.where, "00" * 16) is None


def test_what_comes_back_can_be_backed_up_and_drilled_again(scene: BackupScene, tmp_path: Path) -> None:
    made = scene.back_up()
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir(mode=0o700)
    bring_back(scene, made.where, to=f"sqlite:///{elsewhere}/new.db")
    shutil.copy(scene.store.root_key, elsewhere / "new.db.root-key")
    (elsewhere / "new.db").rename(elsewhere / "keys.db")
    (elsewhere / "new.db.root-key").rename(elsewhere / "keys.db.root-key")
    again = BackupScene(LocalStore(elsewhere), scene.backups).back_up()
    with opened_backup(again.where) as backup:
        assert all(key.passed for key in drill(backup, scene.protectors))


def test_a_restore_that_finds_no_room_leaves_nothing(scene: BackupScene, monkeypatch: pytest.MonkeyPatch) -> None:
    made = scene.back_up()
    lose_store(scene)

    def full(*_: object, **__: object) -> None:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr("ringfence_agent.keystore.backup.targets.sync", full)
    with pytest.raises(BackupError, match="No space left"):
        bring_back(scene, made.where)
    assert [path.name for path in scene.store.directory.iterdir()] == ["keys.db.root-key"]


@pytest.mark.parametrize(
    ("module", "said"),
    [("targets", "no space left for key store .*: it is not restored"), ("unpacked", "no room in .* to open backup")],
)
def test_a_disk_that_fills_up_while_rows_are_written_is_a_sentence(
    scene: BackupScene, monkeypatch: pytest.MonkeyPatch, module: str, said: str
) -> None:
    made = scene.back_up()
    lose_store(scene)
    monkeypatch.setattr(f"ringfence_agent.keystore.backup.{module}.create_file", _create_on_a_full_disk)
    with pytest.raises(BackupError, match=said):
        bring_back(scene, made.where)
    assert [path.name for path in scene.store.directory.iterdir()] == ["keys.db.root-key"]
    monkeypatch.undo()
    assert not bring_back(scene, made.where).was_there


def _create_on_a_full_disk(path: Path, rows: Sequence[TableRow], *, version: int) -> None:
    """As SQLite answers there."""
    create_file(path, rows, version=version)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA max_page_count = 1")
        connection.execute("CREATE TABLE more (content)")
        connection.execute("INSERT INTO more VALUES (zeroblob(1000000))")


def test_rows_that_no_store_could_hold_are_a_damaged_backup(scene: BackupScene, tmp_path: Path) -> None:
    """Digest and length are right: whoever wrote it computed them."""
    with opened_backup(scene.back_up().where) as backup, (tmp_path / "b").open("xb") as forged, io.BytesIO() as body:
        digest = BodyDigest()
        records = list(backup.records())
        write_records(body, [*records, records[0]], digest)
        manifest = backup.manifest.model_copy(
            update={"rows": digest.rows, "body_bytes": digest.body_bytes, "sha256": digest.sha256}
        )
        write_file(forged, manifest, Secret(b"k" * 32), body)
    lose_store(scene)
    with pytest.raises(BackupError, match="rows in it do not fit their tables"):
        bring_back(scene, str(tmp_path / "b"))


def test_messages_name_the_backup_and_no_place_where_it_was_unpacked(scene: BackupScene, tmp_path: Path) -> None:
    made = scene.back_up()
    (tmp_path / "other").mkdir(mode=0o700)
    other = BackupScene.make(tmp_path / "other")
    with (
        opened_backup(made.where) as backup,
        pytest.raises(WrongRootKeyError, match=f"is not the root key of key store in backup {made.where}$"),
    ):
        drill(backup, other.protectors)
