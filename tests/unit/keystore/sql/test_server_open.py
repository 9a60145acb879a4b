"""Store and root key of a shared store come into being together, once, whoever starts first and whatever is killed."""

from __future__ import annotations

import os
import select
import shutil
import signal
import stat
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from databases import DatabaseServer
from local_stores import in_child, kill, new_key, read_all
from shared_store import SharedStore
from sqlalchemy import Engine, event

from ringfence_agent.keystore.protectors.file import new_root_key_text
from ringfence_zones.errors import ConfigError, RingfenceError, StoreTamperedError, WrongRootKeyError

KINDS = ["postgresql", pytest.param("mariadb", marks=pytest.mark.long)]
ANSWER_WAIT_S = 30.0


@pytest.fixture(params=KINDS)
def shared(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    server: DatabaseServer = request.getfixturevalue(request.param)
    uri = server.new_database()
    yield SharedStore(server, uri, tmp_path)
    server.recycle(uri)


def refusal(shared: SharedStore, kind: type[RingfenceError], *, init: bool = False) -> str:
    with pytest.raises(kind) as caught:
        shared.open(init=init)
    return f"{caught.value} {caught.value.hint}"


def test_a_store_that_is_not_there_needs_leave_and_nothing_is_left(shared: SharedStore) -> None:
    assert "start once with --init" in refusal(shared, ConfigError)
    assert shared.files() == []


def test_with_leave_both_are_made_and_both_open_without_it(shared: SharedStore) -> None:
    store = shared.open(init=True)
    store.create_key(new_key("k"))
    store.close()
    assert shared.files() == ["root.key"]
    assert stat.S_IMODE(shared.root_key.stat().st_mode) == 0o600
    for init in (False, True):
        again = shared.open(init=init)
        assert again.find_key("k") is not None
        again.close()


def test_a_root_key_without_its_store_makes_no_new_one(shared: SharedStore) -> None:
    shared.root_key.write_bytes(new_root_key_text())
    shared.root_key.chmod(0o600)
    assert "holds no key store" in refusal(shared, ConfigError, init=True)


def test_a_store_without_its_root_key_makes_no_new_one(shared: SharedStore) -> None:
    shared.open(init=True).close()
    other = shared.on_another_host("other")
    assert "copy the root key file from another instance" in refusal(other, ConfigError, init=True)
    assert other.files() == []
    shutil.copy(shared.root_key, other.root_key)
    other.open().close()


def test_another_root_key_is_refused_before_anything_is_read(shared: SharedStore) -> None:
    shared.open(init=True).close()
    other = shared.on_another_host("other")
    other.root_key.write_bytes(new_root_key_text())
    other.root_key.chmod(0o600)
    assert "is not the root key of" in refusal(other, WrongRootKeyError)


def in_children(actions: list[Callable[[], None]]) -> list[str]:
    """What several processes say that act at once, sorted: "ok" or the kind of error."""

    def act(action: Callable[[], None], report: int) -> None:
        try:
            action()
        except RingfenceError as error:
            os.write(report, f"{type(error).__name__}\n".encode())
        else:
            os.write(report, b"ok\n")

    ends = [in_child(lambda report, action=action: act(action, report))[1] for action in actions]
    return sorted(read_all(end)[0] for end in ends)


def test_workers_of_one_host_that_start_together_make_one_store(shared: SharedStore) -> None:
    assert in_children([lambda: shared.open(init=True).close()] * 4) == ["ok"] * 4
    assert shared.files() == ["root.key"]


def test_of_several_hosts_that_start_together_one_makes_the_store(shared: SharedStore) -> None:
    hosts = [shared.on_another_host(f"host{number}") for number in range(4)]
    said = in_children([lambda host=host: host.open(init=True).close() for host in hosts])
    assert said == ["ConfigError", "ConfigError", "ConfigError", "ok"]
    (winner,) = [host for host in hosts if host.files()]
    winner.open().close()


def stop_at(number: int, report: int, directory: Path) -> list[int]:
    """Counts statements, commits and file operations of this process; waits to be killed before number `number`."""
    count = [0]

    def reached(*_: object) -> None:
        if count[0] == number:
            os.write(report, b"reached\n")
            signal.pause()
        count[0] += 1

    def audit(name: str, arguments: tuple[Any, ...]) -> None:
        if name in {"open", "os.link", "os.remove"} and str(directory) in str(arguments[0]):
            reached()

    for what in ("before_cursor_execute", "commit"):
        event.listen(Engine, what, reached)
    sys.addaudithook(audit)
    return count


@pytest.mark.long
def test_a_creation_killed_at_any_point_is_completed_by_the_next_start(shared: SharedStore) -> None:
    def rehearse(report: int) -> None:
        host = shared.on_another_host("rehearsal")
        count = stop_at(-1, report, host.directory)
        host.open(init=True).close()
        os.write(report, f"{count[0]}\n".encode())

    points = int(read_all(in_child(rehearse)[1])[0])
    shared.server.recycle(shared.uri)
    assert shared.server.new_database() == shared.uri
    assert points > 40
    finished_later = 0
    for number in range(points):
        host = shared.on_another_host(str(number))

        def act(report: int, number: int = number, host: SharedStore = host) -> None:
            stop_at(number, report, host.directory)
            host.open(init=True).close()

        pid, read_end = in_child(act)
        try:
            assert select.select([read_end], [], [], ANSWER_WAIT_S)[0]
            assert os.read(read_end, 100) == b"reached\n", f"crash point {number} was not reached"
        finally:
            kill(pid)
            os.close(read_end)
        finished_later += not host.root_key.exists()
        store = host.open(init=True)
        store.create_key(new_key("k"))
        store.close()
        assert host.files() == ["root.key"], number
        shared.server.recycle(shared.uri)
        assert shared.server.new_database() == shared.uri
    assert 0 < finished_later < points


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE zone_key SET length_bits = 128",
        "UPDATE zone_key SET deleted_ms = 5 WHERE length_bits = 256",
        "DELETE FROM key_version WHERE version = 0",
        "UPDATE key_version SET version = 7 WHERE version = 1",
        "DELETE FROM policy_revision",
        "UPDATE policy_revision SET revision = 2",
        "UPDATE store_header SET created_ms = 5",
        "ALTER TABLE zone_key ADD COLUMN extra BIGINT",
        "ALTER TABLE delegation_token RENAME TO elsewhere",
    ],
)
def test_an_edited_database_is_not_opened(shared: SharedStore, statement: str) -> None:
    store = shared.open(init=True)
    store.create_key(new_key("k"))
    store.roll_key("k", None)
    store.publish_policy(0, b"{}", "root")
    store.close()
    shared.open().close()
    shared.sql(statement)
    refusal(shared, StoreTamperedError)


def test_a_trigger_is_found(shared: SharedStore) -> None:
    shared.open(init=True).close()
    if shared.server.kind == "postgresql":
        shared.sql(
            "CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';"
            " CREATE TRIGGER t BEFORE INSERT ON zone_key EXECUTE FUNCTION f()"
        )
    else:
        shared.sql("CREATE TRIGGER t BEFORE INSERT ON zone_key FOR EACH ROW SET NEW.length_bits = 0")
    assert "zone_key has a trigger" in refusal(shared, StoreTamperedError)


def test_an_edited_row_is_refused_by_a_store_that_is_open(shared: SharedStore) -> None:
    store = shared.open(init=True)
    store.create_key(new_key("k"))
    shared.sql("UPDATE zone_key SET length_bits = 128")
    with pytest.raises(StoreTamperedError):
        store.find_key("k")
    with pytest.raises(StoreTamperedError):
        store.roll_key("k", None)
    store.close()
