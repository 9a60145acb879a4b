"""Lost connections, stopped, locked and unfit database servers: a sentence each time, and then on by itself."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from cutting_proxy import cutting_proxy
from databases import DatabaseServer, database_of, running_mariadb, running_postgresql
from local_stores import new_key

from ringfence_agent.keystore.interface import OpenStore
from ringfence_agent.keystore.open import open_keystore
from ringfence_agent.keystore.sql import mariadb_database, postgresql_database
from ringfence_agent.keystore.sql import session as sql_session
from ringfence_agent.keystore.sql.server_address import parse_server_uri
from ringfence_agent.keystore.sql.server_errors import Cause
from ringfence_agent.keystore.sql.transactions import LOCK_HEADER
from ringfence_zones.errors import ConfigError, StoreUnavailableError, StoreUnreachableError

KINDS = ["postgresql", pytest.param("mariadb", marks=pytest.mark.long)]
ANSWER_WAIT_S = 8.0


@pytest.fixture(params=KINDS)
def server(request: pytest.FixtureRequest) -> DatabaseServer:
    """The session's server of one kind."""
    found: DatabaseServer = request.getfixturevalue(request.param)
    return found


@pytest.fixture(scope="module", params=KINDS)
def own_server(request: pytest.FixtureRequest) -> Iterator[DatabaseServer]:
    """A server that a test may stop and break."""
    with {"postgresql": running_postgresql, "mariadb": running_mariadb}[request.param]() as running:
        yield running


@contextmanager
def a_store(server: DatabaseServer, directory: Path, port: int | None = None) -> Iterator[tuple[OpenStore, str]]:
    uri = server.new_database()
    via = uri.replace(f":{server.port}/", f":{port}/") if port is not None else uri
    store = open_keystore(via, directory / "root.key", True, server.password_file)
    try:
        yield store, uri
    finally:
        store.close()
        server.recycle(uri)


def cut_every_session(server: DatabaseServer) -> None:
    if server.kind == "postgresql":
        server.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'ringfence'")
        return
    for number in server.sql("SELECT id FROM information_schema.processlist WHERE user = 'ringfence'").split():
        server.sql(f"KILL {number}")


def test_a_connection_lost_between_requests_is_made_again(server: DatabaseServer, tmp_path: Path) -> None:
    with a_store(server, tmp_path) as (store, _):
        store.create_key(new_key("a"))
        owner_id = store.owner_id
        for name in ("b", "c"):
            cut_every_session(server)
            assert store.find_key("a") is not None
            store.create_key(new_key(name))
            assert store.next_sequence() > 0
        assert store.owner_id == owner_id
        assert store.is_alive(owner_id)
        assert [metadata.name for metadata in store.list_metadata()] == ["a", "b", "c"]


def test_a_connection_lost_within_a_change_changes_nothing_and_says_so(server: DatabaseServer, tmp_path: Path) -> None:
    with cutting_proxy(server.port) as proxy, a_store(server, tmp_path, proxy.port) as (store, _):
        for word in (b"INSERT INTO key_version", b"UPDATE store_header"):
            before = store.change_number()
            proxy.cut_at(word, forward=True)
            with pytest.raises(StoreUnavailableError, match="lost; nothing was changed"):
                store.create_key(new_key("k"))
            assert store.find_key("k") is None
            assert store.change_number() == before
        assert proxy.cuts == 2
        assert store.create_key(new_key("k")).name == "k@0"


def commit_of(server: DatabaseServer) -> bytes:
    """As the wire has it; PostgreSQL's BEGIN says READ COMMITTED."""
    return b"COMMIT\0" if server.kind == "postgresql" else b"\x03COMMIT"


def test_a_commit_whose_answer_is_lost_is_found_to_have_been_made(server: DatabaseServer, tmp_path: Path) -> None:
    with cutting_proxy(server.port) as proxy, a_store(server, tmp_path, proxy.port) as (store, _):
        proxy.cut_at(commit_of(server), forward=True)
        assert store.create_key(new_key("k")).name == "k@0"
        assert proxy.cuts == 1
        assert store.find_key("k") is not None
        assert store.roll_key("k", None).name == "k@1"


def test_a_commit_that_is_lost_on_its_way_is_found_not_to_have_been_made(
    server: DatabaseServer, tmp_path: Path
) -> None:
    with cutting_proxy(server.port) as proxy, a_store(server, tmp_path, proxy.port) as (store, _):
        proxy.cut_at(commit_of(server), forward=False)
        with pytest.raises(StoreUnavailableError, match="lost; nothing was changed"):
            store.create_key(new_key("k"))
        assert proxy.cuts == 1
        assert store.find_key("k") is None
        assert store.create_key(new_key("k")).name == "k@0"


