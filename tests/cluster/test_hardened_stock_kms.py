"""The real Java KMS, hardened by our command: it serves the main demo over TLS, its keys come back from a backup, and
undoing leaves files as they were.
"""

from __future__ import annotations

import json
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import requests
from certificates import Certificates
from cluster_commands import Cluster, wait_until
from hand_run_daemons import HandRunDaemons, run_by_hand
from sandboxes import RINGFENCE, new_sandbox, run_ringfence

from ringfence_bootstrap.stock_kms.key_store import opens
from ringfence_zones.secret import Secret

pytestmark = [pytest.mark.cluster, pytest.mark.long, pytest.mark.timeout(600)]

_WORDS = "what was written stays readable\n"
_MEMORY = Path("/dev/shm")
_POLICY = """\
version: 1
cluster: hardened
kms: {namenode_users: [hdfs], admins: [hdfs]}
zones:
  - {path: /old, key: old, owner: etl, mode: "0750", readers: [analyst], writers: [etl]}
  - {path: /new, key: new, owner: etl, mode: "0750", readers: [analyst], writers: [etl]}
"""


@dataclass
class Node:
    """A sandbox with Hadoop's KMS, and where our command puts what it makes."""

    cluster: Cluster
    daemons: HandRunDaemons
    directory: Path
    secrets: Path
    certificates: Certificates

    @property
    def key_store(self) -> Path:
        return self.cluster.directory / "kms.keystore"

    @property
    def password(self) -> Path:
        return self.secrets / "password"

    @property
    def backups(self) -> Path:
        return self.directory / "backups"

    def harden(self, *more: str, expect: int = 0) -> str:
        said = self._run(self.command(*more), expect)
        if "--yes" in more:
            self.wait_for_namenode()
        return said

    def wait_for_namenode(self) -> None:
        """One that was started again knows of no block until its DataNode has reported."""
        self.cluster.run("hdfs", "dfsadmin", "-safemode", "wait")

    def command(self, *more: str) -> list[str]:
        issued = self.certificates.authority.directory / "server"
        options = [
            *("--kms-conf", str(self.cluster.kms_conf), "-f", str(self.directory / "zones.yaml")),
            *("--tls-cert", f"{issued}.pem", "--tls-key", f"{issued}.key"),
            *("--tls-ca", str(self.certificates.trusted), "--password-file", str(self.password)),
            *("--stock-start-command", self.daemons.start("kms"), "--stock-stop-command", self.daemons.stop("kms")),
            *("--namenode-start-command", self.daemons.start("namenode")),
            *("--namenode-stop-command", self.daemons.stop("namenode")),
            *("--backup-to", str(self.backups), "--backup-key", str(self.directory / "backup.pub.pem")),
            *("--prove-as", "etl", "--state-dir", f"{self.directory}/state"),
        ]
        return ["kms", "harden", *options, *more]

    def after(self, command: str, *more: str, expect: int = 0) -> str:
        return self._run(["kms", "harden", command, "--state-dir", f"{self.directory}/state", *more], expect)

    def _run(self, arguments: list[str], expect: int) -> str:
        done = run_ringfence(arguments, self.cluster.environ("hdfs"), timeout_s=400)
        assert done.returncode == expect, done.stdout + done.stderr
        return done.stdout + done.stderr

    def make_zone(self, name: str) -> None:
        """A key, a zone of the same name and a file that etl wrote."""
        self.cluster.run("hadoop", "key", "create", name)
        self.cluster.make_directory(f"/{name}", owner="etl")
        self.cluster.run("hdfs", "crypto", "-createZone", "-keyName", name, "-path", f"/{name}")
        self.put(f"/{name}/f")

    def put(self, path: str) -> None:
        local = self.directory / "words"
        local.write_text(_WORDS)
        self.cluster.run("hdfs", "dfs", "-put", str(local), path, user="etl")

    def read(self, *paths: str, user: str = "etl") -> str:
        return self.cluster.run("hdfs", "dfs", "-cat", *paths, user=user).stdout.decode()

    def ask(self, path: str, user: str) -> requests.Response:
        url = f"https://localhost:{self.cluster.ports['kms']}/kms/v1/{path}"
        return requests.get(url, params={"user.name": user}, verify=self.certificates.trusted, timeout=30)


