"""What crosses the network between nodes, and whether it does so in clear, as this node's files say it.

SASL protects what Kerberos authenticated: without Kerberos RPC privacy has no effect, and the keys of what would be
encrypted still travel in clear RPC. Settings that only look like encryption are therefore findings of their own.
Sources: `core-default.xml`, `hdfs-default.xml`, `mapred-default.xml`; Spark's security page; `TezRuntimeConfiguration`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from ringfence_bootstrap.node_doctor.subject import Node
from ringfence_zones.findings import Finding, Rule, Severity
from ringfence_zones.hadoop_conf import read_hadoop_conf
from ringfence_zones.named_checks import NotChecked, finding

_RPC = "hadoop.rpc.protection"
_TRANSFER = "dfs.encrypt.data.transfer"
_SUITES = "dfs.encrypt.data.transfer.cipher.suites"
_BITS = "dfs.encrypt.data.transfer.cipher.key.bitlength"
_SASL = "dfs.data.transfer.protection"
_AES = "AES/CTR/NoPadding"
_SHUFFLE = "mapreduce.shuffle.ssl.enabled"
_TEZ_SHUFFLE = "tez.runtime.shuffle.ssl.enable"
_TEZ = "etc/tez/conf/tez-site.xml"
_KERBEROS_HINT = "give the cluster Kerberos: without it nobody is proven, and nothing that SASL guards is hidden"


def check_rpc(node: Node) -> Iterator[Finding]:
    """Whether Hadoop's RPC is encrypted: names, attributes and the keys of block transfer travel by it."""
    place, protections = node.hadoop_conf / "core-site.xml", node.site().get_list(_RPC) or ["authentication"]
    if not node.is_secure():
        if "privacy" in protections:
            message = f"{_RPC}=privacy has no effect without Kerberos: calls cross the network in clear"
            yield finding(Severity.ERROR, Rule.EMR_NEEDS_KERBEROS, place, message, _KERBEROS_HINT)
        else:
            message = "Hadoop's RPC crosses the network in clear, and without Kerberos nothing can change that"
            yield finding(Severity.WARN, Rule.EMR_CLEAR_IN_TRANSIT, place, message, _KERBEROS_HINT)
    elif protections != ["privacy"]:
        message = f"{_RPC} is {','.join(protections)}: a client may choose RPC in clear"
        yield finding(Severity.ERROR, Rule.EMR_CLEAR_IN_TRANSIT, place, message, _classified(f"{_RPC}=privacy", "core"))


def check_block_transfer(node: Node) -> Iterator[Finding]:
    """Whether blocks are encrypted between clients and DataNodes. Files in zones are, whatever this says."""
    place, site = node.hadoop_conf / "hdfs-site.xml", node.site("hdfs-site.xml")
    encrypts = site.get_bool(_TRANSFER, False)
    if not node.is_secure():
        if encrypts or site.get_list(_SASL):
            message = "the keys of encrypted block transfer travel in clear RPC without Kerberos: it hides nothing"
            yield finding(Severity.ERROR, Rule.EMR_NEEDS_KERBEROS, place, message, _KERBEROS_HINT)
        else:
            message = "blocks outside encryption zones cross the network in clear"
            yield finding(Severity.WARN, Rule.EMR_CLEAR_IN_TRANSIT, place, message, _KERBEROS_HINT)
        return
    if not encrypts and site.get_list(_SASL) != ["privacy"]:
        message = "blocks outside encryption zones cross the network in clear"
        hint = _classified(f"{_TRANSFER}=true with {_SUITES}={_AES}", "hdfs")
        yield finding(Severity.ERROR, Rule.EMR_CLEAR_IN_TRANSIT, place, message, hint)
    elif site.get(_SUITES) != _AES:
        message = f"{_SUITES} is not {_AES}: blocks are encrypted with 3DES or RC4, slowly and badly"
        yield finding(Severity.WARN, Rule.EMR_WEAK_CIPHER, place, message, _classified(f"{_SUITES}={_AES}", "hdfs"))
    elif site.get(_BITS, "128") != "256":
        message = f"blocks are encrypted with {site.get(_BITS, '128')} bits"
        yield finding(Severity.INFO, Rule.EMR_WEAK_CIPHER, place, message, _classified(f"{_BITS}=256", "hdfs"))


def check_shuffle(node: Node) -> Iterator[Finding]:
    """Whether map outputs are fetched over TLS: they are plain text of what zones hold."""
    found = [(node.hadoop_conf / "mapred-site.xml", _SHUFFLE, "mapred"), (node.root / _TEZ, _TEZ_SHUFFLE, "tez")]
    there = [each for each in found if each[0].is_file()]
    if not there:
        raise NotChecked("there is no mapred-site.xml and no tez-site.xml: nothing shuffles here")
    for place, setting, kind in there:
        site = node.site("mapred-site.xml") if kind == "mapred" else _read(place)
        if site.get(setting, "false").lower() != "true":
            message = f"{setting} is not true: {kind} jobs fetch their map outputs over plain HTTP"
            yield finding(
                Severity.WARN, Rule.EMR_CLEAR_IN_TRANSIT, place, message, _classified(f"{setting}=true", kind)
            )
        elif not node.is_secure():
            message = "the secret with which a job fetches map outputs travels in clear RPC without Kerberos"
            yield finding(Severity.WARN, Rule.EMR_NEEDS_KERBEROS, place, message, _KERBEROS_HINT)


def check_spark(node: Node) -> Iterator[Finding]:
    """Whether Spark's processes prove themselves to each other and encrypt what they send and spill."""
    settings, place = node.spark(), node.spark_file
    if not place.is_file():
        raise NotChecked(f"there is no {place}: Spark is not installed here")
    wanted = {
        "spark.authenticate": "whoever reaches an executor's port may command it, and nothing is encrypted",
        "spark.network.crypto.enabled": "what executors send each other crosses the network in clear",
        "spark.io.encryption.enabled": "what Spark spills and shuffles lies on the disks in clear",
    }
    for setting, meaning in wanted.items():
        # TLS for RPC, since Spark 4, stands in for its own cipher.
        if setting == "spark.network.crypto.enabled" and _is_true(settings, "spark.ssl.rpc.enabled"):
            continue
        if not _is_true(settings, setting):
            rule = Rule.EMR_CLEAR_AT_REST if "io.encryption" in setting else Rule.EMR_CLEAR_IN_TRANSIT
            message = f"{setting} is not true: {meaning}"
            yield finding(Severity.WARN, rule, place, message, _classified(f"{setting}=true", "spark-defaults"))
    if not node.is_secure() and _is_true(settings, "spark.authenticate"):
        message = "Spark's secret is handed to YARN in clear RPC without Kerberos: whoever sees it reads along"
        yield finding(Severity.ERROR, Rule.EMR_NEEDS_KERBEROS, place, message, _KERBEROS_HINT)


def _is_true(settings: Mapping[str, str], name: str) -> bool:
    return settings.get(name, "").strip().lower() == "true"


def _classified(setting: str, kind: str) -> str:
    name = kind if kind == "spark-defaults" else f"{kind}-site"
    return f"set {setting} by the classification {name}, or attach a security configuration to the next cluster"


def _read(place: Path) -> Mapping[str, str]:
    return read_hadoop_conf(place.parent, place.name)