@pytest.mark.parametrize("forward", [True, False], ids=["after it was made", "before it was made"])
def test_a_commit_whose_outcome_cannot_be_looked_up_is_said_to_be_unknown(
    server: DatabaseServer, tmp_path: Path, forward: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sql_session, "_OUTCOME_WAIT_S", 0.3)
    with cutting_proxy(server.port) as proxy, a_store(server, tmp_path, proxy.port) as (store, _):
        proxy.refuses_after_cut = True
        proxy.cut_at(commit_of(server), forward=forward)
        with pytest.raises(StoreUnavailableError, match="whether it was made is not known"):
            store.create_key(new_key("k"))
        proxy.refuses_after_cut = False
        assert (store.find_key("k") is not None) == forward
        store.create_key(new_key("other"))


@pytest.mark.parametrize("how", ["stop", "kill"])
def test_a_server_that_is_down_is_said_and_used_again_when_it_is_back(
    own_server: DatabaseServer, tmp_path: Path, how: str
) -> None:
    with a_store(own_server, tmp_path) as (store, _):
        store.create_key(new_key("k"))
        getattr(own_server, how)()
        began = time.monotonic()
        for action in (
            lambda: store.find_key("k"),
            lambda: store.roll_key("k", None),
            store.change_number,
            lambda: store.find_token(1),
        ):
            with pytest.raises(StoreUnavailableError) as caught:
                action()
            assert caught.value.hint
        assert time.monotonic() - began < ANSWER_WAIT_S
        own_server.start()
        assert store.roll_key("k", None).name == "k@1"
        assert store.find_key("k") is not None


def test_a_lock_that_another_session_keeps_is_waited_for_a_bounded_time(
    server: DatabaseServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(postgresql_database._SESSION, "lock_timeout", 300)
    monkeypatch.setattr(mariadb_database, "_SESSION", "SET SESSION innodb_lock_wait_timeout = 1")
    with a_store(server, tmp_path) as (store, uri):
        store.create_key(new_key("k"))
        other = open_keystore(uri, tmp_path / "root.key", False, server.password_file)
        session = other._session  # type: ignore[attr-defined]
        with session.transaction(LOCK_HEADER):
            with pytest.raises(StoreUnavailableError, match="stayed locked by someone else"):
                store.roll_key("k", None)
            assert store.find_key("k") is not None  # readers wait for nobody
        assert store.roll_key("k", None).name == "k@1"
        other.close()


def test_a_server_that_does_not_keep_what_it_acknowledges_is_refused(
    own_server: DatabaseServer, tmp_path: Path
) -> None:
    with a_store(own_server, tmp_path) as (_, uri):
        weaken, restore = {
            "postgresql": ("ALTER SYSTEM SET fsync = off", "ALTER SYSTEM RESET fsync"),
            "mysql": (
                "SET GLOBAL innodb_flush_log_at_trx_commit = 2",
                "SET GLOBAL innodb_flush_log_at_trx_commit = 1",
            ),
        }[own_server.kind]
        apply_setting(own_server, weaken)
        try:
            with pytest.raises(ConfigError, match="would lose keys"):
                eventually_refused(lambda: open_keystore(uri, tmp_path / "root.key", False, own_server.password_file))
        finally:
            apply_setting(own_server, restore)


def apply_setting(server: DatabaseServer, statement: str) -> None:
    server.sql(statement)
    if server.kind == "postgresql":
        server.sql("SELECT pg_reload_conf()")


def eventually_refused(open_it: Callable[[], OpenStore]) -> None:
    """A reloaded setting reaches new sessions after a moment."""
    deadline = time.monotonic() + ANSWER_WAIT_S
    while time.monotonic() < deadline:
        open_it().close()


@pytest.fixture
def hangs_up() -> Iterator[int]:
    """The port of what takes connections and closes them, as a proxy does before a server that is down."""

    def serve() -> None:
        with suppress(OSError):
            while True:
                listening.accept()[0].close()

    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=serve)
        thread.start()
        yield listening.getsockname()[1]
        listening.shutdown(socket.SHUT_RDWR)
        thread.join()


REACHED = 'connection failed: connection to server at "certificate.example.com" (10.0.0.1), port 5432 failed: '


@pytest.mark.parametrize(
    ("reason", "cause"),
    [
        (REACHED + "Connection refused", Cause.UNREACHABLE),
        (REACHED + "No route to host", Cause.UNREACHABLE),
        (REACHED + "server closed the connection unexpectedly", Cause.UNREACHABLE),
        (REACHED + "SSL SYSCALL error: EOF detected", Cause.UNREACHABLE),
        (REACHED + "FATAL:  the database system is starting up", Cause.UNREACHABLE),
        (REACHED + "FATAL:  the database system is not yet accepting connections", Cause.UNREACHABLE),
        (REACHED + "FATAL:  sorry, too many clients already", Cause.UNREACHABLE),
        (REACHED + "FATAL:  remaining connection slots are reserved for roles with SUPERUSER", Cause.UNREACHABLE),
        ("connection timeout expired", Cause.UNREACHABLE),
        ("failed to resolve host 'db.example.com': [Errno -3] Temporary failure", Cause.UNREACHABLE),
        (REACHED + 'FATAL:  role "kms" does not exist', Cause.REFUSED),
        (REACHED + 'FATAL:  password authentication failed for user "kms"', Cause.REFUSED),
        (REACHED + 'FATAL:  database "keys" does not exist', Cause.NO_DATABASE),
        (REACHED + "FATAL:  something of its own", None),
        (REACHED + "server requested a cleartext password", None),
        (REACHED + "SSL error: certificate verify failed", Cause.NO_TLS),
        (REACHED + "server does not support SSL, but SSL was required", Cause.NO_TLS),
        ('root certificate file "/x" does not exist', Cause.NO_TLS),
    ],
)
def test_what_passes_is_told_from_what_does_not(reason: str, cause: Cause | None) -> None:
    database = postgresql_database.PostgresqlDatabase(parse_server_uri("postgresql://kms@db.example.com/keys"), None)
    assert database._cause(OSError(reason)) == (cause, reason)


