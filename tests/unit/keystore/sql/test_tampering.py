"""Edits that a thief or a careless hand makes to the store's file, made with sqlite3 itself, and what opening says."""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from local_stores import LocalStore, new_key

from ringfence_zones.errors import RingfenceError, StoreTamperedError, StoreUnavailableError, WrongRootKeyError
from ringfence_zones.secret import Secret

Edit = Callable[[sqlite3.Connection], object]


@contextlib.contextmanager
def edited(path: Path) -> Iterator[sqlite3.Connection]:
    connection = sqlite3.connect(path)
    try:
        yield connection
        connection.commit()
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    finally:
        connection.close()


@pytest.fixture
def place(tmp_path: Path) -> LocalStore:
    """Two keys of two versions, a tombstone, two policies; closed."""
    place = LocalStore(tmp_path)
    store = place.open()
    for name in ("pii", "masked", "gone"):
        store.create_key(new_key(name))
        store.roll_key(name, None)
    store.delete_key("gone")
    store.publish_policy(0, b'{"first":1}', "root")
    store.publish_policy(1, b'{"second":2}', "root")
    store.close()
    return place


def swap_sealed(connection: sqlite3.Connection) -> None:
    rows = connection.execute("SELECT sealed FROM key_version WHERE key_name <> 'gone' AND version = 0").fetchall()
    for name, (sealed,) in zip(("pii", "masked"), rows, strict=True):  # the rows come as masked, pii
        connection.execute("UPDATE key_version SET sealed = ? WHERE key_name = ? AND version = 0", (sealed, name))


def swap_versions(connection: sqlite3.Connection) -> None:
    connection.execute("UPDATE key_version SET version = version + 10 WHERE key_name = 'pii'")
    connection.execute("UPDATE key_version SET version = 11 - version WHERE key_name = 'pii'")


def duplicate_version(connection: sqlite3.Connection) -> None:
    connection.execute(
        "INSERT INTO key_version SELECT key_name, 7, cipher, length_bits, created_ms, sealed FROM key_version"
        " WHERE key_name = 'pii' AND version = 0"
    )


def rename_key(connection: sqlite3.Connection) -> None:
    connection.execute("UPDATE zone_key SET name = 'pij' WHERE name = 'pii'")
    connection.execute("UPDATE key_version SET key_name = 'pij' WHERE key_name = 'pii'")


def delete_key_wholly(connection: sqlite3.Connection) -> None:
    connection.execute("DELETE FROM key_version WHERE key_name = 'pii'")
    connection.execute("DELETE FROM zone_key WHERE name = 'pii'")


def sql(statement: str) -> Edit:
    return lambda connection: connection.execute(statement)


