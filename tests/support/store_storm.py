"""Writers that create, roll, delete and recreate until they are killed, and what must be true afterwards."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from local_stores import material_of, new_key

from ringfence_agent.keystore.interface import OpenStore
from ringfence_agent.keystore.new_root_key import protect_with_file
from ringfence_agent.keystore.protector import Protector
from ringfence_agent.keystore.sql.store import SqlKeyStore
from ringfence_zones.errors import StoreUnavailableError

WRITERS = 4


class Opens(Protocol):
    """A place with a store, whichever engine keeps it."""

    def open(self) -> OpenStore: ...


class OpensProtected(Protocol):
    """A place with a store and its root key file, which opens with whatever else protects it too."""

    @property
    def root_key(self) -> Path: ...

    def open(self) -> SqlKeyStore: ...


def storm(place: Opens, writer: int, report: int) -> None:
    """Acts until killed; tells each version once it is acknowledged."""
    store = place.open()
    number = 0
    while True:
        _write_one(store, f"w{writer}-{os.getpid()}-{number}", report, delete=number % 2 == 0)
        number += 1


def stubborn_storm(place: Opens, writer: int, report: int) -> None:
    """As `storm`, where the store may be unavailable at times: goes on with another key, and tells that too."""
    store = place.open()
    number = 0
    while True:
        try:
            _write_one(store, f"w{writer}-{os.getpid()}-{number}", report, delete=number % 2 == 0)
        except StoreUnavailableError:
            with suppress(BlockingIOError):
                os.write(report, b"unavailable\n")
        number += 1


def _write_one(store: OpenStore, name: str, report: int, *, delete: bool) -> None:
    store.create_key(new_key(name))
    os.write(report, f"{name} 1 live\n".encode())
    for version in (1, 2):
        store.roll_key(name, material_of(name, version))
        os.write(report, f"{name} {version + 1} live\n".encode())
    if delete:
        store.delete_key(name)
        os.write(report, f"{name} 3 deleted\n".encode())


def move_to_and_fro(place: OpensProtected, box: Protector, report: int, *, first: bool) -> None:
    """Moves all of a store to a box, then back to its root key file, until killed; a dot for each version moved."""
    store = place.open()
    to_box = first
    while True:
        if to_box:
            store.slots.protect_with(box)
        else:
            protect_with_file(store.slots, place.root_key)
        os.write(report, b".")
        store.slots.rewrap(lambda _done, _of: os.write(report, b".") and None)
        to_box = not to_box


def check_acknowledged(place: Opens, lines: list[str], unacknowledged: int) -> None:
    """Everything acknowledged is there, and whatever more there is is whole and at most one step ahead.

    `unacknowledged` is how many creates at most may have been made without a word.
    """
    store = place.open()  # verifies every row and the ledger
    live = {metadata.name: metadata.versions for metadata in store.list_metadata()}
    last: dict[str, tuple[int, str]] = {}
    for line in lines:
        name, versions, state = line.split()
        last[name] = int(versions), state
    for name, (versions, state) in last.items():
        if state == "deleted":
            assert name not in live
        elif name in live:
            assert versions <= live[name] <= versions + 1
        else:
            assert versions == 3, f"{name} was acknowledged and is gone"  # its delete was under way
        found = store.find_key(name)
        for version in found.versions if found else ():
            assert version.material == material_of(name, version.version)
    assert len(set(live) - set(last)) <= unacknowledged
    store.close()
