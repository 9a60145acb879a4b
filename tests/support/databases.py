"""Real database servers for tests: one PostgreSQL and one MariaDB for the session, made when a test first asks.

Each has a data directory, a port and a password of its own, listens on loopback alone, and keeps commits durable as
the product demands. As root they run as the system user that their package brought, since neither runs as root. The
packaged instances are never touched. A missing server fails the test: nothing here skips.

A test that stops or breaks a server starts one of its own with `running_postgresql` or `running_mariadb`.
"""

from __future__ import annotations

import itertools
import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest

_START_TIMEOUT_S = 60.0
_POLL_S = 0.05
_ROOM_BYTES = 2 << 30
_OWNER = "ringfence"


@dataclass
class DatabaseServer:
    """A running server. `new_database` gives each test a database of its own."""

    kind: str
    directory: Path
    account: str
    port: int
    password_file: Path
    command: list[str]
    process: subprocess.Popen[bytes] | None = None
    _numbers: Iterator[int] = field(default_factory=itertools.count)
    _free: list[str] = field(default_factory=list)

    def new_database(self) -> str:
        """An empty database; its URI without a password, which is in `password_file`."""
        if self._free:
            name = self._free.pop()
        else:
            name = f"keys{next(self._numbers)}"
            self.sql(f"CREATE DATABASE {name}" + (f" OWNER {_OWNER}" if self.kind == "postgresql" else ""))
        return f"{self.kind}://{_OWNER}@127.0.0.1:{self.port}/{name}"

    def recycle(self, uri: str) -> None:
        """Empties a database that nobody has open any more: faster than a new one for each test."""
        name = database_of(uri)
        if self.kind == "postgresql":
            for schema in ("ringfence", "ringfence_flow", "ringfence_lease"):
                self.sql(f"DROP SCHEMA IF EXISTS {schema} CASCADE", name)
        else:
            self.sql(f"DROP DATABASE {name}; CREATE DATABASE {name}")
        self._free.append(name)

    def copy(self, uri: str) -> str:
        """A database of its own with all that is in another, which nobody has open; `drop` it."""
        name, source = f"keys{next(self._numbers)}", database_of(uri)
        if self.kind == "postgresql":
            self.sql(f"CREATE DATABASE {name} TEMPLATE {source} OWNER {_OWNER}")
        else:
            self.sql(f"CREATE DATABASE {name}")
            self.sql(self.dump(source).decode(), name)
        return f"{uri.rpartition('/')[0]}/{name}"

    def drop(self, uri: str) -> None:
        """Takes a database away, with the sessions of clients that died."""
        self.sql(f"DROP DATABASE {database_of(uri)}" + (" WITH (FORCE)" if self.kind == "postgresql" else ""))

    def sql(self, statement: str, database: str = "") -> str:
        """Runs a statement as the server's administrator, over its Unix socket; what it printed."""
        if self.kind == "postgresql":
            command = [_postgresql_program("psql"), "-qtAX", "-v", "ON_ERROR_STOP=1", "-h", str(self.directory)]
            command += ["-p", str(self.port), "-U", "postgres", "-d", database or "postgres", "-c", statement]
        else:
            command = ["mariadb", "--no-defaults", "-N", "-B", "-u", "root", f"--socket={self.directory}/socket"]
            command += [*([f"--database={database}"] if database else []), "-e", statement]
        return _run_as(self.account, command, self.directory)

    def dump(self, database: str) -> bytes:
        """All that one of its databases holds, as an administrator's backup has it; binary columns in hex."""
        if self.kind == "postgresql":
            command = [_postgresql_program("pg_dump"), "-h", str(self.directory), "-p", str(self.port)]
            command += ["-U", "postgres", database]
        else:
            command = ["mariadb-dump", "--no-defaults", "--hex-blob", "-u", "root"]
            command += [f"--socket={self.directory}/socket", database]
        return _run_as(self.account, command, self.directory).encode()

    def start(self) -> None:
        """Starts it on its port and waits until it answers."""
        log = (self.directory / "log").open("ab")
        with log:
            self.process = subprocess.Popen(
                self.command,
                cwd=self.directory,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=_environment(self.directory),
                **_identity(self.account),
            )
        deadline = time.monotonic() + _START_TIMEOUT_S
        while True:
            with suppress(AssertionError):
                self.sql("SELECT 1")
                break
            assert self.process.poll() is None, (self.directory / "log").read_text()[-2000:]
            assert time.monotonic() < deadline, (self.directory / "log").read_text()[-2000:]
            time.sleep(_POLL_S)

    def stop(self, number: signal.Signals | None = None) -> None:
        """Ends it, by default as fast as it can cleanly: clients' connections are cut."""
        if self.process is None:
            return
        fast = signal.SIGINT if self.kind == "postgresql" else signal.SIGTERM
        self.process.send_signal(number or fast)
        self.process.wait(_START_TIMEOUT_S)
        self.process = None

    def kill(self) -> None:
        """As a power failure of the server's process."""
        self.stop(signal.SIGQUIT if self.kind == "postgresql" else signal.SIGKILL)


def database_of(uri: str) -> str:
    """The database that a URI names."""
    return uri.rpartition("/")[2]


