"""What a cluster brings that its security configuration depends on.

Read from what AWS itself calls a cluster: the request of RunJobFlow, or the answer of DescribeCluster
(`aws emr describe-cluster`). What neither says stays unknown, and no rule guesses it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ringfence_bootstrap.security_configuration.json_text import MAX_DOCUMENT_BYTES, read_json
from ringfence_zones.errors import DocumentError, InputError
from ringfence_zones.findings import Finding, Rule, Severity

_PRIMARY = "MASTER"


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterFacts:
    """None, everywhere, means that nobody said.

    `applications` are EMR's names in lower case; `classifications` maps each to its properties; `primaries` is the
    number of primary nodes; `has_kerberos_attributes` is whether RunJobFlow gets KerberosAttributes.
    """

    name: str = "the cluster"
    release_label: str | None = None
    applications: frozenset[str] | None = None
    primaries: int | None = None
    has_kerberos_attributes: bool | None = None
    has_custom_ami: bool | None = None
    classifications: Mapping[str, Mapping[str, str]] = field(default_factory=dict)

    def runs(self, *applications: str) -> bool | None:
        """Whether it has any of them; None when nobody said what it has."""
        if self.applications is None:
            return None
        return any(application.lower() in self.applications for application in applications)

    def setting(self, classification: str, name: str) -> str | None:
        """The value of a property that the cluster is created with."""
        return self.classifications.get(classification, {}).get(name)


def read_cluster(path: Path) -> ClusterFacts:
    """The facts in FILE. Raises InputError, and DocumentError for what is neither a request nor an answer."""
    try:
        with path.open("rb") as stream:
            text = stream.read(MAX_DOCUMENT_BYTES + 1).decode("utf-8")
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8 text", hint="save the file as UTF-8") from error
    source = read_json(text, str(path))
    if source.findings:
        raise DocumentError(f"{path} is no description of a cluster that can be read", source.findings)
    return facts_of(source.data, str(path))


def facts_of(data: Any, name: str) -> ClusterFacts:
    """The facts in a request of RunJobFlow or an answer of DescribeCluster. Raises DocumentError."""
    problems: list[Finding] = []

    def expect(value: Any, kind: type, where: str) -> Any:
        if value is None or isinstance(value, kind):
            return value
        words = {dict: "an object", list: "a list", str: "a text", int: "a whole number"}
        message = f"{where} must be {words[kind]}"
        hint = "give the request of RunJobFlow, or the answer of DescribeCluster"
        problems.append(
            Finding(severity=Severity.ERROR, rule=Rule.EMR_BAD_VALUE, path=name, message=message, hint=hint)
        )
        return None

    body = expect(data, dict, "the document") or {}
    # DescribeCluster wraps its answer, and spells out what it does not know as empty.
    is_answer = isinstance(body.get("Cluster"), dict)
    body = body["Cluster"] if is_answer else body
    applications = expect(body.get("Applications"), list, "Applications")
    facts = ClusterFacts(
        name=name,
        release_label=expect(body.get("ReleaseLabel"), str, "ReleaseLabel"),
        applications=_applications(applications),
        primaries=_primaries(expect(body.get("Instances"), dict, "Instances") or body, expect),
        has_kerberos_attributes=bool(expect(body.get("KerberosAttributes"), dict, "KerberosAttributes")),
        has_custom_ami=bool(expect(body.get("CustomAmiId"), str, "CustomAmiId")),
        classifications=_classifications(expect(body.get("Configurations"), list, "Configurations") or []),
    )
    if problems:
        raise DocumentError(f"{name} is no description of a cluster", problems)
    return facts


def _applications(listed: list[Any] | None) -> frozenset[str] | None:
    if listed is None:
        return None
    names = (each.get("Name") if isinstance(each, dict) else None for each in listed)
    return frozenset(name.lower() for name in names if isinstance(name, str))


def _primaries(instances: dict[str, Any], expect: Any) -> int | None:
    groups = expect(instances.get("InstanceGroups"), list, "InstanceGroups") or []
    fleets = expect(instances.get("InstanceFleets"), list, "InstanceFleets") or []
    for group in groups:
        if isinstance(group, dict) and _PRIMARY in (group.get("InstanceRole"), group.get("InstanceGroupType")):
            count = group.get("InstanceCount", group.get("RequestedInstanceCount"))
            return count if isinstance(count, int) and not isinstance(count, bool) else None
    for fleet in fleets:
        if isinstance(fleet, dict) and fleet.get("InstanceFleetType") == _PRIMARY:
            capacities = [fleet.get("TargetOnDemandCapacity", 0), fleet.get("TargetSpotCapacity", 0)]
            return sum(each for each in capacities if isinstance(each, int)) or None
    return 1 if isinstance(instances.get("MasterInstanceType"), str) and not groups and not fleets else None


def _classifications(listed: list[Any]) -> dict[str, dict[str, str]]:
    found: dict[str, dict[str, str]] = {}
    for each in listed:
        if not isinstance(each, dict) or not isinstance(each.get("Classification"), str):
            continue
        properties = each.get("Properties")
        if isinstance(properties, dict):
            texts = {name: value for name, value in properties.items() if isinstance(value, str)}
            found.setdefault(each["Classification"], {}).update(texts)
    return found