@pytest.fixture
def node(tmp_path: Path, certificates: Certificates) -> Iterator[Node]:
    tmp_path.chmod(0o700)
    (tmp_path / "zones.yaml").write_text(_POLICY)
    (tmp_path / "backups").mkdir()
    openssl = ("openssl", "genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048", "-out")
    subprocess.run([*openssl, tmp_path / "backup.pem"], check=True, capture_output=True, timeout=60)
    public = ("openssl", "pkey", "-in", tmp_path / "backup.pem", "-pubout", "-out", tmp_path / "backup.pub.pem")
    subprocess.run(public, check=True, capture_output=True, timeout=60)
    secrets = Path(tempfile.mkdtemp(prefix="rf-", dir=_MEMORY))
    try:
        with new_sandbox("--kms", "stock") as described:
            cluster = Cluster(described)
            hand = tmp_path / "daemons"
            hand.mkdir()
            with run_by_hand(cluster, hand, "kms", "namenode") as daemons:
                yield Node(cluster, daemons, tmp_path, secrets, certificates)
    finally:
        shutil.rmtree(secrets)


def contents(node: Node) -> dict[str, bytes]:
    """Every configuration file of the KMS and the clients, and which of them there are."""
    found = {}
    for directory in (node.cluster.kms_conf, node.cluster.hadoop_conf):
        for path in sorted(directory.iterdir()):
            found[str(path)] = path.read_bytes()
    return found


def test_a_hardened_kms_serves_the_demo_over_tls_and_its_keys_come_back_from_a_backup(node: Node) -> None:
    node.make_zone("old")
    node.cluster.run("hadoop", "key", "roll", "old")
    node.put("/old/second-version")
    before = contents(node)
    old_password = Secret((node.cluster.kms_conf / "kms-keystore.password").read_bytes().strip())
    assert opens(node.key_store.read_bytes(), old_password)

    plan = json.loads(node.harden("--json"))
    assert [step["name"] for step in plan["steps"]][:4] == ["password", "tls-store", "stop", "keys"]
    assert contents(node) == before
    assert not list(node.secrets.iterdir())

    said = node.harden("--yes")
    assert f"the KMS answers at kms://https@localhost:{node.cluster.ports['kms']}/kms" in said
    assert stat.S_IMODE(node.password.stat().st_mode) == 0o400
    new_password = Secret(node.password.read_bytes())
    assert not opens(node.key_store.read_bytes(), old_password)
    assert opens(node.key_store.read_bytes(), new_password)
    assert new_password.reveal().decode() not in json.dumps((node.directory / "state/harden.json").read_text())
    assert not [path for path in node.key_store.parent.iterdir() if "before-harden" in path.name]

    # The demo: keys, zone, write, read; over TLS, by Hadoop's own clients.
    node.make_zone("new")
    assert node.read("/old/f", "/old/second-version", "/new/f") == _WORDS * 3
    node.cluster.run("hdfs", "dfs", "-chmod", "-R", "777", "/new")
    refused = node.cluster.run("hdfs", "dfs", "-cat", "/new/f", user="masker", expect=1)
    assert "User [masker] is not authorized to perform [DECRYPT_EEK] on key with ACL name [new]" in refused.output
    assert node.ask("key/new/_currentversion", "etl").status_code == 403, "GET, which gives key material, is nobody's"
    assert node.ask("key/new/_metadata", "hdfs").status_code == 200
    assert node.ask("keys/names", "etl").status_code == 403
    with pytest.raises(requests.RequestException):
        requests.get(f"http://localhost:{node.cluster.ports['kms']}/kms/v1/keys/names", timeout=10)

    # A key was made, and is on this node alone until it is backed up.
    findings = json.loads(node.after("check", "--json", expect=3))
    assert [each["rule"] for each in findings["findings"]] == ["key_store_not_durable"]
    assert "was made" in node.after("backup")
    assert "is there already" in node.after("backup")
    assert "as it was hardened, and backed up" in node.after("check")
    backup = max(node.backups.iterdir())
    assert len(list(node.backups.iterdir())) == 2, "one of the hardening, one after the new key"
    assert new_password.reveal() not in backup.read_bytes()
    assert node.key_store.read_bytes()[:64] not in backup.read_bytes()

    # The node loses its keys.
    subprocess.run(node.daemons.stop("kms").split(), check=True, timeout=60)
    node.key_store.unlink()
    node.password.unlink()
    restored = node.after("restore", str(backup), "--private-key", str(node.directory / "backup.pem"), "--yes")
    assert "the KMS answers" in restored
    assert node.read("/old/f", "/old/second-version", "/new/f") == _WORDS * 3
    assert node.read("/new/f", user="analyst") == _WORDS
    assert "as it was hardened, and backed up" in node.after("check")

    # And back: the files as they were, the key that was made since still there.
    node.after("undo", "--prove-as", "etl", "--yes")
    node.wait_for_namenode()
    assert contents(node) == before
    assert not node.password.exists()
    assert opens(node.key_store.read_bytes(), old_password)
    assert node.read("/old/f", "/old/second-version", "/new/f") == _WORDS * 3


