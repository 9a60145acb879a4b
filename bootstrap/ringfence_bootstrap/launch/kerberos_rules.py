"""Kerberos: the security configuration says which KDC, the cluster brings realm and passwords, and SASL needs both."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from ringfence_bootstrap.launch.draft import Draft
from ringfence_zones.findings import Finding, Rule

# Settings that do what they say only between processes that Kerberos has proven to each other.
_SASL = {
    ("core-site", "hadoop.rpc.protection"): frozenset({"authentication"}),
    ("hdfs-site", "dfs.data.transfer.protection"): frozenset({"authentication"}),
    ("hdfs-site", "dfs.encrypt.data.transfer"): frozenset({"false"}),
}
_SPARK_SECRET = ("spark.authenticate", "spark.network.crypto.enabled")


def check_attributes(draft: Draft) -> Iterator[Finding]:
    """KerberosAttributes with a security configuration that has Kerberos, and never one alone."""
    kerberos, named = draft.document.kerberos, draft.document.security_configuration
    place = draft.root.at("kerberos")
    if named is None:
        if kerberos is not None:
            message = "kerberos is given, and no security configuration that says which KDC"
            yield place.error(Rule.EMR_KERBEROS_MISMATCH, message, "name a security configuration with Kerberos")
        return
    if draft.security is None:
        if kerberos is not None:
            message = f"whether the security configuration {named.name} has Kerberos cannot be seen by its name"
            hint = "give its document: security_configuration: {name: ..., file: ...}"
            yield place.warn(Rule.EMR_KERBEROS_MISMATCH, message, hint)
        return
    configured = draft.security.kerberos.to_json() if draft.security.kerberos is not None else None
    if configured is None:
        if kerberos is not None:
            message = f"kerberos is given, and the security configuration {named.name} has no KerberosConfiguration"
            yield place.error(Rule.EMR_KERBEROS_MISMATCH, message, "add it there, or remove kerberos here")
        return
    if kerberos is None:
        yield draft.root.at("security_configuration").error(
            Rule.EMR_KERBEROS_MISMATCH,
            f"the security configuration {named.name} has Kerberos, and the document no kerberos: EMR needs the realm"
            " and the KDC's password of each cluster",
            "add  kerberos: {realm: ..., kdc_admin_password: {secret: ...}}",
        )
        return
    yield from _kerberos_attributes(draft, configured)


def _kerberos_attributes(draft: Draft, configured: Mapping[str, Any]) -> Iterator[Finding]:
    kerberos = draft.document.kerberos
    assert kerberos is not None
    place = draft.root.at("kerberos")
    trust = _section(configured, "ClusterDedicatedKdcConfiguration", "CrossRealmTrustConfiguration")
    directory = _section(configured, "ExternalKdcConfiguration", "AdIntegrationConfiguration")
    pairs = (
        ("cross_realm_trust_password", kerberos.cross_realm_trust_password, trust, "CrossRealmTrustConfiguration"),
        ("ad_join_user", kerberos.ad_join_user, directory or trust, "AdIntegrationConfiguration"),
        ("ad_join_password", kerberos.ad_join_password, directory or trust, "AdIntegrationConfiguration"),
    )
    for name, given, wanted, section in pairs:
        optional = name.startswith("ad_join") and directory is None
        if given is None and wanted is not None and not optional:
            message = f"{name} is missing: the security configuration has {section}"
            yield place.error(Rule.EMR_KERBEROS_MISMATCH, message, "add it")
        elif given is not None and wanted is None:
            message = f"{name} is given, and the security configuration has no {section}"
            yield place.at(name).error(Rule.EMR_KERBEROS_MISMATCH, message, "remove it, or add that there")
    if configured.get("Provider") == "ClusterDedicatedKdc" and draft.document.instances.primary.count == 3:
        message = "three primary nodes need a KDC outside the cluster (ExternalKdc)"
        yield place.error(Rule.EMR_KERBEROS_MISMATCH, message, "use a security configuration with ExternalKdc")


def _section(document: object, *names: str) -> dict[str, object] | None:
    """An object inside a document; None when it is not there."""
    for name in names:
        document = document.get(name) if isinstance(document, dict) else None
    return document if isinstance(document, dict) else None


def check_keytab(draft: Draft) -> Iterator[Finding]:
    """With Kerberos, something that the nodes' set-up and the zones step prove themselves by."""
    if draft.document.kerberos is not None and draft.node is not None and draft.node.value.kerberos is None:
        message = "the cluster has Kerberos, and the bootstrap configuration names no keytab: the zones step is nobody"
        hint = (
            "write  kerberos: {principal: ..., keytab: /etc/hdfs.keytab}  there, or give root a ticket before the step"
        )
        yield draft.root.at("ringfence", "configuration_file").warn(Rule.EMR_KERBEROS_MISMATCH, message, hint)


def check_sasl(draft: Draft) -> Iterator[Finding]:
    """Encryption in transit that takes Kerberos."""
    if draft.document.kerberos is not None:
        return
    for each in draft.classifications:
        for name, value in each.properties.items():
            clear = _SASL.get((each.name, name))
            if clear is not None and value.strip().lower() not in clear:
                yield each.property_place(name).error(
                    Rule.EMR_NEEDS_KERBEROS,
                    f"{name}={value} without Kerberos: nobody is proven, so nothing is protected, or the key crosses"
                    " the network in clear",
                    "launch with Kerberos (security_configuration and kerberos), or remove it",
                )
            elif name in _SPARK_SECRET and value.strip().lower() == "true":
                message = f"{name} without Kerberos: Spark's secret reaches the executors over YARN's calls, in clear"
                hint = "launch with Kerberos, or do not count on it"
                yield each.property_place(name).warn(Rule.EMR_NEEDS_KERBEROS, message, hint)
