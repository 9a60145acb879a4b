"""Zones of one cluster whose keys are in one store under several protectors, a root key file, Vault, AWS KMS, or in
Vault itself.

Files are written and read in all of them at once, by Hadoop's own client and by one that is not Java. Then Vault is
sealed: what is in the key server's memory is served until `key_memory` is over, what is not is refused in words that
clients try again, the other zones notice nothing, and nothing is restarted when Vault is unsealed.

Vault and AWS KMS are doubles with cryptography of their own, in processes of their own. One sandbox serves the module;
a test that depends on what the key server has in memory starts that anew.
"""

from __future__ import annotations

import base64
import json
import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar, cast

import hdfs_native
import pytest
import requests
from aws_kms_double import AwsKmsDouble
from aws_kms_places import double_settings, make_key, sign_as
from cluster_commands import Cluster, wait_until
from protected_kms import remote_blocks
from sandboxes import new_sandbox, run_ringfence, start_stopped
from vault_clusters import VaultCluster
from vault_doubles import VaultDouble

from ringfence_agent.keystore.protectors.aws_kms_config import AwsKmsSettings
from ringfence_agent.kms.audit.reader import find_files

T = TypeVar("T")

pytestmark = [pytest.mark.cluster, pytest.mark.long, pytest.mark.timeout(300)]

RETRIABLE = "org.apache.hadoop.ipc.RetriableException"
# More than one block of AES and more than one packet, ending inside both.
CONTENT = bytes(range(256)) * 1024 + b"the end"
# Of `key_memory`, what a key under a remote protector stays in memory at least: workers do not all ask at once.
SHORTEST_SHARE = 0.8
# What the key server's timer and a busy machine may add.
SLACK_S = 4.0
# With one key server Hadoop's client tries once more and gives up. It makes no pause after a RetriableException, so
# that who means to outlast Vault needs many tries.
PATIENT = "-Dhadoop.security.kms.client.failover.max.retries=1000000"


@dataclass(frozen=True)
class Row:
    """One zone. `protector` is whose slot is active when its key is made, with `attributes`.

    `is_remembered` says that the key rests in the store, and in the key server's memory for `key_memory`.
    """

    name: str
    protector: str
    attributes: Mapping[str, str] = field(default_factory=dict)
    is_remembered: bool = True

    @property
    def zone(self) -> str:
        return f"/custody/{self.name}"

    @property
    def needs_vault(self) -> bool:
        return self.protector == "vault-transit"


ROWS = (
    Row("by-file", "file"),
    Row("by-vault", "vault-transit"),
    Row("by-aws", "aws-kms"),
    Row("held", "vault-transit", {"ringfence.custody": "transit"}, is_remembered=False),
)
UNDER_VAULT = [row for row in ROWS if row.needs_vault]
OTHERS = [row for row in ROWS if not row.needs_vault]