ROW_EDITS: dict[str, Edit] = {
    "sealed material swapped between two keys": swap_sealed,
    "sealed material cut short": sql("UPDATE key_version SET sealed = substr(sealed, 1, 20) WHERE key_name = 'pii'"),
    "sealed material of another suite": sql("UPDATE key_version SET sealed = CAST(x'02' || substr(sealed, 2) AS BLOB)"),
    "versions of a key swapped": swap_versions,
    "version number changed": sql("UPDATE key_version SET version = 5 WHERE key_name = 'pii' AND version = 1"),
    "version duplicated": duplicate_version,
    "version's creation time changed": sql("UPDATE key_version SET created_ms = created_ms + 1 WHERE version = 0"),
    "version's cipher changed": sql("UPDATE key_version SET cipher = 'AES/GCM/NoPadding' WHERE key_name = 'pii'"),
    "version's length changed": sql("UPDATE key_version SET length_bits = 128 WHERE key_name = 'pii'"),
    "version removed": sql("DELETE FROM key_version WHERE key_name = 'pii' AND version = 1"),
    "old version removed": sql("DELETE FROM key_version WHERE key_name = 'pii' AND version = 0"),
    "all versions removed": sql("DELETE FROM key_version WHERE key_name = 'pii'"),
    "tombstone's version removed": sql("DELETE FROM key_version WHERE key_name = 'gone'"),
    "key removed with its versions": delete_key_wholly,
    "tombstone removed": sql("DELETE FROM zone_key WHERE name = 'gone'"),
    "key renamed with its versions": rename_key,
    "key's cipher changed": sql("UPDATE zone_key SET cipher = 'AES/GCM/NoPadding' WHERE name = 'pii'"),
    "key's length changed": sql("UPDATE zone_key SET length_bits = 128 WHERE name = 'pii'"),
    "key's creation time changed": sql("UPDATE zone_key SET created_ms = 0 WHERE name = 'pii'"),
    "key rolled back to its first version": sql("UPDATE zone_key SET next_version = 1 WHERE name = 'pii'"),
    "key's old version retired": sql("UPDATE zone_key SET first_version = 1 WHERE name = 'pii'"),
    "key's cipher made invalid UTF-8": sql("UPDATE zone_key SET cipher = CAST(x'FF' AS TEXT) WHERE name = 'pii'"),
    "key's attributes made invalid JSON": sql("UPDATE zone_key SET attributes = '{' WHERE name = 'pii'"),
    "key's description added": sql("UPDATE zone_key SET description = 'harmless' WHERE name = 'pii'"),
    "key's attributes changed": sql("""UPDATE zone_key SET attributes = '{"ringfence.custody":"transit"}'"""),
    "live key tombstoned": sql("UPDATE zone_key SET deleted_ms = 1 WHERE name = 'pii'"),
    "tombstone brought back": sql("UPDATE zone_key SET deleted_ms = NULL WHERE name = 'gone'"),
    "tags swapped": sql(
        "UPDATE zone_key SET tag = (SELECT tag FROM zone_key AS o WHERE o.name <> zone_key.name AND o.name <> 'gone')"
        " WHERE name <> 'gone'"
    ),
    "policy edited": sql("UPDATE policy_revision SET document = x'7B7D' WHERE revision = 2"),
    "policy author changed": sql("UPDATE policy_revision SET published_by = 'nobody'"),
    "newest policy removed": sql("DELETE FROM policy_revision WHERE revision = 2"),
    "oldest policy removed": sql("DELETE FROM policy_revision WHERE revision = 1"),
    "policy renumbered": sql("UPDATE policy_revision SET revision = 9 WHERE revision = 2"),
}
HEADER_EDITS: dict[str, Edit] = {
    "store id": sql("UPDATE store_header SET store_id = randomblob(16)"),
    "creation time": sql("UPDATE store_header SET created_ms = created_ms + 1"),
    "ledger": sql("UPDATE store_header SET ledger = CAST(x'01' || randomblob(84) AS BLOB)"),
    "ledger cut short": sql("UPDATE store_header SET ledger = x''"),
    "check value": sql("UPDATE store_header SET protector_header = randomblob(48)"),
    "check value emptied": sql("UPDATE store_header SET protector_header = x''"),
    "row removed": sql("DELETE FROM store_header"),
    "ledger's type": lambda connection: connection.executescript(
        "PRAGMA writable_schema = ON;"
        "UPDATE sqlite_schema SET sql = replace(sql, ') STRICT', ')') WHERE name = 'store_header';"
        "PRAGMA writable_schema = RESET; UPDATE store_header SET ledger = 'text'; "
    ),
}
SCHEMA_EDITS: dict[str, Edit] = {
    "trigger that eats rolls": sql(
        "CREATE TRIGGER eat AFTER INSERT ON key_version BEGIN DELETE FROM key_version WHERE version > 0; END"
    ),
    "view": sql("CREATE VIEW v AS SELECT 1"),
    "index": sql("CREATE INDEX i ON zone_key (cipher)"),
    "table": sql("CREATE TABLE t (a)"),
    "column": sql("ALTER TABLE zone_key ADD COLUMN extra TEXT"),
    "table dropped": sql("DROP TABLE policy_revision"),
}


