"""All checks on one node: right, nothing is found; and each thing that is not right is found by its check."""

from __future__ import annotations

import json
import ssl
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from certificates import Certificates
from node_trees import INSTANCE_STORE, NodeTree
from scripted_http import Answer, Seen, scripted_server

from ringfence_bootstrap.cli.doctor_node import CHECKS
from ringfence_bootstrap.node_doctor import key_server
from ringfence_zones.named_checks import run_checks

PROVIDER = "hadoop.security.key.provider.path"
LUKS = "CRYPT-LUKS2-0123456789abcdef-luks"
RULES = "RULE:[1:$1@$0](.*@AD)s/@.*// DEFAULT"
SPARK = "spark.authenticate true\nspark.network.crypto.enabled true\nspark.io.encryption.enabled true\n"
KMS_YAML = """\
keystore: vault://ringfence/analytics/keystore
authentication: {type: kerberos, kerberos: {auth_to_local: "RULE:[1:$1@$0](.*@AD)s/@.*// DEFAULT"}}
proxy_users: {hive: {users: [etl], hosts: ['*']}}
"""


@pytest.fixture
def tree(
    tmp_path: Path, certificates: Certificates, monkeypatch: pytest.MonkeyPatch, namenode: tuple[int, dict[str, str]]
) -> NodeTree:
    """A core node of a cluster with everything right."""
    port, told = namenode
    uri = f"kms://https@localhost:{port}/kms"
    told[PROVIDER] = uri
    monkeypatch.setattr(key_server, "is_own_host", lambda _host: False)
    # Without a ticket nobody is asked for anything here; who is proven to whom has tests of its own.
    monkeypatch.setattr("ringfence_zones.client_config.is_secure", lambda _conf: False)
    core = {
        PROVIDER: uri,
        "fs.defaultFS": "hdfs://localhost:1",
        "hadoop.security.authentication": "kerberos",
        "hadoop.security.auth_to_local": RULES,
        "hadoop.rpc.protection": "privacy",
        "hadoop.proxyuser.hive.hosts": "*",
        "hadoop.proxyuser.hive.groups": "*",
    }
    hdfs = {
        "dfs.namenode.https-address": f"localhost:{port}",
        "dfs.http.policy": "HTTPS_ONLY",
        "dfs.datanode.data.dir": "file:///mnt/hdfs,file:///mnt1/hdfs",
        "dfs.encrypt.data.transfer": "true",
        "dfs.encrypt.data.transfer.cipher.suites": "AES/CTR/NoPadding",
        "dfs.encrypt.data.transfer.cipher.key.bitlength": "256",
    }
    tree = NodeTree(tmp_path).emr().hadoop(core=core, hdfs=hdfs, mapred={"mapreduce.shuffle.ssl.enabled": "true"})
    tree.write("/etc/hadoop/conf/ringfence-client.yaml", f"kms_ca_file: {certificates.trusted}\n")
    tree.write("/etc/ringfence/kms.yaml", KMS_YAML).write("/etc/spark/conf/spark-defaults.conf", SPARK)
    tree.write("/opt/ringfence/pyvenv.cfg", "version = 3.11.9\n").write("/opt/ringfence/bin/python", "")
    tree.java("/etc/alternatives/jre", "17.0.17")
    tree.disk("/", "/dev/mapper/root", uuid=LUKS).disk("/mnt", "/dev/mapper/mnt", uuid=LUKS)
    return tree.disk("/mnt1", "/dev/nvme1n1", model=INSTANCE_STORE)


@pytest.fixture
def namenode(certificates: Certificates) -> Iterator[tuple[int, dict[str, str]]]:
    """The port of a server with TLS, and what the NameNode's settings are there."""
    told = {"fs.defaultFS": "hdfs://localhost:1"}

    def conf_servlet(seen: Seen) -> Answer:
        name = seen.target.partition("name=")[2].partition("&")[0]
        answer = {"property": {"key": name, "value": told[name]}}
        return 200, json.dumps(answer).encode()

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates.server.certificate, certificates.server.key)
    with scripted_server(conf_servlet, tls=context) as server:
        yield server.port, told


def results(tree: NodeTree) -> dict[str, str]:
    """What came of each check that a test can decide."""
    found = {outcome.name: outcome.to_json()["result"] for outcome in run_checks(CHECKS, tree.node())}
    # This machine's own.
    del found["clock"]
    return found


def test_where_everything_is_right_every_check_looks_and_nothing_is_found(tree: NodeTree) -> None:
    assert set(results(tree).values()) == {"ok"}


def edited(name: str, before: str, after: str) -> Callable[[NodeTree], object]:
    def edit(tree: NodeTree) -> None:
        path = tree.root / name
        text = path.read_text()
        assert before in text
        path.write_text(text.replace(before, after))

    return edit


CORE, HDFS = "etc/hadoop/conf/core-site.xml", "etc/hadoop/conf/hdfs-site.xml"
MISTAKES: list[tuple[str, Callable[[NodeTree], object]]] = [
    ("release", lambda tree: tree.emr("emr-6.15.0")),
    ("java", lambda tree: tree.java("/etc/alternatives/jre", "1.8.0_472")),
    ("python", lambda tree: (tree.root / "opt/ringfence/bin/python").unlink()),
    ("kms_address", lambda tree: (tree.root / "etc/hadoop/conf/ringfence-client.yaml").unlink()),
    ("namenode", edited(CORE, "/kms</value>", "/kms/</value>")),
    ("key_store", edited("etc/ringfence/kms.yaml", "vault://ringfence/analytics/keystore", "sqlite:////srv/keys.db")),
    ("root_device", lambda tree: (tree.root / "sys/dev/block/259:0/dm/uuid").write_text("LVM-x")),
    ("data_disks", lambda tree: (tree.root / "sys/dev/block/259:1/dm/uuid").write_text("LVM-x")),
    ("rpc", edited(CORE, "privacy", "integrity")),
    ("block_transfer", edited(HDFS, "AES/CTR/NoPadding", "")),
    ("shuffle", edited("etc/hadoop/conf/mapred-site.xml", "true", "false")),
    ("spark", edited("etc/spark/conf/spark-defaults.conf", "spark.authenticate true", "")),
    ("proxy_users", edited("etc/ringfence/kms.yaml", "hive", "livy")),
    ("name_rules", edited("etc/ringfence/kms.yaml", " DEFAULT", "")),
    ("tokens", edited("etc/ringfence/kms.yaml", "type: kerberos", "type: simple")),
]


@pytest.mark.parametrize(("check", "mistake"), MISTAKES, ids=[name for name, _ in MISTAKES])
def test_each_mistake_is_found_by_its_check_and_by_no_other(
    tree: NodeTree, check: str, mistake: Callable[[NodeTree], object]
) -> None:
    tree.write("/srv/keys.db", "keys")
    mistake(tree)
    found = results(tree)
    # An old release is made for another Java, too; and trust that is gone is missed by all who ask.
    also = {"release": {"java"}, "kms_address": {"namenode"}}.get(check, set())
    assert found[check] == "found"
    assert {name for name, result in found.items() if result != "ok"} <= {check, *also}


def test_every_check_has_its_mistake() -> None:
    # The port needs a network that drops packets, the clock a kernel: both have tests of their own.
    assert {check.name for check in CHECKS} - {"kms_port", "clock"} == {name for name, _ in MISTAKES}
