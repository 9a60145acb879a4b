"""What every pair of engine and remote protector must do beside keeping keys: moves, absence, a new root."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from databases import DatabaseServer
from local_stores import TRANSIT_KEY, held_key, material_of, new_key
from protector_places import RemotePlace
from store_places import VAULT_KV, VaultKvPlace, storing_cluster

from ringfence_agent.keystore.held import HeldKey, TransitVersion
from ringfence_agent.keystore.new_root_key import protect_with_file
from ringfence_agent.keystore.open import open_protected
from ringfence_agent.keystore.protected_store import ProtectedStore
from ringfence_agent.keystore.protector import Protectors
from ringfence_agent.keystore.token_store import TokenRecord
from ringfence_agent.vault.settings import VaultSettings
from ringfence_zones.errors import ProtectorUnavailableError, StoreTamperedError
from ringfence_zones.secret import Secret

ENGINES = [
    "sqlite",
    "postgresql",
    *(pytest.param(engine, marks=pytest.mark.long) for engine in ("mariadb", *VAULT_KV)),
]


@dataclass
class Store:
    """One store, whose handles have the root key file and a remote protector, as long as there are both."""

    uri: str
    root_key: Path
    server: DatabaseServer | None
    vault: VaultSettings | None
    remote: RemotePlace
    with_file: bool = True
    with_remote: bool = True
    opened: list[ProtectedStore] = field(default_factory=list)

    def open(self) -> ProtectedStore:
        protectors = Protectors(self.with_file, (self.remote.open(),) if self.with_remote else ())
        password = None if self.server is None else self.server.password_file
        self.opened.append(open_protected(self.uri, self.root_key, True, password, protectors, self.vault))
        return self.opened[-1]

    def close(self) -> None:
        for store in self.opened:
            store.close()
        if self.server is not None:
            self.server.recycle(self.uri)


@pytest.fixture(params=ENGINES)
def store(request: pytest.FixtureRequest, tmp_path: Path, remote: RemotePlace) -> Iterator[Store]:
    server, vault, uri = None, None, f"sqlite:///{tmp_path}/keys.db"
    if request.param in VAULT_KV:
        place = VaultKvPlace(storing_cluster(request, request.param), tmp_path)
        vault, uri = place.cluster.settings(), place.uri
    elif request.param != "sqlite":
        server = request.getfixturevalue(request.param)
        uri = server.new_database()
    made = Store(uri, tmp_path / "root.key", server, vault, remote)
    yield made
    made.close()


def fill(store: ProtectedStore) -> None:
    for name in ("a", "b", "gone"):
        store.create_key(new_key(name))
        store.roll_key(name, material_of(name, 1))
    store.delete_key("gone")
    store.create_key(held_key("held"))
    store.roll_key("held", TransitVersion(TRANSIT_KEY, 3))
    store.publish_policy(0, b"{}", "root")
    store.add_master_key(0, Secret(b"m" * 32), 5, 6)
    store.add_token(TokenRecord(store.next_sequence(), b"token", 7))


def check(store: ProtectedStore) -> None:
    for name in ("a", "b"):
        found = store.find_key(name)
        assert found is not None
        assert [version.material for version in found.versions] == [material_of(name, n) for n in range(2)]
    held = store.find_key("held")
    assert isinstance(held, HeldKey), "of no slot, and no protector is asked for it"
    assert [version.place for version in held.versions] == [TransitVersion(TRANSIT_KEY, n) for n in (1, 3)]
    assert store.find_key("gone") is None
    assert [key.secret.reveal() for key in store.list_master_keys()] == [b"m" * 32]
    assert store.find_token(1) == TokenRecord(1, b"token", 7)


def uses(store: ProtectedStore) -> list[tuple[str, bool, int]]:
    return [(use.slot.scheme, use.is_active, use.versions) for use in store.slots.describe()]


def test_a_canary_is_named_for_each_slot_that_sealed_a_live_version(store: Store) -> None:
    opened = store.open()
    assert opened.list_canaries() == []
    fill(opened)
    assert opened.list_canaries() == [("a", 1)]
    opened.slots.protect_with(store.remote.open())
    assert opened.list_canaries() == [("a", 1)]
    opened.roll_key("b", None)
    assert sorted(opened.list_canaries()) == [("a", 1), ("b", 2)]
    opened.delete_key("b")
    assert opened.list_canaries() == [("a", 1)]
    opened.slots.rewrap()
    assert opened.list_canaries() == [("a", 1)]
    opened.create_key(new_key("gone"))
    opened.delete_key("a")
    assert opened.list_canaries() == [("gone", 2)]


def test_a_store_moves_there_and_back_with_every_key_readable_on_every_handle(store: Store) -> None:
    mover, reader = store.open(), store.open()
    fill(mover)
    scheme = store.remote.scheme
    mover.slots.protect_with(store.remote.open())
    assert mover.slots.rewrap(lambda _done, _of: check(reader)) == 6
    assert uses(mover) == [("file", False, 0), (scheme, True, 6)]
    mover.slots.remove(1)
    store.with_file = False
    check(store.open())
    store.root_key.unlink()
    protect_with_file(mover.slots, store.root_key)
    assert mover.slots.rewrap(lambda _done, _of: check(reader)) == 6
    mover.slots.remove(2)
    assert uses(mover) == [("file", True, 6)]
    store.with_file, store.with_remote = True, False
    check(store.open())


def test_others_create_and_roll_while_a_store_moves(store: Store) -> None:
    mover, writer = store.open(), store.open()
    fill(mover)
    failures: list[BaseException] = []

    def write() -> None:
        try:
            for number in range(5):
                writer.create_key(new_key(f"new-{number}"))
                writer.roll_key(f"new-{number}", material_of(f"new-{number}", 1))
        except BaseException as error:  # noqa: BLE001 -- told in the test's own thread
            failures.append(error)

    thread = threading.Thread(target=write)
    thread.start()
    mover.slots.protect_with(store.remote.open())
    mover.slots.rewrap()
    thread.join(60)
    assert not failures and not thread.is_alive()
    mover.slots.rewrap()
    assert uses(mover) == [("file", False, 0), (store.remote.scheme, True, 16)]
    again = store.open()
    check(again)
    for number in range(5):
        found = again.find_key(f"new-{number}")
        assert found is not None
        assert [each.material for each in found.versions] == [material_of(f"new-{number}", n) for n in range(2)]


@pytest.mark.parametrize("remote", ["vault-transit", "aws-kms"], indirect=True)
def test_what_waits_while_the_protector_is_away(store: Store) -> None:
    assert store.remote.stop is not None and store.remote.start is not None
    opened = store.open()
    fill(opened)
    opened.slots.protect_with(store.remote.open())
    opened.create_key(new_key("new"))
    store.remote.stop()
    check(store.open())
    assert len(opened.list_metadata()) == 4
    for attempt in (lambda: opened.find_key("new"), lambda: opened.create_key(new_key("more")), opened.slots.rewrap):
        with pytest.raises(ProtectorUnavailableError):
            attempt()
    opened.delete_key("b")
    store.remote.start()
    found = opened.find_key("new")
    assert found is not None and found.versions[0].material == material_of("new", 0)
    assert opened.slots.rewrap() == 6


@pytest.mark.parametrize("moved", [False, True], ids=["local", "remote"])
def test_a_store_is_given_a_new_root(store: Store, moved: bool) -> None:
    opened, running = store.open(), store.open()
    fill(opened)
    opened.slots.protect_with(store.remote.open())
    if moved:
        opened.slots.rewrap()
    before, number = opened.derive_secret("cookies"), opened.change_number()
    opened.slots.give_new_root()
    with pytest.raises(StoreTamperedError, match="given a new root"):
        running.change_number()
    again = store.open()
    check(again)
    assert again.derive_secret("cookies") != before
    assert again.changes_since(number).keys is None
    assert again.roll_key("a", material_of("a", 2)).version == 2
