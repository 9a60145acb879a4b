"""The real server on a store that only a remote protector opens, or that a database server holds, started or hurt while
that is away: it waits, says so to each client and to the audit log, and serves by itself when it is back.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from aws_kms_double import AwsKmsDouble
from databases import DatabaseServer, running_mariadb, running_postgresql
from http_serving import Answer
from java_load import running_java_client
from kms_serving import KmsPlace, RunningKms, call, json_of, remote_exception_of
from protected_kms import Protected, create, decrypt, generate
from protector_places import RemotePlace

from ringfence_agent.keystore.protectors.aws_kms_config import AwsKmsSettings

DEADLINE_S = 30.0
RETRIABLE = "org.apache.hadoop.ipc.RetriableException"
PROTECTORS = ["vault-transit", "aws-kms"]
REQUESTS = [
    ("OPTIONS", "/kms/v1/keys/names"),
    ("GET", "/kms/v1/keys/names"),
    ("POST", "/kms/v1/keys"),
    ("GET", "/ringfence/v1/status"),
    ("GET", "/metrics"),
    ("GET", "/jmx"),
    ("POST", "/health/ready"),
    ("GET", "/nothing"),
]

# With one key server Hadoop's client tries once more and gives up; and it makes no pause between its tries.
PATIENT = {"hadoop.security.kms.client.failover.max.retries": "1000000"}

Eek = tuple[str, dict[str, str]]


@dataclass
class Scene:
    """A protector that can be away, and a store that it opens alone, with one key."""

    protected: Protected
    protector: str
    remote: RemotePlace
    eek: Eek

    @contextmanager
    def away(self) -> Iterator[Callable[[], object]]:
        """While the block runs, or until it calls what it is given."""
        assert self.remote.stop is not None and self.remote.start is not None
        self.remote.stop()
        try:
            yield self.remote.start
        finally:
            self.remote.start()

    @contextmanager
    def serving(self, workers: int = 1) -> Iterator[RunningKms]:
        with self.protected.serving(self.protector, workers=workers) as kms:
            yield kms


@pytest.fixture(params=PROTECTORS)
def scene(request: pytest.FixtureRequest, protected: Protected, find_remote: Callable[[str], RemotePlace]) -> Scene:
    with protected.serving(request.param, init=True) as kms:
        client = kms.one_worker()
        assert create(client, "k").status == 201
        eek = generate(client, "k")
    return Scene(protected, request.param, find_remote(request.param), eek)


def ask(kms: RunningKms, method: str, path: str) -> Answer:
    with kms.connect() as client:
        return call(client, method, path)


def until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline, f"waited in vain for {what}"
        time.sleep(0.05)


def is_served(kms: RunningKms, eek: Eek) -> bool:
    with kms.connect() as client:
        return decrypt(client, eek).status == 200


def children_of(pid: int) -> set[int]:
    return {int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()}


def test_a_server_started_while_its_protector_is_away_refuses_says_so_and_serves_by_itself(scene: Scene) -> None:
    with scene.away() as come_back, scene.serving(workers=2) as kms:
        workers = children_of(kms.process.pid)
        for method, path in REQUESTS:
            answer = ask(kms, method, path)
            status, kind, message = remote_exception_of(answer)
            assert (status, kind, message) == (
                503,
                RETRIABLE,
                "the key server cannot open its key store yet: try again",
            )
            assert answer.header("Connection") == "close"
        with kms.connect() as client:
            assert remote_exception_of(decrypt(client, scene.eek))[:2] == (503, RETRIABLE)
        assert json_of(ask(kms, "GET", "/health/live")) == {"live": True}
        ready = ask(kms, "GET", "/health/ready")
        assert (ready.status, json_of(ready)) == (503, {"ready": False})
        with kms.connect_admin() as admin:
            (problem,) = json_of(call(admin, "GET", "/health/ready", user=None))["problems"]
            assert problem == remote_exception_of(call(admin, "GET", "/ringfence/v1/status", user=None))[2]
        come_back()
        until(lambda: all(is_served(kms, scene.eek) for _ in range(10)), "every worker to serve")
        assert ask(kms, "GET", "/health/ready").status == 200
        for client in kms.every_worker():
            assert decrypt(client, scene.eek).status == 200
        assert create(kms.one_worker(), "new").status == 201
        assert children_of(kms.process.pid) == workers
    refused = [line for line in scene.protected.place.audit_lines() if line["status"] == 503]
    for method, path in [*REQUESTS, ("POST", "/kms/v1/keyversion/k%400/_eek")]:
        (line, *_) = [line for line in refused if (line["method"], line["path"]) == (method, path)]
        assert (line["outcome"], line["user"], line["identity"]) == ("failed", None, "none")
        assert line["error"] == problem


def test_hadoops_client_that_tries_for_long_enough_outlasts_the_wait(scene: Scene) -> None:
    with (
        scene.away() as come_back,
        scene.serving() as kms,
        running_java_client(f"kms://http@localhost:{kms.port}/kms", PATIENT) as java,
    ):
        java.begin("versions", key="k")
        until(lambda: len(refusals(scene)) >= 3, "the client to try again")
        assert not java.is_done()
        come_back()
        assert java.result() == {"result": 1}
        assert java.do("create", key="made") == {"result": "made@0"}


def refusals(scene: Scene) -> list[object]:
    return [line for line in scene.protected.place.audit_lines() if line["status"] == 503]


def test_a_waiting_server_stops_like_any_other_and_tells_the_command_why(scene: Scene) -> None:
    with scene.away(), scene.serving() as kms:
        command = [scene.protected.place.command()[0], "kms", "status", "--admin-socket"]
        shown = subprocess.run(
            [*command, str(kms.place.admin_socket)], capture_output=True, text=True, timeout=60, check=False
        )
        assert shown.returncode == 1
        assert "refuses: " in shown.stderr
    assert kms.process.returncode == 0


def test_a_worker_that_dies_while_the_protector_is_away_comes_back_without_a_restart(scene: Scene) -> None:
    with scene.serving() as kms:
        assert is_served(kms, scene.eek)
        with scene.away() as come_back:
            (worker,) = children_of(kms.process.pid)
            os.kill(worker, signal.SIGKILL)
            until(lambda: statuses(kms, scene.eek) == {503}, f"another worker than {worker}")
            come_back()
            until(lambda: is_served(kms, scene.eek), "the new worker to serve")


def statuses(kms: RunningKms, eek: Eek) -> set[int]:
    """Of one decrypt; empty while nobody answers."""
    try:
        with kms.connect() as client:
            return {decrypt(client, eek).status}
    except OSError:
        return set()


def test_a_reload_while_the_protector_is_away_leaves_the_worker_with_its_warm_keys(scene: Scene) -> None:
    with scene.serving() as kms:
        client = kms.one_worker()
        assert decrypt(client, scene.eek).status == 200
        workers = children_of(kms.process.pid)
        with scene.away():
            kms.process.send_signal(signal.SIGHUP)
            until(lambda: "reload given up" in log_of(kms), "the reload to be given up")
            assert children_of(kms.process.pid) == workers
            assert decrypt(client, scene.eek).status == 200
            assert is_served(kms, scene.eek)


def log_of(kms: RunningKms) -> str:
    """What came on standard error since the last look."""
    assert kms.process.stderr is not None
    descriptor = kms.process.stderr.fileno()
    os.set_blocking(descriptor, False)
    try:
        return os.read(descriptor, 1 << 20).decode()
    except BlockingIOError:
        return ""
    finally:
        os.set_blocking(descriptor, True)


def test_making_a_store_waits_for_nobody(protected: Protected, find_remote: Callable[[str], RemotePlace]) -> None:
    vault = find_remote("vault-transit")
    assert vault.stop is not None and vault.start is not None
    vault.stop()
    try:
        assert refused(protected, "vault-transit", "--init") == 1
        assert not protected.place.store.exists()
    finally:
        vault.start()


def test_a_protector_that_refuses_is_not_waited_for(
    protected: Protected, aws_kms_double: AwsKmsDouble, aws_kms_settings: AwsKmsSettings
) -> None:
    with protected.serving("aws-kms", init=True):
        pass
    admin = aws_kms_double.client("kms", aws_kms_double.admin)
    admin.disable_key(KeyId=aws_kms_settings.key)
    try:
        assert refused(protected, "aws-kms") == 1
    finally:
        admin.enable_key(KeyId=aws_kms_settings.key)


def refused(protected: Protected, protector: str, *options: str) -> int:
    """The exit code of a server that does not start."""
    protected.name(protector)
    command = [*protected.place.command(*options), "--config", str(protected.config)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert "ready" not in done.stdout
    return done.returncode


# -- a store in a database server


@dataclass
class DatabasePlace(KmsPlace):
    """A KMS whose keys rest in a database server of its own."""

    uri: str = ""
    password_file: Path = Path()

    @classmethod
    def on(cls, server: DatabaseServer, directory: Path) -> DatabasePlace:
        KmsPlace.make(directory)
        place = cls(directory, server.new_database(), server.password_file)
        place.config.write_text(
            f"admin: {{socket: {place.admin_socket}}}\naudit: {{directory: {place.audit_directory}}}\n"
        )
        return place

    def command(self, *options: str) -> list[str]:
        found = super().command(*options, "--root-key", str(self.directory / "root.key"))
        found[found.index("--keystore") + 1] = self.uri
        return [
            *found,
            *("--keystore-password-file", str(self.password_file), "--config", str(self.config)),
        ]

    @property
    def config(self) -> Path:
        return self.directory / "kms.yaml"


@pytest.fixture(params=["postgresql", pytest.param("mariadb", marks=pytest.mark.long)])
def database(request: pytest.FixtureRequest) -> Iterator[DatabaseServer]:
    run = running_postgresql if request.param == "postgresql" else running_mariadb
    with run() as server:
        yield server


def test_a_server_started_while_its_database_is_down_waits_and_serves_by_itself(
    database: DatabaseServer, tmp_path: Path
) -> None:
    place = DatabasePlace.on(database, tmp_path)
    with place.serving(1, "--init") as kms:
        client = kms.one_worker()
        assert create(client, "k").status == 201
        eek = generate(client, "k")
    database.stop()
    with place.serving(2) as kms:
        workers = children_of(kms.process.pid)
        for method, path in REQUESTS:
            assert remote_exception_of(ask(kms, method, path))[:2] == (503, RETRIABLE)
        assert json_of(ask(kms, "GET", "/health/live")) == {"live": True}
        assert ask(kms, "GET", "/health/ready").status == 503
        with kms.connect_admin() as admin:
            (problem,) = json_of(call(admin, "GET", "/health/ready", user=None))["problems"]
        assert problem.startswith(f"key store {place.uri} cannot be reached")
        assert problem in log_of(kms)
        database.start()
        until(lambda: all(is_served(kms, eek) for _ in range(10)), "every worker to serve")
        for client in kms.every_worker():
            assert decrypt(client, eek).status == 200
        assert children_of(kms.process.pid) == workers


def test_a_server_that_waits_for_its_database_stops_when_told_and_makes_no_store(
    database: DatabaseServer, tmp_path: Path
) -> None:
    place = DatabasePlace.on(database, tmp_path)
    database.stop()
    command = place.command("--workers", "1", "--init")
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, "cannot be reached" in done.stderr) == (1, True)
    assert not (tmp_path / "root.key").exists()
    (tmp_path / "root.key").touch()
    with place.serving(1) as kms:
        assert ask(kms, "GET", "/health/ready").status == 503
    assert kms.process.returncode == 0
