"""From a URI to a store: which URIs, which files, and what becomes of interrupted creations."""

from __future__ import annotations

import os
import re
import shutil
import sqlite3
import stat
import subprocess
from pathlib import Path

import pytest
from local_stores import LocalStore, can_mount, in_child, new_key, read_all, tmpfs

from ringfence_agent.keystore.open import default_root_key, open_keystore, store_path
from ringfence_agent.keystore.protectors.file import FileProtector
from ringfence_agent.keystore.sql.open import open_sql_keystore
from ringfence_agent.keystore.sql.sqlite_database import SqliteDatabase
from ringfence_zones.errors import (
    ConfigError,
    InputError,
    RingfenceError,
    StoreTamperedError,
    StoreUnavailableError,
)


@pytest.fixture
def place(tmp_path: Path) -> LocalStore:
    return LocalStore(tmp_path)


@pytest.fixture
def made(place: LocalStore) -> LocalStore:
    store = place.open()
    store.create_key(new_key("k"))
    store.close()
    return place


def refusal(place: LocalStore, kind: type[RingfenceError]) -> str:
    with pytest.raises(kind) as caught:
        place.open()
    return str(caught.value)


@pytest.mark.parametrize(
    ("uri", "said"),
    [
        ("jceks://file@/etc/kms.keystore", "Java key store"),
        ("jceks:whatever", "Java key store"),
        ("localjceks://file/x", "Java key store"),
        ("kms://http@localhost:9600/kms", "kms: is not a kind of key store"),
        ("/var/lib/ringfence/keys.db", "named by a URI"),
        ("keys.db", "named by a URI"),
        ("", "named by a URI"),
        ("sqlite:///relative.db", "four slashes"),
        ("sqlite://host/abs.db", "four slashes"),
        ("sqlite:", "four slashes"),
        ("sqlite://", "four slashes"),
        ("sqlite:////", "does not name a key store file"),
        ("sqlite:////a/../b.db", "does not name a key store file"),
        ("sqlite:////a.db?mode=ro", "takes a path and nothing else"),
        ("sqlite:////a\0.db", "takes a path and nothing else"),
    ],
)
def test_a_uri_that_cannot_be_opened_is_refused_with_the_form_that_can(uri: str, said: str) -> None:
    with pytest.raises(InputError, match=re.escape(said)) as caught:
        open_keystore(uri, None, init=True)
    assert "sqlite:////" in str(caught.value.hint)
    assert "secret" not in f"{caught.value}{caught.value.hint}"


def test_the_sqlalchemy_form_names_the_path(tmp_path: Path) -> None:
    assert store_path("sqlite:////var/lib/ringfence/keys.db") == Path("/var/lib/ringfence/keys.db")
    assert store_path("SQLITE:////a b%20c.db") == Path("/a b%20c.db")
    assert default_root_key(Path("/var/lib/keys.db")) == Path("/var/lib/keys.db.root-key")


@pytest.mark.parametrize("name", ["keys.db", "a b%20c.db", "ключ.db", "k'\".db"])
def test_store_and_root_key_are_made_together_and_private(tmp_path: Path, name: str) -> None:
    old = os.umask(0)
    try:
        open_keystore(f"sqlite:///{tmp_path}/{name}", None, init=False).close()
    finally:
        os.umask(old)
    assert {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()} == {
        name: 0o600,
        f"{name}.root-key": 0o600,
    }


@pytest.mark.parametrize("init", [True, False])
def test_the_root_key_may_rest_elsewhere(tmp_path: Path, init: bool) -> None:
    for name in ("data", "etc"):
        (tmp_path / name).mkdir(mode=0o700)
    uri, root_key = f"sqlite:///{tmp_path}/data/keys.db", tmp_path / "etc" / "root.key"
    for _ in range(2):
        open_keystore(uri, root_key, init).close()
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["keys.db"]
    assert [path.name for path in (tmp_path / "etc").iterdir()] == ["root.key"]


@pytest.mark.parametrize("init", [True, False])
@pytest.mark.parametrize("lost", ["path", "root_key"])
def test_one_file_without_the_other_is_an_error_that_names_both(made: LocalStore, lost: str, init: bool) -> None:
    getattr(made, lost).unlink()
    before = sorted(made.directory.iterdir())
    with pytest.raises(ConfigError) as caught:
        open_keystore(made.uri, None, init)
    assert str(made.path) in str(caught.value)
    assert str(made.root_key) in str(caught.value)
    assert caught.value.hint
    assert sorted(made.directory.iterdir()) == before


