"""No token, secret id, store root, zone key or DEK leaves its place while Vault or AWS KMS protects the keys.

Every command that holds such a secret runs as a process, and again while the server that it asks fails in each way that
a body could be repeated from: sealed, forbidden, failed with plaintexts in the body, cut off, sent elsewhere. A KMS
serves and fails likewise. Output, logs at their most talkative, exceptions, audit, arguments, environments, temporary
files and what a crash leaves are searched. Each kind of place has a control, here or in `test_kms_canary.py`.
"""

from __future__ import annotations

import base64
import contextlib
import json
import logging
import os
import secrets
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from aws_kms_double import AwsKmsDouble
from aws_kms_places import double_settings, make_key
from canary import Canaries, process_tree
from crash_scenes import Scene
from database_canary import find_in_database
from databases import DatabaseServer, database_of
from http_serving import Answer, RawClient
from kms_serving import DEADLINE_S, KmsPlace, RunningKms, call, json_of
from local_stores import in_child
from protector_places import vault_protector
from sandboxes import RINGFENCE
from scripted_http import ScriptedServer, scripted_server
from vault_clusters import ROLE_ID, SECRET_ID, WRAPPED, VaultCluster, server_of, vault_cluster
from vault_doubles import VaultDouble, running_vault
from vault_settings import write_private

from ringfence_agent.cli.doctor import doctor
from ringfence_agent.cli.key_transfer import export_keys, import_keys
from ringfence_agent.cli.keystore import keystore
from ringfence_agent.cli.vault import vault
from ringfence_agent.keystore.open import open_protected
from ringfence_agent.keystore.protector import Protectors
from ringfence_agent.keystore.protectors.aws_kms import open_aws_kms
from ringfence_agent.vault import control, nodes
from ringfence_agent.vault.exchange import Patience

KINDS = ["vault-transit", pytest.param("aws-kms", marks=pytest.mark.long)]
# The sandbox of a command that is to fail soon.
SOON = Patience(1.0, 0.5, 0.5)
EVERYTHING_BUT_HEALTH = r"^(?!.*sys/health)"


