"""kill -9 of a client at every statement and commit of what changes a store in a database server.

What SQLite's stores are driven through, `tests/contract/test_keystore_crash_points.py` has; here the transaction of a
client that is gone is the server's to end. One store takes all of the kills.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest
from crash_points import kill_at, trace_points
from databases import DatabaseServer
from local_stores import material_of, new_key
from lockbox import Lockbox, LockboxProtector
from shared_store import SharedStore

from ringfence_agent.keystore.new_root_key import protect_with_file
from ringfence_agent.keystore.open import open_protected
from ringfence_agent.keystore.protector import Protectors
from ringfence_agent.keystore.sql.store import SqlKeyStore

pytestmark = pytest.mark.long


@dataclass
class Place:
    """A store in a server, and on this host its root key file; a lockbox protects it too."""

    shared: SharedStore
    box: LockboxProtector

    @property
    def directory(self) -> Path:
        return self.shared.directory

    def open(self) -> SqlKeyStore:
        shared = self.shared
        protectors = Protectors(others=(self.box,))
        return open_protected(shared.uri, shared.root_key, False, shared.server.password_file, protectors)

    def versions(self) -> dict[str, list[int]]:
        """Of each live key; all of the store is verified, and every version opens."""
        found = {}
        with closing(self.open()) as store:
            for metadata in store.list_metadata():
                key = store.find_key(metadata.name)
                assert key is not None
                for version in key.versions:
                    assert version.material == material_of(metadata.name, version.version)
                found[metadata.name] = [version.version for version in key.versions]
        return found


@pytest.fixture(params=["postgresql", "mariadb"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    server: DatabaseServer = request.getfixturevalue(request.param)
    uri = server.new_database()
    made = Place(SharedStore(server, uri, tmp_path), LockboxProtector(Lockbox(key=b"k" * 32)))
    with closing(made.shared.open(init=True)) as store:
        for name in ("a", "b"):
            store.create_key(new_key(name))
        store.roll_key("a", material_of("a", 1))
    yield made
    server.recycle(uri)


STATES = [None, [0], [0, 1], None, [0, 1], None, [2]]


def change_keys(tag: str) -> Callable[[Place], None]:
    """Each kind of change, on a key of its own; STATES are what its versions are after each."""

    def act(place: Place) -> None:
        with closing(place.open()) as store:
            store.create_key(new_key(tag))
            store.roll_key(tag, material_of(tag, 1))
            store.delete_key(tag)
            store.undelete_key(tag, 0)
            store.delete_key(tag)
            store.create_key(new_key(tag, 2))

    return act


def test_changes_of_keys(place: Place) -> None:
    points = trace_points(change_keys("rehearsal"), place)
    assert points.count("COMMIT") == len(STATES) - 1
    committed = 0
    for number, label in enumerate(points):
        tag = f"k{number}"
        kill_at(points, number, change_keys(tag), place)
        found = place.versions()
        assert found.get(tag) == STATES[committed], (number, label)
        assert found["a"] == [0, 1]
        committed += label == "COMMIT"
    assert committed == len(STATES) - 1


def move(place: Place) -> None:
    with closing(place.open()) as store:
        store.slots.protect_with(place.box)
        store.slots.rewrap()


def move_back(place: Place) -> None:
    with closing(place.open()) as store:
        protect_with_file(store.slots, place.shared.root_key)
        store.slots.rewrap()


def slots_of(place: Place) -> list[tuple[bool, int]]:
    with closing(place.open()) as store:
        return [(use.is_active, use.versions) for use in store.slots.describe()]


@pytest.mark.parametrize("to_box", [True, False])
def test_a_move(place: Place, to_box: bool) -> None:
    there, back = (move, move_back) if to_box else (move_back, move)
    for action in (move, back):  # both slots are there from here on
        action(place)
    points = trace_points(there, place)
    back(place)
    assert points.count("COMMIT") == 4  # which slot is active, and three versions
    before = place.versions()
    for number in range(len(points)):
        kill_at(points, number, there, place)
        assert place.versions() == before, points[number]
        there(place)
        assert slots_of(place) == ([(False, 0), (True, 3)] if to_box else [(True, 3), (False, 0)]), points[number]
        back(place)


def rotate(place: Place) -> None:
    with closing(place.open()) as store:
        store.slots.give_new_root()


def test_a_new_root(place: Place) -> None:
    move(place)
    points = trace_points(rotate, place)
    assert points.count("COMMIT") == 1
    before = place.versions()
    for number, label in enumerate(points):
        with closing(place.open()) as store:
            old = store.derive_secret("cookies")
        kill_at(points, number, rotate, place)
        assert place.versions() == before, label
        with closing(place.open()) as store:
            assert (store.derive_secret("cookies") != old) == (number > points.index("COMMIT")), label
