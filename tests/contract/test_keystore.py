"""What every key store must do with keys and policy, on each kind of place in `store_places`."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Callable
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from store_places import Place

from ringfence_agent.keystore.interface import ImportedKey, ImportedVersion, KeyImport, KeyStore, NewKey
from ringfence_zones.errors import (
    InputError,
    KeyConflictError,
    KeyExistsError,
    KeyNotFoundError,
    RevisionConflictError,
    StoreUnavailableError,
)
from ringfence_zones.keys import DEFAULT_CIPHER, KeyMetadata
from ringfence_zones.secret import Secret


def new_key(name: str, material: bytes = b"m" * 32, **changes: object) -> NewKey:
    values: dict[str, object] = {
        "name": name,
        "cipher": DEFAULT_CIPHER,
        "length_bits": len(material) * 8,
        "material": Secret(material),
        "description": None,
        "attributes": {},
    }
    return NewKey(**(values | changes))  # type: ignore[arg-type]


def materials(store: KeyStore, name: str) -> dict[int, bytes]:
    found = store.find_key(name)
    assert found is not None
    return {version.version: version.material.reveal() for version in found.versions}


def test_a_new_store_holds_nothing(store: KeyStore) -> None:
    assert store.find_key("k") is None
    assert list(store.list_metadata()) == []
    assert store.find_policy() is None


def test_a_created_key_has_version_0_with_the_material_given(store: KeyStore) -> None:
    made = store.create_key(new_key("k", b"a" * 16))
    assert (made.name, made.material.reveal()) == ("k@0", b"a" * 16)
    found = store.find_key("k")
    assert found is not None
    assert found.metadata.length_bits == 128
    assert found.metadata.current_version_name == "k@0"
    assert [version.name for version in found.versions] == ["k@0"]
    assert materials(store, "k") == {0: b"a" * 16}


def test_metadata_comes_back_as_it_was_given(store: KeyStore) -> None:
    attributes = {"ringfence.custody": "envelope", "β": "", "a": '"quoted"\n'}
    store.create_key(new_key("k", description="for Ω\n", attributes=attributes))
    store.create_key(new_key("plain"))
    found, plain = store.list_metadata()
    assert (found.name, found.cipher, found.description) == ("k", DEFAULT_CIPHER, "for Ω\n")
    assert dict(found.attributes) == attributes
    assert (plain.description, dict(plain.attributes)) == (None, {})
    key = store.find_key("k")
    assert key is not None
    assert key.metadata == found


def test_an_empty_description_is_not_no_description(store: KeyStore) -> None:
    store.create_key(new_key("k", description=""))
    assert store.list_metadata()[0].description == ""


@pytest.mark.parametrize(
    "name",
    ["a", "A", "a b", "a@1", "ключ", "e\u0301", "\u00e9", "a/b", "'; DROP TABLE zone_key", "%", "x" * 1000, "a\0b"],
)
def test_any_unicode_name_is_kept_exactly(store: KeyStore, name: str) -> None:
    for other in ("a", "A", "\u00e9", "e\u0301", "a\0"):
        if other != name:
            store.create_key(new_key(other, b"o" * 32))
    store.create_key(new_key(name, b"n" * 32))
    assert materials(store, name) == {0: b"n" * 32}


@pytest.mark.parametrize("name", ["", "\ud800", "x" * 1001])
def test_a_name_that_no_store_can_keep_is_refused(store: KeyStore, name: str) -> None:
    with pytest.raises(InputError):
        store.create_key(new_key(name))
    assert store.find_key(name) is None
    with pytest.raises(KeyNotFoundError):
        store.roll_key(name, None)
    with pytest.raises(KeyNotFoundError):
        store.delete_key(name)


def test_creating_a_key_twice_is_refused_and_changes_nothing(store: KeyStore) -> None:
    store.create_key(new_key("k", b"1" * 32))
    with pytest.raises(KeyExistsError) as caught:
        store.create_key(new_key("k", b"2" * 32))
    assert caught.value.key_name == "k"
    assert store.label in str(caught.value)
    assert materials(store, "k") == {0: b"1" * 32}


def test_material_of_another_length_than_announced_is_refused(store: KeyStore) -> None:
    with pytest.raises(InputError, match="256 bits, but the key has 128"):
        store.create_key(new_key("k", b"x" * 32, length_bits=128))
    store.create_key(new_key("k", b"x" * 16))
    with pytest.raises(InputError, match="256 bits, but the key has 128"):
        store.roll_key("k", Secret(b"x" * 32))
    assert materials(store, "k") == {0: b"x" * 16}


def test_a_roll_adds_a_version_and_keeps_the_earlier_ones(store: KeyStore) -> None:
    store.create_key(new_key("k", b"0" * 32))
    assert store.roll_key("k", Secret(b"1" * 32)).name == "k@1"
    rolled = store.roll_key("k", None)
    assert rolled.version == 2
    assert materials(store, "k") == {0: b"0" * 32, 1: b"1" * 32, 2: rolled.material.reveal()}
    assert store.list_metadata()[0].versions == 3


def test_a_roll_without_material_makes_new_material_of_the_keys_length(store: KeyStore) -> None:
    store.create_key(new_key("k", b"0" * 16))
    made = [store.roll_key("k", None).material.reveal() for _ in range(8)]
    assert {len(material) for material in made} == {16}
    assert len(set(made)) == 8


def test_rolling_or_deleting_a_key_that_is_not_there_is_refused(store: KeyStore) -> None:
    with pytest.raises(KeyNotFoundError) as caught:
        store.roll_key("none", None)
    assert caught.value.key_name == "none"
    with pytest.raises(KeyNotFoundError):
        store.delete_key("none")


def test_a_deleted_key_is_invisible_to_every_read(store: KeyStore) -> None:
    store.create_key(new_key("gone"))
    store.create_key(new_key("stays"))
    store.delete_key("gone")
    assert store.find_key("gone") is None
    assert [metadata.name for metadata in store.list_metadata()] == ["stays"]
    with pytest.raises(KeyNotFoundError):
        store.roll_key("gone", None)
    with pytest.raises(KeyNotFoundError):
        store.delete_key("gone")


def test_a_recreated_key_continues_the_version_numbers_without_the_old_material(store: KeyStore) -> None:
    store.create_key(new_key("k", b"0" * 32, description="old", attributes={"a": "b"}))
    store.roll_key("k", Secret(b"1" * 32))
    store.delete_key("k")
    assert store.create_key(new_key("k", b"2" * 16)).name == "k@2"
    assert store.roll_key("k", Secret(b"3" * 16)).name == "k@3"
    found = store.find_key("k")
    assert found is not None
    assert materials(store, "k") == {2: b"2" * 16, 3: b"3" * 16}
    assert found.metadata.versions == 4
    assert found.metadata.current_version_name == "k@3"
    assert (found.metadata.length_bits, found.metadata.description, dict(found.metadata.attributes)) == (128, None, {})


def test_metadata_is_listed_by_name(store: KeyStore) -> None:
    for name in ("b", "a", "C", "a0"):
        store.create_key(new_key(name))
    assert [metadata.name for metadata in store.list_metadata()] == sorted(["b", "a", "C", "a0"])


def test_everything_is_there_after_reopening(place: Place) -> None:
    first = place.open()
    first.create_key(new_key("k", b"0" * 32, attributes={"a": "b"}))
    first.roll_key("k", Secret(b"1" * 32))
    first.create_key(new_key("gone"))
    first.delete_key("gone")
    first.publish_policy(0, b"{}", "admin")
    seen = (first.list_metadata(), first.find_policy(), materials(first, "k"))
    first.close()
    second = place.open()
    assert (second.list_metadata(), second.find_policy(), materials(second, "k")) == seen
    assert second.create_key(new_key("gone")).name == "gone@1"


def test_every_handle_sees_a_change_as_soon_as_it_is_acknowledged(place: Place) -> None:
    writer, reader = place.open(), place.open()
    for number in range(20):
        writer.create_key(new_key(f"k{number}"))
        assert reader.find_key(f"k{number}") is not None
        writer, reader = reader, writer
    writer.roll_key("k0", Secret(b"1" * 32))
    assert materials(reader, "k0")[1] == b"1" * 32
    writer.delete_key("k0")
    assert reader.find_key("k0") is None
    writer.publish_policy(0, b"{}", "admin")
    assert reader.find_policy() is not None


def test_the_newest_policy_is_found_as_it_was_published(store: KeyStore) -> None:
    first = store.publish_policy(0, b'{"version":1}', "root")
    assert (first.revision, first.document, first.published_by) == (1, b'{"version":1}', "root")
    assert first.digest == hashlib.sha256(b'{"version":1}').hexdigest()
    second = store.publish_policy(1, b"{}", "someone else")
    assert second.revision == 2
    assert second.published_ms >= first.published_ms
    assert store.find_policy() == second
    assert [list(store.list_policies(after)) for after in (0, 1, 2)] == [[first, second], [second], []]


@pytest.mark.parametrize("expected", [0, 2, -1])
def test_publishing_on_another_revision_than_the_newest_is_refused(store: KeyStore, expected: int) -> None:
    published = store.publish_policy(0, b"{}", "a")
    with pytest.raises(RevisionConflictError) as caught:
        store.publish_policy(expected, b"other", "b")
    assert (caught.value.expected, caught.value.actual) == (expected, 1)
    assert store.find_policy() == published


def test_a_closed_store_says_so_and_closes_again(store: KeyStore) -> None:
    store.close()
    store.close()
    with pytest.raises(StoreUnavailableError, match="closed"):
        store.find_key("k")
    with pytest.raises(StoreUnavailableError, match="closed"):
        store.create_key(new_key("k"))


def test_a_store_is_not_used_after_a_fork(store: KeyStore) -> None:
    child = os.fork()
    if child == 0:
        try:
            store.find_key("k")
        except StoreUnavailableError:
            os._exit(7)
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7


def test_of_twenty_threads_that_create_one_key_exactly_one_succeeds(place: Place) -> None:
    handles = [place.open(), place.open()]
    start = threading.Barrier(20)
    results: list[str] = []

    def create(number: int) -> None:
        material = bytes([number]) * 32
        start.wait()
        try:
            handles[number % 2].create_key(new_key("k", material))
            results.append(material.hex())
        except KeyExistsError:
            results.append("exists")

    threads = [threading.Thread(target=create, args=(number,)) for number in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results.count("exists") == 19
    (winner,) = set(results) - {"exists"}
    assert materials(handles[0], "k") == {0: bytes.fromhex(winner)}


def test_material_never_rests_in_clear(place: Place) -> None:
    store = place.open()
    created, rolled = os.urandom(32), os.urandom(32)
    store.create_key(new_key("canary-key-name", created))
    store.roll_key("canary-key-name", Secret(rolled))
    store.delete_key("canary-key-name")
    stored = place.stored_bytes()
    assert b"canary-key-name" in stored  # the scan does find what is there
    for material in (created, rolled):
        assert material not in stored
        assert material.hex().encode() not in stored


STEPS = st.lists(
    st.tuples(st.sampled_from(["create", "roll", "delete", "publish", "reopen"]), st.sampled_from(["a", "b", "A"])),
    max_size=25,
)


@dataclass
class ModelKey:
    live: bool
    next_version: int
    versions: dict[int, bytes]


class Model:
    """What a store must look like from outside, in a dict."""

    def __init__(self) -> None:
        self.keys: dict[str, ModelKey] = {}
        self.revision = 0

    def create(self, store: KeyStore, name: str) -> None:
        key = self.keys.get(name)
        if key is not None and key.live:
            with pytest.raises(KeyExistsError):
                store.create_key(new_key(name))
            return
        made = store.create_key(new_key(name, os.urandom(32)))
        number = key.next_version if key else 0
        assert made.version == number
        self.keys[name] = ModelKey(True, number + 1, {number: made.material.reveal()})

    def roll(self, store: KeyStore, name: str) -> None:
        key = self.keys.get(name)
        if key is None or not key.live:
            with pytest.raises(KeyNotFoundError):
                store.roll_key(name, None)
            return
        rolled = store.roll_key(name, None)
        assert rolled.version == key.next_version
        key.versions[rolled.version] = rolled.material.reveal()
        key.next_version += 1

    def delete(self, store: KeyStore, name: str) -> None:
        key = self.keys.get(name)
        if key is None or not key.live:
            with pytest.raises(KeyNotFoundError):
                store.delete_key(name)
            return
        store.delete_key(name)
        key.live = False

    def publish(self, store: KeyStore, name: str) -> None:
        self.revision += 1
        store.publish_policy(self.revision - 1, name.encode(), name)

    def check(self, store: KeyStore) -> None:
        live = {name: key for name, key in self.keys.items() if key.live}
        assert {m.name: m.versions for m in store.list_metadata()} == {n: k.next_version for n, k in live.items()}
        for name in self.keys:
            assert (store.find_key(name) is not None) == (name in live)
        for name, key in live.items():
            assert materials(store, name) == key.versions
        policy = store.find_policy()
        assert (policy.revision if policy else 0) == self.revision


def check_against_model(place: Place, steps: list[tuple[str, str]]) -> None:
    model, store = Model(), place.open()
    for action, name in steps:
        if action == "reopen":
            store.close()
            store = place.open()
        else:
            getattr(model, action)(store, name)
        model.check(store)
    place.close()


def test_a_store_behaves_like_the_model(new_place: Callable[[], Place], request: pytest.FixtureRequest) -> None:
    in_a_file = request.node.callspec.params["new_place"] == "sqlite"  # a server takes ten times as long

    @settings(max_examples=40 if in_a_file else 8, deadline=None)
    @given(steps=STEPS)
    def check(steps: list[tuple[str, str]]) -> None:
        check_against_model(new_place(), steps)

    check()


# -- import


def imported(name: str, materials: dict[int, bytes], **changes: object) -> ImportedKey:
    length_bits = len(next(iter(materials.values()))) * 8
    values: dict[str, object] = {"description": "d", "attributes": {"a": "b"}, "created_ms": 1_700_000_000_000}
    metadata = KeyMetadata(
        name=name,
        cipher=DEFAULT_CIPHER,
        length_bits=length_bits,
        versions=max(materials) + 1,
        **(values | changes),  # type: ignore[arg-type]
    )
    versions = [
        ImportedVersion(number, Secret(material), 1_700_000_000_001 + number) for number, material in materials.items()
    ]
    return ImportedKey(metadata, tuple(versions))


def test_imported_keys_keep_names_numbers_times_and_everything_said_about_them(place: Place) -> None:
    done = place.open().import_keys([imported("a", {0: b"a" * 16, 1: b"b" * 16}), imported("b", {0: b"c" * 32})])
    assert done == [KeyImport("a", True, (0, 1)), KeyImport("b", True, (0,))]
    store = place.open()
    assert materials(store, "a") == {0: b"a" * 16, 1: b"b" * 16}
    found = store.find_key("b")
    assert found is not None
    assert found.metadata == imported("b", {0: b"c" * 32}).metadata
    assert store.roll_key("a", None).name == "a@2"


def test_an_import_may_be_repeated_and_brings_what_was_added(store: KeyStore) -> None:
    store.import_keys([imported("k", {0: b"a" * 16})])
    assert store.import_keys([imported("k", {0: b"a" * 16})]) == [KeyImport("k", False, ())]
    assert store.import_keys([imported("k", {0: b"a" * 16, 1: b"b" * 16})]) == [KeyImport("k", False, (1,))]
    store.roll_key("k", Secret(b"c" * 16))
    assert store.import_keys([imported("k", {0: b"a" * 16, 1: b"b" * 16})]) == [KeyImport("k", False, ())]
    assert materials(store, "k") == {0: b"a" * 16, 1: b"b" * 16, 2: b"c" * 16}


def test_what_is_imported_as_material_never_claims_to_be_in_vault(store: KeyStore) -> None:
    claims = {"ringfence.custody": "transit", "other": "stays"}
    store.import_keys([imported("k", {0: b"a" * 16}, attributes=claims)])
    found = store.find_key("k")
    assert found is not None
    assert found.metadata.attributes == {"ringfence.custody": "envelope", "other": "stays"}


def test_another_key_of_the_name_is_a_conflict_and_nothing_is_imported(store: KeyStore) -> None:
    store.create_key(new_key("k", b"m" * 16))
    store.create_key(new_key("wide", b"m" * 32))
    with pytest.raises(KeyConflictError, match="key k: its version 0 here is not the one there") as caught:
        store.import_keys(
            [imported("first", {0: b"a" * 16}), imported("k", {0: b"x" * 16}), imported("wide", {0: b"m" * 16})]
        )
    assert sorted(caught.value.conflicts) == ["k", "wide"]
    assert [metadata.name for metadata in store.list_metadata()] == ["k", "wide"]


def test_a_key_rolled_on_both_sides_is_a_conflict(store: KeyStore) -> None:
    store.import_keys([imported("k", {0: b"a" * 16})])
    store.roll_key("k", None)
    with pytest.raises(KeyConflictError, match="version 1"):
        store.import_keys([imported("k", {0: b"a" * 16, 1: b"b" * 16})])


def test_versions_of_a_deleted_key_are_not_given_out_again_by_an_import(store: KeyStore) -> None:
    store.create_key(new_key("k", b"m" * 16))
    store.delete_key("k")
    with pytest.raises(KeyConflictError, match="deleted here"):
        store.import_keys([imported("k", {0: b"m" * 16})])
    store.import_keys([imported("k", {1: b"n" * 16})])
    assert materials(store, "k") == {1: b"n" * 16}


def test_a_dry_run_tells_and_changes_nothing(store: KeyStore) -> None:
    store.create_key(new_key("k", b"m" * 16))
    wanted = [imported("k", {0: b"m" * 16, 1: b"n" * 16}), imported("new", {0: b"a" * 16})]
    assert store.import_keys(wanted, dry_run=True) == [KeyImport("k", False, (1,)), KeyImport("new", True, (0,))]
    assert materials(store, "k") == {0: b"m" * 16}
    assert store.find_key("new") is None
    with pytest.raises(KeyConflictError):
        store.import_keys([imported("k", {0: b"x" * 16})], dry_run=True)


@pytest.mark.parametrize("versions", [{}, {0: b"a" * 16, 2: b"b" * 16}], ids=["none", "gap"])
def test_keys_with_missing_versions_are_refused(store: KeyStore, versions: dict[int, bytes]) -> None:
    whole = imported("k", {0: b"a" * 16, 1: b"b" * 16, 2: b"c" * 16})
    some = ImportedKey(whole.metadata, tuple(v for v in whole.versions if v.number in versions))
    with pytest.raises(InputError, match="key k says that it has 3 versions"):
        store.import_keys([some])
