"""Key servers off the cluster, each set up by the bootstrap action on a clean machine that EMR knows nothing of.

A pair shares a store in a real PostgreSQL and one root key; a real HDFS calls both as `clients-only` and goes on while
one is dead. The machines share this machine's loopback, as they would a network.
"""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from databases import DatabaseServer
from emr_node import CHECKOUT, STATUS, EmrNode, emr_node

from ringfence_bootstrap.sandbox.certificates import CertificateAuthority

pytestmark = [pytest.mark.cluster, pytest.mark.long, pytest.mark.timeout(1800)]

_ACTION = CHECKOUT / "bootstrap/emr/bootstrap-action.sh"
_CONFIG = "s3://artifacts/bootstrap.yaml"
_OURS = Path("/opt/ringfence/bin/ringfence")
_HOSTS = {"kms1.test": "127.0.0.1", "kms2.test": "127.0.0.2"}
_WORDS = "what was written stays readable"
_POLICY = """\
version: 1
cluster: analytics
zones:
  - {path: /data/pii, owner: etl, mode: "0750", readers: [analyst], writers: [etl]}
kms: {namenode_users: [hdfs], admins: [hdfs]}
"""
_SERVER = """\
mode: key-server
kms:
  listen: @HOST@
  keystore: @STORE@
  keystore_password_file: /etc/ringfence/db-password
@ROOT@
  tls: {cert: /etc/ringfence/kms.pem, key: /etc/ringfence/kms.key}
  settings: {workers: 1, hadoop_conf: /etc/ringfence, admin: {token_file: /etc/ringfence/admin-token}}
files:
  - {source: s3://artifacts/kms.pem, path: /etc/ringfence/kms.pem, mode: "0644"}
  - {source: s3://artifacts/kms-acls.xml, path: /etc/ringfence/kms-acls.xml, mode: "0644"}
  - {source: s3://artifacts/kms.key, path: /etc/ringfence/kms.key, owner: ringfence}
  - {source: s3://artifacts/db-password, path: /etc/ringfence/db-password, owner: ringfence}
  - {source: s3://artifacts/admin-token, path: /etc/ringfence/admin-token, owner: ringfence}
@FILES@status: s3://logs/ringfence
"""
_MAKES_THE_STORE = ("  init: true\n  root_key_file: /var/lib/ringfence/root-key", "")
_HAS_THE_ROOT_KEY = (
    "  root_key_file: /etc/ringfence/root-key",
    "  - {source: s3://artifacts/root-key, path: /etc/ringfence/root-key, owner: ringfence}\n",
)
_ALONE = """\
mode: key-server
kms: {listen: "localhost:@PORT@", settings: {workers: 1}}
wait: {kms: 60s}
"""
# A key without a cluster whose policy would ask for one, as the server's own user.
_MAKE_KEY = """\
import os, pwd, secrets
from pathlib import Path
from ringfence_agent.keystore.interface import NewKey
from ringfence_agent.keystore.open import open_keystore
from ringfence_zones.secret import Secret
owner = pwd.getpwnam("ringfence")
os.setgid(owner.pw_gid)
os.setuid(owner.pw_uid)
store = open_keystore("sqlite:////var/lib/ringfence/keys.db", None, False)
store.create_key(NewKey("k1", "AES/CTR/NoPadding", 256, Secret(secrets.token_bytes(32)), None, {}))
store.close()
"""


