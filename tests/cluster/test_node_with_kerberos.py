"""A node's whole life on a cluster with Kerberos: our key server has a copy of the KMS's keytab.

HDFS with Kerberos and encryption on the wire, the stock KMS with Kerberos over plain HTTP, as EMR sets it up; keytabs
that their daemon's user alone reads.
"""

from __future__ import annotations

import json
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
from emr_node import CHECKOUT, SANDBOX, EmrNode, emr_node
from node_life import OURS, bootstrap, check, differences, give_wheelhouse, wait_until_done

pytestmark = [pytest.mark.cluster, pytest.mark.long, pytest.mark.timeout(1800)]

_KEYTAB = Path("/etc/ringfence/kms.keytab")
_POLICY = """\
version: 1
cluster: analytics
zones:
  - {path: /data/pii, owner: etl, mode: "0750", readers: [analyst], writers: [etl]}
kms: {namenode_users: [hdfs], admins: [hdfs]}
"""
_CONFIG = """\
kms:
  prove_with: [{principal: etl, keytab: /etc/etl.keytab}]
  settings: {tombstone: 7d}
kerberos: {principal: hdfs/_HOST, keytab: /etc/hdfs.keytab}
"""
_WORDS = "what was written stays readable"
_KADMIN = f"KRB5_CONFIG={SANDBOX}/kdc/krb5.conf KRB5_KDC_PROFILE={SANDBOX}/kdc/kdc.conf kadmin.local"


@pytest.fixture
def node(tmp_path: Path, wheelhouse: tuple[Path, str]) -> Iterator[EmrNode]:
    with emr_node(tmp_path, kerberos=True) as made:
        give_wheelhouse(made, wheelhouse)
        bucket = made.path("/srv/s3/artifacts")
        config = (bucket / "bootstrap.yaml").read_text().partition("kms:")[0] + _CONFIG
        (bucket / "bootstrap.yaml").write_text(config)
        made.run("install", "-m", "0400", SANDBOX / "kdc/keytabs/etl.keytab", "/etc/etl.keytab")
        for user in ("hdfs", "etl", "analyst", "masker"):
            keytab = f"{SANDBOX}/kdc/keytabs/{user}.keytab"
            made.run("kinit", "-c", f"FILE:/tmp/tickets-{user}", "-k", "-t", keytab, user)
        made.wait_for(
            "the stock KMS and HDFS",
            lambda: ask(made, "hdfs", "key", "list", expect=None) and ask(made, "hdfs", *_SAFE_MODE, expect=None),
        )
        yield made


_SAFE_MODE = ("org.apache.hadoop.hdfs.tools.DFSAdmin", "-safemode", "wait")


def ask(node: EmrNode, user: str, *arguments: str, expect: int | None = 0) -> str:
    """One of Hadoop's commands with a ticket of `user`; standard output."""
    return node.run("env", f"KRB5CCNAME=FILE:/tmp/tickets-{user}", "hadoop", *arguments, expect=expect).stdout


def write(node: EmrNode, path: str) -> None:
    node.run("sh", "-c", f"echo {_WORDS} | KRB5CCNAME=FILE:/tmp/tickets-etl hadoop fs -put - {path}")


def read(node: EmrNode, user: str, *paths: str) -> list[str]:
    return ask(node, user, "fs", "-cat", *paths).splitlines()


def test_a_node_with_kerberos_is_set_up_checked_and_returned_to_what_it_was(node: EmrNode) -> None:
    ask(node, "hdfs", "key", "create", "before")
    ask(node, "hdfs", "fs", "-mkdir", "-p", "/before")
    ask(
        node,
        "hdfs",
        "org.apache.hadoop.hdfs.tools.CryptoAdmin",
        "-createZone",
        "-keyName",
        "before",
        "-path",
        "/before",
    )
    ask(node, "hdfs", "fs", "-chmod", "777", "/before")
    write(node, "/before/file")
    before = node.tree()

    bootstrap(node)
    node.provision()
    wait_until_done(node)
    found = node.path(_KEYTAB).stat()
    owner = int(node.run("id", "-u", "ringfence").stdout)
    assert (stat.S_IMODE(found.st_mode), found.st_uid) == (0o400, owner)
    assert node.path("/etc/kms.keytab").stat().st_uid == 902
    assert "keytab_file: /etc/ringfence/kms.keytab" in node.path("/etc/ringfence/kms.yaml").read_text()
    journal = node.path("/var/lib/ringfence-node/journal/set-up.json").read_text()
    assert json.loads(journal)["details"]["kms_keytab"] == "/etc/kms.keytab"

    node.path("/srv/zones.yaml").write_text(_POLICY)
    node.run("bash", CHECKOUT / "bootstrap/emr/step-zones.sh", "--policy", "/srv/zones.yaml", "--kms", "ringfence")
    node.path("/srv/zones.yaml").unlink()
    write(node, "/data/pii/file")
    assert read(node, "etl", "/before/file", "/data/pii/file") == [_WORDS] * 2
    assert read(node, "analyst", "/data/pii/file") == [_WORDS]
    node.run("env", "KRB5CCNAME=FILE:/tmp/tickets-masker", "hadoop", "fs", "-cat", "/data/pii/file", expect=1)
    refused = node.run("env", "KRB5CCNAME=FILE:/tmp/nobody", "hadoop", "key", "list", expect=1)
    assert "before" not in refused.stdout
    assert check(node, 0) == []

    # EMR makes the keytab anew: the copy is of keys that the realm does not use any more.
    node.run(
        "sh", "-ec", f"{_KADMIN} cpw -randkey HTTP/localhost; {_KADMIN} ktadd -norandkey -k /tmp/new HTTP/localhost"
    )
    node.run("sh", "-ec", "install -o kms -m 0400 /tmp/new /etc/kms.keytab")
    drift = json.loads(node.run(OURS, "emr", "node", "check", "--json", expect=3).stdout)["findings"]
    assert ("node_keytab", str(_KEYTAB)) in [(each["rule"], each["path"]) for each in drift]
    node.run("sh", "-ec", next(each["command"] for each in drift if each["rule"] == "node_keytab"))
    assert "node_keytab" not in [rule for rule, _ in check(node, 0)]
    assert read(node, "etl", "/data/pii/file") == [_WORDS]
    after = {path: node.tree()[path] for path in ("etc/kms.keytab",)}

    assert node.run(OURS, "uninstall", "--yes").stdout.strip() == "this node is as it was"
    assert differences(before | after, node.tree()) == []
    assert read(node, "etl", "/before/file", "/data/pii/file") == [_WORDS] * 2
