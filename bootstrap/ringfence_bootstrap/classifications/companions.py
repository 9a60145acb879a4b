"""What goes beside a security configuration with encryption in transit: EMR's own defects put right.

EMR turns the features on; these properties are where its releases then contradict themselves. Sources: the known issues
of EMR's release notes 7.3.0 to 7.9.0 and its page on encryption in transit.
"""

from __future__ import annotations

from collections.abc import Iterator

from ringfence_bootstrap.classifications.document import Classification
from ringfence_bootstrap.classifications.wanted import Wanted
from ringfence_zones.findings import Finding, Rule, Severity

# The releases that got TLS on the pages, and those that put the links to them right.
_PAGES_WITH_TLS = (7, 3, 0)
_SPARK_HISTORY_RIGHT = (7, 10, 0)
_LOG_SERVER_RIGHT = (7, 9, 0)


def companion_classifications(wanted: Wanted) -> Iterator[Classification]:
    """The fixes that this release needs."""
    release, has_pages = wanted.release, wanted.release.version >= _PAGES_WITH_TLS
    if wanted.has("Spark") and _PAGES_WITH_TLS <= release.version < _SPARK_HISTORY_RIGHT:
        # Spark reads Hadoop's properties this way: a launch document does not know the primary's name.
        address = "${hadoopconf-yarn.resourcemanager.hostname}:18480"
        yield Classification("spark-defaults", {"spark.yarn.historyServer.address": address})
    if _PAGES_WITH_TLS <= release.version < _LOG_SERVER_RIGHT:
        url = "https://${yarn.resourcemanager.hostname}:19890/jobhistory/logs"
        yield Classification("yarn-site", {"yarn.log.server.url": url})
    if wanted.kerberos and has_pages and wanted.has("Spark", "Livy") and wanted.has("Hive", "HCatalog"):
        yield Classification("hive-site", {"hive.metastore.use.SSL": "false"})
    if wanted.foreign_certificate:
        if has_pages:
            yield Classification("core-site", {"hadoop.ssl.hostname.verifier": "ALLOW_ALL"})
        if wanted.has("Oozie") and has_pages:
            yield Classification("oozie-site", {"oozie.https.enabled": "false"})


def companion_findings(wanted: Wanted) -> Iterator[Finding]:
    """What the fixes cost, and what they cannot put right."""
    has_pages = wanted.release.version >= _PAGES_WITH_TLS
    if wanted.foreign_certificate and has_pages:
        yield _finding(
            "core-site/hadoop.ssl.hostname.verifier",
            "names in certificates are not compared: whoever has any certificate of the trusted authority can stand in"
            " for any node",
            "issue the certificate for the names that nodes have: *.ec2.internal, *.REGION.compute.internal",
        )
    if wanted.foreign_certificate and not has_pages:
        yield _finding(
            "core-site/hadoop.ssl.hostname.verifier",
            f"the certificate does not carry the nodes' names, and {wanted.release.label} takes no classification for"
            " that: core-site.xml has to be edited on every node",
            "issue the certificate for the names that nodes have: *.ec2.internal, *.REGION.compute.internal",
        )
    if wanted.foreign_certificate and has_pages and wanted.has("Oozie"):
        yield _finding(
            "oozie-site/oozie.https.enabled",
            "Oozie compares names whatever is set and would hang while the cluster starts, so its TLS is off",
            "issue the certificate for the names that nodes have",
        )
    if wanted.kerberos and has_pages and wanted.has("Spark", "Livy") and wanted.has("Hive", "HCatalog"):
        yield _finding(
            "hive-site/hive.metastore.use.SSL",
            "the Hive metastore's TLS is off: with it Spark and Livy cannot use the metastore under Kerberos; SASL"
            " encrypts there, as hadoop.rpc.protection says",
            "nothing to do while Kerberos is on",
        )
    if not wanted.kerberos:
        yield Finding(
            severity=Severity.WARN,
            rule=Rule.EMR_NEEDS_KERBEROS,
            path="core-site/hadoop.rpc.protection",
            message="the security configuration encrypts in transit, but without Kerberos RPC, block transfer and what"
            " jobs are handed over RPC stay in clear",
            hint="give the cluster Kerberos",
        )


def _finding(path: str, message: str, hint: str) -> Finding:
    return Finding(severity=Severity.WARN, rule=Rule.EMR_KNOWN_DEFECT, path=path, message=message, hint=hint)
