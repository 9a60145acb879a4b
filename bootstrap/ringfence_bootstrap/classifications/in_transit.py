"""Encryption in transit by classifications alone: what a security configuration would turn on, as far as that goes.

Rules:

1. SASL protects what Kerberos authenticated. Without Kerberos `hadoop.rpc.protection` encrypts nothing, and the keys
   of what would be encrypted still (blocks, Spark, Tez and MapReduce jobs) travel in clear RPC: such a feature is left
   out and named as an error, because a cluster that looks encrypted is worse than one that does not.
2. What needs a certificate needs files that no classification can bring. It is left out and named until the cluster
   says where they lie.
3. What no classification can encrypt is named each time.

Sources: `core-default.xml`, `hdfs-default.xml`, `mapred-default.xml` of Hadoop; Spark's and HBase's security pages;
`TezRuntimeConfiguration` (its property is `tez.runtime.shuffle.ssl.enable`; where AWS writes `tez.runtime.ssl.enable`,
Tez knows no such name); EMR's support matrix for what a security configuration turns on and since which release.
"""

from __future__ import annotations

from collections.abc import Iterator

from ringfence_bootstrap.classifications.document import SECRET_PREFIX, Classification
from ringfence_bootstrap.classifications.wanted import TlsStores, Wanted
from ringfence_zones.findings import Finding, Rule, Severity

_TRUE = "true"
# Spark got AES of its own with EMR 5.9.0; before, SASL's DIGEST-MD5 with 3DES or RC4.
_SPARK_AES = (5, 9, 0)
_JAVA_WITH_TLS_1_3 = 11
_PORTS_ONLY_A_SECURITY_CONFIGURATION_CLOSES = {
    "Presto": "between coordinator and workers (its coordinator's name is not known before the launch)",
    "PrestoSQL": "between coordinator and workers (its coordinator's name is not known before the launch)",
    "Trino": "between coordinator and workers (its coordinator's name is not known before the launch)",
    "Flink": "between its own processes, and its pages",
    "Hue": "its pages",
    "JupyterHub": "its pages",
    "JupyterEnterpriseGateway": "its API",
    "Livy": "its API, through which code and results pass",
    "Oozie": "its API",
    "Phoenix": "its query server",
    "Zeppelin": "its pages, through which code and results pass",
    "ZooKeeper": "every connection",
}


def in_transit_classifications(wanted: Wanted) -> Iterator[Classification]:
    """What can be encrypted on this cluster."""
    if wanted.kerberos:
        yield from _hadoop()
        yield from _applications(wanted)
    if wanted.tls is not None:
        yield from _stores(wanted.tls, tls13=wanted.release.node.default_java >= _JAVA_WITH_TLS_1_3)
        if wanted.kerberos:
            yield from _shuffle(wanted)


def _hadoop() -> Iterator[Classification]:
    yield Classification("core-site", {"hadoop.rpc.protection": "privacy"})
    yield Classification(
        "hdfs-site",
        {
            # The key that blocks are encrypted with belongs to the block pool, and only exists with access tokens.
            "dfs.block.access.token.enable": _TRUE,
            "dfs.data.transfer.protection": "privacy",
            "dfs.encrypt.data.transfer": _TRUE,
            # Without it SASL's own cipher is used, which is 3DES or RC4.
            "dfs.encrypt.data.transfer.cipher.suites": "AES/CTR/NoPadding",
            "dfs.encrypt.data.transfer.cipher.key.bitlength": "256",
        },
    )


def _applications(wanted: Wanted) -> Iterator[Classification]:
    if wanted.has("Spark"):
        shared = _spark(wanted)
        yield Classification("spark-defaults", shared)
        # The shuffle service lives in the NodeManager and reads these from its file.
        yield Classification("yarn-site", shared)
    if wanted.has("Hive"):
        yield Classification("hive-site", {"hive.server2.thrift.sasl.qop": "auth-conf"})
    if wanted.has("HBase"):
        yield Classification("hbase-site", {"hbase.rpc.protection": "privacy"})


def _spark(wanted: Wanted) -> dict[str, str]:
    if wanted.release.version < _SPARK_AES:
        return {
            "spark.authenticate": _TRUE,
            "spark.authenticate.enableSaslEncryption": _TRUE,
            "spark.network.sasl.serverAlwaysEncrypt": _TRUE,
        }
    return {
        "spark.authenticate": _TRUE,
        "spark.network.crypto.enabled": _TRUE,
        "spark.network.crypto.keyLength": "256",
        # Otherwise whoever claims to be an older shuffle service is spoken to with the old cipher.
        "spark.network.crypto.saslFallback": "false",
    }


