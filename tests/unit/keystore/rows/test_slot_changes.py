"""What protects a store is changed while it is in use: slots, moves, and what is refused."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from frozen_store import frozen_store
from local_stores import LocalStore, material_of, new_key
from lockbox import Lockbox, LockboxProtector
from protected_store import ProtectedStore

from ringfence_agent.keystore.interface import ImportedKey, ImportedVersion, OpenStore
from ringfence_agent.keystore.new_root_key import protect_with_file
from ringfence_agent.keystore.protected_store import SlotUse
from ringfence_agent.keystore.sealing import SealBrokenError
from ringfence_agent.keystore.sql.store import SqlKeyStore
from ringfence_agent.keystore.token_store import TokenRecord
from ringfence_zones.durable_file import prepared_name, write_new_file
from ringfence_zones.errors import (
    ConfigError,
    InputError,
    KeyExistsError,
    ProtectorRefusedError,
    ProtectorUnavailableError,
    StoreTamperedError,
    WrongRootKeyError,
)
from ringfence_zones.keys import DEFAULT_CIPHER, KeyMetadata
from ringfence_zones.secret import Secret

NAMES = ("a", "b", "gone")


@pytest.fixture
def box() -> Lockbox:
    return Lockbox()


@pytest.fixture
def place(tmp_path: Path, box: Lockbox) -> ProtectedStore:
    """Three keys of two versions, one of them deleted; a policy and a token; one slot, the root key file's."""
    place = ProtectedStore(tmp_path, [box])
    store = place.open()
    for name in NAMES:
        store.create_key(new_key(name))
        store.roll_key(name, material_of(name, 1))
    store.delete_key("gone")
    store.publish_policy(0, b"{}", "root")
    store.add_master_key(0, Secret(b"m" * 32), 5, 6)
    store.add_token(TokenRecord(store.next_sequence(), b"token", 7))
    store.close()
    return place


@pytest.fixture
def opened(place: ProtectedStore) -> Iterator[Callable[[], SqlKeyStore]]:
    """Opens handles that are closed at the end."""
    stores: list[SqlKeyStore] = []

    def open_one() -> SqlKeyStore:
        stores.append(place.open())
        return stores[-1]

    yield open_one
    for store in stores:
        store.close()


def check_all(store: OpenStore, versions: int = 2) -> None:
    """Everything is there with its material."""
    for name in ("a", "b"):
        found = store.find_key(name)
        assert found is not None
        assert [each.material for each in found.versions] == [material_of(name, n) for n in range(versions)]
    assert store.find_key("gone") is None


def summary(store: SqlKeyStore) -> list[tuple[int, bool, int]]:
    return [(use.slot.id, use.is_active, use.versions) for use in store.slots.describe()]


def test_a_new_store_has_the_slot_of_its_root_key_file(
    place: ProtectedStore, opened: Callable[[], SqlKeyStore]
) -> None:
    (use,) = opened().slots.describe()
    assert use == SlotUse(use.slot, is_active=True, has_protector=True, versions=6)
    assert (use.slot.scheme, use.slot.label) == ("file", f"root key file {place.root_key}")


def test_a_store_moves_to_another_protector_and_leaves_its_file_behind(
    place: ProtectedStore, opened: Callable[[], SqlKeyStore], box: Lockbox
) -> None:
    store, reader = opened(), opened()
    assert store.slots.protect_with(LockboxProtector(box)).id == 2
    assert summary(store) == [(1, False, 6), (2, True, 0)]
    check_all(reader)
    seen: list[tuple[int, int]] = []
    assert store.slots.rewrap(lambda done, total: seen.append((done, total)) or check_all(reader)) == 6
    assert seen == [(done, 6) for done in range(1, 7)]
    assert summary(store) == [(1, False, 0), (2, True, 6)]
    assert store.slots.rewrap() == 0
    assert store.slots.remove(1).scheme == "file"
    assert summary(store) == [(2, True, 6)]
    check_all(reader)
    place.with_file = False
    place.root_key.unlink()
    check_all(opened())


