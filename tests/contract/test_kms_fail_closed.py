"""The fail-closed table against the real server: each row is a test, and the file of rows decides.

A row's function here puts the server into the row's state and takes it back; what must come of it stands in
`tests/vectors/fail_closed_kms.yaml` alone.
"""

from __future__ import annotations

import json
import os
import resource
import select
import shutil
import signal
import sqlite3
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import pytest
from aws_kms_double import AwsKmsDouble
from aws_kms_places import make_key
from certificates import Certificates
from databases import DatabaseServer, database_of, running_postgresql
from fail_closed import OPERATIONS, Row, World, read_rows
from http_serving import Answer
from kdc import Kdc
from kerberos_kms import KerberosKms, kerberos_site, negotiate_header
from kms_serving import DEADLINE_S, OPEN_ACLS, KmsPlace, RunningKms, call
from local_stores import can_mount, tmpfs
from store_places import VaultKvPlace
from vault_clusters import VaultCluster
from vault_doubles import VaultDouble
from vault_settings import write_private

from ringfence_agent.flow.place import flows_path
from ringfence_agent.keystore.beside import beside
from ringfence_agent.leases.place import SUFFIX as LEASES_SUFFIX
from ringfence_agent.vault.policy import PolicyRole, policy_name

BOUND_S = 6.0
KEY_MEMORY_S = 3.0
MEMORY_S = {"bound": BOUND_S, "half the bound": BOUND_S / 2, "key memory": KEY_MEMORY_S}
# What a timer of the server may add, and a busy machine.
SLACK_S = 2.0
LONGEST = "bound"

Down = Callable[[], AbstractContextManager[None]]


@dataclass
class Start:
    """What a server is started with."""

    place: KmsPlace
    options: list[str]
    environment: dict[str, str]

    @classmethod
    def make(cls, directory: Path, settings: str = "", **place: dict[str, str]) -> Start:
        directory.mkdir(mode=0o700, exist_ok=True)
        made = KmsPlace.make(directory, **place)
        config = directory / "kms.yaml"
        config.write_text(
            f"revocation_bound: {BOUND_S:g}s\nkey_memory: {KEY_MEMORY_S:g}s\nadmin: {{socket: {made.admin_socket}}}\n"
            + (settings or f"audit: {{directory: {made.audit_directory}}}\n")
        )
        return cls(made, ["--config", str(config)], {})

    def settle(self, settings: str) -> None:
        """Adds to the settings."""
        config = Path(self.options[self.options.index("--config") + 1])
        config.write_text(config.read_text() + settings)

    @contextmanager
    def serving(self, **more: object) -> Iterator[RunningKms]:
        with self.place.serving(1, *self.options, environment=self.environment, **more) as kms:
            yield kms

    def refused(self) -> tuple[int, str]:
        """Exit code and reason of a server that does not start."""
        command = self.place.command("--workers", "1", *self.options)
        environment = {**os.environ, **self.environment}
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, env=environment)
        assert "ready" not in done.stdout
        return done.returncode, done.stderr


# -- what each row does. A function of `pytest`'s request gives a world and what takes its dependency down


@dataclass
class Scene:
    """A world, and the state it can be put into."""

    world: World
    down: Down
    at_once: bool = False


Scenario = Callable[["Stage"], Scene]
SCENARIOS: dict[str, Scenario] = {}
STARTS: dict[str, Callable[[Stage], Start]] = {}


@dataclass
class Stage:
    """What a row's function works with."""

    request: pytest.FixtureRequest
    directory: Path
    stack: ExitStack

    def start(self, settings: str = "", **place: dict[str, str]) -> Start:
        return Start.make(self.directory / "kms", settings, **place)

    def world(self, start: Start, **more: object) -> World:
        return World(self.stack.enter_context(start.serving(**more))).prepare()


def scenario(name: str) -> Callable[[Scenario], Scenario]:
    def register(function: Scenario) -> Scenario:
        SCENARIOS[name] = function
        return function

    return register


def starting(name: str) -> Callable[[Callable[[Stage], Start]], Callable[[Stage], Start]]:
    def register(function: Callable[[Stage], Start]) -> Callable[[Stage], Start]:
        STARTS[name] = function
        return function

    return register


@contextmanager
def moved_away(path: Path) -> Iterator[None]:
    aside = path.with_name(path.name + ".aside")
    path.rename(aside)
    try:
        yield
    finally:
        aside.rename(path)


@contextmanager
def contents(path: Path, data: bytes) -> Iterator[None]:
    """The file with other contents, put in place in one step; its own ones again afterwards."""
    before, mode = path.read_bytes(), path.stat().st_mode
    for written in (data, before):
        draft = path.with_name(path.name + ".new")
        draft.write_bytes(written)
        draft.chmod(mode & 0o777)
        draft.replace(path)
        if written is data:
            yield


@scenario("sqlite_moved_away")
def sqlite_moved_away(stage: Stage) -> Scene:
    world = stage.world(stage.start())
    return Scene(world, lambda: moved_away(world.kms.place.store))