def _stores(tls: TlsStores, *, tls13: bool) -> Iterator[Classification]:
    yield Classification("core-site", {"hadoop.ssl.enabled.protocols": "TLSv1.2,TLSv1.3" if tls13 else "TLSv1.2"})
    yield Classification(
        "hadoop-ssl-server",
        {
            "ssl.server.keystore.location": tls.key_store,
            "ssl.server.keystore.type": tls.kind,
            f"{SECRET_PREFIX}ssl.server.keystore.password": tls.password_secret,
            f"{SECRET_PREFIX}ssl.server.keystore.keypassword": tls.password_secret,
            "ssl.server.truststore.location": tls.trust_store,
            "ssl.server.truststore.type": tls.kind,
            f"{SECRET_PREFIX}ssl.server.truststore.password": tls.password_secret,
        },
    )
    yield Classification(
        "hadoop-ssl-client",
        {
            "ssl.client.truststore.location": tls.trust_store,
            "ssl.client.truststore.type": tls.kind,
            f"{SECRET_PREFIX}ssl.client.truststore.password": tls.password_secret,
        },
    )


def _shuffle(wanted: Wanted) -> Iterator[Classification]:
    yield Classification("mapred-site", {"mapreduce.shuffle.ssl.enabled": _TRUE})
    if wanted.has("Tez", "Hive"):
        # Without kept connections Tez makes a handshake for each fetch.
        properties = {"tez.runtime.shuffle.ssl.enable": _TRUE, "tez.runtime.shuffle.keep-alive.enabled": _TRUE}
        yield Classification("tez-site", properties)


def in_transit_findings(wanted: Wanted) -> Iterator[Finding]:
    """What stays in clear, and what looks encrypted and is not."""
    if not wanted.kerberos:
        yield from _without_kerberos(wanted)
    if wanted.tls is None:
        yield _finding(
            Severity.WARN,
            Rule.EMR_NEEDS_KEY_STORES,
            "mapred-site/mapreduce.shuffle.ssl.enabled",
            "the shuffle of MapReduce and Tez crosses the network in clear: TLS needs a key store on each node, and no"
            " classification brings files",
            "put the stores there by a bootstrap action and name them:"
            " --tls-key-store, --tls-trust-store, --tls-password-secret",
        )
    if wanted.has("Spark") and wanted.kerberos and wanted.release.version < _SPARK_AES:
        yield _finding(
            Severity.WARN,
            Rule.EMR_WEAK_CIPHER,
            "spark-defaults/spark.authenticate.enableSaslEncryption",
            f"Spark of {wanted.release.label} has no cipher of its own: SASL's DIGEST-MD5 with 3DES or RC4 is used",
            "take emr-5.9.0 or newer, where Spark encrypts with AES",
        )
    yield _finding(
        Severity.WARN,
        Rule.EMR_CLEAR_IN_TRANSIT,
        "hdfs-site/dfs.http.policy",
        "web pages and APIs of HDFS, YARN and the history servers stay plain HTTP, WebHDFS's file contents among them",
        "attach a security configuration with encryption in transit, or keep their ports closed by security groups",
    )
    for application, what in _PORTS_ONLY_A_SECURITY_CONFIGURATION_CLOSES.items():
        if wanted.has(application):
            yield _finding(
                Severity.WARN,
                Rule.EMR_CLEAR_IN_TRANSIT,
                application,
                f"{application} stays in clear: {what}",
                "only a security configuration with encryption in transit encrypts it, in a release that can",
            )


def _without_kerberos(wanted: Wanted) -> Iterator[Finding]:
    hint = "give the cluster Kerberos and say --kerberos, or leave encryption in transit out: --no-in-transit"
    yield _finding(
        Severity.ERROR,
        Rule.EMR_NEEDS_KERBEROS,
        "core-site/hadoop.rpc.protection",
        "hadoop.rpc.protection=privacy has no effect without Kerberos: calls stay in clear, so it is left out",
        hint,
    )
    yield _finding(
        Severity.ERROR,
        Rule.EMR_NEEDS_KERBEROS,
        "hdfs-site/dfs.encrypt.data.transfer",
        "without Kerberos the keys of encrypted block transfer and the block access tokens travel in clear RPC: whoever"
        " sees the network reads them there, so it is left out",
        hint,
    )
    keys = {
        "Spark": ("spark-defaults/spark.authenticate", "Spark's secret"),
        "Hive": ("hive-site/hive.server2.thrift.sasl.qop", "HiveServer2's quality of protection"),
        "HBase": ("hbase-site/hbase.rpc.protection", "HBase's RPC protection"),
    }
    for application, (path, what) in keys.items():
        if wanted.has(application):
            why = "is handed to YARN in clear RPC" if application == "Spark" else "has no effect"
            message = f"without Kerberos {what} {why}, so it is left out"
            yield _finding(Severity.ERROR, Rule.EMR_NEEDS_KERBEROS, path, message, hint)
    if wanted.tls is not None:
        yield _finding(
            Severity.ERROR,
            Rule.EMR_NEEDS_KERBEROS,
            "mapred-site/mapreduce.shuffle.ssl.enabled",
            "without Kerberos the secret with which a job fetches its map outputs travels in clear RPC: whoever sees it"
            " fetches them too, over TLS or not, so it is left out",
            hint,
        )


def _finding(severity: Severity, rule: Rule, path: str, message: str, hint: str) -> Finding:
    return Finding(severity=severity, rule=rule, path=path, message=message, hint=hint)