def test_each_moved_version_is_sealed_and_checked_in_batches(opened: Callable[[], SqlKeyStore], box: Lockbox) -> None:
    store = opened()
    store.slots.protect_with(LockboxProtector(box))
    box.calls.clear()
    store.slots.rewrap()
    assert box.calls == [("seal", 6), ("open", 6)]


@pytest.mark.parametrize("answer", [b"x" * 32, None], ids=["other material", "nothing"])
def test_a_protector_that_loses_what_it_seals_gets_no_version(
    opened: Callable[[], SqlKeyStore], box: Lockbox, monkeypatch: pytest.MonkeyPatch, answer: bytes | None
) -> None:
    store = opened()
    store.slots.protect_with(LockboxProtector(box))

    def lose(items: Sequence[object]) -> list[Secret]:
        if answer is None:
            raise SealBrokenError
        return [Secret(answer) for _ in items]

    monkeypatch.setattr(box, "open", lose)
    with pytest.raises(ProtectorRefusedError, match="nothing was moved"):
        store.slots.rewrap()
    assert summary(store) == [(1, False, 6), (2, True, 0)]
    check_all(store)


def test_a_moved_version_is_told_as_a_change_of_its_key(opened: Callable[[], SqlKeyStore], box: Lockbox) -> None:
    store, other = opened(), opened()
    seen = other.change_number()
    store.slots.protect_with(LockboxProtector(box))
    assert other.changes_since(seen).keys == frozenset()
    store.slots.rewrap()
    assert other.changes_since(seen).keys == frozenset(NAMES)


def test_a_running_server_seals_with_the_new_slot_from_its_next_change_on(
    opened: Callable[[], SqlKeyStore], box: Lockbox
) -> None:
    store, server = opened(), opened()
    store.slots.protect_with(LockboxProtector(box))
    box.calls.clear()
    server.create_key(new_key("new"))
    assert box.count("seal") == 1
    assert summary(store)[1] == (2, True, 1)
    found = opened().find_key("new")
    assert found is not None and found.versions[0].material == material_of("new", 0)


def test_a_reader_that_never_saw_the_slot_opens_what_it_sealed(opened: Callable[[], SqlKeyStore], box: Lockbox) -> None:
    store, reader = opened(), opened()
    store.slots.protect_with(LockboxProtector(box))
    store.slots.rewrap()
    check_all(reader)


def test_a_server_without_the_protector_refuses_what_it_cannot_do_and_names_the_slot(
    place: ProtectedStore, opened: Callable[[], SqlKeyStore], box: Lockbox
) -> None:
    store = opened()
    place.boxes = []
    server = opened()
    store.slots.protect_with(LockboxProtector(box))
    for attempt in (lambda: server.create_key(new_key("new")), lambda: server.roll_key("a", None)):
        with pytest.raises(ProtectorUnavailableError, match=r"slot 2 \(vault-transit: lockbox box\)"):
            attempt()
    check_all(server)
    server.delete_key("b")
    store.roll_key("a", None)
    with pytest.raises(ProtectorUnavailableError) as caught:
        server.find_key("a")
    assert "protector: in kms.yaml" in str(caught.value.hint)


def test_versions_of_one_key_may_be_sealed_by_different_slots(opened: Callable[[], SqlKeyStore], box: Lockbox) -> None:
    store = opened()
    store.slots.protect_with(LockboxProtector(box))
    store.roll_key("a", material_of("a", 2))
    key = store.find_sealed_key("a")
    assert key is not None
    assert (key.numbers, key.remote, key.slots) == ((0, 1, 2), frozenset({2}), {2: 2})
    box.calls.clear()
    assert [each.material for each in key.open_versions([0, 1])] == [material_of("a", 0), material_of("a", 1)]
    assert box.calls == []
    assert [each.version for each in key.open_versions([2, 0])] == [2, 0]
    assert box.calls == [("open", 1)]