@dataclass
class Site:
    """The cluster, what its keys are under, and the key server with each setting a test wants."""

    cluster: Cluster
    vault: VaultDouble
    aws: AwsKmsDouble
    protectors: Sequence[str]
    blocks: Mapping[str, object]
    base: str = ""
    kms_pid: int = 0

    def start_kms(self, key_memory_s: float) -> None:
        """In place of the one that runs. Nothing is in its memory."""
        config = Path(self.cluster.environment["RINGFENCE_KMS_CONFIG"])
        self.base = self.base or config.read_text()
        settings = {**self.blocks, "protector": self.protectors, "key_memory": f"{key_memory_s:g}s", "workers": 1}
        config.write_text(self.base + "".join(f"{name}: {json.dumps(value)}\n" for name, value in settings.items()))
        pid = self.kms_pid or self.cluster.pids["kms"]
        assert pid is not None
        os.kill(pid, signal.SIGTERM)
        wait_until(lambda: has_ended(pid), timeout_s=40)
        self.kms_pid = start_stopped(self.cluster.directory)["pids"]["kms"]
        assert self.kms_pid != pid

    def make_zone(self, row: Row) -> None:
        """With Hadoop's own commands, under the row's protector."""
        self.keystore("protect", "--with", row.protector)
        attributes = [word for name, value in row.attributes.items() for word in ("-attr", f"{name}={value}")]
        self.cluster.run("hadoop", "key", "create", row.name, "-size", "256", *attributes)
        self.cluster.make_directory(row.zone, owner="etl")
        self.cluster.run("hdfs", "crypto", "-createZone", "-keyName", row.name, "-path", row.zone)

    def keystore(self, *arguments: str) -> str:
        done = run_ringfence(["keystore", *arguments], self.cluster.environ("hdfs"))
        assert done.returncode == 0, done.stderr
        return done.stdout

    def decrypt(self, row: Row) -> requests.Response:
        """What the key server says, on the wire, to `etl` who opens the row's first file."""
        encryption = self.cluster.encryption_of(f"{row.zone}/java")
        return requests.post(
            f"{self.cluster.kms_url}/v1/keyversion/{encryption.version_name}/_eek",
            params={"eek_op": "decrypt", "user.name": "etl"},
            json={
                "name": row.name,
                "iv": base64.b64encode(encryption.iv).decode(),
                "material": base64.b64encode(encryption.edek).decode(),
            },
            timeout=30,
        )

    def statuses(self, rows: Sequence[Row]) -> set[int]:
        return {self.decrypt(row).status_code for row in rows}

    def health(self, page: str) -> tuple[int, Any]:
        answer = requests.get(f"http://localhost:{self.cluster.ports['kms']}/health/{page}", timeout=30)
        return answer.status_code, answer.json()

    def decisions(self, row: Row) -> list[dict[str, Any]]:
        """What the audit log has of EDEKs of the row's key that were to be opened, in time order."""
        found = find_files([self.cluster.directory / "kms.db.audit.d"])
        records = [record.fields for record in found.read()]
        return [each for each in records if (each["op"], each["key"]) == ("DECRYPT_EEK", row.name)]

    def workers(self) -> set[str]:
        return set(Path(f"/proc/{self.kms_pid}/task/{self.kms_pid}/children").read_text().split())

    # -- clients

    def put_with_java(self, row: Row, local: Path) -> None:
        self.cluster.run("hdfs", "dfs", "-put", str(local), f"{row.zone}/java", user="etl")

    def native(self) -> hdfs_native.Client:
        return hdfs_native.Client(f"hdfs://localhost:{self.cluster.ports['namenode']}")

    def write(self, path: str) -> None:
        with self.native().create(path, write_options=hdfs_native.WriteOptions(overwrite=True)) as stream:
            stream.write(CONTENT)

    def read(self, path: str) -> bytes:
        with self.native().read(path) as stream:
            return cast("bytes", stream.read())

    def read_patiently(self, row: Row) -> bytes:
        """By Hadoop's client, which tries again for long enough."""
        return self.cluster.run("hdfs", "dfs", PATIENT, "-cat", f"{row.zone}/java", user="etl").stdout


@pytest.fixture(scope="module")
def signed(aws_kms_process: AwsKmsDouble) -> Iterator[AwsKmsSettings]:
    """A key in AWS KMS, and in the environment the key server's credentials."""
    with pytest.MonkeyPatch.context() as patch:
        sign_as(patch, aws_kms_process.server)
        aws_kms_process.mend()
        yield double_settings(aws_kms_process, make_key(aws_kms_process), deadline_s=2.0)


