"""What crosses the network in clear, by a node's files."""

from __future__ import annotations

from pathlib import Path

import pytest
from node_trees import NodeTree

from ringfence_bootstrap.node_doctor import wire
from ringfence_zones.findings import Rule
from ringfence_zones.named_checks import NotChecked

KERBEROS = {"hadoop.security.authentication": "kerberos"}
AES = {
    "dfs.encrypt.data.transfer": "true",
    "dfs.encrypt.data.transfer.cipher.suites": "AES/CTR/NoPadding",
    "dfs.encrypt.data.transfer.cipher.key.bitlength": "256",
}
SPARK = "spark.authenticate true\nspark.network.crypto.enabled=true\nspark.io.encryption.enabled:  true\n"


@pytest.mark.parametrize(
    ("core", "expected"),
    [
        ({**KERBEROS, "hadoop.rpc.protection": "privacy"}, []),
        ({**KERBEROS, "hadoop.rpc.protection": "authentication,privacy"}, [Rule.EMR_CLEAR_IN_TRANSIT]),
        (KERBEROS, [Rule.EMR_CLEAR_IN_TRANSIT]),
        ({}, [Rule.EMR_CLEAR_IN_TRANSIT]),
        ({"hadoop.rpc.protection": "privacy"}, [Rule.EMR_NEEDS_KERBEROS]),
    ],
)
def test_rpc(tmp_path: Path, core: dict[str, str], expected: list[Rule]) -> None:
    assert [each.rule for each in wire.check_rpc(NodeTree(tmp_path).hadoop(core=core).node())] == expected


@pytest.mark.parametrize(
    ("core", "hdfs", "expected"),
    [
        (KERBEROS, AES, []),
        (KERBEROS, {**AES, "dfs.encrypt.data.transfer.cipher.key.bitlength": "128"}, [Rule.EMR_WEAK_CIPHER]),
        (KERBEROS, {"dfs.encrypt.data.transfer": "true"}, [Rule.EMR_WEAK_CIPHER]),
        (KERBEROS, {}, [Rule.EMR_CLEAR_IN_TRANSIT]),
        (KERBEROS, {"dfs.data.transfer.protection": "integrity"}, [Rule.EMR_CLEAR_IN_TRANSIT]),
        (KERBEROS, {**AES, "dfs.encrypt.data.transfer": "no", "dfs.data.transfer.protection": "privacy"}, []),
        ({}, {}, [Rule.EMR_CLEAR_IN_TRANSIT]),
        ({}, AES, [Rule.EMR_NEEDS_KERBEROS]),
    ],
)
def test_block_transfer(tmp_path: Path, core: dict[str, str], hdfs: dict[str, str], expected: list[Rule]) -> None:
    node = NodeTree(tmp_path).hadoop(core=core, hdfs=hdfs).node()
    assert [each.rule for each in wire.check_block_transfer(node)] == expected


def test_shuffle_of_mapreduce_and_of_tez(tmp_path: Path) -> None:
    tree = NodeTree(tmp_path).hadoop(core=KERBEROS)
    with pytest.raises(NotChecked, match="nothing shuffles here"):
        list(wire.check_shuffle(tree.node()))
    tree.hadoop(core=KERBEROS, mapred={})
    assert [each.rule for each in wire.check_shuffle(tree.node())] == [Rule.EMR_CLEAR_IN_TRANSIT]
    tree.hadoop(core=KERBEROS, mapred={"mapreduce.shuffle.ssl.enabled": "true"})
    assert list(wire.check_shuffle(tree.node())) == []
    # The name that AWS's page has for it is none of Tez's.
    tez = "<configuration><property><name>{}</name><value>true</value></property></configuration>"
    tree.write("/etc/tez/conf/tez-site.xml", tez.format("tez.runtime.ssl.enable"))
    assert [each.path for each in wire.check_shuffle(tree.node())] == [str(tmp_path / "etc/tez/conf/tez-site.xml")]
    tree.write("/etc/tez/conf/tez-site.xml", tez.format("tez.runtime.shuffle.ssl.enable"))
    assert list(wire.check_shuffle(tree.node())) == []
    tree.hadoop(core={}, mapred={"mapreduce.shuffle.ssl.enabled": "true"})
    assert [each.rule for each in wire.check_shuffle(tree.node())] == [Rule.EMR_NEEDS_KERBEROS] * 2


def test_spark(tmp_path: Path) -> None:
    tree = NodeTree(tmp_path).hadoop(core=KERBEROS)
    with pytest.raises(NotChecked, match="Spark is not installed"):
        list(wire.check_spark(tree.node()))
    tree.write("/etc/spark/conf/spark-defaults.conf", "# spark.authenticate true\n")
    rules = [each.rule for each in wire.check_spark(tree.node())]
    assert rules == [Rule.EMR_CLEAR_IN_TRANSIT, Rule.EMR_CLEAR_IN_TRANSIT, Rule.EMR_CLEAR_AT_REST]
    tree.write("/etc/spark/conf/spark-defaults.conf", SPARK)
    assert list(wire.check_spark(tree.node())) == []
    tls = SPARK.replace("spark.network.crypto.enabled=true", "spark.ssl.rpc.enabled true")
    tree.write("/etc/spark/conf/spark-defaults.conf", tls)
    assert list(wire.check_spark(tree.node())) == []
    tree.hadoop(core={})
    assert [each.rule for each in wire.check_spark(tree.node())] == [Rule.EMR_NEEDS_KERBEROS]


def test_without_hadoop_nothing_is_called_fine(tmp_path: Path) -> None:
    node = NodeTree(tmp_path).node()
    for check in (wire.check_rpc, wire.check_block_transfer):
        with pytest.raises(NotChecked, match=r"no core-site\.xml"):
            list(check(node))


def test_a_file_that_is_not_hadoop_s_is_said(tmp_path: Path) -> None:
    tree = NodeTree(tmp_path).hadoop().write("/etc/hadoop/conf/core-site.xml", "<configuration>")
    with pytest.raises(NotChecked, match="core-site"):
        list(wire.check_rpc(tree.node()))
