"""The matrix of in-transit encryption: what protects an endpoint in a release, as EMR's guide has it."""

from __future__ import annotations

import pytest

from ringfence_bootstrap.in_transit_endpoints import BLOCK_TRANSFER, ENDPOINTS, HADOOP_KMS, HTTPFS, Mechanism
from ringfence_bootstrap.releases import parse_release

BY_TITLE = {f"{each.service} {each.name}": each for each in ENDPOINTS}


@pytest.mark.parametrize(
    ("title", "before", "since", "mechanism"),
    [
        ("HDFS NameNode web and WebHDFS", "emr-4.7.4", "emr-4.8.0", Mechanism.TLS),
        ("HDFS NameNode RPC", "emr-4.7.4", "emr-4.8.0", Mechanism.SASL),
        ("MapReduce shuffle", "emr-4.7.4", "emr-4.8.0", Mechanism.TLS),
        ("Tez shuffle", "emr-4.7.4", "emr-4.8.0", Mechanism.TLS),
        ("Spark history server", "emr-5.2.9", "emr-5.3.0", Mechanism.TLS),
        ("Presto coordinator and workers", "emr-5.5.9", "emr-5.6.0", Mechanism.TLS),
        ("JupyterHub web", "emr-5.13.9", "emr-5.14.0", Mechanism.TLS),
        ("Trino coordinator and workers", "emr-6.0.9", "emr-6.1.0", Mechanism.TLS),
        ("Hive HiveServer2", "emr-6.8.9", "emr-6.9.0", Mechanism.TLS),
        ("Hive metastore", "emr-7.2.9", "emr-7.3.0", Mechanism.TLS),
        ("YARN ResourceManager web", "emr-7.2.9", "emr-7.3.0", Mechanism.TLS),
        ("Livy REST", "emr-7.3.9", "emr-7.4.0", Mechanism.TLS),
        ("ZooKeeper clients and quorum", "emr-7.3.9", "emr-7.4.0", Mechanism.TLS),
    ],
)
def test_an_endpoint_is_protected_from_one_release_on(
    title: str, before: str, since: str, mechanism: Mechanism
) -> None:
    endpoint = BY_TITLE[title]
    assert endpoint.mechanism(parse_release(before)) is Mechanism.NONE
    assert endpoint.mechanism(parse_release(since)) is mechanism
    assert endpoint.since == parse_release(since).version


def test_spark_and_hbase_changed_their_mechanism() -> None:
    spark, hbase = BY_TITLE["Spark RPC and shuffle"], BY_TITLE["HBase RPC"]
    releases = [parse_release(each) for each in ("emr-4.8.0", "emr-5.8.0", "emr-5.9.0", "emr-7.5.0", "emr-7.6.0")]
    old, aes = Mechanism.DIGEST_MD5, Mechanism.AES_RPC
    assert [spark.mechanism(each) for each in releases] == [old, old, aes, aes, aes]
    sasl, tls = Mechanism.SASL, Mechanism.TLS
    assert [hbase.mechanism(each) for each in releases] == [sasl, sasl, sasl, sasl, tls]


def test_the_key_server_and_the_gateway_are_protected_by_no_release() -> None:
    for endpoint in (HADOOP_KMS, HTTPFS, BY_TITLE["HDFS failover controller"]):
        assert endpoint.since is None
        assert endpoint.mechanism(parse_release("emr-7.14.0")) is Mechanism.NONE


def test_no_endpoint_stands_there_twice_and_each_is_named_with_its_ports() -> None:
    assert len(BY_TITLE) == len(ENDPOINTS)
    assert BLOCK_TRANSFER.title(parse_release("emr-7.12.0")) == "HDFS block transfer (9866)"
    # Hadoop 2 has other ports.
    assert BLOCK_TRANSFER.title(parse_release("emr-5.36.0")) == "HDFS block transfer"
