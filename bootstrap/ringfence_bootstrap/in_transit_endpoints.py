"""What EMR's in-transit encryption turns on: each endpoint, by which mechanism, since which release.

The data is AWS's support matrix for encryption in transit (EMR Management Guide), whose wording it trusts where
another page of the guide says otherwise: SASL protects nothing without Kerberos, whatever the switches say. Hadoop's
KMS and HttpFS have no row there at all, so as far as AWS documents it they speak plain HTTP; they are listed here
because keys cross the first.

Ports are those of current releases (Hadoop 3), to say which endpoint is meant; a node's configuration says which it
has.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

from ringfence_bootstrap.releases import Release, Version


class Mechanism(enum.StrEnum):
    """What protects an endpoint."""

    TLS = "TLS"
    SASL = "SASL with Kerberos"
    AES_RPC = "AES with a shared secret"
    DIGEST_MD5 = "SASL with DIGEST-MD5 and 3DES"
    NONE = "nothing"


_FIRST: Version = (4, 8, 0)


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One endpoint. `application` is what RunJobFlow calls the application that it comes with.

    `steps` are the mechanisms, each with the first release that has it, oldest first; none at all when no release
    protects the endpoint.
    """

    application: str
    service: str
    name: str
    ports: tuple[int, ...]
    steps: tuple[tuple[Version, Mechanism], ...]

    def mechanism(self, release: Release) -> Mechanism:
        """What in-transit encryption protects it with in this release."""
        found = [mechanism for since, mechanism in self.steps if release.version >= since]
        return found[-1] if found else Mechanism.NONE

    @property
    def since(self) -> Version | None:
        """The first release that protects it; None when none does."""
        return self.steps[0][0] if self.steps else None

    def title(self, release: Release | None) -> str:
        """`HDFS NameNode RPC (8020)`; without ports where the release has others."""
        ports = ", ".join(str(port) for port in self.ports)
        has_others = release is not None and not release.is_hadoop_3
        return f"{self.service} {self.name}" + (f" ({ports})" if ports and not has_others else "")


def _tls(since: Version) -> tuple[tuple[Version, Mechanism], ...]:
    return ((since, Mechanism.TLS),)


_SASL = ((_FIRST, Mechanism.SASL),)
_IN_CLEAR: tuple[tuple[Version, Mechanism], ...] = ()

HADOOP_KMS = Endpoint("Hadoop", "Hadoop KMS", "HTTP", (9600,), _IN_CLEAR)
HTTPFS = Endpoint("Hadoop", "HttpFS", "HTTP", (14000,), _IN_CLEAR)
BLOCK_TRANSFER = Endpoint("Hadoop", "HDFS", "block transfer", (9866,), _SASL)
SPARK_RPC = Endpoint(
    "Spark",
    "Spark",
    "RPC and shuffle",
    (7337,),
    ((_FIRST, Mechanism.DIGEST_MD5), ((5, 9, 0), Mechanism.AES_RPC)),
)

ENDPOINTS: tuple[Endpoint, ...] = (
    Endpoint("Hadoop", "HDFS", "NameNode web and WebHDFS", (9871,), _tls(_FIRST)),
    Endpoint("Hadoop", "HDFS", "DataNode web", (9865,), _tls(_FIRST)),
    Endpoint("Hadoop", "HDFS", "JournalNode web", (8481,), _tls(_FIRST)),
    Endpoint("Hadoop", "HDFS", "NameNode RPC", (8020,), _SASL),
    BLOCK_TRANSFER,
    Endpoint("Hadoop", "HDFS", "JournalNode RPC", (8485,), _SASL),
    Endpoint("Hadoop", "HDFS", "failover controller", (8019,), _IN_CLEAR),
    HADOOP_KMS,
    HTTPFS,
    Endpoint("Hadoop", "YARN", "ResourceManager web", (8088,), _tls((7, 3, 0))),
    Endpoint("Hadoop", "YARN", "timeline server web", (8188,), _tls((7, 3, 0))),
    Endpoint("Hadoop", "YARN", "NodeManager web", (8044,), _tls((7, 3, 0))),
    Endpoint("Hadoop", "YARN", "ResourceManager RPC", (8025, 8030, 8032, 8033), _SASL),
    Endpoint("Hadoop", "YARN", "timeline server RPC", (10200,), _SASL),
    Endpoint("Hadoop", "YARN", "web proxy", (20888,), _SASL),
    Endpoint("Hadoop", "YARN", "NodeManager RPC", (8040, 8041), _SASL),
    Endpoint("Hadoop", "MapReduce", "shuffle", (13562,), _tls(_FIRST)),
    Endpoint("Hadoop", "MapReduce", "history server", (19890,), _tls((7, 3, 0))),
    SPARK_RPC,
    Endpoint("Spark", "Spark", "web", (4440,), _tls((5, 3, 0))),
    Endpoint("Spark", "Spark", "history server", (18480,), _tls((5, 3, 0))),
    Endpoint("Presto", "Presto", "coordinator and workers", (8446,), _tls((5, 6, 0))),
    Endpoint("Trino", "Trino", "coordinator and workers", (8446,), _tls((6, 1, 0))),
    Endpoint("Hive", "Hive", "HiveServer2", (10000, 10001), _tls((6, 9, 0))),
    Endpoint("Hive", "Hive", "HiveServer2 web", (10002,), _tls((7, 3, 0))),
    Endpoint("Hive", "Hive", "metastore", (9083,), _tls((7, 3, 0))),
    Endpoint("Hive", "Hive", "LLAP web and shuffle", (15551, 15002), _tls((7, 3, 0))),
    Endpoint("Hive", "Hive", "LLAP plug-in and daemon RPC", (15003, 15004), _IN_CLEAR),
    Endpoint("HCatalog", "HCatalog", "WebHCat", (50111,), _tls((7, 3, 0))),
    Endpoint("Tez", "Tez", "shuffle", (), _tls(_FIRST)),
    Endpoint("Tez", "Tez", "web", (8080,), _tls((7, 3, 0))),
    Endpoint("Tez", "Tez", "RPC of application master and tasks", (), _IN_CLEAR),
    Endpoint("HBase", "HBase", "RPC", (16000, 16020), ((_FIRST, Mechanism.SASL), ((7, 6, 0), Mechanism.TLS))),
    Endpoint("HBase", "HBase", "web", (16010, 16030), _tls((7, 3, 0))),
    Endpoint("HBase", "HBase", "REST and Thrift", (8070, 8085, 9090, 9095), _tls((7, 3, 0))),
    Endpoint("Flink", "Flink", "history server and JobManager REST", (8082,), _tls((7, 3, 0))),
    Endpoint("Oozie", "Oozie", "server", (11443,), _tls((7, 3, 0))),
    Endpoint("Phoenix", "Phoenix", "query server", (8765,), _tls((7, 3, 0))),
    Endpoint("Zeppelin", "Zeppelin", "web", (8890,), _tls((7, 3, 0))),
    Endpoint("Hue", "Hue", "web", (8888,), _tls((7, 4, 0))),
    Endpoint("Livy", "Livy", "REST", (8998,), _tls((7, 4, 0))),
    Endpoint("JupyterEnterpriseGateway", "Jupyter Enterprise Gateway", "REST", (9547,), _tls((7, 4, 0))),
    Endpoint("ZooKeeper", "ZooKeeper", "clients and quorum", (2281, 2888, 3888, 8341), _tls((7, 4, 0))),
    Endpoint("JupyterHub", "JupyterHub", "web", (9443,), _tls((5, 14, 0))),
)