@dataclass
class World:
    """A server of one kind, stores that it protects, and every secret that is about."""

    directory: Path
    kind: str
    blocks: dict[str, Any]
    thief: ScriptedServer
    cluster: VaultCluster | None = None
    aws: AwsKmsDouble | None = None
    canaries: Canaries = field(default_factory=Canaries)
    sealed: Canaries = field(default_factory=Canaries)
    secrets: dict[str, bytes] = field(default_factory=dict)
    keeps: list[Path] = field(default_factory=list)
    outputs: dict[str, bytes] = field(default_factory=dict)

    def add(self, name: str, secret: bytes | str) -> None:
        secret = secret.encode() if isinstance(secret, str) else secret
        self.canaries.add(name, secret)
        self.secrets[name] = secret

    def open_protector(self) -> Any:
        if self.cluster is not None:
            return vault_protector(self.cluster)
        assert self.aws is not None
        return open_aws_kms(double_settings(self.aws, self.blocks["aws_kms"]["key"]))[0]

    def scene(self, name: str, *names: str) -> Scene:
        """A store whose secrets are looked for from now on."""
        scene = Scene.make(self.directory / name, names, self.blocks, lambda: (self.open_protector(),))
        self.note_secrets_of(scene)
        self.keeps.append(scene.root_key)
        return scene

    def note_secrets_of(self, scene: Scene) -> None:
        name = scene.directory.name
        with scene.opened() as store:
            self.add(f"root of {name}", store._records.protection.root.secret.reveal())
            self.add(f"cookies of {name}", store.derive_secret("hadoop.auth cookies").reveal())
            for metadata in store.list_metadata():
                key = store.find_key(metadata.name)
                assert key is not None
                for version in key.versions:
                    self.add(f"{version.name} of {name}", version.material.reveal())
            with store.snapshot() as snapshot:
                for number, sealed in enumerate(snapshot.versions):
                    self.sealed.add(f"seal {number} of {name}", sealed.sealed[-32:])

    # -- ways to fail

    def body_with_plaintexts(self) -> dict[str, Any]:
        """As a server that logs too much might answer: everything, as text and in base64."""
        shown = [each.decode() for each in self.secrets.values() if each.isascii()]
        shown += [base64.b64encode(each).decode() for each in self.secrets.values()]
        return {"errors": shown, "data": {"plaintext": shown}, "auth": {"client_token": shown[0]}, "message": shown}

    def failures(self) -> dict[str, Callable[[], contextlib.AbstractContextManager[Any]]]:
        return self._vault_failures() if self.cluster is not None else self._aws_failures()

    def _vault_failures(self) -> dict[str, Callable[[], contextlib.AbstractContextManager[Any]]]:
        assert self.cluster is not None
        double = self.cluster.double
        assert double is not None
        body, elsewhere = self.body_with_plaintexts(), f"http://127.0.0.1:{self.thief.port}/v1/thief"

        def fault(action: str, **order: Any) -> Callable[[], contextlib.AbstractContextManager[Any]]:
            return lambda: double.fault(action, **{"path": EVERYTHING_BUT_HEALTH, **order})

        return {
            "sealed": double.sealed,
            "forbidden": fault("status", status=403, body=body),
            "bad request": fault("status", status=400, body=body),
            "failed": fault("status", status=500, body=body),
            "nonsense": fault("status", status=200, body=json.dumps(body)[:-9]),
            "others' plaintexts": fault("status", status=200, body=body),
            "cut off": fault("truncate"),
            "redirected": fault("status", status=307, body=body, headers={"Location": elsewhere}),
            "opens, then no more": fault("status", path="/(encrypt|decrypt)/", skip=1, status=500, body=body),
        }

    def _aws_failures(self) -> dict[str, Callable[[], contextlib.AbstractContextManager[Any]]]:
        double = self.aws
        assert double is not None
        text = json.dumps(self.body_with_plaintexts())
        elsewhere = f"http://127.0.0.1:{self.thief.port}/"

        def fault(operation: str = "*", **order: Any) -> Callable[[], contextlib.AbstractContextManager[Any]]:
            @contextmanager
            def failing() -> Iterator[None]:
                double.fault(operation, **order)
                try:
                    yield
                finally:
                    double.mend()

            return failing

        return {
            "away": fault(reset=True),
            "forbidden": fault(code="AccessDeniedException", echo=True),
            "failed": fault(code="KMSInternalException", status=500, echo=True),
            "failed with plaintexts": fault(body=text, status=500),
            "nonsense": fault(body=text[:-9]),
            "others' plaintexts": fault(body=text),
            "cut off": fault(truncate=True),
            "redirected": fault(redirect=elsewhere),
            "seals, and does not open": fault("Decrypt", code="InvalidCiphertextException", echo=True),
        }

    # -- commands

    def run(self, *words: str, exit_code: int = 0) -> str:
        """As a process, as loud as it can; its arguments and environment are searched while it runs."""
        process = self._start(words)
        found = self.canaries.find_in_processes([process.pid])
        # The SDK's credentials come from the environment, as an operator may give them.
        assert all(place.endswith("/environ") and names <= {"credential", "session"} for place, names in found.items())
        output, _ = process.communicate(timeout=DEADLINE_S)
        self.outputs[f"{len(self.outputs)} {' '.join(words[:2])}"] = output
        assert process.returncode == exit_code, output.decode()
        return output.decode()

    def _start(self, words: Sequence[str]) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            ["bash", "-c", 'ulimit -c unlimited; exec "$0" "$@"', str(RINGFENCE), *words, "-v", "-v"],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd=self.directory / "work",
            env={**os.environ, "TMPDIR": str(self.directory / "temporary")},
        )

    def crash(self, *words: str) -> None:
        """A command that dies of a fault of its own while it waits for the server, where a core would be seen."""
        with self.hanging() as was_asked:
            process = self._start(words)
            deadline = time.monotonic() + DEADLINE_S
            while not was_asked():
                assert time.monotonic() < deadline
                assert process.poll() is None, process.communicate()[0].decode()
                time.sleep(0.02)
            process.send_signal(signal.SIGSEGV)
            output, _ = process.communicate(timeout=DEADLINE_S)
        assert process.returncode == -signal.SIGSEGV
        self.outputs[f"{len(self.outputs)} crash of {' '.join(words[:2])}"] = output
        assert list((self.directory / "work").iterdir()) == [], words

    @contextmanager
    def hanging(self) -> Iterator[Callable[[], bool]]:
        """The server takes requests and answers none; gives whether it was asked."""
        if self.cluster is not None:
            double = self.cluster.double
            assert double is not None
            with double.fault("hang", path=EVERYTHING_BUT_HEALTH) as rule:
                yield lambda: double.met(rule) > 0
            return
        aws = self.aws
        assert aws is not None
        before = aws.count_arrivals()
        aws.fault("*", hang=True)
        try:
            yield lambda: aws.count_arrivals() > before
        finally:
            aws.mend()

    def attempt(self, name: str, group: Any, *words: str) -> bytes:
        """In a child, with all that hangs on its error, at the log's most talkative; what it said."""
        path = self.directory / f"attempt-{len(self.outputs)}"

        def act(_report: int) -> None:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)
            os.dup2(descriptor, 1)
            os.dup2(descriptor, 2)
            sys.stdout, sys.stderr = os.fdopen(1, "w", buffering=1), os.fdopen(2, "w", buffering=1)
            root = logging.getLogger()
            root.handlers[:] = [logging.StreamHandler(sys.stderr)]
            root.setLevel(logging.DEBUG)
            control.CALL, nodes.PROBE = SOON, SOON  # type: ignore[misc]
            try:
                group.main([*words], standalone_mode=False)
            except BaseException as error:  # noqa: BLE001 -- whatever it is, it is what is looked at
                chain = [error, error.__cause__, error.__context__]
                print("".join(traceback.format_exception(error)), [(each, vars(each)) for each in chain if each])

        pid, read_end = in_child(act)
        os.close(read_end)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        said = self.outputs[f"{len(self.outputs)} {name}: {' '.join(words[:2])}"] = path.read_bytes()
        path.unlink()
        return said

    # -- the search

    def check_nothing_is_found(self, *, seals_elsewhere: bool = False) -> None:
        """`seals_elsewhere`: no file below the directory has what is sealed, for a database has it."""
        assert self.canaries.find_in_texts(self.outputs) == {}
        assert self.sealed.find_in_texts(self.outputs) == {}
        assert self.canaries.find_in_tree(self.directory, self.keeps) == {}
        rests = [path for path in self.directory.rglob("*") if ".db" in path.name or path.suffix == ".rfbackup"]
        assert self.sealed.find_in_tree(self.directory, [*self.keeps, *rests]) == {}
        assert list((self.directory / "temporary").iterdir()) == []
        assert list((self.directory / "work").iterdir()) == []
        assert self.thief.seen == []
        self._check_controls(seals_elsewhere=seals_elsewhere)

    def _check_controls(self, *, seals_elsewhere: bool) -> None:
        """The same searches find what is put there."""
        for name, secret in list(self.secrets.items())[:3]:
            planted = {"output": b"x " + base64.b64encode(b"a" + secret) + b" y", **self.outputs}
            assert self.canaries.find_in_texts(planted) == {"output": {name}}
            for place in ("temporary/left", "work/core", "a.rfbackup"):
                path = self.directory / place
                path.write_bytes(b"\0" * 100 + secret.hex().encode())
                assert self.canaries.find_in_tree(self.directory, self.keeps) == {place: {name}}
                path.unlink()
        rests = self.sealed.find_in_tree(self.directory)
        where = any(name.endswith(".db") for name in rests)
        assert where != seals_elsewhere, "the seals are looked for where they do rest"