def test_a_store_whose_root_keys_directory_is_gone_says_which_file_is_missing(made: LocalStore) -> None:
    with pytest.raises(ConfigError, match=r"its root key file .*gone/root.key is not"):
        open_keystore(made.uri, made.directory / "gone" / "root.key", init=False)


def test_a_log_without_its_store_is_never_replayed_into_a_new_one(place: LocalStore) -> None:
    log = place.path.with_name("keys.db-wal")
    log.write_bytes(b"x")
    assert str(log) in refusal(place, ConfigError)
    assert list(place.directory.iterdir()) == [log]


def test_a_creation_interrupted_between_the_two_names_is_finished(made: LocalStore, tmp_path: Path) -> None:
    fresh = LocalStore(tmp_path / "fresh")
    fresh.directory.mkdir(mode=0o700)
    fresh.open().close()
    header = fresh.path.read_bytes()
    fresh.path.rename(fresh.directory / ".keys.db.new")
    store = fresh.open()
    store.close()
    assert fresh.path.read_bytes()[:4096] == header[:4096]
    assert sorted(path.name for path in fresh.directory.iterdir()) == ["keys.db", "keys.db.root-key"]


@pytest.mark.parametrize("content", ["nothing", "garbage", "used", "foreign"])
def test_a_prepared_store_that_was_not_made_with_this_root_key_is_not_used(
    made: LocalStore, tmp_path: Path, content: str
) -> None:
    prepared = made.directory / ".keys.db.new"
    if content == "garbage":
        prepared.write_bytes(b"x" * 10_000)
        prepared.chmod(0o600)
    elif content == "used":
        shutil.copy2(made.path, prepared)
    elif content == "foreign":
        other = LocalStore(tmp_path / "other")
        other.directory.mkdir(mode=0o700)
        other.open().close()
        shutil.copy2(other.path, prepared)
    made.path.unlink()
    assert "is there, but its key store" in refusal(made, ConfigError)
    assert not made.path.exists()


def test_what_a_killed_creation_left_is_cleared_away(place: LocalStore) -> None:
    for name in (".keys.db.new", ".keys.db.new-wal", ".keys.db.new-journal", ".keys.db.root-key.new"):
        (place.directory / name).write_bytes(b"half")
    place.open().close()
    assert sorted(path.name for path in place.directory.iterdir()) == ["keys.db", "keys.db.root-key"]


def test_processes_that_start_together_share_one_store(place: LocalStore) -> None:
    def start(report: int) -> None:
        store = place.open()
        store.create_key(new_key(f"k{os.getpid()}"))
        os.write(report, f"k{os.getpid()}\n".encode())
        store.close()

    children = [in_child(start) for _ in range(8)]
    names = sorted(line for _, read_end in children for line in read_all(read_end))
    assert {os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid, _ in children} == {0}
    store = place.open()
    assert [metadata.name for metadata in store.list_metadata()] == names
    assert len(names) == 8
    store.close()


def test_store_and_root_key_in_one_file_are_refused(place: LocalStore) -> None:
    with pytest.raises(InputError, match="both as key store and as root key"):
        open_keystore(place.uri, place.path, init=True)
    assert list(place.directory.iterdir()) == []


def test_a_missing_directory_is_named_with_the_command_that_makes_it(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="does not exist") as caught:
        LocalStore(tmp_path / "none").open()
    assert caught.value.command == f"install -d -m 700 {tmp_path / 'none'}"


@pytest.mark.parametrize("mode", [0o770, 0o707, 0o777, 0o1777])
@pytest.mark.parametrize("exists", [True, False])
def test_a_directory_that_others_can_write_to_is_refused(place: LocalStore, mode: int, exists: bool) -> None:
    if exists:
        place.open().close()
    place.directory.chmod(mode)
    assert "others can write there" in refusal(place, ConfigError)
    place.directory.chmod(0o755)
    place.open().close()


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o666])
def test_a_store_file_that_others_can_reach_is_refused(made: LocalStore, mode: int) -> None:
    made.path.chmod(mode)
    assert f"mode {mode:04o}" in refusal(made, ConfigError)


