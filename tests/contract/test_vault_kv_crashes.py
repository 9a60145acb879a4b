"""A key store in Vault whose server is killed before each write of each change: what is there converges.

Each action is done by a process that is killed; then another looks, does it again, and all of it must verify.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from local_stores import TRANSIT_KEY, held_key, material_of, new_key
from protector_places import RemotePlace
from store_places import VAULT_KV, VaultKvPlace, storing_cluster
from vault_crash_points import count_writes, kill_before_write

from ringfence_agent.keystore.backup.make import make_backup
from ringfence_agent.keystore.backup.place import S3Options
from ringfence_agent.keystore.backup.places import opened_backup, parse_place
from ringfence_agent.keystore.backup.restore import restore
from ringfence_agent.keystore.backup.targets import find_target
from ringfence_agent.keystore.held import HeldKey, Material, TransitVersion
from ringfence_agent.keystore.interface import ChangeOrigin, ImportedKey, ImportedVersion, KeyStore
from ringfence_agent.keystore.new_root_key import protect_with_file
from ringfence_agent.keystore.open import open_protected
from ringfence_agent.keystore.protected_store import ProtectedStore
from ringfence_agent.keystore.protector import Protectors
from ringfence_agent.keystore.protectors.file import FileProtector
from ringfence_agent.keystore.token_store import TokenRecord
from ringfence_zones.errors import UnconfirmedChangeError
from ringfence_zones.keys import DEFAULT_CIPHER, KeyMetadata
from ringfence_zones.secret import Secret

ETL = ChangeOrigin("etl", b"d" * 32)
FUTURE_MS = 10**15


@contextmanager
def opened(place: VaultKvPlace) -> Iterator[ProtectedStore]:
    settings = place.cluster.settings()
    with closing(open_protected(place.uri, place.root_key, True, None, place.protectors(), settings)) as store:
        yield store


@dataclass(frozen=True)
class Action:
    """A change, what it needs before, and how to see whether it was made."""

    prepare: Callable[[ProtectedStore], object]
    act: Callable[[ProtectedStore], object]
    is_made: Callable[[ProtectedStore], bool]


def is_live(store: KeyStore, name: str) -> bool:
    return store.find_key(name) is not None


def numbers(store: KeyStore, name: str) -> list[int]:
    found = store.find_key(name)
    return [] if found is None else [version.version for version in found.versions]


def with_token(store: ProtectedStore) -> None:
    store.add_token(TokenRecord(store.next_sequence(), b"token", 100))


def with_deleted(store: ProtectedStore) -> None:
    store.create_key(new_key("k"))
    store.delete_key("k")


def expires_ms(store: ProtectedStore) -> int | None:
    found = store.find_token(1)
    return None if found is None else found.expires_ms


def roll_once(store: ProtectedStore) -> None:
    roll_to(store, material_of("k", 1))


def roll_held_once(store: ProtectedStore) -> None:
    roll_to(store, TransitVersion(TRANSIT_KEY, 2))


def roll_to(store: ProtectedStore, material: Material) -> None:
    try:
        store.roll_key("k", material, ETL)
    except UnconfirmedChangeError:
        return  # as for a client that asks again


def imported(name: str, materials: dict[int, bytes], description: str = "d") -> ImportedKey:
    length_bits = len(materials[0]) * 8
    metadata = KeyMetadata(name, DEFAULT_CIPHER, length_bits, 5, len(materials), description, {})
    return ImportedKey(metadata, [ImportedVersion(number, Secret(each), 5) for number, each in materials.items()])


def many(store: ProtectedStore) -> None:
    """More than a head can say by itself."""
    store.import_keys([imported(f"i{number}", {0: b"a" * 32}, "d" * 120_000) for number in range(5)])


ACTIONS = {
    "create": Action(
        lambda store: store.create_key(new_key("other")),
        lambda store: store.create_key(new_key("k"), ETL),
        lambda store: numbers(store, "k") == [0],
    ),
    "roll": Action(
        lambda store: store.create_key(new_key("k")), roll_once, lambda store: numbers(store, "k") == [0, 1]
    ),
    "create held": Action(
        lambda store: store.create_key(new_key("other")),
        lambda store: store.create_key(held_key("k"), ETL),
        lambda store: numbers(store, "k") == [0],
    ),
    "roll held": Action(
        lambda store: store.create_key(held_key("k")), roll_held_once, lambda store: numbers(store, "k") == [0, 1]
    ),
    "delete": Action(
        lambda store: store.create_key(new_key("k")),
        lambda store: store.delete_key("k"),
        lambda store: not is_live(store, "k"),
    ),
    "undelete": Action(with_deleted, lambda store: store.undelete_key("k", 0), lambda store: is_live(store, "k")),
    "recreate": Action(
        with_deleted, lambda store: store.create_key(new_key("k", 1)), lambda store: numbers(store, "k") == [1]
    ),
    "publish": Action(
        lambda store: store.publish_policy(0, b"{}", "root"),
        lambda store: store.publish_policy(1, b'{"a":1}', "root"),
        lambda store: len(store.list_policies(0)) == 2,
    ),
    "import": Action(
        lambda store: store.create_key(new_key("other")),
        lambda store: store.import_keys([imported("k", {0: b"a" * 16, 1: b"b" * 16}), imported("l", {0: b"c" * 32})]),
        lambda store: is_live(store, "k") and is_live(store, "l"),
    ),
    "large import": Action(
        lambda store: store.create_key(new_key("other")),
        many,
        lambda store: is_live(store, "i0") and is_live(store, "i4"),
    ),
    "confirm": Action(
        lambda store: store.create_key(new_key("k"), ETL),
        lambda store: store.confirm(store.find_unconfirmed("k")),
        lambda store: not store.find_unconfirmed("k"),
    ),
    "renew token": Action(with_token, lambda store: store.renew_token(1, 200), lambda store: expires_ms(store) == 200),
    "cancel token": Action(with_token, lambda store: store.cancel_token(1), lambda store: expires_ms(store) is None),
    "remove expired": Action(
        with_token, lambda store: store.remove_expired(FUTURE_MS), lambda store: expires_ms(store) is None
    ),
    # Numbers that a killed process had taken for itself are a gap.
    "issue token": Action(lambda _: None, with_token, lambda store: any(map(store.find_token, (1, 16)))),
    "master key": Action(
        lambda _: None,
        lambda store: store.add_master_key(0, Secret(b"m" * 32), 5, 6),
        lambda store: len(store.list_master_keys()) == 1,
    ),
}
ENGINES = [*VAULT_KV]


@pytest.fixture(params=ENGINES)
def new_place(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Callable[[], VaultKvPlace]:
    cluster = storing_cluster(request, request.param)
    return lambda: VaultKvPlace(cluster, tmp_path_factory.mktemp("store"))


def prepared(new_place: Callable[[], VaultKvPlace], action: Action) -> VaultKvPlace:
    place = new_place()
    with opened(place) as store:
        action.prepare(store)
    return place


LONG = ["create held", "large import", "undelete", "recreate", "remove expired", "master key"]


@pytest.mark.parametrize("name", [pytest.param(name, marks=[pytest.mark.long] * (name in LONG)) for name in ACTIONS])
def test_a_change_that_was_killed_before_any_write_is_wholly_there_or_not_at_all(
    new_place: Callable[[], VaultKvPlace], name: str
) -> None:
    action = ACTIONS[name]

    def act(place: VaultKvPlace) -> None:
        with opened(place) as store:
            action.act(store)

    place = prepared(new_place, action)
    count = count_writes(act, place)
    assert count >= 1
    was_made = []
    for number in range(count):
        place = prepared(new_place, action)
        with opened(place) as running:  # it knows the state before, and must not stay with it
            before = running.change_number(), running.token_change_number()
            assert not action.is_made(running)
            kill_before_write(number, act, place)
            after = running.change_number(), running.token_change_number()
            made = action.is_made(running)
            assert made or before == after
            was_made.append(made)
            if not made:
                action.act(running)
            assert action.is_made(running)
        with opened(place) as store, store.snapshot() as snapshot:
            assert action.is_made(store)
            assert snapshot.facts.change_number == store.change_number()
    assert was_made == sorted(was_made)  # one write decides, and nothing after it undoes that
    assert not was_made[0]


def test_a_change_that_was_killed_is_not_made_twice_for_the_client_that_asks_again(
    new_place: Callable[[], VaultKvPlace],
) -> None:
    action = ACTIONS["roll"]

    def act(place: VaultKvPlace) -> None:
        with opened(place) as store:
            store.roll_key("k", None, ETL)

    count = count_writes(act, prepared(new_place, action))
    place = prepared(new_place, action)
    kill_before_write(count - 1, act, place)
    with opened(place) as store:
        with pytest.raises(UnconfirmedChangeError):
            store.roll_key("k", None, ETL)
        (note,) = store.find_unconfirmed("k")
        assert note.version == 1
        assert not store.is_alive(note.owner_id)
        assert store.remove_unconfirmed(FUTURE_MS) == 1


def test_a_store_whose_making_was_killed_is_made_by_the_next_start(new_place: Callable[[], VaultKvPlace]) -> None:
    def make(place: VaultKvPlace) -> None:
        with opened(place):
            pass

    count = count_writes(make, new_place())
    for number in range(count):
        place = new_place()
        kill_before_write(number, make, place)
        with opened(place) as store:
            store.create_key(new_key("k"))
        with opened(place) as store:
            assert is_live(store, "k")


def test_a_store_that_was_committed_without_the_name_of_its_root_key_opens(
    new_place: Callable[[], VaultKvPlace],
) -> None:
    place = new_place()
    with opened(place) as store:
        store.create_key(new_key("k"))
    place.root_key.rename(place.directory / f".{place.root_key.name}.new")
    with opened(place) as store:
        assert is_live(store, "k")
    assert place.root_key.exists()


def fill(store: ProtectedStore) -> None:
    for name in ("a", "b"):
        store.create_key(new_key(name))
    store.roll_key("a", material_of("a", 1))
    store.create_key(held_key("held"))
    store.publish_policy(0, b"{}", "root")
    store.add_master_key(0, Secret(b"m" * 32), 5, 6)
    with_token(store)


def check(store: ProtectedStore) -> None:
    for name, count in (("a", 2), ("b", 1)):
        found = store.find_key(name)
        assert found is not None
        assert [version.material for version in found.versions] == [material_of(name, n) for n in range(count)]
    held = store.find_key("held")
    assert isinstance(held, HeldKey)
    assert held.current.place == TransitVersion(TRANSIT_KEY, 1)
    assert [policy.document for policy in store.list_policies(0)] == [b"{}"]
    assert [key.secret.reveal() for key in store.list_master_keys()] == [b"m" * 32]
    assert expires_ms(store) == 100


@pytest.mark.parametrize(
    "work", ["protect", *(pytest.param(w, marks=pytest.mark.long) for w in ("rewrap", "new root"))]
)
def test_every_key_is_readable_wherever_a_change_of_protectors_was_killed(
    new_place: Callable[[], VaultKvPlace], find_remote: Callable[[str], RemotePlace], work: str
) -> None:
    remote = find_remote("vault-transit")

    def act(place: VaultKvPlace) -> None:
        with opened(place) as store:
            if work == "protect":
                protect_with_file(store.slots, place.directory / "second.key")
            elif work == "rewrap":
                store.slots.rewrap()
            else:
                store.slots.give_new_root()

    def ready() -> VaultKvPlace:
        place = new_place()
        place.protectors = lambda: Protectors(with_file=True, others=(remote.open(),))
        with opened(place) as store:
            fill(store)
            store.slots.protect_with(remote.open())
            if work != "rewrap":
                store.create_key(new_key("remote"))
        return place

    count = count_writes(act, ready())
    assert count >= {"protect": 1, "rewrap": 6, "new root": 6}[work]
    for number in range(count):
        place = ready()
        with opened(place) as store:
            secret = store.derive_secret("cookies")
        kill_before_write(number, act, place)
        with opened(place) as store:
            check(store)
            has_new_root = store.derive_secret("cookies") != secret
        if not has_new_root:
            act(place)
        with opened(place) as store:
            check(store)
            assert (store.derive_secret("cookies") != secret) == (work == "new root")
            store.roll_key("b", None)
            store.create_key(new_key("c"))


@pytest.mark.long
def test_a_restore_that_was_killed_leaves_no_half_a_store_and_is_finished_by_the_next(
    new_place: Callable[[], VaultKvPlace], tmp_path: Path
) -> None:
    source = new_place()
    with opened(source) as store:
        fill(store)
        store.cancel_token(1)
        made = make_backup(store, parse_place(str(tmp_path), S3Options()))
        key_count = len(store.list_metadata())
    protector = FileProtector.from_file(source.root_key)

    def act(place: VaultKvPlace) -> None:
        with opened_backup(made.where) as backup:
            restore(backup, [protector], find_target(place.uri, None, place.cluster.settings()), [])

    count = count_writes(act, new_place())
    assert count > key_count + 1
    for number in range(count):
        place = new_place()
        kill_before_write(number, act, place)
        target = find_target(place.uri, None, place.cluster.settings())
        assert not target.is_there()
        act(place)
        with closing(target.open([protector])) as store:
            assert [metadata.versions for metadata in store.list_metadata()] == [2, 1, 1]