def assert_tampered(place: LocalStore) -> None:
    with pytest.raises(StoreTamperedError) as caught:
        place.open()
    assert "keys.db" in str(caught.value)
    assert caught.value.hint


@pytest.mark.parametrize("edit", ROW_EDITS.values(), ids=ROW_EDITS)
def test_a_store_with_an_edited_row_is_not_opened(place: LocalStore, edit: Edit) -> None:
    with edited(place.path) as connection:
        edit(connection)
    assert_tampered(place)


@pytest.mark.parametrize("edit", HEADER_EDITS.values(), ids=HEADER_EDITS)
def test_an_edited_header_is_tampering_and_not_a_wrong_root_key(place: LocalStore, edit: Edit) -> None:
    with edited(place.path) as connection:
        edit(connection)
    assert_tampered(place)


@pytest.mark.parametrize("edit", SCHEMA_EDITS.values(), ids=SCHEMA_EDITS)
def test_a_store_with_a_foreign_schema_is_not_opened(place: LocalStore, edit: Edit) -> None:
    with edited(place.path) as connection:
        edit(connection)
    assert_tampered(place)


def test_the_untouched_store_opens(place: LocalStore) -> None:
    with edited(place.path) as connection:
        connection.execute("VACUUM")  # rewrites every page and no row
    store = place.open()
    assert store.find_key("pii") is not None
    store.close()


TABLES_BY_ROW = {
    "zone_key": "name = 'pii'",
    "store_header": "id = 1",
}


@pytest.mark.parametrize("table", TABLES_BY_ROW)
def test_a_row_put_back_from_an_earlier_state_is_found(place: LocalStore, tmp_path: Path, table: str) -> None:
    earlier = tmp_path / "earlier.db"
    shutil.copy(place.path, earlier)
    store = place.open()
    store.roll_key("pii", None)
    store.close()
    with edited(place.path) as connection:
        connection.execute("ATTACH ? AS earlier", (str(earlier),))
        connection.execute(f"REPLACE INTO main.{table} SELECT * FROM earlier.{table} WHERE {TABLES_BY_ROW[table]}")
    assert_tampered(place)


def test_a_key_put_back_with_its_versions_is_found(place: LocalStore, tmp_path: Path) -> None:
    earlier = tmp_path / "earlier.db"
    shutil.copy(place.path, earlier)
    store = place.open()
    store.roll_key("pii", None)
    store.close()
    with edited(place.path) as connection:
        connection.execute("ATTACH ? AS earlier", (str(earlier),))
        connection.execute("DELETE FROM key_version WHERE key_name = 'pii'")
        connection.execute("REPLACE INTO zone_key SELECT * FROM earlier.zone_key WHERE name = 'pii'")
        connection.execute("INSERT INTO key_version SELECT * FROM earlier.key_version WHERE key_name = 'pii'")
    assert_tampered(place)


def test_a_whole_file_put_back_from_an_earlier_state_opens_as_documented(place: LocalStore, tmp_path: Path) -> None:
    earlier = tmp_path / "earlier.db"
    shutil.copy2(place.path, earlier)
    store = place.open()
    store.roll_key("pii", None)
    store.close()
    shutil.copy2(earlier, place.path)
    store = place.open()  # decision record 0004: only a counter kept elsewhere could tell
    found = store.find_key("pii")
    assert found is not None
    assert found.metadata.versions == 2
    store.close()


ONLINE_EDITS = [
    "key's cipher made invalid UTF-8",
    "key's attributes made invalid JSON",
    "sealed material swapped between two keys",
    "versions of a key swapped",
    "version removed",
    "old version removed",
    "all versions removed",
    "key's length changed",
    "key's attributes changed",
    "key rolled back to its first version",
    "key's old version retired",
    "tombstone brought back",
]