def test_nobody_holds_the_write_lock_while_a_protector_is_asked(
    opened: Callable[[], SqlKeyStore], box: Lockbox
) -> None:
    store, other = opened(), opened()
    store.slots.protect_with(LockboxProtector(box))
    done: list[str] = []

    def change_elsewhere(operation: str) -> None:
        box.on_call = lambda _operation: None
        other.create_key(new_key(f"during-{operation}-{len(done)}"))
        done.append(operation)

    for change in (
        lambda: store.create_key(new_key("new")),
        lambda: store.roll_key("a", material_of("a", 2)),
        store.slots.rewrap,
        lambda: store.import_keys([imported("a", 4)]),
        lambda: store.slots.protect_with(LockboxProtector(Lockbox("second"))),
    ):
        box.on_call = change_elsewhere
        change()
    assert done == ["seal", "seal", "seal", "open"]


def test_a_number_that_somebody_else_took_meanwhile_is_not_given_twice(
    opened: Callable[[], SqlKeyStore], box: Lockbox
) -> None:
    store, other = opened(), opened()
    store.slots.protect_with(LockboxProtector(box))

    def roll_first(_operation: str) -> None:
        box.on_call = lambda _operation: None
        assert other.roll_key("a", material_of("a", 2)).version == 2

    box.on_call = roll_first
    assert store.roll_key("a", material_of("a", 3)).version == 3
    found = opened().find_key("a")
    assert found is not None
    assert [each.material for each in found.versions] == [material_of("a", n) for n in range(4)]


def test_what_is_under_way_when_another_slot_becomes_active_is_sealed_by_that_one(
    place: ProtectedStore, opened: Callable[[], SqlKeyStore], box: Lockbox
) -> None:
    store, other = opened(), opened()
    store.slots.protect_with(LockboxProtector(box))

    def go_back(_operation: str) -> None:
        box.on_call = lambda _operation: None
        protect_with_file(other.slots, place.root_key)

    box.on_call = go_back
    store.create_key(new_key("new"))
    assert summary(other) == [(1, True, 7), (2, False, 0)]
    check_all(opened())


def test_two_who_add_the_same_protector_at_once_add_one_slot(opened: Callable[[], SqlKeyStore], box: Lockbox) -> None:
    store, other = opened(), opened()

    def add_first(_operation: str) -> None:
        box.on_call = lambda _operation: None
        other.slots.protect_with(LockboxProtector(box))

    box.on_call = add_first
    assert store.slots.protect_with(LockboxProtector(box)).id == 2
    assert [use.slot.id for use in store.slots.describe()] == [1, 2]


def test_a_create_that_lost_its_race_is_refused_as_ever(opened: Callable[[], SqlKeyStore], box: Lockbox) -> None:
    store, other = opened(), opened()
    store.slots.protect_with(LockboxProtector(box))

    def create_first(_operation: str) -> None:
        box.on_call = lambda _operation: None
        other.create_key(new_key("new"))

    box.on_call = create_first
    with pytest.raises(KeyExistsError):
        store.create_key(new_key("new"))
    found = store.find_key("new")
    assert found is not None and len(found.versions) == 1


def test_random_material_is_the_one_that_was_sealed(opened: Callable[[], SqlKeyStore], box: Lockbox) -> None:
    store = opened()
    store.slots.protect_with(LockboxProtector(box))
    made = store.roll_key("a", None)
    found = store.find_key("a")
    assert found is not None and found.versions[-1] == made


def imported(name: str, versions: int) -> ImportedKey:
    metadata = KeyMetadata(name, DEFAULT_CIPHER, 256, 1, versions, None, {})
    return ImportedKey(metadata, [ImportedVersion(n, material_of(name, n), n) for n in range(versions)])


