"""HDFS transparent encryption by classifications: who may do what at the KMS, and what the NameNode needs.

Rules:

1. Zones are never made here: `hdfs-encryption-zones` makes EMR create keys and zones at launch, over plain HTTP, in the
   stock KMS, before anything of Ringfence runs. `ringfence apply` makes them.
2. The access lists are closed: what nobody is named for, nobody may. Keys of the policy get their lists here for
   Hadoop's own KMS; Ringfence's takes them from the published policy.
3. Nobody is written as a comma: EMR passes values through JSON and property files, where a lone blank may be trimmed
   away, and an empty list admits everybody.
4. The address of the KMS is EMR's own business when the KMS is on the cluster; it is set for one that is not.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from ringfence_bootstrap.classifications.document import Classification
from ringfence_bootstrap.classifications.wanted import Wanted
from ringfence_zones.access_list import EVERYBODY_TEXT, NOBODY_TEXT, AccessList
from ringfence_zones.errors import InputError
from ringfence_zones.findings import Finding, Rule, Severity
from ringfence_zones.kms_uri import KEY_PROVIDER, OLD_KEY_PROVIDER
from ringfence_zones.policy import Policy
from ringfence_zones.publication import Grant
from ringfence_zones.stock_acls import stock_acls

NOBODY = ","
"""No user and no group: `AccessControlList` drops empty names."""

# Services that ask the KMS in the name of their users, by the application that brings them.
_PROXY_USERS = {
    "Hive": "hive",
    "Hue": "hue",
    "Livy": "livy",
    "Oozie": "oozie",
    "Presto": "presto",
    "PrestoSQL": "presto",
    "Trino": "trino",
    "Zeppelin": "zeppelin",
}


def hdfs_encryption_classifications(wanted: Wanted, policy: Policy) -> Iterator[Classification]:
    """For the zones of `policy`. Raises PolicyError for what a stock KMS cannot express, InputError without `kms`."""
    yield Classification("hadoop-kms-acls", {name: _written(value) for name, value in _acls(wanted, policy).items()})
    yield Classification("hadoop-kms-site", _kms_site(wanted, policy))
    yield Classification("core-site", _core_site(wanted))
    yield Classification("hdfs-site", _hdfs_site(wanted))


def _kms_site(wanted: Wanted, policy: Policy) -> dict[str, str]:
    readers = Grant.of(name for zone in policy.zones for name in zone.all_readers)
    properties = {}
    for user in sorted({user for application, user in _PROXY_USERS.items() if wanted.has(application)}):
        # The machines of a cluster are not known before its launch; in whose name is, and it is nobody else.
        prefix = f"hadoop.kms.proxyuser.{user}"
        properties[f"{prefix}.hosts"] = EVERYBODY_TEXT
        if readers.everyone or readers.users:
            properties[f"{prefix}.users"] = EVERYBODY_TEXT if readers.everyone else ",".join(sorted(readers.users))
        if readers.groups and not readers.everyone:
            properties[f"{prefix}.groups"] = ",".join(sorted(readers.groups))
    if wanted.kerberos and wanted.auth_to_local is not None:
        properties["hadoop.kms.authentication.kerberos.name.rules"] = wanted.auth_to_local
    return properties


def _core_site(wanted: Wanted) -> dict[str, str]:
    properties = {}
    if wanted.kms_uri is not None:
        properties[KEY_PROVIDER] = wanted.kms_uri.text
    if wanted.kerberos and wanted.auth_to_local is not None:
        properties["hadoop.security.auth_to_local"] = wanted.auth_to_local
    return properties


def _hdfs_site(wanted: Wanted) -> dict[str, str]:
    # On by default since Hadoop 3.3; the rights of a zone are an access list.
    properties = {"dfs.namenode.acls.enabled": "true"}
    if wanted.kms_uri is not None and not wanted.release.is_hadoop_3:
        properties[OLD_KEY_PROVIDER] = wanted.kms_uri.text
    return properties


def _acls(wanted: Wanted, policy: Policy) -> Mapping[str, str]:
    closed = closed_acls(policy)
    return {**closed, **stock_acls(policy, None, "").properties} if wanted.kms == "hardened" else closed


def closed_acls(policy: Policy) -> dict[str, str]:
    """Hadoop's operation lists, and what holds for a key without lists of its own, in Hadoop's spelling.

    Opening EDEKs is left to the lists of each key; the NameNode's users and administrators who are nobody's readers are
    kept out of it altogether, because they are HDFS's superusers and see every file's EDEK.

    Raises InputError for a policy that does not say who these are.
    """
    kms = policy.kms
    if kms is None:
        raise InputError(
            "the policy does not say who the NameNode and the key administrators are",
            hint="add  kms: {namenode_users: [hdfs], admins: [hdfs]}  with the user your NameNode runs as",
        )
    admins, namenode = Grant.of(kms.admins), Grant.of(kms.namenode_users)
    both = Grant.of((*kms.admins, *kms.namenode_users))
    readers = frozenset(name for zone in policy.zones for name in zone.all_readers)
    kept_out = Grant.of(name for name in (*kms.namenode_users, *kms.admins) if name not in readers)
    everyone_reads = any(Grant.of(zone.all_readers).everyone for zone in policy.zones)
    properties = {f"hadoop.kms.acl.{operation}": _text(admins) for operation in ("CREATE", "DELETE", "ROLLOVER")}
    properties |= {f"hadoop.kms.acl.{operation}": NOBODY_TEXT for operation in ("GET", "SET_KEY_MATERIAL")}
    properties |= {f"hadoop.kms.acl.{operation}": _text(both) for operation in ("GET_KEYS", "GET_METADATA")}
    properties["hadoop.kms.acl.GENERATE_EEK"] = _text(namenode)
    properties["hadoop.kms.acl.DECRYPT_EEK"] = EVERYBODY_TEXT
    if not everyone_reads and (kept_out.users or kept_out.groups):
        properties["hadoop.kms.blacklist.DECRYPT_EEK"] = _text(kept_out)
    properties |= {
        "default.key.acl.MANAGEMENT": _text(admins),
        "default.key.acl.GENERATE_EEK": _text(namenode),
        "default.key.acl.DECRYPT_EEK": NOBODY_TEXT,
        "default.key.acl.READ": _text(both),
    }
    return properties


def _text(grant: Grant) -> str:
    try:
        return AccessList(grant.users, grant.groups, grant.everyone).to_text()
    except ValueError as error:
        raise InputError(f"who administers the KMS cannot be written as a list of Hadoop's: {error}") from None


def _written(value: str) -> str:
    return NOBODY if value == NOBODY_TEXT else value


def hdfs_encryption_findings(wanted: Wanted) -> Iterator[Finding]:
    """What the zones' keys are worth on this cluster."""
    if not wanted.kerberos:
        yield Finding(
            severity=Severity.WARN,
            rule=Rule.SIMPLE_AUTHENTICATION,
            path="hadoop-kms-acls",
            message="without Kerberos the KMS believes whoever claims to be a reader: its access lists stop mistakes,"
            " not people",
            hint="give the cluster Kerberos, or keep other people off its network",
        )
    if wanted.kms_uri is None or wanted.kms_uri.is_plain_http:
        yield Finding(
            severity=Severity.WARN,
            rule=Rule.KMS_PLAIN_HTTP,
            path=f"core-site/{KEY_PROVIDER}",
            message="EMR's own KMS listens with plain HTTP, so data keys cross the network in clear until a takeover or"
            " `ringfence kms harden` gives it TLS"
            if wanted.kms_uri is None
            else "the KMS is called over plain HTTP: data keys cross the network in clear",
            hint="let the bootstrap action do one of both, or name a KMS off the cluster:"
            " --kms-uri kms://https@HOST:9600/kms",
        )