@pytest.fixture(params=KINDS)
def world(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[World]:
    for name in ("work", "temporary"):
        (tmp_path / name).mkdir()
    with ExitStack() as stack:
        thief = stack.enter_context(scripted_server(lambda _seen: (200, b"{}")))
        if request.param == "aws-kms":
            yield aws_world(tmp_path, thief, request.getfixturevalue("aws_kms_double"))
        else:
            double = stack.enter_context(running_vault())
            yield stack.enter_context(vault_world(tmp_path, thief, double))


def aws_world(directory: Path, thief: ScriptedServer, double: AwsKmsDouble) -> World:
    block = {"key": make_key(double), "cluster": "analytics", "endpoint": double.url, "deadline": "1s"}
    world = World(directory, "aws-kms", {"aws_kms": block}, thief, aws=double)
    world.add("credential", double.server.secret)
    world.add("session", double.server.token or "")
    return world


@contextmanager
def vault_world(directory: Path, thief: ScriptedServer, double: VaultDouble) -> Iterator[World]:
    private = directory / "vault"
    private.mkdir(mode=0o700)
    with vault_cluster(server_of(double), private) as cluster:
        admin = write_private(private / "admin", double.root_token)
        block = {
            "addresses": [double.address],
            "cluster": cluster.name,
            "kv_mount": cluster.kv_mount,
            "token_file": str(private / "vault-token"),
            "auth": {
                "mount": cluster.approle_mount,
                "role_id_file": str(private / ROLE_ID),
                "wrapped_secret_id_file": str(private / WRAPPED),
            },
        }
        world = World(directory, "vault-transit", {"vault": block}, thief, cluster=cluster)
        world.add("administrator's token", double.root_token)
        world.add("unseal key", double.unseal_key)
        world.keeps += [admin, private / "vault-token", private / WRAPPED, private / SECRET_ID]
        yield world


def vault_options(world: World) -> list[str]:
    path = world.directory / "vault" / "kms.yaml"
    path.write_text(json.dumps(world.blocks))
    return ["--config", str(path)]


def admin_option(world: World) -> list[str]:
    return ["--token-file", str(world.directory / "vault" / "admin")]


def prepare_vault(world: World) -> None:
    """An administrator's and a node's first day; what they hold are secrets from here on."""
    config, admin, private = vault_options(world), admin_option(world), world.directory / "vault"
    world.run("vault", "setup", *config, *admin, "--dry-run")
    world.run("vault", "setup", *config, *admin, "--yes", "--issue", str(private))
    world.add("wrapping token", (private / WRAPPED).read_bytes().strip())
    world.run("vault", "login", *config)
    world.add("token", (private / "vault-token").read_bytes().strip())
    assert "was used up" in world.run("vault", "login", *config, exit_code=1)
    world.run("vault", "status", *config)
    world.run("doctor", "vault", *config, *admin, exit_code=3)


def give_lasting_secret_id(world: World) -> None:
    """For logins that are tried again and again."""
    assert world.cluster is not None
    world.add("secret id", world.cluster.give_repeatable_secret_id())
    auth = world.blocks["vault"]["auth"]
    del auth["wrapped_secret_id_file"]
    auth["secret_id_file"] = str(world.directory / "vault" / SECRET_ID)


def the_backup(scene: Scene) -> str:
    return str(max(scene.backups.glob("*.rfbackup")))


def export_words(world: World, scene: Scene) -> tuple[list[str], str]:
    """`key export` of all keys of a store that its remote protector opens; beginning with --to and --password-file.
    And where they go: a Java key store, sealed with a password."""
    password = world.directory / "jceks.password"
    if not password.exists():
        write_private(password, secrets.token_hex(16))
        world.add("password of the Java key store", password.read_bytes())
        world.keeps.append(password)
    jceks = f"jceks://file@{world.directory}/exported-{len(world.outputs)}.jceks"
    named = ["--to", jceks, "--password-file", str(password), "--keystore", f"sqlite:///{scene.store}"]
    return [*named, "--audit-directory", str(scene.audit), *scene.options()], jceks


def test_commands_that_do_their_work(world: World) -> None:
    if world.cluster is not None:
        prepare_vault(world)
    scene = world.scene("moving", "file", world.kind)
    options = scene.options()
    for words in (("protect", "--with", world.kind), ("rewrap",), ("rotate-root",), ("backup",), ("slots",)):
        world.run("keystore", *words, *options)
    world.note_secrets_of(scene)
    backup = the_backup(scene)
    for words in (("drill", backup), ("verify", backup)):
        world.run("keystore", *words, *options)
    without_file = scene.named(world.kind)
    exported, jceks = export_words(world, without_file)
    target = f"sqlite:///{world.directory}/imported.db"
    for group, words in (
        (keystore, ["verify", *without_file.options()]),
        (keystore, ["unprotect", "1", *without_file.options()]),
        (export_keys, exported),
        (import_keys, ["--from", jceks, *exported[2:4], "--keystore", target]),
    ):
        assert b"Traceback" not in world.attempt("well", group, *words)
    world.keeps.append(world.directory / "imported.db.root-key")
    assert world.sealed.find_in_tree(scene.directory)
    scene = scene.named("file", world.kind)
    for path in scene.directory.glob("keys.db*"):
        if path != scene.root_key:
            path.unlink()
    world.run("keystore", "restore", backup, *options)
    alone = scene.named(world.kind).options()
    world.crash("keystore", "drill", backup, *alone)
    world.crash("keystore", "slots", *alone)
    world.crash("key", "export", *export_words(world, scene.named(world.kind))[0])
    if world.cluster is not None:
        give_lasting_secret_id(world)
        for words in (("vault", "login"), ("vault", "setup", *admin_option(world)), ("doctor", "vault")):
            world.crash(*words, *vault_options(world))
    else:
        world.crash("doctor", "aws-kms", *alone)
    world.check_nothing_is_found()


@pytest.mark.parametrize("every", [False, pytest.param(True, marks=pytest.mark.long)])
def test_commands_that_fail(world: World, every: bool) -> None:
    """Each command under every third way to fail, and each way for every third command; all of them when long."""
    if world.cluster is not None:
        prepare_vault(world)
        give_lasting_secret_id(world)
    moving = world.scene("moving", "file", world.kind)
    alone = world.scene("alone", world.kind)
    world.attempt("first", keystore, "backup", *alone.options())
    backup = the_backup(alone)
    commands: list[tuple[Any, list[str]]] = [
        (keystore, ["protect", "--with", world.kind, *moving.options()]),
        (keystore, ["slots", *alone.options()]),
        (keystore, ["rotate-root", *alone.options()]),
        (keystore, ["backup", *alone.options()]),
        (keystore, ["drill", backup, *alone.options()]),
        (keystore, ["verify", *alone.options()]),
        (keystore, ["verify", backup, *alone.options()]),
        (export_keys, export_words(world, alone)[0]),
        (keystore, ["restore", backup, "--to", f"sqlite:///{world.directory}/elsewhere.db", *alone.options()]),
    ]
    if world.cluster is not None:
        config, admin = vault_options(world), admin_option(world)
        commands += [
            (vault, ["login", *config]),
            (vault, ["setup", *config, *admin, "--yes"]),
            (vault, ["status", *config]),
            (doctor, ["vault", *config, *admin]),
        ]
    else:
        commands += [(doctor, ["aws-kms", *alone.options()])]
    failures = world.failures()
    for number, (name, failing) in enumerate(failures.items()):
        for turn, (group, words) in enumerate(commands):
            if every or (number + turn) % 3 == 0:
                with failing():
                    world.attempt(name, group, *words)
    # A slot is there, and its protector fails between opening the store and moving its versions.
    world.attempt("first", keystore, "protect", "--with", world.kind, *moving.options())
    for name, failing in failures.items():
        with failing():
            for words in (("rewrap",), ("unprotect", "1")):
                world.attempt(name, keystore, *words, *moving.options())
    refused = [output for output in world.outputs.values() if b"Error" in output]
    assert len(refused) > 2 * len(failures), "commands that fail fail"
    world.check_nothing_is_found()


# -- the server


def give(world: World, name: str) -> dict[str, Any]:
    """New material that a client gives; it is a secret from here on."""
    material = secrets.token_bytes(32)
    world.add(name, material)
    return {"length": 256, "material": base64.b64encode(material).decode()}


def generate(client: RawClient, name: str) -> dict[str, Any]:
    (eek,) = json_of(call(client, "GET", f"/kms/v1/key/{name}/_eek", query={"eek_op": "generate"}))
    return {"name": name, **eek}


def open_eek(client: RawClient, eek: dict[str, Any], operation: str = "decrypt") -> Answer:
    path = f"/kms/v1/keyversion/{eek['versionName'].replace('@', '%40')}/_eek"
    body = {"name": eek["name"], "iv": eek["iv"], "material": eek["encryptedKeyVersion"]["material"]}
    return call(client, "POST", path, body, query={"eek_op": operation})


def use_eek(world: World, client: RawClient, name: str) -> dict[str, Any]:
    """A new EDEK, whose DEK is a secret from here on."""
    eek = generate(client, name)
    world.add(f"DEK of {name}", base64.urlsafe_b64decode(json_of(open_eek(client, eek))["material"] + "=="))
    assert open_eek(client, eek, "reencrypt").status == 200
    return eek


@contextmanager
def serving(world: World, place: KmsPlace, *options: str) -> Iterator[RunningKms]:
    """Two workers, cores allowed, working where a core would be seen, as loud as they can."""
    command = place.command("--workers", "2", "--config", str(place.directory / "kms.yaml"), "-v", "-v", *options)
    with (world.directory / "server.log").open("ab") as log:
        process = subprocess.Popen(
            ["bash", "-c", 'ulimit -c unlimited; exec "$0" "$@"', *command],
            stdout=subprocess.PIPE,
            stderr=log,
            env={**os.environ, "TMPDIR": str(world.directory / "temporary")},
            cwd=world.directory / "work",
        )
    kms = RunningKms(place, process, 2)
    try:
        kms.wait_until_ready()
        yield kms
    finally:
        kms.close()
        process.terminate()
        process.wait(DEADLINE_S)
        assert process.stdout is not None
        process.stdout.close()


def keystore_options(world: World, place: KmsPlace, server: DatabaseServer | None) -> list[str]:
    """A file in the place, or a database of its own."""
    if server is None:
        return ["--keystore", f"sqlite:///{place.store}"]
    world.add("password of the database", server.password_file.read_bytes().strip())
    return ["--keystore", server.new_database(), "--keystore-password-file", str(server.password_file)]


@pytest.mark.parametrize(
    "engine", ["sqlite", *(pytest.param(engine, marks=pytest.mark.long) for engine in ("postgresql", "mariadb"))]
)
def test_a_server(world: World, engine: str, request: pytest.FixtureRequest) -> None:
    """Keys in both custodies where there is a Vault."""
    began_s, custodies = time.time(), {"served": "envelope"}
    if world.cluster is not None:
        prepare_vault(world)
        give_lasting_secret_id(world)
        custodies["held"] = "transit"
    server: DatabaseServer | None = None if engine == "sqlite" else request.getfixturevalue(engine)
    (world.directory / "kms").mkdir(mode=0o700)
    place = KmsPlace.make(world.directory / "kms")
    options = keystore_options(world, place, server)
    document = {"protector": [world.kind], "admin": {"socket": str(place.admin_socket)}, **world.blocks}
    document["audit"] = {"directory": str(place.audit_directory)}
    (place.directory / "kms.yaml").write_text(json.dumps(document))
    with serving(world, place, *options, "--init") as kms, kms.connect() as client:
        for name, custody in custodies.items():
            given = give(world, "given at create") if custody == "envelope" else {"length": 256}
            body = {"name": name, "attributes": {"ringfence.custody": custody}, **given}
            assert call(client, "POST", "/kms/v1/keys", body).status == 201
        rolled = call(client, "POST", "/kms/v1/key/served", {"material": give(world, "given at roll")["material"]})
        assert rolled.status == 200
        eeks = [use_eek(world, client, name) for name in custodies]
    if world.cluster is not None:
        world.add("token of the server", (world.directory / "vault" / "vault-token").read_bytes().strip())
    with serving(world, place, *options) as kms, kms.connect() as client:
        for name, failing in world.failures().items():
            with failing():
                ask_for_everything(world, client, name, eeks[1:])
        for eek in eeks:
            wait_until_opened(client, eek)
        crash_a_worker(world, kms)
        found = world.canaries.find_in_processes(process_tree(kms.process.pid))
        assert all(place.endswith("/environ") and names <= {"credential", "session"} for place, names in found.items())
        crash_the_master(world, kms)
    assert (world.directory / "server.log").stat().st_size > 0
    password = None if server is None else server.password_file
    with contextlib.closing(open_protected(options[1], None, False, password, protectors(world))) as store:
        world.add("root", store._records.protection.root.secret.reveal())
        with store.snapshot() as snapshot:
            for number, sealed in enumerate(snapshot.versions):
                world.sealed.add(f"seal {number}", sealed.sealed[-32:])
    if server is not None:
        looked_for = world.canaries.only("given", "DEK", "root", "token", "secret id", "credential")
        assert find_in_database(looked_for, server, options[1], began_s) == {}
        assert world.sealed.find(server.dump(database_of(options[1]))), "the seals rest there"
    world.check_nothing_is_found(seals_elsewhere=server is not None)


def ask_for_everything(world: World, client: RawClient, name: str, held: list[dict[str, Any]]) -> None:
    """While the protector fails in the way `name`: what is refused is looked through."""
    asked = [
        call(client, "POST", "/kms/v1/keys", {"name": f"k{len(world.secrets)}", **give(world, f"given when {name} 1")}),
        call(client, "POST", "/kms/v1/key/served", give(world, f"given when {name} 2")),
        call(client, "POST", "/kms/v1/key/served", {}),
        call(client, "GET", "/health/ready", user=None),
    ]
    for eek in held:
        asked += [open_eek(client, eek, operation) for operation in ("decrypt", "reencrypt")]
        asked += [
            call(client, "GET", f"/kms/v1/key/{eek['name']}/_eek", query={"eek_op": "generate"}),
            call(client, "POST", f"/kms/v1/key/{eek['name']}", {}),
        ]
    # Who made a key is told its material, and who opens an EDEK its DEK, as Hadoop does.
    refused = {number: answer.body for number, answer in enumerate(asked) if answer.status >= 400}
    assert refused, name
    world.outputs |= {f"answer {number} when {name}": body for number, body in refused.items()}


def wait_until_opened(client: RawClient, eek: dict[str, Any]) -> None:
    """A node of Vault that failed is not asked for a moment."""
    deadline = time.monotonic() + DEADLINE_S
    while (answer := open_eek(client, eek)).status != 200:
        assert time.monotonic() < deadline, answer.body
        time.sleep(0.05)


def protectors(world: World) -> Protectors:
    return Protectors(False, (world.open_protector(),))


def crash_a_worker(world: World, kms: RunningKms) -> None:
    _, worker, *_ = process_tree(kms.process.pid)
    os.kill(worker, signal.SIGSEGV)
    deadline = time.monotonic() + DEADLINE_S
    while worker in process_tree(kms.process.pid):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert list((world.directory / "work").iterdir()) == []


def crash_the_master(world: World, kms: RunningKms) -> None:
    """It keeps the token of Vault; its workers end with it."""
    pids = process_tree(kms.process.pid)
    kms.process.send_signal(signal.SIGSEGV)
    assert kms.process.wait(DEADLINE_S) == -signal.SIGSEGV
    deadline = time.monotonic() + DEADLINE_S
    while any(Path(f"/proc/{pid}/stat").exists() for pid in pids[1:]):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert list((world.directory / "work").iterdir()) == []