def _postgresql_program(name: str) -> str:
    found = shutil.which(name)
    packaged = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"), key=lambda path: int(path.parts[-3]))
    program = str(packaged[-1]) if packaged else found
    assert program, f"{name} is not here: packaging/scripts/setup installs PostgreSQL"
    return program


def _mariadb_program(name: str) -> str:
    program = shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/libexec")
    assert program, f"{name} is not here: packaging/scripts/setup installs MariaDB"
    return program


def _account(packaged: str) -> str:
    """Who runs the server: this user, or the package's user in place of root."""
    return packaged if os.geteuid() == 0 else pwd.getpwuid(os.geteuid()).pw_name


def _identity(account: str) -> dict[str, object]:
    if os.geteuid() != 0:
        return {}
    entry = pwd.getpwnam(account)
    return {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}


def _environment(directory: Path) -> dict[str, str]:
    return {"PATH": os.environ.get("PATH", "") + ":/usr/sbin", "HOME": str(directory), "LC_ALL": "C.UTF-8"}


def _run_as(account: str, command: Sequence[str], directory: Path) -> str:
    done = subprocess.run(
        command,
        cwd=directory,
        env=_environment(directory),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        **_identity(account),  # type: ignore[call-overload]
    )
    assert done.returncode == 0, f"{command[0]}: {done.stderr[-2000:]}"
    return str(done.stdout)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def _directory(account: str) -> Iterator[Path]:
    # Not under pytest's directory, which other users cannot enter; short, since a Unix socket's path is. In memory
    # where there is room: the server syncs as ever, and what survives is what survives the death of a process.
    memory = Path("/dev/shm")
    roomy = memory.is_dir() and shutil.disk_usage(memory).free > _ROOM_BYTES
    with tempfile.TemporaryDirectory(prefix="rf-db-", dir=memory if roomy else None) as name:
        directory = Path(name)
        if os.geteuid() == 0:
            entry = pwd.getpwnam(account)
            os.chown(directory, entry.pw_uid, entry.pw_gid)
        yield directory


def _password_file(directory: Path, password: str) -> Path:
    """Beside the server's directory: it belongs to the tests, the server's directory to the server."""
    path = directory.with_name(directory.name + ".password")
    path.touch(mode=0o600)
    path.write_text(password + "\n")
    return path


@contextmanager
def _running(server: DatabaseServer) -> Iterator[DatabaseServer]:
    try:
        server.start()
        yield server
    finally:
        server.stop()
        server.password_file.unlink(missing_ok=True)


@contextmanager
def running_postgresql(*settings: str) -> Iterator[DatabaseServer]:
    """A PostgreSQL server; `settings` are NAME=VALUE."""
    account, port, password = _account("postgres"), _free_port(), secrets.token_hex(16)
    with _directory(account) as directory:
        data = directory / "data"
        _run_as(
            account,
            [
                *(_postgresql_program("initdb"), "-D", str(data), "-U", "postgres", "--encoding=UTF8"),
                *("--locale=C.UTF-8", "--auth-local=trust", "--auth-host=scram-sha-256", "--no-sync"),
            ],
            directory,
        )
        command = [_postgresql_program("postgres"), "-D", str(data), "-p", str(port), "-h", "127.0.0.1"]
        for setting in (f"unix_socket_directories={directory}", "max_connections=200", *settings):
            command += ["-c", setting]
        file = _password_file(directory, password)
        with _running(DatabaseServer("postgresql", directory, account, port, file, command)) as server:
            server.sql(f"CREATE ROLE {_OWNER} LOGIN PASSWORD '{password}'")
            yield server


@contextmanager
def running_mariadb(*options: str) -> Iterator[DatabaseServer]:
    """A MariaDB server; `options` are those of mariadbd."""
    account, port, password = _account("mysql"), _free_port(), secrets.token_hex(16)
    with _directory(account) as directory:
        data = directory / "data"
        _run_as(
            account,
            [
                *(_mariadb_program("mariadb-install-db"), "--no-defaults", f"--datadir={data}", "--skip-test-db"),
                *("--auth-root-authentication-method=normal", "--skip-name-resolve"),
            ],
            directory,
        )
        command = [_mariadb_program("mariadbd"), "--no-defaults", f"--datadir={data}", f"--port={port}"]
        # A server that starts deletes others' temporary tables where they share a directory for them.
        command += [f"--tmpdir={directory}"]
        command += ["--bind-address=127.0.0.1", f"--socket={directory}/socket", f"--pid-file={directory}/pid"]
        command += ["--skip-name-resolve", "--max-connections=200", *options]
        file = _password_file(directory, password)
        with _running(DatabaseServer("mysql", directory, account, port, file, command)) as server:
            server.sql(f"CREATE USER {_OWNER}@127.0.0.1 IDENTIFIED BY '{password}'")
            server.sql(f"GRANT ALL ON `keys%`.* TO {_OWNER}@127.0.0.1")
            yield server


@pytest.fixture(scope="session")
def postgresql() -> Iterator[DatabaseServer]:
    """The session's PostgreSQL server."""
    with running_postgresql() as server:
        yield server


@pytest.fixture(scope="session")
def mariadb() -> Iterator[DatabaseServer]:
    """The session's MariaDB server."""
    with running_mariadb() as server:
        yield server