@pytest.mark.parametrize("name", ONLINE_EDITS)
def test_an_edit_under_an_open_store_is_found_by_the_read_that_meets_it(place: LocalStore, name: str) -> None:
    store = place.open()
    with edited(place.path) as connection:
        ROW_EDITS[name](connection)
    with pytest.raises(StoreTamperedError):
        store.find_key("gone" if "tombstone" in name else "pii")
    store.close()


def test_a_policy_removed_under_an_open_store_is_found(place: LocalStore) -> None:
    store = place.open()
    with edited(place.path) as connection:
        connection.execute("DELETE FROM policy_revision WHERE revision = 2")
    with pytest.raises(StoreTamperedError, match="policies"):
        store.find_policy()
    store.close()


def test_an_earlier_policy_removed_under_an_open_store_is_found(place: LocalStore) -> None:
    store = place.open()
    with edited(place.path) as connection:
        connection.execute("DELETE FROM policy_revision WHERE revision = 1")
    with pytest.raises(StoreTamperedError, match="policy is missing"):
        store.list_policies(0)
    store.close()


def test_listing_metadata_finds_an_edited_row(place: LocalStore) -> None:
    store = place.open()
    with edited(place.path) as connection:
        connection.execute("UPDATE zone_key SET length_bits = 128 WHERE name = 'pii'")
    with pytest.raises(StoreTamperedError, match="pii"):
        store.list_metadata()
    store.close()


@pytest.mark.parametrize("edit", ["DELETE FROM store_header", "UPDATE store_header SET ledger = zeroblob(85)"])
def test_nothing_is_written_over_an_edited_header(place: LocalStore, edit: str) -> None:
    store = place.open()
    with edited(place.path) as connection:
        connection.execute(edit)
    for write in (
        lambda: store.create_key(new_key("new")),
        lambda: store.roll_key("pii", None),
        lambda: store.delete_key("pii"),
        lambda: store.publish_policy(2, b"{}", "root"),
    ):
        with pytest.raises(StoreTamperedError):
            write()
    assert {metadata.name for metadata in store.list_metadata()} == {"pii", "masked"}
    store.close()


def test_writing_does_not_heal_an_edit_it_did_not_meet(place: LocalStore) -> None:
    store = place.open()
    with edited(place.path) as connection:
        connection.execute("DELETE FROM key_version WHERE key_name = 'masked' AND version = 0")
    store.create_key(new_key("new"))
    store.roll_key("pii", None)
    store.close()
    assert_tampered(place)


def test_another_root_key_is_named_as_such_and_the_store_is_left_alone(place: LocalStore) -> None:
    before = place.path.read_bytes()
    right = place.root_key.read_bytes()
    place.root_key.write_bytes(os.urandom(32).hex().encode())
    with pytest.raises(WrongRootKeyError) as caught:
        place.open()
    assert str(place.path) in str(caught.value)
    assert str(place.root_key) in str(caught.value)
    assert place.path.read_bytes() == before
    place.root_key.write_bytes(right)
    place.open().close()


def test_a_wrong_root_key_comes_before_tampering(place: LocalStore) -> None:
    with edited(place.path) as connection:
        connection.execute("DELETE FROM key_version")
    place.root_key.write_bytes(os.urandom(32).hex().encode())
    with pytest.raises(WrongRootKeyError):
        place.open()


def everything(place: LocalStore) -> object:
    store = place.open()
    try:
        keys = [
            [version.material.reveal() for version in found.versions]
            for metadata in store.list_metadata()
            if (found := store.find_key(metadata.name))
        ]
        return store.list_metadata(), keys, store.find_policy()
    finally:
        store.close()