@pytest.fixture(scope="module")
def site(
    vault_cluster_on_double: VaultCluster,
    aws_kms_process: AwsKmsDouble,
    signed: AwsKmsSettings,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Site]:
    """Every zone with a file in it, `java`, that Hadoop's client wrote while it wrote the others."""
    vault = vault_cluster_on_double.double
    assert vault is not None
    protectors = list(dict.fromkeys(row.protector for row in ROWS))
    blocks = remote_blocks(vault_cluster_on_double, signed)
    with ExitStack() as stack:
        cluster = Cluster(stack.enter_context(new_sandbox("--kms", "ringfence")))
        site = Site(cluster, vault, aws_kms_process, protectors, blocks)
        open_keys_to(cluster, "etl")
        site.start_kms(key_memory_s=60)
        for row in ROWS:
            site.make_zone(row)
        local = tmp_path_factory.mktemp("custody") / "content"
        local.write_bytes(CONTENT)
        in_all_zones(lambda row: site.put_with_java(row, local))
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        for name in [name for name in os.environ if name.startswith("HADOOP_")]:
            patch.delenv(name)
        for name in ("HADOOP_CONF_DIR", "HADOOP_HOME"):
            patch.setenv(name, cluster.environment[name])
        patch.setenv("HADOOP_USER_NAME", "etl")
        yield site


@pytest.fixture(autouse=True)
def unsealed(site: Site) -> Iterator[None]:
    """Whatever becomes of a test."""
    yield
    site.vault.unseal()


def open_keys_to(cluster: Cluster, user: str) -> None:
    """Keys that nothing else names, before the key server that reads it starts."""
    path = cluster.kms_conf / "kms-acls.xml"
    closed = "<name>default.key.acl.DECRYPT_EEK</name><value> </value>"
    text = path.read_text()
    assert closed in text
    path.write_text(text.replace(closed, closed.replace("> <", f">{user}<")))


