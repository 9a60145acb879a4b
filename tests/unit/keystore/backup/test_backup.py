"""Making a backup, verifying it, and rehearsing its restore."""

from __future__ import annotations

import os
import signal
import stat
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from backups import BackupScene
from local_stores import in_child, kill, material_of, new_key

from ringfence_agent.keystore.backup.drill import drill
from ringfence_agent.keystore.backup.file_format import BackupFile
from ringfence_agent.keystore.backup.make import make_backup, read_canaries
from ringfence_agent.keystore.backup.place import S3Options
from ringfence_agent.keystore.backup.places import opened_backup, parse_place
from ringfence_agent.keystore.backup.records import Record
from ringfence_agent.keystore.backup.unpacked import private_directory, unpacked
from ringfence_agent.keystore.protectors.file import FileProtector
from ringfence_zones.errors import BackupError, InputError, StoreTamperedError, WrongRootKeyError


@pytest.fixture
def scene(tmp_path: Path) -> BackupScene:
    return BackupScene.make(tmp_path)


@contextmanager
def opened(where: str) -> Iterator[BackupFile]:
    with opened_backup(where) as backup:
        yield backup


def test_a_backup_is_one_private_file_named_after_store_change_and_time(scene: BackupScene) -> None:
    made = scene.back_up()
    (path,) = (each for each in scene.backups.iterdir() if each.suffix == ".rfbackup")
    assert str(path) == made.where
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert path.name.startswith(f"ringfence-{made.manifest.store_id[:16]}-{made.manifest.change_number:010d}-")
    assert made.manifest.rows["key_version"] == made.manifest.rows["canary"] == 6
    assert made.missing == 0


def test_nothing_secret_is_in_it(scene: BackupScene) -> None:
    content = Path(scene.back_up().where).read_bytes()
    root = bytes.fromhex(scene.store.root_key.read_text().strip())
    for secret in (root, *(material_of(name, 0).reveal() for name in ("plain", "rolled", "gone", "again"))):
        assert secret not in content
        assert secret.hex().encode() not in content
    assert b"plain" in content  # names are not secret, and this shows that the scan looks at the right bytes


def test_it_is_consistent_while_others_write(scene: BackupScene) -> None:
    with closing(scene.store.open()) as store, store.snapshot() as snapshot:
        first = list(snapshot.rows())
        with closing(scene.store.open()) as other:
            other.create_key(new_key("meanwhile"))
            other.roll_key("plain", None)
        assert list(snapshot.rows()) == first
    assert scene.back_up().manifest.rows["zone_key"] == 5


def test_a_backup_opens_alone_and_gives_every_version_back(scene: BackupScene) -> None:
    made = scene.back_up()
    (scene.store.path).rename(scene.store.path.with_name("elsewhere"))
    with opened(made.where) as backup:
        keys = drill(backup, scene.protectors)
    assert {key.key_name: key.versions for key in keys} == {
        "again": [0, 1],
        "gone": [0],
        "plain": [0],
        "rolled": [0, 1],
    }
    assert all(key.passed for key in keys)


def test_what_is_unpacked_is_gone_afterwards(scene: BackupScene, monkeypatch: pytest.MonkeyPatch) -> None:
    here = scene.backups / "tmp"
    here.mkdir()
    monkeypatch.setattr("ringfence_agent.keystore.backup.unpacked._IN_MEMORY", Path("/nonexistent"))
    monkeypatch.setattr("tempfile.tempdir", str(here))
    with opened(scene.back_up().where) as backup, unpacked(backup, scene.protectors):
        (private,) = here.iterdir()
        assert stat.S_IMODE(private.stat().st_mode) == 0o700
    assert list(here.iterdir()) == []


def test_what_a_killed_drill_left_is_removed_by_the_next_and_nobody_elses(scene: BackupScene) -> None:
    where = scene.back_up().where

    def unpack(report: int) -> None:
        with private_directory() as directory:
            os.write(report, f"{directory}\n".encode())
            signal.pause()

    (first, first_end), (second, second_end) = in_child(unpack), in_child(unpack)
    left, used = (Path(os.read(end, 4096).decode().strip()) for end in (first_end, second_end))
    try:
        kill(first)
        with opened(where) as backup:
            drill(backup, scene.protectors)
        assert not left.exists()
        assert used.exists()
    finally:
        kill(second)
        for end in (first_end, second_end):
            os.close(end)
    with private_directory():
        assert not used.exists()