def test_a_flipped_byte_is_refused_or_without_effect(place: LocalStore) -> None:
    whole = place.path.read_bytes()
    expected = everything(place)
    refused = 0
    step = max(1, len(whole) // 400)
    for position in range(0, len(whole), step):
        place.path.write_bytes(whole[:position] + bytes([whole[position] ^ 0x41]) + whole[position + 1 :])
        try:
            assert everything(place) == expected, position
        except RingfenceError:
            refused += 1
        remove_side_files(place)
    assert refused > 25  # most pages are unused space; every used byte counts


@pytest.mark.parametrize("position", range(100))
def test_a_flipped_byte_of_the_file_header_is_refused_or_without_effect(place: LocalStore, position: int) -> None:
    whole = place.path.read_bytes()
    expected = everything(place)
    place.path.write_bytes(whole[:position] + bytes([whole[position] ^ 0xFF]) + whole[position + 1 :])
    with contextlib.suppress(RingfenceError):
        assert everything(place) == expected


def test_rows_out_of_order_are_found_though_each_is_genuine(place: LocalStore) -> None:
    """A search would miss a key in such a tree, although a scan finds every row as it was written."""
    with edited(place.path) as connection:
        (root,) = connection.execute("SELECT rootpage FROM sqlite_schema WHERE name = 'zone_key'").fetchone()
        (page_bytes,) = connection.execute("PRAGMA page_size").fetchone()
    content = bytearray(place.path.read_bytes())
    pointers = (root - 1) * page_bytes + 8  # two bytes for each cell, after the header of a leaf page (fileformat2 1.6)
    assert content[pointers - 8] == 0x0A
    first, second = content[pointers : pointers + 2], content[pointers + 2 : pointers + 4]
    content[pointers : pointers + 4] = second + first
    place.path.write_bytes(content)
    with pytest.raises(StoreTamperedError, match="damaged"):
        place.open()


@pytest.mark.parametrize("keep", [0.9, 0.5, 0.2])
def test_a_truncated_store_is_not_opened(place: LocalStore, keep: float) -> None:
    size = place.path.stat().st_size
    os.truncate(place.path, int(size * keep))
    assert_tampered(place)


@pytest.mark.parametrize("length", [0, 1, 15, 16, 99, 100, 511, 512, 4095, 4096, 4097, 8192])
def test_a_store_truncated_at_a_boundary_is_not_opened(place: LocalStore, length: int) -> None:
    os.truncate(place.path, length)
    assert_tampered(place)


def test_a_store_truncated_while_open_gives_a_sentence_and_no_signal(place: LocalStore) -> None:
    store = place.open()
    os.truncate(place.path, 4096)
    for _ in range(2):
        with contextlib.suppress(StoreTamperedError, StoreUnavailableError):
            store.create_key(new_key("new"))
        with contextlib.suppress(StoreTamperedError, StoreUnavailableError):
            store.list_metadata()
    store.close()


def test_a_log_whose_tail_is_damaged_gives_an_earlier_whole_state_or_an_error(
    place: LocalStore, tmp_path: Path
) -> None:
    store = place.open()
    for _ in range(10):
        store.roll_key("pii", Secret(os.urandom(32)))
    copy = tmp_path / "copy"
    copy.mkdir(mode=0o700)
    for name in ("keys.db", "keys.db-wal", "keys.db.root-key"):
        shutil.copy2(place.directory / name, copy / name)
    store.close()
    log = copy / "keys.db-wal"
    content = log.read_bytes()
    for position in (40, len(content) // 2, len(content) - 10):
        log.write_bytes(content[:position] + bytes([content[position] ^ 1]) + content[position + 1 :])
        with contextlib.suppress(StoreTamperedError, StoreUnavailableError):
            opened = LocalStore(copy).open()
            found = opened.find_key("pii")
            assert found is not None
            assert len(found.versions) == found.metadata.versions
            opened.close()
        break  # opening folds the log in, so the first damage is the only one this copy can show


def remove_side_files(place: LocalStore) -> None:
    for suffix in ("-wal", "-shm", "-journal"):
        place.path.with_name(place.path.name + suffix).unlink(missing_ok=True)