@pytest.mark.parametrize(
    ("wrong", "said", "passes"),
    [
        ("password", "refuses this user or password", False),
        ("user", "refuses this user or password", False),
        ("database", "without that database", False),
        ("port", "cannot be reached", True),
        ("hangs up", "cannot be reached|was lost", True),
    ],
)
def test_what_is_wrong_with_the_address_is_named_and_no_password(
    server: DatabaseServer, request: pytest.FixtureRequest, tmp_path: Path, wrong: str, said: str, passes: bool
) -> None:
    with a_store(server, tmp_path) as (_, good_uri):
        uri, password_file = good_uri, server.password_file
        if wrong == "password":
            password_file = tmp_path / "password"
            password_file.touch(mode=0o600)
            password_file.write_text("not-the-password\n")
        elif wrong == "database":
            # MariaDB says only to those with rights on it that a database is not there.
            uri = good_uri.replace(database_of(uri), "keys_none")
        elif wrong == "user":
            uri = good_uri.replace("//ringfence@", "//nobody-here@")
        elif wrong == "hangs up":
            uri = good_uri.replace(f":{server.port}/", f":{request.getfixturevalue('hangs_up')}/")
        else:
            uri = good_uri.replace(f":{server.port}/", ":1/")
        with pytest.raises(StoreUnavailableError, match=said) as caught:
            open_keystore(uri, tmp_path / "root.key", False, password_file)
        # A start waits for what passes, and for nothing else.
        assert isinstance(caught.value, StoreUnreachableError) is passes
        chain = f"{caught.value}{caught.value.hint}{caught.value.__cause__!r}"
        assert "not-the-password" not in chain
        assert server.password_file.read_text().strip() not in chain


def test_no_password_is_in_what_a_store_says_of_itself(server: DatabaseServer, tmp_path: Path) -> None:
    with a_store(server, tmp_path) as (store, _):
        password = server.password_file.read_text().strip()
        database = store._session._database  # type: ignore[attr-defined]
        for thing in (
            store.label,
            repr(database),
            repr(database._engine),
            repr(vars(database)),
            repr(database.address),
        ):
            assert password not in thing


def test_sessions_commit_to_disk_whatever_the_server_would_do_by_default(
    postgresql: DatabaseServer, tmp_path: Path
) -> None:
    with a_store(postgresql, tmp_path) as (store, uri):
        postgresql.sql(f"ALTER DATABASE {database_of(uri)} SET synchronous_commit = off")
        other = open_keystore(uri, tmp_path / "root.key", False, postgresql.password_file)
        writer = other._session._writer.get()  # type: ignore[attr-defined]
        assert writer.exec_driver_sql("SHOW synchronous_commit").scalar_one() == "on"
        other.close()
        postgresql.sql(f"ALTER DATABASE {database_of(uri)} RESET synchronous_commit")
        store.create_key(new_key("k"))


def test_a_server_that_stands_still_is_waited_for_a_bounded_time(
    own_server: DatabaseServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for engine in (postgresql_database, mariadb_database):
        monkeypatch.setattr(engine, "_SOCKET_WAIT_S", 1)
    monkeypatch.setattr(sql_session, "_OUTCOME_WAIT_S", 1.0)
    for engine in (postgresql_database, mariadb_database):
        monkeypatch.setattr(engine, "CONNECT_WAIT_S", 2)
    with a_store(own_server, tmp_path) as (store, _):
        store.create_key(new_key("k"))
        with standing_still(own_server):
            for action in (lambda: store.find_key("k"), lambda: store.roll_key("k", None)):
                began = time.monotonic()
                with pytest.raises(StoreUnavailableError):
                    action()
                assert time.monotonic() - began < 2 * ANSWER_WAIT_S
        assert store.find_key("k") is not None
        assert store.roll_key("k", None).version >= 1


@contextmanager
def standing_still(server: DatabaseServer) -> Iterator[None]:
    """Every process of the server is stopped, and its sockets stay as they are."""
    assert server.process is not None
    pids = [server.process.pid, *children_of(server.process.pid)]
    try:
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        yield
    finally:
        for pid in reversed(pids):
            os.kill(pid, signal.SIGCONT)


def children_of(pid: int) -> list[int]:
    return [int(child) for path in Path(f"/proc/{pid}/task").glob("*/children") for child in path.read_text().split()]