def has_ended(pid: int) -> bool:
    """Whether a process is gone, or only waits to be reaped."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def in_all_zones(work: Callable[[Row], T], rows: Sequence[Row] = ROWS) -> list[T]:
    """At the same time."""
    with ThreadPoolExecutor(len(rows)) as pool:
        return list(pool.map(work, rows))


def test_each_key_rests_under_its_own_protector(site: Site) -> None:
    slots = json.loads(site.keystore("slots", "--json"))["slots"]
    # What Vault holds no slot seals.
    sealed = [row.protector for row in ROWS if row.is_remembered]
    expected = {protector: sealed.count(protector) for protector in site.protectors}
    assert {slot["protector"]: slot["versions"] for slot in slots} == expected


def test_files_are_written_and_read_in_all_zones_at_once(site: Site) -> None:
    site.aws.take_requests()
    site.vault.forget_requests()
    site.start_kms(key_memory_s=60)
    in_all_zones(lambda row: site.write(f"{row.zone}/native"))
    paths = [f"{row.zone}/{name}" for row in ROWS for name in ("java", "native")]
    with ThreadPoolExecutor(len(paths)) as pool:
        assert list(pool.map(site.read, paths)) == [CONTENT] * len(paths)
    assert site.cluster.run("hdfs", "dfs", "-cat", *paths, user="etl").stdout == CONTENT * len(paths)
    raws = [site.cluster.read_raw(path) for path in paths]
    assert len({*raws, CONTENT}) == len(paths) + 1
    # Each key was opened where it rests, once.
    opened = [seen["context"]["ringfence:key"] for seen in site.aws.take_requests() if seen["operation"] == "Decrypt"]
    assert [name for name in opened if name in {row.name for row in ROWS}] == ["by-aws"]
    assert len(site.vault.requests("/decrypt/")) >= len(UNDER_VAULT)


def test_while_vault_is_sealed_warm_zones_are_served_until_the_bound_and_cold_ones_come_back_by_themselves(
    site: Site,
) -> None:
    sealed_s, key_memory_s = 60.0, 30.0
    site.start_kms(key_memory_s)
    workers = site.workers()
    began_s = time.monotonic()
    assert site.statuses(ROWS) == {200}
    warm_s = time.monotonic()
    assert site.health("ready") == (200, {"ready": True})

    site.vault.seal()
    sealed_at_s = time.monotonic()
    remembered = [row for row in ROWS if row.is_remembered]
    in_all_zones(lambda row: site.write(f"{row.zone}/while-sealed"), remembered)
    until_s = warm_s + key_memory_s + SLACK_S
    refused_at_s = {row.name: until_refused(site, row, until_s) for row in UNDER_VAULT}
    for row in UNDER_VAULT:
        assert not row.is_remembered or refused_at_s[row.name] >= began_s + SHORTEST_SHARE * key_memory_s

    for row in UNDER_VAULT:
        assert_refused(site, row)
    # The other zones notice nothing, and the key server says how it is.
    in_all_zones(lambda row: site.write(f"{row.zone}/others"), OTHERS)
    assert [site.read(f"{row.zone}/others") for row in OTHERS] == [CONTENT] * len(OTHERS)
    wait_until(lambda: site.health("ready") == (200, {"ready": True, "degraded": True}), timeout_s=15)
    assert site.health("live") == (200, {"live": True})
    while time.monotonic() < sealed_at_s + sealed_s:
        assert site.statuses(OTHERS) == {200}
        time.sleep(0.5)

    # A job that came in the meantime tries again, and ends well.
    with ThreadPoolExecutor(len(UNDER_VAULT)) as pool:
        before = {row.name: len(site.decisions(row)) for row in UNDER_VAULT}
        jobs = [pool.submit(site.read_patiently, row) for row in UNDER_VAULT]
        try:
            for row in UNDER_VAULT:
                wait_until(lambda row=row: len(site.decisions(row)) >= before[row.name] + 3, timeout_s=60)  # type: ignore[misc]
            assert not any(job.done() for job in jobs)
        finally:
            site.vault.unseal()
        assert [job.result(60) for job in jobs] == [CONTENT] * len(jobs)
    assert site.statuses(ROWS) == {200}
    assert in_all_zones(lambda row: site.read(f"{row.zone}/while-sealed"), remembered) == [CONTENT] * len(remembered)
    wait_until(lambda: site.health("ready") == (200, {"ready": True}), timeout_s=15)
    for row in UNDER_VAULT:
        words = [(each["status"], each["outcome"]) for each in site.decisions(row)]
        assert words.count((503, "failed")) >= 3
        assert words[-1] == (200, "ok")
    assert site.workers() == workers


def until_refused(site: Site, row: Row, until_s: float) -> float:
    """When the first answer was no other than 200; until then the file reads as ever. Fails after `until_s`."""
    assert not row.is_remembered or site.read(f"{row.zone}/java") == CONTENT
    while site.decrypt(row).status_code == 200:
        assert time.monotonic() < until_s, "it is still served from memory"
        assert site.statuses(OTHERS) == {200}
        time.sleep(0.1)
    return time.monotonic()


def assert_refused(site: Site, row: Row) -> None:
    """On the wire, in the log, and to clients that do not wait."""
    answer = site.decrypt(row)
    assert answer.status_code == 503
    assert answer.json()["RemoteException"]["javaClassName"] == RETRIABLE
    last = site.decisions(row)[-1]
    assert (last["status"], last["outcome"], last["user"]) == (503, "failed", "etl")
    assert last["error"] == answer.json()["RemoteException"]["message"]
    with pytest.raises(Exception, match=r"503|Retriable|sealed"):
        site.read(f"{row.zone}/java")
    impatient = site.cluster.run("hdfs", "dfs", "-cat", f"{row.zone}/java", user="etl", expect=1)
    assert impatient.stdout == b""
    assert last["error"] in impatient.output


def test_a_key_server_that_starts_while_vault_is_sealed_serves_the_other_zones_at_once(site: Site) -> None:
    site.vault.seal()
    site.start_kms(key_memory_s=60)
    workers = site.workers()
    assert site.statuses(OTHERS) == {200}
    for row in UNDER_VAULT:
        assert site.decrypt(row).status_code == 503
    assert site.health("ready") == (200, {"ready": True, "degraded": True})
    site.vault.unseal()
    wait_until(lambda: site.statuses(ROWS) == {200}, timeout_s=15)
    assert site.read(f"{UNDER_VAULT[0].zone}/java") == CONTENT
    wait_until(lambda: site.health("ready") == (200, {"ready": True}), timeout_s=15)
    assert site.workers() == workers
