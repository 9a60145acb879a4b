"""What an account's clusters and security configurations leave unencrypted, and which clusters are on another document.

Nothing is encrypted by default, so every cluster that is not down is judged by what its configuration says and what its
release makes of that; a cluster without a configuration leaves everything in clear. Configurations that no cluster
names are judged without a release.

A configuration is attached when a cluster is created, and never again: a cluster keeps the document it began with. So
with a document given, a cluster that has another one is found, with how the two differ; the way there is a new cluster.

Each configuration is read once, however many clusters name it, and nothing is asked faster than `pace` allows: 100
clusters take about two minutes.
"""

from __future__ import annotations

import datetime
import fnmatch
import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ringfence_bootstrap.account.configurations import document_of, users_of
from ringfence_bootstrap.account.emr_calls import AccountCluster, ConfigurationName, EmrCalls
from ringfence_bootstrap.releases import Release, parse_release
from ringfence_bootstrap.security_configuration.clear_data import find_clear_data
from ringfence_bootstrap.security_configuration.compare import differences, is_same, told
from ringfence_bootstrap.security_configuration.document import SecurityConfiguration
from ringfence_zones.errors import DocumentError, InputError
from ringfence_zones.findings import Finding, Rule, Severity, findings_json


@dataclass(frozen=True, slots=True)
class AuditReport:
    """`configurations` are all of the account's, or those of the pattern; `clusters` those that are not down.
    `same_document` are the names under which the account has the given document.
    """

    clusters: tuple[AccountCluster, ...]
    configurations: tuple[ConfigurationName, ...]
    findings: tuple[Finding, ...]
    same_document: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """The report as an object."""
        return {
            "schema": 1,
            "clusters": [
                {
                    "id": each.cluster_id,
                    "name": each.name,
                    "state": each.state,
                    "release": each.release_label,
                    "security_configuration": each.security_configuration,
                }
                for each in self.clusters
            ],
            "configurations": [
                {
                    "name": each.name,
                    "created": iso_time(each.created),
                    "clusters": [user.cluster_id for user in users_of(self.clusters, each.name)],
                }
                for each in self.configurations
            ],
            "same_document": list(self.same_document),
            **findings_json(self.findings),
        }


def iso_time(when: datetime.datetime | None) -> str | None:
    """UTC, to the second."""
    return when.astimezone(datetime.UTC).isoformat(timespec="seconds") if when is not None else None


def audit(
    calls: EmrCalls,
    *,
    wanted: SecurityConfiguration | None = None,
    pattern: str | None = None,
    say: Callable[[str], None] = lambda _text: None,
) -> AuditReport:
    """Looks at the account. `pattern` is a shell pattern of configurations' names, to which both lists are limited
    (clusters without a configuration are always in); `say` gets what goes on. Raises AwsError.
    """
    say("listing security configurations and clusters")
    names = [each for each in calls.list_security_configurations() if _fits(each.name, pattern)]
    clusters = [
        each
        for each in calls.active_clusters()
        if each.security_configuration is None or _fits(each.security_configuration, pattern)
    ]
    search = _Audit(calls, wanted, say)
    for cluster in clusters:
        search.look_at(cluster)
    used = {each.security_configuration for each in clusters}
    for name in names:
        search.look_at_name(name, is_used=name.name in used)
    return AuditReport(tuple(clusters), tuple(names), tuple(search.findings), tuple(search.same_document))


