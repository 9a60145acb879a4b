"""A restore into a database server, killed at every row it writes and around its commit."""

from __future__ import annotations

import os
import select
import signal
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from backups import BackupScene
from databases import DatabaseServer
from local_stores import in_child, kill, read_all

from ringfence_agent.keystore.backup.places import opened_backup
from ringfence_agent.keystore.backup.restore import Restored, restore
from ringfence_agent.keystore.backup.targets import find_target
from ringfence_agent.keystore.sql import server_database
from ringfence_zones.errors import StoreUnavailableError

ANSWER_WAIT_S = 30.0


@pytest.fixture(params=["postgresql", pytest.param("mariadb", marks=pytest.mark.long)])
def server(request: pytest.FixtureRequest) -> DatabaseServer:
    found: DatabaseServer = request.getfixturevalue(request.param)
    return found


@pytest.fixture
def uri(server: DatabaseServer) -> Iterator[str]:
    named = server.new_database()
    yield named
    server.recycle(named)


def bring_back(scene: BackupScene, where: str, uri: str, server: DatabaseServer) -> Restored:
    with opened_backup(where) as backup:
        return restore(backup, scene.protectors, find_target(uri, server.password_file), [])


def stopping_at(number: int, report: int) -> Callable[[], None]:
    """Waits to be killed when it is called for this time."""
    count = 0

    def reached() -> None:
        nonlocal count
        if count == number:
            os.write(report, b"reached\n")
            signal.pause()
        count += 1

    return reached


def killed_at(number: int, scene: BackupScene, where: str, uri: str, server: DatabaseServer) -> bool:
    """Restores in a child that is killed at its point with this number; False when it has not so many."""

    def act(report: int) -> None:
        reached = stopping_at(number, report)
        real_insert, real_create = server_database.ServerDatabase._insert, server_database.ServerDatabase.create

        def insert(*arguments: object) -> None:
            reached()
            real_insert(*arguments)  # type: ignore[arg-type]

        def create(*arguments: object, **named: object) -> None:
            reached()
            real_create(*arguments, **named)  # type: ignore[arg-type]
            reached()

        server_database.ServerDatabase._insert = insert  # type: ignore[method-assign, assignment]
        server_database.ServerDatabase.create = create  # type: ignore[method-assign, assignment]
        bring_back(scene, where, uri, server)
        os.write(report, b"done\n")

    pid, read_end = in_child(act)
    assert select.select([read_end], [], [], ANSWER_WAIT_S)[0]
    said = os.read(read_end, 100)
    if said == b"reached\n":
        kill(pid)
        os.close(read_end)
        return True
    assert said == b"done\n"
    assert read_all(read_end) == []
    os.waitpid(pid, 0)
    return False


def test_a_restore_killed_at_any_point_is_finished_by_the_next(
    tmp_path: Path, server: DatabaseServer, uri: str
) -> None:
    scene = BackupScene.make(tmp_path)
    made = scene.back_up()
    number, outcomes = 0, []
    while killed_at(number, scene, made.where, uri, server):
        done = finish(scene, made.where, uri, server)
        outcomes.append(done.was_there)
        with closing(find_target(uri, server.password_file).open(scene.protectors)) as store:
            assert [key.name for key in store.list_metadata()] == ["again", "plain", "rolled"], number
            assert store.change_number() == made.manifest.change_number
        server.recycle(uri)
        assert server.new_database() == uri
        number += 1
    # Before the first row, before each row, and after the commit.
    assert number == sum(made.manifest.rows.values()) - made.manifest.rows["canary"] + 2
    assert outcomes == [False] * (number - 1) + [True]


def finish(scene: BackupScene, where: str, uri: str, server: DatabaseServer) -> Restored:
    """The killed session's lock may outlive it for a moment."""
    for _ in range(3):
        try:
            return bring_back(scene, where, uri, server)
        except StoreUnavailableError:
            continue
    raise AssertionError("the restore could not be finished")