def test_a_hardening_that_fails_leaves_everything_as_it_was(node: Node) -> None:
    node.make_zone("old")
    before = contents(node)
    key_store = node.key_store.read_bytes()
    # The access lists of this policy give the key to nobody who proved it before.
    (node.directory / "zones.yaml").write_text(
        _POLICY.replace("[etl]", "[masker]").replace("owner: etl", "owner: masker")
    )
    said = node.harden("--yes", expect=4)
    assert "everything is as it was before" in said
    assert contents(node) == before
    assert node.key_store.read_bytes() == key_store
    assert not list(node.secrets.iterdir())
    assert node.read("/old/f") == _WORDS


def test_a_hardening_that_is_killed_is_rolled_back_by_the_next_command(node: Node) -> None:
    node.make_zone("old")
    before = contents(node)
    key_store = node.key_store.read_bytes()
    journal = node.directory / "state/harden.json"
    process = subprocess.Popen(
        [RINGFENCE, *node.command("--yes")],
        env=node.cluster.environ("hdfs"),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    # The KMS is stopped then, its keys sealed anew and half of its files changed.
    wait_until(lambda: journal.exists() and '"start"' in journal.read_text(), timeout_s=120)
    process.kill()
    process.wait(30)
    assert contents(node) != before
    said = node.harden("--yes", expect=4)
    assert "an earlier harden was interrupted; everything is as it was before it" in said
    assert contents(node) == before
    assert node.key_store.read_bytes() == key_store
    assert not list(node.secrets.iterdir())
    assert node.read("/old/f") == _WORDS


def test_a_kms_without_keys_makes_its_first_under_the_new_password(node: Node) -> None:
    assert not node.key_store.exists()
    assert "there is nothing to back up" in node.harden("--yes")
    assert "as it was hardened, and backed up" in node.after("check")
    node.make_zone("new")
    assert opens(node.key_store.read_bytes(), Secret(node.password.read_bytes()))
    assert "was made" in node.after("backup")
    (node.cluster.kms_conf / "kms-acls.xml").write_text("<configuration/>")
    node.password.chmod(0o444)
    drifted = json.loads(node.after("check", "--json", expect=3))["findings"]
    assert {each["rule"] for each in drifted} == {"emr_stock_kms", "secret_exposed"}
    refused = node.after("undo", "--prove-as", "etl", "--yes", expect=1)
    assert "kms-acls.xml changed since the hardening" in refused