def test_an_import_seals_its_keys_together_and_compares_what_is_there(
    opened: Callable[[], SqlKeyStore], box: Lockbox
) -> None:
    store = opened()
    store.slots.protect_with(LockboxProtector(box))
    store.slots.rewrap()
    box.calls.clear()
    done = store.import_keys([imported("a", 4), imported("b", 2), *(imported(f"n{n}", 2) for n in range(3))])
    assert [each.added for each in done] == [(2, 3), (), (0, 1), (0, 1), (0, 1)]
    assert box.count("open") == 4
    # First the keys that are new; of the others, what is there has to be compared before more is known.
    assert [call for call in box.calls if call[0] == "seal"] == [("seal", 6), ("seal", 2)]
    box.calls.clear()
    assert not any(each.added for each in store.import_keys([imported("a", 4)]))
    assert box.count("seal") == 0


@pytest.mark.parametrize("operation", ["seal", "open"])
def test_a_protector_that_is_away_or_refuses_changes_nothing(
    opened: Callable[[], SqlKeyStore], box: Lockbox, operation: str
) -> None:
    store = opened()
    before = summary(store), store.change_number()

    def fail(called: str) -> None:
        if called == operation:
            box.is_away = True

    box.on_call = fail
    with pytest.raises(ProtectorUnavailableError):
        store.slots.protect_with(LockboxProtector(box))
    box.is_away, box.refuses, box.on_call = False, True, lambda _operation: None
    with pytest.raises(ProtectorRefusedError):
        store.slots.protect_with(LockboxProtector(box))
    assert (summary(store), store.change_number()) == before


def test_while_a_protector_is_away_only_what_it_sealed_waits(opened: Callable[[], SqlKeyStore], box: Lockbox) -> None:
    store = opened()
    store.slots.protect_with(LockboxProtector(box))
    store.create_key(new_key("new"))
    box.is_away = True
    check_all(store)
    for attempt in (lambda: store.find_key("new"), lambda: store.create_key(new_key("more"))):
        with pytest.raises(ProtectorUnavailableError):
            attempt()
    assert [each.name for each in store.list_metadata()] == ["a", "b", "new"]
    with pytest.raises(ProtectorUnavailableError):
        store.slots.rewrap()
    box.is_away = False
    assert store.slots.rewrap() == 6
    check_all(opened())


def test_protecting_twice_is_protecting_once(opened: Callable[[], SqlKeyStore], box: Lockbox) -> None:
    store = opened()
    assert store.slots.protect_with(LockboxProtector(box)) == store.slots.protect_with(LockboxProtector(box))
    assert [use.slot.id for use in store.slots.describe()] == [1, 2]


def test_a_slot_that_is_there_already_becomes_active_again(
    place: ProtectedStore, opened: Callable[[], SqlKeyStore], box: Lockbox
) -> None:
    store = opened()
    store.slots.protect_with(LockboxProtector(box))
    store.slots.rewrap()
    assert protect_with_file(store.slots, place.root_key).id == 1
    assert summary(store) == [(1, True, 0), (2, False, 6)]
    assert store.slots.rewrap() == 6
    store.slots.remove(2)
    place.boxes = []
    check_all(opened())


def test_a_slot_in_use_or_active_or_the_last_is_not_removed(
    place: ProtectedStore, opened: Callable[[], SqlKeyStore], box: Lockbox
) -> None:
    store = opened()
    with pytest.raises(InputError, match="may be the last way"):
        store.slots.remove(1)
    store.slots.protect_with(LockboxProtector(box))
    with pytest.raises(InputError, match="seals new versions"):
        store.slots.remove(2)
    with pytest.raises(InputError, match="6 versions are sealed by slot 1"):
        store.slots.remove(1)
    with pytest.raises(InputError, match="no slot 9"):
        store.slots.remove(9)
    store.slots.rewrap()
    place.boxes = []
    with pytest.raises(InputError, match="no other slot opens it here"):
        opened().slots.remove(1)
    box.is_away = True
    with pytest.raises(ProtectorUnavailableError):
        store.slots.remove(1)
    assert len(store.slots.describe()) == 2


