"""A store file of the first release, from the vector that was frozen then."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from local_stores import LocalStore

VECTOR = Path(__file__).parents[1] / "vectors" / "keystore_format_1.sql"
VECTOR_ROOT_KEY = bytes(range(32))


def frozen_store(directory: Path) -> LocalStore:
    """The store of the vector and its root key, as the first release left them."""
    place = LocalStore(directory)
    place.root_key.write_bytes(VECTOR_ROOT_KEY.hex().encode() + b"\n")
    connection = sqlite3.connect(place.path)
    connection.executescript(VECTOR.read_text())
    connection.close()
    for path in (place.path, place.root_key):
        path.chmod(0o600)
    return place
