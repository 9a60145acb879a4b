"""EMR's operations that these commands use, as values. Paced (`pace`), and nothing here decides anything.

Source of the shapes: the EMR API reference. EMR has no error of its own for what is not there: it answers
InvalidRequestException, and its sentence says which it is; where the sentence does not, the list of names does.
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ringfence_bootstrap.account.connection import Connection
from ringfence_bootstrap.account.pace import Pace
from ringfence_bootstrap.security_configuration.cluster import ClusterFacts, facts_of
from ringfence_zones.errors import AwsError, InputError

# A cluster that is going down holds its data still, and can hold its configuration's last use.
ACTIVE_STATES = ("STARTING", "BOOTSTRAPPING", "RUNNING", "WAITING", "TERMINATING")
_MAX_NAME = 10_280
_REFUSED = "InvalidRequestException"
_NOT_THERE = ("does not exist", "not found", "not valid", "no security configuration")
_THERE = ("already exists",)


@dataclass(frozen=True, slots=True)
class ConfigurationName:
    """One entry of the account's list of security configurations."""

    name: str
    created: datetime.datetime | None


@dataclass(frozen=True, slots=True)
class StoredConfiguration:
    """A security configuration as the account has it; `text` is its document as EMR gives it back."""

    name: str
    created: datetime.datetime | None
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AccountCluster:
    """What DescribeCluster says that matters here. What the cluster does not have is None."""

    cluster_id: str
    name: str
    state: str
    release_label: str | None = None
    security_configuration: str | None = None
    instance_profile: str | None = None
    service_role: str | None = None
    log_uri: str | None = None
    log_key: str | None = None
    facts: ClusterFacts = field(default_factory=ClusterFacts)

    @property
    def label(self) -> str:
        """How findings call it."""
        return f"{self.cluster_id} ({self.name})"


class EmrCalls:
    """EMR in the connection's region. Methods raise AwsError, ConfigError and MissingExtraError."""

    def __init__(self, connection: Connection, pace: Pace | None = None) -> None:
        self._connection = connection
        self._pace = pace or Pace()

    @property
    def region(self) -> str:
        """See Connection."""
        return self._connection.region

    def create_security_configuration(self, name: str, text: str) -> bool:
        """Stores a document under a name that is not taken; False when it is taken. Nothing is ever replaced."""
        try:
            self._ask("create_security_configuration", _about(name), Name=name, SecurityConfiguration=text)
        except AwsError as error:
            # It has one code for every refusal; where its sentence says something new, the name itself tells.
            is_taken = error.code == _REFUSED and (
                _says(error, _THERE) or self.find_security_configuration(name) is not None
            )
            if not is_taken:
                raise
            return False
        return True

    def find_security_configuration(self, name: str) -> StoredConfiguration | None:
        """The one of this name, None when the account has none."""
        try:
            found = self._ask("describe_security_configuration", _about(name), Name=name)
        except AwsError as error:
            if error.code == _REFUSED and (_says(error, _NOT_THERE) or not self._is_listed(name)):
                return None
            raise
        text = found.get("SecurityConfiguration")
        return StoredConfiguration(name, _time(found), text if isinstance(text, str) else "")

    def list_security_configurations(self) -> list[ConfigurationName]:
        """All of the account's in this region, by name."""
        entries = self._pages("list_security_configurations", "security configurations", "SecurityConfigurations")
        return sorted((ConfigurationName(str(each.get("Name", "")), _time(each)) for each in entries), key=_name)

    def delete_security_configuration(self, name: str) -> None:
        """Removes one that is there; clusters that were made with it go on as they are."""
        self._ask("delete_security_configuration", _about(name), Name=name)

    def list_cluster_ids(self, states: Sequence[str] = ACTIVE_STATES) -> list[str]:
        """Clusters in one of these states."""
        entries = self._pages("list_clusters", "clusters", "Clusters", ClusterStates=list(states))
        return [str(entry["Id"]) for entry in entries if isinstance(entry.get("Id"), str)]

    def describe_cluster(self, cluster_id: str) -> AccountCluster:
        """One cluster."""
        found = self._ask("describe_cluster", f"cluster {cluster_id}", ClusterId=cluster_id).get("Cluster")
        return _cluster(found if isinstance(found, dict) else {}, cluster_id)

    def active_clusters(self) -> list[AccountCluster]:
        """Every cluster that is not down. A second and more for each eight of them: see `pace`."""
        return [self.describe_cluster(cluster_id) for cluster_id in self.list_cluster_ids()]

    def _is_listed(self, name: str) -> bool:
        return any(each.name == name for each in self.list_security_configurations())

    def _ask(self, operation: str, about: str, **request: Any) -> dict[str, Any]:
        self._pace.wait(operation)
        return self._connection.call("emr", operation, about, **request)

    def _pages(self, operation: str, about: str, key: str, **request: Any) -> list[dict[str, Any]]:
        return self._connection.pages(
            "emr", operation, about, key, before=lambda: self._pace.wait(operation), **request
        )


def check_name(name: str) -> str:
    """A security configuration's name. Raises InputError for one that EMR does not take."""
    if not 0 < len(name) <= _MAX_NAME or not name.isprintable() or name != name.strip():
        raise InputError(
            f"{name[:80]!r} is no name of a security configuration",
            hint="write 1 to 10,280 printable characters without blanks around them, best letters, digits and -",
        )
    return name


def _cluster(found: Mapping[str, Any], cluster_id: str) -> AccountCluster:
    machines = found.get("Ec2InstanceAttributes") or {}
    return AccountCluster(
        cluster_id=cluster_id,
        name=str(found.get("Name", "")),
        state=str((found.get("Status") or {}).get("State", "")),
        release_label=found.get("ReleaseLabel") or None,
        security_configuration=found.get("SecurityConfiguration") or None,
        instance_profile=machines.get("IamInstanceProfile") or None,
        service_role=found.get("ServiceRole") or None,
        log_uri=found.get("LogUri") or None,
        log_key=found.get("LogEncryptionKmsKeyId") or None,
        facts=facts_of({"Cluster": dict(found)}, f"cluster {cluster_id}"),
    )


def _about(name: str) -> str:
    return f"security configuration {name!r}"


def _says(error: AwsError, words: Sequence[str]) -> bool:
    text = error.message.lower()
    return any(word in text for word in words)


def _time(entry: Mapping[str, Any]) -> datetime.datetime | None:
    found = entry.get("CreationDateTime")
    return found if isinstance(found, datetime.datetime) else None


def _name(entry: ConfigurationName) -> str:
    return entry.name
