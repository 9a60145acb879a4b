"""Secrets that a database server must not see: looked for in its files, its log of changes too, and in a dump."""

from __future__ import annotations

import secrets
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from canary import Canaries
from databases import DatabaseServer, database_of


def find_in_database(canaries: Canaries, server: DatabaseServer, uri: str, began_s: float) -> dict[str, set[str]]:
    """What was found, by file or `dump`: in the files that were written since `began_s` (epoch seconds). Fails when a
    canary that is put into the database is not found in both.
    """
    database = database_of(uri)
    found = {path.name: names for path, names in _find_in_files(canaries, server, began_s)}
    found |= canaries.find_in_texts({"dump": server.dump(database)})
    control, planted = secrets.token_bytes(24), Canaries()
    planted.add("control", control)
    server.sql(
        f"CREATE TABLE canary_control (note text); INSERT INTO canary_control VALUES ('{control.hex()}')", database
    )
    try:
        assert planted.find(server.dump(database)) == {"control"}
        assert list(_find_in_files(planted, server, began_s))
    finally:
        server.sql("DROP TABLE canary_control", database)
    return found


def _find_in_files(canaries: Canaries, server: DatabaseServer, began_s: float) -> Iterator[tuple[Path, set[str]]]:
    deadline = time.monotonic() + 60
    for path in (server.directory / "data").rglob("*"):
        assert time.monotonic() < deadline
        with suppress(FileNotFoundError):
            if path.is_file() and path.stat().st_mtime >= began_s - 1 and (names := canaries.find_in_file(path)):
                yield path, names
