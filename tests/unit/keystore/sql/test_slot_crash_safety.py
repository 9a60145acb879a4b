"""A store that is moved while writers and movers are killed at random; each crash point is driven by
`tests/contract/test_keystore_crash_points.py`, under real protectors."""

from __future__ import annotations

import os
import select
import time
from pathlib import Path

import pytest
from crash_points import ANSWER_WAIT_S
from local_stores import in_child, kill, read_all
from lockbox import Lockbox, LockboxProtector
from protected_store import ProtectedStore
from store_storm import check_acknowledged, move_to_and_fro, storm

BOX_KEY = b"k" * 32  # every process has the same box, as it has the same Vault


def protected(directory: Path) -> ProtectedStore:
    return ProtectedStore(directory, [Lockbox(key=BOX_KEY)])


def box_of(place: ProtectedStore) -> LockboxProtector:
    return LockboxProtector(place.boxes[0])


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