def test_a_root_key_file_is_replaced_without_touching_a_row(
    place: ProtectedStore, opened: Callable[[], SqlKeyStore]
) -> None:
    store = opened()
    rows = sealed_rows(place)
    new_file = place.directory / "second.key"
    assert protect_with_file(store.slots, new_file).label == f"root key file {new_file}"
    assert summary(store) == [(1, False, 6), (2, True, 6)]
    store.close()
    place.root_key_name = "second.key"
    again = opened()
    again.slots.remove(1)
    assert sealed_rows(place) == rows
    check_all(again)
    place.root_key_name = "keys.db.root-key"
    with pytest.raises(WrongRootKeyError):
        place.open()


def test_a_second_root_key_file_opens_the_store_when_the_first_is_lost(
    place: ProtectedStore, opened: Callable[[], SqlKeyStore], box: Lockbox
) -> None:
    protect_with_file(opened().slots, place.directory / "recovery.key")
    place.root_key.unlink()
    place.root_key_name = "recovery.key"
    check_all(opened())


def test_an_interrupted_new_root_key_file_is_finished_or_begun_anew(
    place: ProtectedStore, opened: Callable[[], SqlKeyStore]
) -> None:
    store, path = opened(), place.directory / "second.key"
    write_new_file(prepared_name(path), b"0" * 64)
    slot = protect_with_file(store.slots, path)
    assert path.read_text() != "0" * 64
    path.rename(prepared_name(path))
    assert protect_with_file(store.slots, path) == slot
    assert path.exists() and not prepared_name(path).exists()
    assert len(store.slots.describe()) == 2


def sealed_rows(place: ProtectedStore) -> list[object]:
    connection = sqlite3.connect(place.path)
    try:
        return connection.execute("SELECT * FROM key_version ORDER BY key_name, version").fetchall()
    finally:
        connection.close()


@pytest.mark.parametrize("moved", [False, True], ids=["local", "remote"])
def test_a_new_root_leaves_nothing_that_the_old_one_opens(
    place: ProtectedStore, opened: Callable[[], SqlKeyStore], box: Lockbox, moved: bool
) -> None:
    store = opened()
    if moved:
        store.slots.protect_with(LockboxProtector(box))
        store.slots.rewrap()
    old_cookies, old_header, old_rows = store.derive_secret("cookies"), header_of(place), sealed_rows(place)
    number = store.change_number()
    running = opened()
    box.calls.clear()
    store.slots.give_new_root()
    assert box.count("open") == (1 if moved else 0)  # no more than the root itself
    again = opened()
    check_all(again)
    assert again.derive_secret("cookies") != old_cookies
    assert [each.secret.reveal() for each in again.list_master_keys()] == [b"m" * 32]
    assert again.find_token(1) == TokenRecord(1, b"token", 7)
    assert again.changes_since(number).keys is None
    policy = again.find_policy()
    assert policy is not None and policy.document == b"{}"
    assert not set(sealed_rows(place)) & set(old_rows)
    with pytest.raises(StoreTamperedError, match="given a new root"):
        running.change_number()
    again.create_key(new_key("new"))
    again.close()
    edit(place, "UPDATE store_header SET protector_header = ?", old_header)
    with pytest.raises(StoreTamperedError):
        place.open()


def test_a_new_root_needs_every_protector(
    place: ProtectedStore, opened: Callable[[], SqlKeyStore], box: Lockbox
) -> None:
    opened().slots.protect_with(LockboxProtector(box))
    place.boxes = []
    with pytest.raises(InputError, match="slot 2"):
        opened().slots.give_new_root()
    check_all(opened())


def test_a_store_of_the_first_release_is_given_slots_by_the_first_that_uses_them(tmp_path: Path, box: Lockbox) -> None:
    old = frozen_store(tmp_path)
    place = ProtectedStore(tmp_path, [box])
    store = place.open()
    assert version_of(old) == 2
    assert header_of(place) and len(header_of(place)) == 48
    (use,) = store.slots.describe()
    assert (use.slot.id, use.slot.scheme, use.versions) == (1, "file", 5)
    server = place.open()
    store.slots.protect_with(LockboxProtector(box))
    assert version_of(old) == 3
    assert server.create_key(new_key("new")).version == 0
    assert store.slots.rewrap() == 5
    store.slots.remove(1)
    store.close()
    server.close()
    place.with_file = False
    again = place.open()
    found = again.find_key("analytics-data-pii")
    assert found is not None
    assert [version.material.reveal() for version in found.versions] == [b"\x01" * 32, b"\x02" * 32]
    again.slots.give_new_root()
    again.close()
    place.open().close()


