"""A cluster document while it is judged: its values, the files it names, and where each thing stands.

A part that could not be read is replaced by what raises no question, and `unread` names it: a rule that needs it is
not asked. So one wrong instance type does not hide an upper-case key elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

from ringfence_bootstrap.launch.document import ClusterDocument, ConfigurationBlock
from ringfence_bootstrap.node.configuration import NodeConfig
from ringfence_bootstrap.releases import Release
from ringfence_bootstrap.security_configuration.document import SecurityConfiguration
from ringfence_zones.findings import Finding, Rule, Severity
from ringfence_zones.policy import Policy
from ringfence_zones.policy_yaml import LocatedDocument, Location

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Place:
    """A place in the cluster document, or in a file that it names."""

    document: LocatedDocument
    location: Location = ()

    @property
    def where(self) -> str:
        """`FILE:LINE`."""
        return self.document.where(self.location)

    def at(self, *parts: str | int) -> Place:
        """A place below this one."""
        return Place(self.document, (*self.location, *parts))

    def error(self, rule: Rule, message: str, hint: str) -> Finding:
        """What EMR, or a rule of ours, will not have here."""
        return self._finding(Severity.ERROR, rule, message, hint)

    def warn(self, rule: Rule, message: str, hint: str) -> Finding:
        """What EMR takes, and what will not be as somebody may think."""
        return self._finding(Severity.WARN, rule, message, hint)

    def _finding(self, severity: Severity, rule: Rule, message: str, hint: str) -> Finding:
        return Finding(severity=severity, rule=rule, path=self.where, message=message, hint=hint)


@dataclass(frozen=True, slots=True)
class Classification:
    """A classification and where it stands. `group` is the instance group's that has it for itself."""

    place: Place
    block: ConfigurationBlock
    group: str | None = None

    @property
    def name(self) -> str:
        """Such as core-site."""
        return self.block.Classification

    @property
    def properties(self) -> Mapping[str, str]:
        """As they are written, `EMR.secret@` among the names."""
        return self.block.Properties

    def property_place(self, name: str) -> Place:
        """Where one property stands."""
        return self.place.at("Properties", name)

    def nested(self) -> Iterator[Classification]:
        """Those directly in it."""
        for index, block in enumerate(self.block.Configurations):
            yield Classification(self.place.at("Configurations", index), block, self.group)

    def with_nested(self) -> Iterator[Classification]:
        """This one and all that are in it."""
        yield self
        for inner in self.nested():
            yield from inner.with_nested()


@dataclass(frozen=True, slots=True)
class Checked(Generic[T]):
    """A file that was checked here and is read elsewhere, which the digest of its content holds it to."""

    value: T
    sha256: str


@dataclass(frozen=True, slots=True)
class Draft:
    """What rules are asked about."""

    root: Place
    document: ClusterDocument
    release: Release
    # Of the security configuration's file; None when there is none, or when it is known by name alone.
    security: SecurityConfiguration | None
    policy: Checked[Policy] | None
    # What the bootstrap action takes; None without Ringfence.
    node: Checked[NodeConfig] | None
    classifications: tuple[Classification, ...]
    # Top-level fields that could not be read, and "security", "policy", "node" for files.
    unread: frozenset[str]

    def for_all(self, name: str) -> list[Classification]:
        """The cluster's own classifications of a name: those of no instance group."""
        return [each for each in self.classifications if each.name == name and each.group is None]

    def named(self, name: str) -> list[Classification]:
        """Classifications of a name, those of instance groups included."""
        return [each for each in self.classifications if each.name == name]