@pytest.fixture(scope="session")
def wheelhouse(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """What machines are installed from, and its line of bootstrap.yaml."""
    target = tmp_path_factory.mktemp("wheelhouse") / "wheelhouse"
    done = subprocess.run(
        [CHECKOUT / "packaging/scripts/wheelhouse", target], capture_output=True, text=True, timeout=900, check=False
    )
    assert done.returncode == 0, done.stderr
    return target, done.stdout.strip()


@pytest.fixture
def machines(tmp_path: Path, wheelhouse: tuple[Path, str]) -> Iterator[tuple[EmrNode, EmrNode, EmrNode]]:
    """A cluster's primary with HDFS, and two machines for key servers."""
    with ExitStack() as stack:
        made = [stack.enter_context(emr_node(tmp_path / "cluster", hosts=_HOSTS))]
        made += [
            stack.enter_context(emr_node(tmp_path / name, with_hadoop=False, of_emr=False, hosts=_HOSTS))
            for name in ("one", "other")
        ]
        for each in made:
            shutil.copytree(wheelhouse[0], each.path("/srv/s3/artifacts/wheelhouse"))
        yield made[0], made[1], made[2]


def configure(machine: EmrNode, wheelhouse: tuple[Path, str], text: str) -> None:
    machine.path("/srv/s3/artifacts/bootstrap.yaml").write_text(
        f"wheelhouse: s3://artifacts/wheelhouse\n{wheelhouse[1]}\n{text}"
    )


def bootstrap(machine: EmrNode, state: str = "done") -> None:
    machine.path(STATUS).unlink(missing_ok=True)
    machine.run("bash", _ACTION, _CONFIG)
    machine.wait_for(state, lambda: machine.status().get("state") in ("done", "failed"), timeout_s=400)
    assert machine.status()["state"] == state, (machine.status(), machine.logs())


def rules(machine: EmrNode, expect: int) -> list[str]:
    found = json.loads(machine.run(_OURS, "emr", "node", "check", "--json", expect=expect).stdout)
    return [each["rule"] for each in found["findings"]]


def differences(one: dict[str, str], other: dict[str, str]) -> list[str]:
    paths = sorted(one.keys() | other.keys())
    return [f"{path}: {one.get(path)} -> {other.get(path)}" for path in paths if one.get(path) != other.get(path)]


def write(cluster: EmrNode, path: str) -> None:
    cluster.run("sh", "-c", f"echo {_WORDS} | HADOOP_USER_NAME=etl hadoop fs -put - {path}")


def read(cluster: EmrNode, *paths: str) -> list[str]:
    return cluster.run("env", "HADOOP_USER_NAME=etl", "hadoop", "fs", "-cat", *paths).stdout.splitlines()


def free_port() -> int:
    with socket.socket() as one, socket.socket() as other:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        other.bind(("127.0.0.2", port))
        return port


def test_a_pair_off_the_cluster_serves_it_and_either_may_die(
    machines: tuple[EmrNode, EmrNode, EmrNode],
    wheelhouse: tuple[Path, str],
    postgresql: DatabaseServer,
    tmp_path: Path,
) -> None:
    cluster, one, other = machines
    authority, port = CertificateAuthority.make(tmp_path / "ca"), free_port()
    issued = authority.issue_server("kms", names=list(_HOSTS))
    secrets = {"kms.pem": issued.certificate, "kms.key": issued.key, "db-password": postgresql.password_file}
    (tmp_path / "admin-token").write_text("a" * 43 + "\n")
    secrets["admin-token"] = tmp_path / "admin-token"
    secrets["kms-acls.xml"] = CHECKOUT / "bootstrap/ringfence_bootstrap/sandbox/kms-acls-ringfence.xml"
    store = postgresql.new_database()
    before = [each.tree() for each in (one, other)]
    for host, machine, (root, files) in (
        ("kms1.test", one, _MAKES_THE_STORE),
        ("kms2.test", other, _HAS_THE_ROOT_KEY),
    ):
        for name, source in secrets.items():
            shutil.copyfile(source, machine.path("/srv/s3/artifacts") / name)
        text = _SERVER.replace("@HOST@", f"{host}:{port}").replace("@STORE@", store)
        configure(machine, wheelhouse, text.replace("@ROOT@", root).replace("@FILES@", files))
    bootstrap(one)
    # As an operator would, through a bucket of secrets.
    shutil.copyfile(one.path("/var/lib/ringfence/root-key"), other.path("/srv/s3/artifacts/root-key"))
    bootstrap(other)
    assert rules(one, 0) == rules(other, 0) == []
    assert one.path(f"/srv/s3/logs/ringfence/key-servers/{socket.gethostname()}.json").exists()

    token = cluster.path("/srv/s3/admin-token")
    shutil.copyfile(tmp_path / "admin-token", token)
    token.chmod(0o600)
    shutil.copyfile(authority.certificate, cluster.path("/srv/s3/artifacts/ca.pem"))
    uri = f"kms://https@kms1.test;kms2.test:{port}/kms"
    configure(
        cluster,
        wheelhouse,
        f"mode: clients-only\nclients: {{uri: '{uri}', ca_file: /etc/ringfence/ca.pem}}\n"
        'files: [{source: s3://artifacts/ca.pem, path: /etc/ringfence/ca.pem, mode: "0644"}]\n',
    )
    cluster.provision()
    bootstrap(cluster)
    cluster.path("/srv/s3/zones.yaml").write_text(_POLICY)
    as_admin = ("env", "RINGFENCE_KMS_TOKEN_FILE=/srv/s3/admin-token")
    cluster.run(*as_admin, _OURS, "apply", "-f", "/srv/s3/zones.yaml", "--as", "hdfs")
    write(cluster, "/data/pii/file")
    assert read(cluster, "/data/pii/file") == [_WORDS]

    for dead, alive in ((one, other), (other, one)):
        while dead.kill("ringfence"):  # its stand-in for systemd too, which would start it again
            pass
        assert rules(dead, 3) == ["kms_unreachable"] and rules(alive, 0) == []
        write(cluster, f"/data/pii/without-{1 if dead is one else 2}")
        assert read(cluster, "/data/pii/file") == [_WORDS]
        dead.run("systemctl", "start", "ringfence-kms")
        dead.wait_for("the key server", lambda dead=dead: rules_or_none(dead) == [])  # type: ignore[misc]

    # The one whose root key came by `files` has no only copy of anything; the other has.
    other.run(_OURS, "uninstall", "--yes")
    assert differences(before[1], other.tree()) == []
    assert read(cluster, "/data/pii/file") == [_WORDS]
    cluster.run(_OURS, "uninstall", "--yes")
    refused = one.run(_OURS, "uninstall", "--yes", expect=2)
    assert "/var/lib/ringfence/root-key would be deleted" in refused.stderr and rules(one, 0) == []
    one.run(_OURS, "uninstall", "--delete-keys", "--yes")
    assert differences(before[0], one.tree()) == []
    assert postgresql.sql("SELECT count(*) FROM information_schema.tables WHERE table_schema = 'ringfence'",
                          store.rpartition("/")[2]).strip() != "0"  # fmt: skip


def rules_or_none(machine: EmrNode) -> list[str] | None:
    done = machine.run(_OURS, "emr", "node", "check", "--json", expect=None)
    return [each["rule"] for each in json.loads(done.stdout)["findings"]] if done.returncode in (0, 3) else None


def test_one_server_rolls_back_keeps_its_only_keys_and_returns_the_machine(
    tmp_path: Path, wheelhouse: tuple[Path, str]
) -> None:
    port = free_port()
    with emr_node(tmp_path, with_hadoop=False, of_emr=False) as machine:
        shutil.copytree(wheelhouse[0], machine.path("/srv/s3/artifacts/wheelhouse"))
        before = machine.tree()
        # The port is taken: what was begun is undone, the fresh store with it, for no key was ever in it.
        script = f"import socket, time; s = socket.create_server(('127.0.0.1', {port})); time.sleep(600)"
        holder = machine.spawn("python3", "-c", script)
        configure(machine, wheelhouse, _ALONE.replace("@PORT@", str(port)))
        bootstrap(machine, "failed")
        assert "everything is as it was before" in machine.status()["error"]["message"]
        assert not machine.path("/var/lib/ringfence").exists()
        holder.terminate()
        machine.kill("create_server")
        holder.wait()
        machine.run("systemctl", "stop", "ringfence-bootstrap")
        bootstrap(machine)
        assert any("SQLite" in each for each in machine.status()["warnings"])

        machine.run(_OURS.with_name("python"), "-c", _MAKE_KEY)
        refused = machine.run(_OURS, "uninstall", "--yes", expect=2)
        assert "keys.db would be deleted" in refused.stderr and rules(machine, 0) == []
        machine.run(_OURS, "uninstall", "--delete-keys", "--yes")
        assert differences(before, machine.tree()) == []

        bootstrap(machine)
        machine.run(_OURS, "uninstall", "--yes")  # no key was made: nothing would be lost
        assert differences(before, machine.tree()) == []