def test_a_symbolic_link_to_a_store_is_refused(made: LocalStore) -> None:
    made.path.rename(made.directory / "real.db")
    made.path.symlink_to(made.directory / "real.db")
    assert "symbolic link" in refusal(made, ConfigError)


def test_a_dangling_link_is_not_taken_for_a_missing_store(place: LocalStore) -> None:
    place.path.symlink_to(place.directory / "nowhere")
    assert "its root key file" in refusal(place, ConfigError)
    assert [path.name for path in place.directory.iterdir()] == ["keys.db"]


def test_a_directory_in_place_of_the_store_is_refused(made: LocalStore) -> None:
    made.path.unlink()
    made.path.mkdir()
    assert "not a regular file" in refusal(made, ConfigError)


def test_another_programs_database_is_told_from_a_damaged_store(made: LocalStore) -> None:
    made.path.unlink()
    connection = sqlite3.connect(made.path)
    connection.execute("CREATE TABLE theirs (a)")
    connection.close()
    made.path.chmod(0o600)
    assert "not a Ringfence key store" in refusal(made, ConfigError)


def test_a_file_that_is_no_database_is_said_to_be_none(made: LocalStore) -> None:
    made.path.write_bytes(b"these are not the keys you are looking for" * 1000)
    assert "not an SQLite database" in refusal(made, StoreTamperedError)


def set_user_version(place: LocalStore, version: int) -> None:
    connection = sqlite3.connect(place.path)
    connection.execute(f"PRAGMA user_version = {version}")
    connection.close()


def test_a_store_of_a_newer_release_is_left_to_that_release(made: LocalStore) -> None:
    set_user_version(made, 4)
    assert "has format 4; this release of Ringfence reads formats up to 3" in refusal(made, StoreUnavailableError)


def test_a_store_without_a_format_version_is_not_opened(made: LocalStore) -> None:
    set_user_version(made, 0)
    assert "names no format version" in refusal(made, StoreTamperedError)


def test_a_read_only_file_system_is_named(tmp_path: Path) -> None:
    place = LocalStore(tmp_path / "small")
    place.directory.mkdir(mode=0o700)
    if can_mount():
        with tmpfs(place.directory, "1m"):
            place.open().close()
            subprocess.run(["mount", "-o", "remount,ro", place.directory], check=True)
            assert "read-only file system" in refusal(place, StoreUnavailableError)
        return
    place.open().close()
    place.directory.chmod(0o500)
    assert "not writable" in refusal(place, StoreUnavailableError)


def test_a_store_locked_by_another_process_is_refused_after_a_bounded_wait(made: LocalStore) -> None:
    database = SqliteDatabase(made.path, write_wait_s=0.2)
    store = open_sql_keystore(database, [FileProtector.from_file(made.root_key)])
    other = sqlite3.connect(made.path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreUnavailableError, match=r"stayed locked by another process for 0.2 s") as caught:
        store.create_key(new_key("new"))
    assert "fuser" in str(caught.value.hint)
    assert store.find_key("k") is not None  # readers do not wait for writers
    other.execute("ROLLBACK")
    other.close()
    store.create_key(new_key("new"))
    store.close()


@pytest.mark.parametrize("gone", [True, False])
@pytest.mark.parametrize("suffix", ["", "-wal", "-shm"])
def test_nothing_is_acknowledged_into_a_file_that_was_replaced(made: LocalStore, suffix: str, gone: bool) -> None:
    store = made.open()
    victim = made.path.with_name(made.path.name + suffix)
    shutil.copy2(victim, made.directory / "restored")
    if gone:
        victim.unlink()
    else:
        (made.directory / "restored").rename(victim)
    with pytest.raises(StoreUnavailableError, match="replaced or removed"):
        store.create_key(new_key("new"))
    store.close()


def test_what_a_store_says_that_it_was_made_with_never_changes(made: LocalStore) -> None:
    connection = sqlite3.connect(made.path)
    connection.execute("UPDATE store_header SET protector = 'vault'")
    connection.commit()
    connection.close()
    assert "its header was changed" in refusal(made, StoreTamperedError)