def test_another_root_key_is_told_from_a_damaged_backup(scene: BackupScene, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.write_text(os.urandom(32).hex())
    other.chmod(0o600)
    with opened(scene.back_up().where) as backup, pytest.raises(WrongRootKeyError):
        drill(backup, [FileProtector.from_file(other)])


def test_a_manifest_that_its_store_did_not_sign_is_refused(scene: BackupScene) -> None:
    path = Path(scene.back_up().where)
    content = path.read_bytes().replace(b'"change_number":', b'"change_number":1', 1)
    path.write_bytes(content)
    with opened(str(path)) as backup, pytest.raises(BackupError, match="not signed by its store"):
        drill(backup, scene.protectors)


def without_gone(records: list[Record]) -> list[Record]:
    return [each for each in records if "gone" not in each.fields]


def earlier_key(records: list[Record]) -> list[Record]:
    return [
        Record(each.kind, tuple(None if index == 6 else field for index, field in enumerate(each.fields)))
        if each.kind == "zone_key" and each.fields[0] == "gone"
        else each
        for each in records
    ]


@pytest.mark.parametrize("change", [without_gone, earlier_key, lambda records: records[1:]])
def test_rows_that_were_changed_are_found_even_by_one_who_could_sign(scene: BackupScene, change) -> None:  # type: ignore[no-untyped-def]
    changed = scene.resigned(Path(scene.back_up().where), change)
    with opened(str(changed)) as backup, pytest.raises((StoreTamperedError, BackupError)):
        drill(backup, scene.protectors)


def swapped_canaries(records: list[Record]) -> list[Record]:
    canaries = [each for each in records if each.kind == "canary"]
    edeks = [each.fields[4] for each in canaries]
    turned = iter(edeks[1:] + edeks[:1])
    return [
        Record("canary", (*each.fields[:4], next(turned), each.fields[5])) if each.kind == "canary" else each
        for each in records
    ]


def test_a_canary_that_does_not_open_fails_its_key(scene: BackupScene) -> None:
    changed = scene.resigned(Path(scene.back_up().where), swapped_canaries)
    with opened(str(changed)) as backup:
        keys = drill(backup, scene.protectors)
    assert not any(key.passed for key in keys)
    assert "does not give the DEK" in keys[0].problems[0]


def test_a_version_without_canary_is_no_success(scene: BackupScene) -> None:
    changed = scene.resigned(
        Path(scene.back_up().where), lambda records: [each for each in records if each.kind != "canary"]
    )
    with opened(str(changed)) as backup:
        keys = drill(backup, scene.protectors)
    assert {problem for key in keys for problem in key.problems.values()} == {
        "it opens, but there is no canary to prove it with: its protector could not be asked at backup time"
    }


def test_canaries_are_taken_over_from_the_backup_before(scene: BackupScene) -> None:
    with opened(scene.back_up().where) as backup:
        before = read_canaries(backup)
    with closing(scene.store.open()) as store:
        store.roll_key("plain", None)
        made = make_backup(store, parse_place(str(scene.backups), S3Options()))
    assert {place: made.canaries[place] for place in before} == dict(before)
    assert made.canaries.keys() - before.keys() == {("plain", 1)}


def test_a_canary_of_another_history_is_made_anew(scene: BackupScene) -> None:
    with closing(scene.store.open()) as store:
        first = make_backup(store, parse_place(str(scene.backups), S3Options()))
        known = {("plain", 0): first.canaries["rolled", 1]}
        made = make_backup(store, parse_place(str(scene.backups), S3Options()), known)
    assert made.canaries["plain", 0].key_name == "plain"


def test_what_is_not_genuine_is_not_backed_up(scene: BackupScene) -> None:
    with closing(scene.store.open()) as store:
        swap_back(scene)
        with pytest.raises(StoreTamperedError):
            make_backup(store, parse_place(str(scene.backups), S3Options()))
    assert list(scene.backups.glob("*")) == []


def swap_back(scene: BackupScene) -> None:
    import sqlite3

    with closing(sqlite3.connect(scene.store.path)) as connection:
        connection.execute("DELETE FROM key_version WHERE key_name = 'gone'")
        connection.commit()


def test_nothing_is_written_over(scene: BackupScene) -> None:
    target = scene.backups / "mine"
    scene.back_up(target)
    before = target.read_bytes()
    with pytest.raises(InputError, match="no backup is ever written over"):
        scene.back_up(target)
    assert target.read_bytes() == before
    target.unlink()
    target.symlink_to(scene.backups / "nowhere")
    with pytest.raises(InputError, match="no backup is ever written over"):
        scene.back_up(target)


def test_what_a_killed_backup_left_is_removed_by_the_next(scene: BackupScene) -> None:
    made = Path(scene.back_up().where)
    draft = scene.backups / f".{made.name}.new"
    other = scene.backups / ".something.rfbackup.new"
    for path in (draft, other):
        path.write_bytes(b"half")
    scene.back_up()
    assert not draft.exists()
    assert other.exists()


def test_a_directory_that_is_not_there_is_named(scene: BackupScene) -> None:
    with pytest.raises(InputError, match="there is no directory"):
        scene.back_up(scene.backups / "missing" / "file")


@pytest.mark.parametrize("place", ["", "ftp://x/y", "file:///x"])
def test_places_that_are_none_are_refused(place: str) -> None:
    with pytest.raises(InputError):
        parse_place(place, S3Options())


def test_s3_options_are_for_s3_alone(scene: BackupScene) -> None:
    with pytest.raises(InputError, match="no S3 prefix"):
        parse_place(str(scene.backups), S3Options(kms_key_id="k"))
