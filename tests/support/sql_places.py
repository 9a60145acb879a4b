"""Where tables beside a key store may lie: a file, or a database of each server."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from databases import DatabaseServer

ENGINES = ["sqlite", "postgresql", pytest.param("mariadb", marks=pytest.mark.long)]


@dataclass(frozen=True)
class SqlPlace:
    """What opens it: its URI, and a server's password."""

    uri: str
    password_file: Path | None


@pytest.fixture(params=ENGINES)
def sql_place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[SqlPlace]:
    """A new one, with nothing in it."""
    if request.param == "sqlite":
        tmp_path.chmod(0o700)
        yield SqlPlace(f"sqlite:///{tmp_path}/k.db", None)
        return
    server: DatabaseServer = request.getfixturevalue(request.param)
    uri = server.new_database()
    yield SqlPlace(uri, server.password_file)
    server.recycle(uri)
