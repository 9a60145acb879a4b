"""What the rules look at, and how they say what they found."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from ringfence_bootstrap.releases import Feature, Release, spelled_version
from ringfence_bootstrap.security_configuration.cluster import ClusterFacts
from ringfence_bootstrap.security_configuration.document import SecurityConfiguration
from ringfence_bootstrap.security_configuration.json_text import Location, spelled
from ringfence_bootstrap.security_configuration.nodes import Node
from ringfence_zones.findings import Finding, Rule, Severity


@dataclass(frozen=True, slots=True)
class Subject:
    """A document, and what is known of where it is to be used. Without a release no rule about releases speaks.

    A finding's message begins with the member that it is about, spelt out from the document's root; a place that is
    absent gets the line of what is around it.
    """

    document: SecurityConfiguration
    release: Release | None
    region: str | None
    cluster: ClusterFacts

    def error(self, rule: Rule, place: Location, message: str, hint: str) -> Finding:
        """What EMR refuses, or what keeps a cluster from starting."""
        return self._found(Severity.ERROR, rule, place, message, hint)

    def warn(self, rule: Rule, place: Location, message: str, hint: str) -> Finding:
        """What is probably not meant."""
        return self._found(Severity.WARN, rule, place, message, hint)

    def info(self, rule: Rule, place: Location, message: str, hint: str) -> Finding:
        """What is worth knowing."""
        return self._found(Severity.INFO, rule, place, message, hint)

    def missing(self, node: Node, names: tuple[str, ...], why: str, hint: str) -> Iterator[Finding]:
        """An error for each of the members that `node` lacks."""
        for name in names:
            if node.lacks(name):
                place = (*node.place, name)
                yield Finding(
                    severity=Severity.ERROR,
                    rule=Rule.EMR_MISSING_MEMBER,
                    path=self.document.where(place),
                    message=f"{spelled(place)} is missing: {why}",
                    hint=hint,
                )

    def needless(self, node: Node, names: tuple[str, ...], why: str, severity: Severity) -> Iterator[Finding]:
        """A finding for each of the members that `node` has."""
        for name in names:
            if not node.lacks(name):
                place = (*node.place, name)
                yield self._found(severity, Rule.EMR_NEEDLESS_MEMBER, place, why, "remove it")

    def too_old(self, feature: Feature, place: Location) -> Iterator[Finding]:
        """An error when the release does not have the feature yet."""
        if self.release is not None and not self.release.has(feature):
            since = f"emr-{spelled_version(feature.since)}"
            message = f"{self.release} does not have {feature.value}, which came with {since}"
            yield self.error(Rule.EMR_RELEASE, place, message, f"use {since} or later, or remove it")

    def _found(self, severity: Severity, rule: Rule, place: Location, message: str, hint: str) -> Finding:
        named = spelled(place)
        text = f"{named}: {message}" if named else message
        return Finding(severity=severity, rule=rule, path=self.document.where(place), message=text, hint=hint)