class _Audit:
    def __init__(self, calls: EmrCalls, wanted: SecurityConfiguration | None, say: Callable[[str], None]) -> None:
        self._calls = calls
        self._wanted = wanted
        self._say = say
        self._read: dict[str, SecurityConfiguration | None] = {}
        self.findings: list[Finding] = []
        self.same_document: list[str] = []

    def look_at(self, cluster: AccountCluster) -> None:
        """One cluster."""
        name = cluster.security_configuration
        document = self._document(name) if name is not None else None
        if name is not None and document is None:
            self._unreadable(cluster, name)
            return
        release = self._release(cluster)
        found = find_clear_data(document, release, cluster=cluster.facts)
        suffix = f" (security configuration {name})" if name is not None else ""
        self.findings += [replace(each, path=cluster.label, message=each.message + suffix) for each in found]
        self._logs(cluster)
        self._compare(cluster, name, document)

    def look_at_name(self, name: ConfigurationName, *, is_used: bool) -> None:
        """One configuration of the account's list; what clusters of it leave in clear was found with them."""
        document = self._document(name.name)
        if document is None:
            if name.name in self._read:
                self._note(
                    Severity.WARN,
                    Rule.EMR_UNCHECKED,
                    f"security configuration {name.name}",
                    "it cannot be read as a security configuration",
                    "look at it, and make another in its place",
                    f"ringfence emr security-config show {shlex.quote(name.name)}",
                )
            return
        if self._wanted is not None and is_same(document, self._wanted):
            self.same_document.append(name.name)
        if not is_used:
            found = find_clear_data(document, None)
            # No cluster runs with it: nothing is in clear today, but the next one that is made with it would be.
            self.findings += [
                replace(
                    each,
                    path=f"security configuration {name.name}",
                    severity=Severity.WARN if each.severity is Severity.ERROR else each.severity,
                    message=f"{each.message} (no cluster runs with it)",
                )
                for each in found
                if each.severity is not Severity.INFO
            ]

    def _document(self, name: str) -> SecurityConfiguration | None:
        """The document of this name, asked for once; None for one that is gone or cannot be read."""
        if name not in self._read:
            self._say(f"reading security configuration {name}")
            stored = self._calls.find_security_configuration(name)
            try:
                self._read[name] = document_of(stored) if stored is not None else None
            except DocumentError:
                self._read[name] = None
        return self._read[name]

    def _release(self, cluster: AccountCluster) -> Release | None:
        label = cluster.release_label
        try:
            if label is not None:
                return parse_release(label)
        except InputError:
            pass
        self._note(
            Severity.WARN,
            Rule.EMR_RELEASE_UNKNOWN,
            cluster.label,
            f"its release {label or '(an AMI version of before EMR 4)'} is not known here, so only what holds for every"
            " release is said of it",
            "create it anew with a release that is supported",
        )
        return None

    def _logs(self, cluster: AccountCluster) -> None:
        if cluster.log_uri is not None and cluster.log_key is None:
            self._note(
                Severity.INFO,
                Rule.EMR_CLEAR_AT_REST,
                cluster.label,
                f"its logs in {cluster.log_uri} are encrypted as their bucket says, under no key of the cluster's",
                "set LogEncryptionKmsKeyId when the cluster is created: no security configuration says it",
            )

    def _unreadable(self, cluster: AccountCluster, name: str) -> None:
        self._note(
            Severity.ERROR,
            Rule.EMR_CONFIGURATION_GONE,
            cluster.label,
            f"its security configuration {name} was deleted or cannot be read: what it encrypts nobody can say",
            "create the cluster anew with a configuration that is in the account",
            "ringfence emr security-config list",
        )

    def _compare(self, cluster: AccountCluster, name: str | None, document: SecurityConfiguration | None) -> None:
        if self._wanted is None or (document is not None and is_same(document, self._wanted)):
            return
        if document is None:
            what = "has no security configuration at all"
        else:
            what = f"was created with {name}, which differs: {told(differences(document, self._wanted))}"
        self._note(
            Severity.WARN,
            Rule.EMR_OTHER_DOCUMENT,
            cluster.label,
            f"it {what}, and is to have {self._wanted.name}",
            "a configuration is attached at creation only: create the cluster anew with the one that is wanted",
        )

    def _note(
        self, severity: Severity, rule: Rule, path: str, message: str, hint: str, command: str | None = None
    ) -> None:
        self.findings.append(
            Finding(severity=severity, rule=rule, path=path, message=message, hint=hint, command=command)
        )


def _fits(name: str, pattern: str | None) -> bool:
    return pattern is None or fnmatch.fnmatchcase(name, pattern)


def needs_action(findings: Sequence[Finding]) -> bool:
    """Whether there is anything to act on: what is only worth knowing is not."""
    return any(each.severity is not Severity.INFO for each in findings)
