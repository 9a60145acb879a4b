"""What is wrong with a security configuration, offline: every rule there is, over a document that could be read.

EMR itself says little and late: it refuses unknown members with one sentence, and what a release cannot do ends a
cluster an hour after it was asked for. An `error` here is what EMR refuses or a cluster does not start with; a `warn`
is what is accepted and probably not meant, and what stays in clear.

Rules that need to know the release, the Region or the cluster speak only when they are given, and then only of what
they were told.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

from ringfence_bootstrap.releases import Release
from ringfence_bootstrap.security_configuration import (
    cluster_rules,
    encryption_rules,
    identity_rules,
    key_rules,
    release_rules,
)
from ringfence_bootstrap.security_configuration.clear_data import find_clear_data
from ringfence_bootstrap.security_configuration.cluster import ClusterFacts
from ringfence_bootstrap.security_configuration.document import SecurityConfiguration
from ringfence_bootstrap.security_configuration.subject import Subject
from ringfence_zones.findings import Finding, Severity

RULES: tuple[Callable[[Subject], Iterator[Finding]], ...] = (
    encryption_rules.check_switches,
    encryption_rules.check_certificates,
    encryption_rules.check_s3,
    encryption_rules.check_local_disk,
    encryption_rules.check_provider_classes,
    encryption_rules.check_objects,
    key_rules.check_keys,
    key_rules.check_regions,
    identity_rules.check_kerberos,
    identity_rules.check_identity_center,
    identity_rules.check_authorization,
    identity_rules.check_metadata_service,
    identity_rules.check_output_members,
    release_rules.check_release,
    release_rules.check_scope,
    release_rules.check_s3a,
    cluster_rules.check_kerberos_attributes,
    cluster_rules.check_primaries,
    cluster_rules.check_applications,
    cluster_rules.check_metastore,
    cluster_rules.check_s3_settings,
)


def lint(
    document: SecurityConfiguration,
    release: Release | None,
    *,
    region: str | None = None,
    cluster: ClusterFacts | None = None,
) -> list[Finding]:
    """Every finding, by line. Exit code 3 is for those of severity error alone.

    What stays in clear is never more than a warning here: a document may well be meant to protect only a part.
    """
    subject = Subject(document, release, region, cluster or ClusterFacts())
    found = list(document.problems)
    for rule in RULES:
        found += rule(subject)
    found += [_at_most_warning(each) for each in find_clear_data(document, release, cluster=cluster)]
    return sorted(found, key=_line)


def _at_most_warning(finding: Finding) -> Finding:
    return replace(finding, severity=Severity.WARN) if finding.severity is Severity.ERROR else finding


def _line(finding: Finding) -> int:
    line = finding.path.rpartition(":")[2]
    return int(line) if line.isdecimal() else 0