def test_a_new_root_takes_an_old_store_away_from_its_root_key_files_bytes(tmp_path: Path) -> None:
    frozen_store(tmp_path)
    place = ProtectedStore(tmp_path)
    store = place.open()
    store.slots.give_new_root()
    store.close()
    again = place.open()
    assert again.find_key("recreated") is not None
    assert [use.slot.id for use in again.slots.describe()] == [1]
    assert len(header_of(place)) > 48
    again.close()


def version_of(place: LocalStore) -> int:
    connection = sqlite3.connect(place.path)
    try:
        version: int = connection.execute("PRAGMA user_version").fetchone()[0]
        return version
    finally:
        connection.close()


def header_of(place: ProtectedStore) -> bytes:
    connection = sqlite3.connect(place.path)
    try:
        content: bytes = connection.execute("SELECT protector_header FROM store_header").fetchone()[0]
        return content
    finally:
        connection.close()


def edit(place: ProtectedStore, statement: str, *values: object) -> None:
    connection = sqlite3.connect(place.path)
    with connection:
        connection.execute(statement, values)
    connection.close()


def test_an_earlier_header_put_back_is_found(
    place: ProtectedStore, opened: Callable[[], SqlKeyStore], box: Lockbox
) -> None:
    """Each was genuine once; with the earlier one, new keys would be sealed by what the store was moved away from."""
    earlier = header_of(place)
    store = opened()
    store.slots.protect_with(LockboxProtector(box))
    edit(place, "UPDATE store_header SET protector_header = ?", earlier)
    with pytest.raises(StoreTamperedError, match="put back"):
        store.create_key(new_key("new"))
    with pytest.raises(StoreTamperedError):
        place.open()


def test_a_slot_that_nobody_here_has_is_named_when_the_store_is_opened(
    place: ProtectedStore, opened: Callable[[], SqlKeyStore], box: Lockbox
) -> None:
    store = opened()
    store.slots.protect_with(LockboxProtector(box))
    store.slots.rewrap()
    store.slots.remove(1)
    store.close()
    place.boxes = []
    with pytest.raises(ConfigError, match=r"opened by slot 2 \(vault-transit: lockbox box\)"):
        place.open()
    place.with_file, place.boxes = False, [Lockbox("another")]
    with pytest.raises(WrongRootKeyError, match="lockbox another does not open"):
        place.open()
    place.boxes = [box]
    box.is_away = True
    with pytest.raises(ProtectorUnavailableError):
        place.open()


def test_a_store_opens_by_its_file_while_the_other_protector_is_away(
    opened: Callable[[], SqlKeyStore], box: Lockbox
) -> None:
    opened().slots.protect_with(LockboxProtector(box))
    box.is_away = True
    check_all(opened())


def test_material_put_from_one_remote_seal_into_another_row_does_not_open(
    place: ProtectedStore, opened: Callable[[], SqlKeyStore], box: Lockbox
) -> None:
    store = opened()
    store.slots.protect_with(LockboxProtector(box))
    store.slots.rewrap()
    edit(
        place,
        "UPDATE key_version SET sealed = (SELECT sealed FROM key_version WHERE key_name = 'b' AND version = 0)"
        " WHERE key_name = 'a' AND version = 0",
    )
    with pytest.raises(StoreTamperedError, match="version 0 of key 'a'"):
        store.find_key("a")


def test_a_store_without_a_root_key_file_is_made_only_with_leave(tmp_path: Path, box: Lockbox) -> None:
    place = ProtectedStore(tmp_path, [box], with_file=False)
    with pytest.raises(ConfigError, match="there is no key store"):
        place.open()
    assert list(tmp_path.iterdir()) == []