@scenario("sqlite_replaced")
def sqlite_replaced(stage: Stage) -> Scene:
    world = stage.world(stage.start())
    store = world.kms.place.store
    return Scene(world, lambda: contents(store, store.read_bytes()))


@contextmanager
def filled(disk: Path) -> Iterator[None]:
    """Not a byte is left on a file system, until the end."""
    filler = disk / "filler"
    with suppress(OSError), filler.open("wb", buffering=0) as stream:
        while stream.write(bytes(4096)):
            pass
    yield
    filler.unlink()


@contextmanager
def files_limited(kms: RunningKms, size: int) -> Iterator[None]:
    """What stands in for a full disk where nobody may mount one: the workers' files cannot grow past `size` bytes."""
    for limit in (size, resource.RLIM_INFINITY):
        for pid in children_of(kms.process.pid):
            resource.prlimit(pid, resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
        if limit == size:
            yield


@scenario("sqlite_disk_full")
def sqlite_disk_full(stage: Stage) -> Scene:
    start = stage.start(f"audit: {{directory: {stage.directory}/audit}}\n")
    disk = stage.directory / "disk"
    disk.mkdir(mode=0o700)
    if can_mount():
        stage.stack.enter_context(tmpfs(disk, "2m"))
    start.options += ["--keystore", f"sqlite:///{disk}/k.db"]
    world = stage.world(start)
    if can_mount():
        return Scene(world, lambda: filled(disk))
    return Scene(world, lambda: files_limited(world.kms, (disk / "k.db-wal").stat().st_size))


@scenario("sqlite_locked")
def sqlite_locked(stage: Stage) -> Scene:
    world = stage.world(stage.start())

    @contextmanager
    def locked() -> Iterator[None]:
        connection = sqlite3.connect(world.kms.place.store, isolation_level=None)
        connection.execute("BEGIN IMMEDIATE")
        try:
            yield
        finally:
            connection.close()

    return Scene(world, locked)


@scenario("sqlite_row_altered")
def sqlite_row_altered(stage: Stage) -> Scene:
    world = stage.world(stage.start())

    def swap_versions() -> None:
        # Genuine rows, each in the place of another: what is sealed is bound to where it belongs.
        with sqlite3.connect(world.kms.place.store) as connection:
            rows = "SELECT key_name, sealed FROM key_version WHERE key_name LIKE 'cold-%' ORDER BY key_name"
            found = connection.execute(rows).fetchall()
            for (name, _), (_, sealed) in zip(found, reversed(found), strict=True):
                connection.execute("UPDATE key_version SET sealed = ? WHERE key_name = ?", (sealed, name))
        connection.close()

    @contextmanager
    def altered() -> Iterator[None]:
        swap_versions()
        yield
        swap_versions()

    return Scene(world, altered)


def until_verified(world: World, distrusted: bool) -> None:
    """The server has verified its store since, and its workers know what came of it."""
    genuine = f"ringfence_kms_store_genuine {0 if distrusted else 1}.0"

    def told() -> bool:
        with world.kms.connect() as client:
            return genuine in call(client, "GET", "/metrics", user=None).body.decode()

    wait_for(told, genuine)


@scenario("sqlite_row_put_back")
def sqlite_row_put_back(stage: Stage) -> Scene:
    start = stage.start()
    start.settle("store_check: 1s\n")
    world = stage.world(start)

    def run(*statements: str) -> None:
        with sqlite3.connect(world.kms.place.store, timeout=10) as connection:
            for statement in statements:
                connection.execute(statement)
        connection.close()

    @contextmanager
    def put_back() -> Iterator[None]:
        aside = stage.directory / "aside.db"
        run(f"ATTACH '{aside}' AS aside", "CREATE TABLE aside.kept AS SELECT * FROM policy_revision")
        run("DELETE FROM policy_revision WHERE revision < 2")
        until_verified(world, distrusted=True)
        yield
        run(f"ATTACH '{aside}' AS aside", "INSERT INTO policy_revision SELECT * FROM aside.kept WHERE revision < 2")
        until_verified(world, distrusted=False)

    for _ in range(2):
        assert world.ask("publish") == "served"
    return Scene(world, put_back)


@starting("sqlite_damaged_at_start")
def sqlite_damaged_at_start(stage: Stage) -> Start:
    start = stage.start()
    with start.serving() as kms:
        World(kms).prepare()
    with start.place.store.open("r+b") as stream:
        stream.seek(4096)
        stream.write(os.urandom(start.place.store.stat().st_size - 4096))
    return start


@starting("sqlite_gone_at_start")
def sqlite_gone_at_start(stage: Stage) -> Start:
    start = stage.start()
    with start.serving():
        pass
    start.place.store.unlink()
    return start


def on_postgresql(stage: Stage, server: DatabaseServer) -> Start:
    start = stage.start()
    start.options += ["--keystore", server.new_database(), "--root-key", str(stage.directory / "root.key")]
    start.options += ["--keystore-password-file", str(server.password_file)]
    return start


def with_postgresql(stage: Stage) -> tuple[World, DatabaseServer]:
    server = stage.stack.enter_context(running_postgresql())
    start = on_postgresql(stage, server)
    start.options.append("--init")
    return stage.world(start), server


@scenario("postgresql_stopped")
def postgresql_stopped(stage: Stage) -> Scene:
    world, server = with_postgresql(stage)

    @contextmanager
    def stopped() -> Iterator[None]:
        server.kill()
        yield
        server.start()

    return Scene(world, stopped)


@scenario("postgresql_frozen")
def postgresql_frozen(stage: Stage) -> Scene:
    world, server = with_postgresql(stage)

    @contextmanager
    def frozen() -> Iterator[None]:
        assert server.process is not None
        # Connections are the postmaster's children, in its session.
        pids = [server.process.pid, *children_of(server.process.pid)]
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        try:
            yield
        finally:
            for pid in pids:
                os.kill(pid, signal.SIGCONT)

    return Scene(world, frozen, at_once=True)


@scenario("postgresql_row_put_back")
def postgresql_row_put_back(stage: Stage) -> Scene:
    server: DatabaseServer = stage.request.getfixturevalue("postgresql")
    start = on_postgresql(stage, server)
    start.settle("store_check: 1s\n")
    start.options.append("--init")
    uri = start.options[start.options.index("--keystore") + 1]
    stage.stack.callback(server.recycle, uri)
    world = stage.world(start)

    def run(statement: str) -> None:
        server.sql(f"SET search_path = ringfence; {statement}", database_of(uri))

    @contextmanager
    def put_back() -> Iterator[None]:
        run("CREATE TABLE public.kept AS SELECT * FROM policy_revision WHERE revision < 2")
        run("DELETE FROM policy_revision WHERE revision < 2")
        until_verified(world, distrusted=True)
        yield
        run("INSERT INTO policy_revision SELECT * FROM public.kept; DROP TABLE public.kept")
        until_verified(world, distrusted=False)

    for _ in range(2):
        assert world.ask("publish") == "served"
    return Scene(world, put_back)


@scenario("backups_gone")
def backups_gone(stage: Stage) -> Scene:
    backups = stage.directory / "backups"
    backups.mkdir(mode=0o700)
    start = stage.start()
    start.settle(f"backup: {{to: {backups}}}\n")
    world = stage.world(start)

    @contextmanager
    def gone() -> Iterator[None]:
        with moved_away(backups):
            assert world.ask("create") == "served"
            wait_for(lambda: failures() > 0, "a backup to fail")
            yield

    def failures() -> float:
        with world.kms.connect() as client:
            lines = call(client, "GET", "/metrics", user=None).body.decode().splitlines()
        return float(next(line for line in lines if line.startswith("ringfence_kms_backup_failures_total")).split()[1])

    return Scene(world, gone)


def children_of(pid: int) -> list[int]:
    text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    return [int(word) for word in text.split()]


@scenario("postgresql_stopped_at_start")
def postgresql_stopped_at_start(stage: Stage) -> Scene:
    server = stage.stack.enter_context(running_postgresql())
    start = on_postgresql(stage, server)
    start.options.append("--init")
    world = stage.world(start)
    start.options.remove("--init")

    @contextmanager
    def stopped() -> Iterator[None]:
        server.kill()
        start_again(stage, world, start)
        yield
        server.start()

    return Scene(world, stopped)


@starting("postgresql_refuses_at_start")
def postgresql_refuses_at_start(stage: Stage) -> Start:
    server: DatabaseServer = stage.request.getfixturevalue("postgresql")
    start = on_postgresql(stage, server)
    with start.place.serving(1, *start.options, "--init"):
        pass
    stage.stack.callback(server.recycle, start.options[start.options.index("--keystore") + 1])
    password = stage.directory / "password"
    password.touch(mode=0o600)
    password.write_text("not-the-password\n")
    start.options[start.options.index("--keystore-password-file") + 1] = str(password)
    return start


@scenario("root_key_removed")
def root_key_removed(stage: Stage) -> Scene:
    world = stage.world(stage.start())
    return Scene(world, lambda: moved_away(root_key(world.kms.place)))


def root_key(place: KmsPlace) -> Path:
    return place.store.with_name(place.store.name + ".root-key")


@scenario("root_key_removed_and_a_worker_dies")
def root_key_removed_and_a_worker_dies(stage: Stage) -> Scene:
    world = stage.world(stage.start())

    @contextmanager
    def removed() -> Iterator[None]:
        with moved_away(root_key(world.kms.place)):
            kill_worker(world.kms)
            yield

    return Scene(world, removed, at_once=True)


def kill_worker(kms: RunningKms) -> None:
    """SIGKILL, and waits until it is gone."""
    (worker,) = children_of(kms.process.pid)
    os.kill(worker, signal.SIGKILL)
    wait_for(lambda: worker not in children_of(kms.process.pid), "the worker to be gone")


def wait_for(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline, f"waited in vain for {what}"
        time.sleep(0.05)


@starting("root_key_gone_at_start")
def root_key_gone_at_start(stage: Stage) -> Start:
    start = stage.start()
    with start.serving():
        pass
    root_key(start.place).unlink()
    return start


def on_aws_kms(stage: Stage) -> tuple[Start, AwsKmsDouble, str]:
    double: AwsKmsDouble = stage.request.getfixturevalue("aws_kms_double")
    key = make_key(double)
    start = stage.start()
    block = f"{{key: '{key}', cluster: c, endpoint: '{double.url}', deadline: 500ms}}"
    start.settle(f"protector: [aws-kms]\naws_kms: {block}\n")
    return start, double, key


@scenario("aws_kms_failing")
def aws_kms_failing(stage: Stage) -> Scene:
    start, double, _ = on_aws_kms(stage)
    start.options.append("--init")
    world = stage.world(start)

    @contextmanager
    def failing() -> Iterator[None]:
        double.fault("*", code="KMSInternalException", status=500)
        yield
        double.mend()

    return Scene(world, failing)


@scenario("aws_kms_key_disabled")
def aws_kms_key_disabled(stage: Stage) -> Scene:
    start, double, key = on_aws_kms(stage)
    start.options.append("--init")
    world = stage.world(start)
    admin = double.client("kms", double.admin)

    @contextmanager
    def disabled() -> Iterator[None]:
        admin.disable_key(KeyId=key)
        yield
        admin.enable_key(KeyId=key)

    return Scene(world, disabled)


def start_again(stage: Stage, world: World, start: Start) -> None:
    """In place of the server, which ends."""
    world.kms.close()
    world.kms.process.terminate()
    assert world.kms.process.wait(DEADLINE_S) == 0
    world.kms = stage.stack.enter_context(start.serving())


@scenario("aws_kms_away_at_start")
def aws_kms_away_at_start(stage: Stage) -> Scene:
    start, double, _ = on_aws_kms(stage)
    start.options.append("--init")
    world = stage.world(start)
    start.options.remove("--init")

    @contextmanager
    def away() -> Iterator[None]:
        double.fault("*", code="KMSInternalException", status=500)
        start_again(stage, world, start)
        yield
        double.mend()

    return Scene(world, away)


def vault_block(cluster: VaultCluster) -> dict[str, object]:
    return {
        "addresses": cluster.addresses,
        "cluster": cluster.name,
        "token_file": str(cluster.settings().token_file),
        "auth": {"method": "token_file"},
    }


def on_vault(stage: Stage) -> tuple[Start, VaultCluster]:
    cluster: VaultCluster = stage.request.getfixturevalue("vault_cluster_on_double")
    start = stage.start()
    start.settle(f"protector: [vault-transit]\nvault: {json.dumps(vault_block(cluster))}\n")
    return start, cluster


@scenario("vault_sealed")
def vault_sealed(stage: Stage) -> Scene:
    start, cluster = on_vault(stage)
    start.options.append("--init")
    world, vault = stage.world(start), cluster.double
    assert vault is not None

    return Scene(world, vault.sealed)


@scenario("vault_policy_withdrawn")
def vault_policy_withdrawn(stage: Stage) -> Scene:
    start, cluster = on_vault(stage)
    start.options.append("--init")
    world = stage.world(start)
    path = f"sys/policies/acl/{policy_name(PolicyRole.SERVICE, cluster.settings())}"
    policy = cluster.done("GET", path).data["policy"]

    @contextmanager
    def withdrawn() -> Iterator[None]:
        cluster.done("PUT", path, {"policy": 'path "sys/nothing" { capabilities = ["read"] }'})
        try:
            yield
        finally:
            cluster.done("PUT", path, {"policy": policy})

    return Scene(world, withdrawn)


def on_transit(stage: Stage) -> tuple[World, VaultCluster, Start]:
    """A server whose store a file opens, and a Vault that holds the keys of some zones."""
    cluster: VaultCluster = stage.request.getfixturevalue("vault_cluster_on_double")
    start = stage.start()
    start.settle(f"vault: {json.dumps(vault_block(cluster))}\n")
    kms = stage.stack.enter_context(start.serving())
    return World(kms, custody="transit").prepare(), cluster, start


@scenario("transit_sealed")
def transit_sealed(stage: Stage) -> Scene:
    world, cluster, _ = on_transit(stage)
    vault = cluster.double
    assert vault is not None

    return Scene(world, vault.sealed)


def sealed_at_start(stage: Stage, world: World, start: Start, vault: VaultDouble) -> Scene:
    @contextmanager
    def sealed() -> Iterator[None]:
        with vault.sealed():
            start_again(stage, world, start)
            yield

    return Scene(world, sealed)


@scenario("transit_sealed_at_start")
def transit_sealed_at_start(stage: Stage) -> Scene:
    world, cluster, start = on_transit(stage)
    vault = cluster.double
    assert vault is not None

    return sealed_at_start(stage, world, start, vault)


@scenario("transit_token_dead")
def transit_token_dead(stage: Stage) -> Scene:
    world, cluster, _ = on_transit(stage)
    file = cluster.settings().token_file

    @contextmanager
    def dead() -> Iterator[None]:
        token = file.read_text().strip()
        policies = cluster.call("GET", "auth/token/lookup-self", token=token).data["policies"]
        cluster.done("POST", "auth/token/revoke", {"token": token})
        try:
            yield
        finally:
            # Somebody logs the server in again.
            wished = {"policies": policies, "no_default_policy": True, "period": "1h"}
            write_private(file, cluster.done("POST", "auth/token/create", wished).body["auth"]["client_token"])

    return Scene(world, dead)


@scenario("transit_policy_withdrawn")
def transit_policy_withdrawn(stage: Stage) -> Scene:
    world, cluster, _ = on_transit(stage)
    roles = (PolicyRole.SERVICE, PolicyRole.KEYADMIN)
    paths = [f"sys/policies/acl/{policy_name(role, cluster.settings())}" for role in roles]
    policies = {path: cluster.done("GET", path).data["policy"] for path in paths}
    # What is left shows that the token itself is good.
    nothing = 'path "auth/token/lookup-self" { capabilities = ["read"] }'

    @contextmanager
    def withdrawn() -> Iterator[None]:
        for path in paths:
            cluster.done("PUT", path, {"policy": nothing})
        try:
            yield
        finally:
            for path, policy in policies.items():
                cluster.done("PUT", path, {"policy": policy})

    return Scene(world, withdrawn)


@scenario("transit_keys_disabled")
def transit_keys_disabled(stage: Stage) -> Scene:
    world, cluster, _ = on_transit(stage)
    mount = cluster.settings().transit_mount
    names = cluster.done("LIST", f"{mount}/keys").data["keys"]

    @contextmanager
    def disabled() -> Iterator[None]:
        for name in names:
            cluster.done("DELETE", f"{mount}/keys/{name}/soft-delete")
        try:
            yield
        finally:
            for name in names:
                cluster.done("POST", f"{mount}/keys/{name}/soft-delete-restore")

    return Scene(world, disabled)


@scenario("vault_away_at_start")
def vault_away_at_start(stage: Stage) -> Scene:
    start, cluster = on_vault(stage)
    start.options.append("--init")
    world, vault = stage.world(start), cluster.double
    start.options.remove("--init")
    assert vault is not None

    return sealed_at_start(stage, world, start, vault)


def on_vault_store(stage: Stage) -> tuple[Start, VaultKvPlace]:
    """Vault has the keys and opens them: nothing else keeps anything."""
    start, cluster = on_vault(stage)
    place = VaultKvPlace(cluster, stage.directory)
    mount = json.dumps(cluster.kv_mount)
    config = Path(start.options[start.options.index("--config") + 1])
    config.write_text(config.read_text().replace('"addresses":', f'"kv_mount": {mount}, "addresses":'))
    start.options += ["--keystore", place.uri]
    return start, place


@scenario("vault_store_sealed")
def vault_store_sealed(stage: Stage) -> Scene:
    start, place = on_vault_store(stage)
    start.options.append("--init")
    world, vault = stage.world(start), place.cluster.double
    assert vault is not None

    @contextmanager
    def sealed() -> Iterator[None]:
        vault.seal()
        try:
            yield
        finally:
            vault.unseal()

    return Scene(world, sealed, at_once=True)


@scenario("vault_store_deleted")
def vault_store_deleted(stage: Stage) -> Scene:
    start, place = on_vault_store(stage)
    start.options.append("--init")
    world = stage.world(start)

    @contextmanager
    def deleted() -> Iterator[None]:
        path = f"{place.prefix}/head"
        version = place.cluster.done("GET", f"{place.cluster.kv_mount}/data/{path}").data["metadata"]["version"]
        place.cluster.done("DELETE", f"{place.cluster.kv_mount}/data/{path}")
        yield
        place.cluster.done("POST", f"{place.cluster.kv_mount}/undelete/{path}", {"versions": [version]})

    return Scene(world, deleted, at_once=True)


@scenario("vault_store_away_at_start")
def vault_store_away_at_start(stage: Stage) -> Scene:
    start, place = on_vault_store(stage)
    start.options.append("--init")
    world, vault = stage.world(start), place.cluster.double
    start.options.remove("--init")
    assert vault is not None

    @contextmanager
    def sealed() -> Iterator[None]:
        vault.seal()
        try:
            start_again(stage, world, start)
            yield
        finally:
            vault.unseal()

    return Scene(world, sealed)


def full_audit(stage: Stage, required: str) -> Scene:
    disk = stage.directory / "audit"
    disk.mkdir(mode=0o700)
    if can_mount():
        stage.stack.enter_context(tmpfs(disk, "2m"))
    else:
        (disk / "worker-0.jsonl").write_bytes(b"{}\n" * 1_000_000)
    world = stage.world(stage.start(f"audit: {{directory: {disk}, required: {required}}}\n"))

    @contextmanager
    def full() -> Iterator[None]:
        with filled(disk) if can_mount() else files_limited(world.kms, 1_000_000):
            # The log's last page may have room for a few records.
            wait_for(lambda: not grows(), "the log to be full")
            yield

    def sizes() -> list[int]:
        return [path.stat().st_size for path in sorted(disk.glob("worker-*.jsonl"))]

    def grows() -> bool:
        before = sizes()
        world.ask("metadata")
        return sizes() != before

    return Scene(world, full)


@scenario("audit_full_required")
def audit_full_required(stage: Stage) -> Scene:
    return full_audit(stage, "true")


@scenario("audit_full_not_required")
def audit_full_not_required(stage: Stage) -> Scene:
    return full_audit(stage, "false")


@scenario("acls_removed")
def acls_removed(stage: Stage) -> Scene:
    world = stage.world(stage.start())

    @contextmanager
    def removed() -> Iterator[None]:
        with moved_away(world.kms.place.conf / "kms-acls.xml"):
            time.sleep(1.2)  # the product looks each second, and must not find anything to believe
            yield

    return Scene(world, removed)


@scenario("acls_broken")
def acls_broken(stage: Stage) -> Scene:
    world = stage.world(stage.start())

    @contextmanager
    def broken() -> Iterator[None]:
        with contents(world.kms.place.conf / "kms-acls.xml", b"<configuration><property>"):
            time.sleep(1.2)
            yield

    return Scene(world, broken)


@starting("acls_gone_at_start")
def acls_gone_at_start(stage: Stage) -> Start:
    start = stage.start()
    (start.place.conf / "kms-acls.xml").unlink()
    return start


@scenario("policy_tampered")
def policy_tampered(stage: Stage) -> Scene:
    world = stage.world(stage.start())
    assert world.ask("publish") == "served"

    def swap(old: str, new: str) -> None:
        with sqlite3.connect(world.kms.place.store) as connection:
            statement = "UPDATE policy_revision SET document = CAST(replace(document, ?, ?) AS BLOB)"
            connection.execute(statement, (old, new))
        connection.close()

    @contextmanager
    def tampered() -> Iterator[None]:
        swap('"hdfs"', '"mallory"')
        # A worker looks at the store when something changed.
        world.ask("create")
        yield
        swap('"mallory"', '"hdfs"')

    return Scene(world, tampered)


class FlowWorld(World):
    """One whose policies have flow rules."""

    mode = "shadow"

    def _ask_publish(self) -> Answer:
        policy = {
            "version": 1, "cluster": "c", "zones": [{"path": "/published", "key": "published"}], "flows": [],
            "flow_control": {"mode": self.mode, "enforce_on_claimed_identity": True},
            "kms": {"namenode_users": ["hdfs"], "admins": ["a"]},
        }  # fmt: skip
        with self.kms.connect_admin() as client:
            body = {"expected_revision": self.revision, "policy": policy}
            answer = call(client, "PUT", "/ringfence/v1/policy", body, user=None)
        self.revision += answer.status == 200
        return answer


def without_flow_memory(stage: Stage, *modes: str) -> Scene:
    world = FlowWorld(stage.stack.enter_context(stage.start().serving())).prepare()
    for world.mode in modes:
        assert world.ask("publish") == "served"
    return Scene(world, lambda: moved_away(flows_path(world.kms.place.store)))


@scenario("flow_memory_gone_enforced")
def flow_memory_gone_enforced(stage: Stage) -> Scene:
    return without_flow_memory(stage, "shadow", "enforce")


@scenario("flow_memory_gone_shadow")
def flow_memory_gone_shadow(stage: Stage) -> Scene:
    return without_flow_memory(stage, "shadow")


@scenario("lease_book_gone")
def lease_book_gone(stage: Stage) -> Scene:
    world = World(stage.stack.enter_context(stage.start().serving())).prepare()

    def take() -> int:
        with world.kms.connect_admin() as client:
            body = {"holder": "one", "ttl_s": 15}
            return call(client, "PUT", "/ringfence/v1/leases/agent", body, user=None).status

    @contextmanager
    def down() -> Iterator[None]:
        with moved_away(beside(world.kms.place.store, LEASES_SUFFIX)):
            assert take() == 503
            yield

    assert take() == 200
    return Scene(world, down)


SHIM = """
import os, time

flag = os.environ["FAIL_CLOSED_FLAG"]
real_getgrouplist, real_time, real_time_ns = os.getgrouplist, time.time, time.time_ns

def getgrouplist(name, group):
    while os.path.exists(flag + ".hang") and name == "root":
        time.sleep(0.05)
    return real_getgrouplist(name, group)

def shift():
    try:
        return int(os.readlink(flag + ".shift"))
    except OSError:
        return 0

os.getgrouplist = getgrouplist
time.time = lambda: real_time() + shift()
time.time_ns = lambda: real_time_ns() + shift() * 1_000_000_000
"""


def shimmed(stage: Stage, start: Start) -> Path:
    """Gives the server a clock and a group directory that a file decides about; the path that such a file extends."""
    directory = stage.directory / "shim"
    directory.mkdir()
    (directory / "sitecustomize.py").write_text(SHIM)
    flag = directory / "flag"
    start.environment |= {"PYTHONPATH": str(directory), "FAIL_CLOSED_FLAG": str(flag)}
    return flag


def clock_set(stage: Stage, shift_s: int) -> Scene:
    start = stage.start()
    flag = shimmed(stage, start)
    world = stage.world(start)

    @contextmanager
    def set_clock() -> Iterator[None]:
        link = flag.with_name("flag.shift")
        link.symlink_to(str(shift_s))
        yield
        link.unlink()

    return Scene(world, set_clock)


YEAR_S = 365 * 86_400


@scenario("clock_a_year_ahead")
def clock_a_year_ahead(stage: Stage) -> Scene:
    return clock_set(stage, YEAR_S)


@scenario("clock_an_hour_back")
def clock_an_hour_back(stage: Stage) -> Scene:
    return clock_set(stage, -3600)


@scenario("clock_a_year_back")
def clock_a_year_back(stage: Stage) -> Scene:
    return clock_set(stage, -YEAR_S)


@scenario("groups_hang")
def groups_hang(stage: Stage) -> Scene:
    acls = dict.fromkeys(OPEN_ACLS, "nobody root,hdfs,users,hadoop")
    start = stage.start(acls=acls)
    flag = shimmed(stage, start)
    # Whoever may use the keys is so by a group of root's.
    world = World(stage.stack.enter_context(start.serving()), user="root").prepare()

    @contextmanager
    def hanging() -> Iterator[None]:
        mark = flag.with_name("flag.hang")
        mark.touch()
        yield
        mark.unlink()

    return Scene(world, hanging, at_once=True)


def kerberos_world(stage: Stage) -> tuple[World, Path]:
    kdc: Kdc = stage.request.getfixturevalue("kdc")
    keytab = stage.directory / "service.keytab"
    shutil.copy(kdc.keytab("HTTP/localhost"), keytab)
    start = stage.start(site=kerberos_site(keytab))
    start.environment |= kdc.environment
    kms = stage.stack.enter_context(start.serving())
    client = KerberosKms(kms, kdc)
    # Tickets are had before: what is asked is whether the server needs the KDC.
    exchanges = [stage.stack.enter_context(client.initiator("hdfs")) for _ in range(4)]
    proofs = iter([negotiate_header(exchange.first_token()) for exchange in exchanges])
    return World(kms, user=None, log_in=lambda: {"Authorization": next(proofs)}).prepare(), keytab


@scenario("kdc_down")
def kdc_down(stage: Stage) -> Scene:
    world, _ = kerberos_world(stage)
    kdc: Kdc = stage.request.getfixturevalue("kdc")
    configuration = Path(kdc.environment["KRB5_CONFIG"])

    @contextmanager
    def unreachable() -> Iterator[None]:
        # The session's KDC goes on for others; this realm's configuration names a port where nobody is.
        text = configuration.read_bytes().replace(b":%d" % kdc.realm.port, b":1")
        assert text != configuration.read_bytes()
        with contents(configuration, text):
            yield

    return Scene(world, unreachable)


@scenario("keytab_removed")
def keytab_removed(stage: Stage) -> Scene:
    world, keytab = kerberos_world(stage)
    return Scene(world, lambda: moved_away(keytab))


@scenario("keytab_rotated")
def keytab_rotated(stage: Stage) -> Scene:
    world, keytab = kerberos_world(stage)
    kdc: Kdc = stage.request.getfixturevalue("kdc")
    other = kdc.keytab("HTTP/other").read_bytes()
    return Scene(world, lambda: contents(keytab, other))


@starting("keytab_gone_at_start")
def keytab_gone_at_start(stage: Stage) -> Start:
    kdc: Kdc = stage.request.getfixturevalue("kdc")
    start = stage.start(site=kerberos_site(stage.directory / "none.keytab"))
    start.environment |= kdc.environment
    return start


def with_tls(stage: Stage) -> tuple[Start, Path]:
    certificates: Certificates = stage.request.getfixturevalue("certificates")
    certificate = stage.directory / "server.pem"
    shutil.copy(certificates.server.certificate, certificate)
    key = stage.directory / "server.key"
    shutil.copy(certificates.server.key, key)
    start = stage.start()
    start.options += ["--tls-cert", str(certificate), "--tls-key", str(key)]
    return start, certificate


@scenario("certificate_garbage")
def certificate_garbage(stage: Stage) -> Scene:
    start, certificate = with_tls(stage)
    certificates: Certificates = stage.request.getfixturevalue("certificates")
    world = stage.world(start, client_context=certificates.client_context())

    @contextmanager
    def garbage() -> Iterator[None]:
        with contents(certificate, b"-----BEGIN CERTIFICATE-----\nnothing\n"):
            # A reload reads it at once, and new workers have to serve with what there is.
            before = children_of(world.kms.process.pid)
            world.kms.process.send_signal(signal.SIGHUP)
            wait_for(lambda: not set(before) & set(children_of(world.kms.process.pid)), "the reload")
            yield

    return Scene(world, garbage)


@scenario("certificate_expired")
def certificate_expired(stage: Stage) -> Scene:
    start, certificate = with_tls(stage)
    certificates: Certificates = stage.request.getfixturevalue("certificates")
    expired = certificates.authority.issue_server("expired", valid_for=timedelta(days=-1))
    world = stage.world(start, client_context=certificates.client_context())
    key = stage.directory / "server.key"

    @contextmanager
    def ended() -> Iterator[None]:
        # No test can wait for a certificate's end: an expired one takes its place, as a renewal gone wrong would.
        with contents(key, expired.key.read_bytes()), contents(certificate, expired.certificate.read_bytes()):
            wait_for(lambda: world.ask("live") == "none", "the certificate to be read")
            yield

    return Scene(world, ended)


@starting("certificate_garbage_at_start")
def certificate_garbage_at_start(stage: Stage) -> Start:
    start, certificate = with_tls(stage)
    certificate.write_bytes(b"-----BEGIN CERTIFICATE-----\nnothing\n")
    return start


@scenario("worker_killed")
def worker_killed(stage: Stage) -> Scene:
    world = stage.world(stage.start())

    @contextmanager
    def killed() -> Iterator[None]:
        kill_worker(world.kms)
        yield

    return Scene(world, killed)


@scenario("supervisor_killed")
def supervisor_killed(stage: Stage) -> Scene:
    world = stage.world(stage.start())

    @contextmanager
    def killed() -> Iterator[None]:
        workers = [os.pidfd_open(pid) for pid in children_of(world.kms.process.pid)]
        world.kms.process.kill()
        world.kms.process.wait(DEADLINE_S)
        for worker in workers:
            assert select.select([worker], [], [], DEADLINE_S)[0], "a worker outlived its supervisor"
            os.close(worker)
        yield

    return Scene(world, killed)


# -- the tests


ROWS = read_rows()


def cases(*, starts: bool) -> list[object]:
    return [
        pytest.param(row, id=row.id, marks=[pytest.mark.long] if row.is_long else [])
        for row in ROWS
        if (row.start is not None) is starts
    ]


def test_every_row_of_the_table_is_tested_here_and_nothing_else() -> None:
    assert {row.id for row in ROWS if row.start is None} == set(SCENARIOS)
    assert {row.id for row in ROWS if row.start is not None} == set(STARTS)


@pytest.mark.parametrize("row", cases(starts=False))
def test_the_server_does_what_the_table_says(row: Row, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    with ExitStack() as stack:
        scene = SCENARIOS[row.id](Stage(request, tmp_path, stack))
        world = scene.world
        ask = world.ask_at_once if scene.at_once else world.ask_all
        world.warm_up()
        with scene.down():
            down_s = time.monotonic()
            expected = {operation: row.outcomes[operation] for operation in OPERATIONS}
            at_first = {o: "served" if word.startswith("memory ") else word for o, word in expected.items()}
            assert ask(OPERATIONS) == at_first
            remembered = {o for o, word in expected.items() if word == f"memory {LONGEST}"}
            if remembered and time.monotonic() < down_s + MEMORY_S[LONGEST] - SLACK_S:
                # What failed meanwhile has not ended it.
                assert world.ask_all(sorted(remembered)) == dict.fromkeys(remembered, "served")
            for operation, word in expected.items():
                if word.startswith("memory "):
                    limit_s = MEMORY_S[word.removeprefix("memory ")]
                    check_memory_ends(world, operation, str(row.then), down_s + limit_s)
        if row.back == "itself":
            wait_for(
                lambda: world.ask("open") == world.ask("create") == world.ask("login") == "served", "it to be back"
            )


def check_memory_ends(world: World, operation: str, then: str, until_s: float) -> None:
    while (word := world.ask(operation)) == "served":
        assert time.monotonic() < until_s + SLACK_S, f"{operation} is still served from memory"
        time.sleep(0.1)
    assert word == then


@pytest.mark.parametrize("row", cases(starts=True))
def test_the_server_does_not_start(row: Row, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    assert row.start is not None
    with ExitStack() as stack:
        exit_code, reason = STARTS[row.id](Stage(request, tmp_path, stack)).refused()
    assert (exit_code, row.start["says"] in reason) == (row.start["exit"], True), reason
