"""kill -9 at every crash point of a change of protection: every key opens afterwards, and the same command finishes."""

from __future__ import annotations

import os
import select
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from crash_points import ANSWER_WAIT_S, count_points, kill_at
from local_stores import in_child, kill, material_of, new_key, read_all
from lockbox import Lockbox, LockboxProtector
from protected_store import ProtectedStore
from store_storm import check_acknowledged, move_to_and_fro, storm

from ringfence_agent.keystore.new_root_key import protect_with_file
from ringfence_agent.keystore.sql.store import SqlKeyStore

BOX_KEY = b"k" * 32  # every process has the same box, as it has the same Vault
KEYS = {"a": 2, "b": 1}


def protected(directory: Path) -> ProtectedStore:
    return ProtectedStore(directory, [Lockbox(key=BOX_KEY)])


def made(directory: Path) -> ProtectedStore:
    """A store with two live keys and a deleted one, under its root key file."""
    directory.mkdir(mode=0o700)
    place = protected(directory)
    store = place.open()
    for name, versions in KEYS.items():
        store.create_key(new_key(name))
        for version in range(1, versions):
            store.roll_key(name, material_of(name, version))
    store.create_key(new_key("gone"))
    store.delete_key("gone")
    store.close()
    return place


def moved(directory: Path) -> ProtectedStore:
    """The same, wholly moved to the box, with the file's slot still there."""
    place = made(directory)
    act(place, lambda store: (store.slots.protect_with(box_of(place)), store.slots.rewrap()))
    return place


def act(place: ProtectedStore, change: Callable[[SqlKeyStore], object]) -> None:
    store = place.open()
    change(store)
    store.list_metadata()  # a statement after the last change, for a crash point there
    store.close()


def box_of(place: ProtectedStore) -> LockboxProtector:
    return LockboxProtector(place.boxes[0])


def protect(place: ProtectedStore) -> None:
    act(place, lambda store: store.slots.protect_with(box_of(place)))


def protect_and_rewrap(place: ProtectedStore) -> None:
    act(place, lambda store: (store.slots.protect_with(box_of(place)), store.slots.rewrap()))


def new_file(place: ProtectedStore) -> None:
    act(place, lambda store: protect_with_file(store.slots, place.directory / "second.key"))


def unprotect(place: ProtectedStore) -> None:
    def remove(store: SqlKeyStore) -> None:
        if any(use.slot.id == 1 for use in store.slots.describe()):
            store.slots.remove(1)

    act(place, remove)


def new_root(place: ProtectedStore) -> None:
    store = place.open()
    store.slots.give_new_root()
    store.close()
    place.open().close()


def check_whole(place: ProtectedStore) -> list[tuple[int, bool, int]]:
    """Its slots. The store verifies, every key opens, and it takes a change."""
    store = place.open()
    for name, versions in KEYS.items():
        found = store.find_key(name)
        assert found is not None
        assert [each.material for each in found.versions] == [material_of(name, n) for n in range(versions)]
    slots = [(use.slot.id, use.is_active, use.versions) for use in store.slots.describe()]
    assert store.create_key(new_key("gone", 1)).name == "gone@1"
    store.close()
    return slots


def create_and_roll(place: ProtectedStore) -> None:
    """Each with a seal that the box makes before the lock is taken."""

    def make(store: SqlKeyStore) -> None:
        found = store.find_key("fresh")
        versions = len(found.versions) if found else 0
        assert found is None or found.versions[-1].material == material_of("fresh", versions - 1)
        if not versions:
            store.create_key(new_key("fresh"))
        if versions < 2:
            store.roll_key("fresh", material_of("fresh", 1))

    act(place, make)


CASES = {
    "protect": (made, protect, [(1, False, 4), (2, True, 0)]),
    "rewrap": (made, protect_and_rewrap, [(1, False, 0), (2, True, 4)]),
    "new root key file": (made, new_file, [(1, False, 4), (2, True, 4)]),
    "unprotect": (moved, unprotect, [(2, True, 4)]),
    "create and roll": (moved, create_and_roll, [(1, False, 0), (2, True, 6)]),
    "new root": (moved, new_root, [(1, False, 0), (2, True, 4)]),
}


@pytest.mark.parametrize("most", [16, pytest.param(1000, marks=pytest.mark.long)], ids=["some", "all"])
@pytest.mark.parametrize(("prepare", "change", "expected"), CASES.values(), ids=CASES)
def test_killed_at_any_point_every_key_opens_and_the_same_again_finishes(
    tmp_path: Path,
    prepare: Callable[[Path], ProtectedStore],
    change: Callable[[ProtectedStore], None],
    expected: list[tuple[int, bool, int]],
    most: int,
) -> None:
    template = prepare(tmp_path / "template")
    points = count_points(change, copy_of(template, tmp_path / "rehearsal"))
    assert points > 20
    # From the end: the first points are those of opening a store, the same in each case.
    for number in range(points - 1, -1, -max(1, points // most)):
        place = copy_of(template, tmp_path / str(number))
        kill_at(number, change, place)
        whole = copy_of(place, tmp_path / f"{number}-checked")
        check_whole(whole)
        change(place)
        assert check_whole(place) == expected, number
        leftovers = {path.name for path in place.directory.iterdir()} - {"keys.db", "keys.db.root-key", "second.key"}
        assert not {name for name in leftovers if name.endswith(".new")}, number


def copy_of(place: ProtectedStore, directory: Path) -> ProtectedStore:
    shutil.copytree(place.directory, directory)
    return protected(directory)


@pytest.mark.parametrize("rounds", [3, pytest.param(25, marks=pytest.mark.long)])
def test_a_store_moves_to_and_fro_under_a_storm_of_killed_writers_and_movers(tmp_path: Path, rounds: int) -> None:
    place = protected(tmp_path)
    place.open().close()
    lines: list[str] = []
    for number in range(rounds):
        writers = [in_child(lambda report, w=writer: storm(place, w, report)) for writer in range(2)]  # type: ignore[misc]
        mover = in_child(lambda report, n=number: move_to_and_fro(place, box_of(place), report, first=n % 2 == 0))  # type: ignore[misc]
        ready, _, _ = select.select([mover[1]], [], [], ANSWER_WAIT_S)
        assert ready
        deadline = time.monotonic() + 0.3
        select.select([], [], [], max(0.0, deadline - time.monotonic()))
        for pid, _ in (mover, *writers):
            kill(pid)
        for _, read_end in writers:
            lines += read_all(read_end)
        os.close(mover[1])
        check_acknowledged(place, lines, 2 * (number + 1))
    store = place.open()
    store.slots.protect_with(box_of(place))
    store.slots.rewrap()
    assert next(use for use in store.slots.describe() if use.slot.id == 1).versions == 0
    store.close()
    check_acknowledged(place, lines, 2 * rounds)
    assert len(lines) > 5 * rounds
