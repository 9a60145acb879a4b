"""Reads a cluster document and the files that it names, and refuses what would fail.

Everything that is wrong is told at once, each with its line: what cannot be read, what EMR would reject, what the
security configuration and the policy have wrong by themselves. Files are named relative to the document. Nothing is
asked of AWS.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from ringfence_bootstrap.launch.document import ClusterDocument, ConfigurationBlock
from ringfence_bootstrap.launch.draft import Checked, Classification, Draft, Place
from ringfence_bootstrap.launch.pieces import Pins, cluster_configurations
from ringfence_bootstrap.launch.refusals import find_refusals
from ringfence_bootstrap.node.configuration import NodeConfig
from ringfence_bootstrap.releases import Release, parse_release
from ringfence_bootstrap.security_configuration.clear_data import find_clear_data
from ringfence_bootstrap.security_configuration.cluster import ClusterFacts
from ringfence_bootstrap.security_configuration.document import SecurityConfiguration
from ringfence_bootstrap.security_configuration.lint import lint
from ringfence_bootstrap.security_configuration.reading import read_document as read_security_configuration
from ringfence_zones.bounded_file import read_bounded
from ringfence_zones.config_file import parse_config
from ringfence_zones.errors import ConfigError, DocumentError, InputError, PolicyError
from ringfence_zones.findings import Finding, Rule, Severity
from ringfence_zones.policy import Policy, parse_policy, read_document
from ringfence_zones.policy_problems import findings_of, replace_nulls
from ringfence_zones.policy_yaml import MAX_DOCUMENT_BYTES, LocatedDocument

_WHAT = "a cluster document"
_HINT = "name the cluster document with -f FILE"
_FILE_HINT = "correct the file, or its name here"
# What stands in for a part that could not be read: it raises no question of its own.
_STAND_INS: dict[str, Any] = {
    "version": 1,
    "name": "unread",
    "release": "emr-7.12.0",
    "region": "eu-central-1",
    "applications": ["Hadoop"],
    "service_role": "unread",
    "instance_profile": "unread",
    "network": {"subnet": "subnet-00000000"},
    "instances": {"primary": {"type": "m6i.xlarge"}, "core": {"type": "m6i.xlarge"}},
}


@dataclass(frozen=True, slots=True)
class Launch:
    """A cluster that may be launched. `configurations` are the cluster's, those of files among them."""

    document: ClusterDocument
    directory: Path
    release: Release
    security: SecurityConfiguration | None
    configurations: tuple[ConfigurationBlock, ...]
    # None without Ringfence.
    pins: Pins | None
    # What EMR does without a word, and what stays unencrypted.
    warnings: tuple[Finding, ...]


def read_launch(path: Path) -> Launch:
    """The cluster of a document. Raises DocumentError with every error; warnings are in the result."""
    try:
        located = read_document(path, "the cluster document", hint=_HINT)
    except PolicyError as error:
        raise DocumentError(error.message, error.findings, hint=error.hint) from error
    if located.data is None:
        raise _refused(located, located.findings or [_empty(located)])
    findings = list(located.findings)
    document, unread, problems = _read(located)
    findings += problems
    files = _Files(path.parent, Place(located), document, set(unread))
    draft = files.draft()
    findings += files.findings
    findings += find_refusals(draft)
    if any(finding.severity is Severity.ERROR for finding in findings):
        raise _refused(located, findings)
    given = [each.block for each in draft.classifications if each.group is None]
    pins = None
    if draft.node is not None:
        pins = Pins(draft.node.value, draft.node.sha256, draft.policy.sha256 if draft.policy is not None else None)
    return Launch(
        document=document,
        directory=path.parent,
        release=draft.release,
        security=draft.security,
        configurations=cluster_configurations(given, pins),
        pins=pins,
        warnings=tuple(findings),
    )


def _read(located: LocatedDocument) -> tuple[ClusterDocument, frozenset[str], list[Finding]]:
    """The document, with stand-ins for the parts that cannot be read; their names; and why."""
    data, findings = replace_nulls(located)
    unread = {str(finding_at[0]) for finding_at in _null_places(located)}
    try:
        return ClusterDocument.model_validate(data), frozenset(unread), findings
    except ValidationError as error:
        findings += findings_of(error, located, ClusterDocument, _WHAT)
        unread |= {str(detail["loc"][0]) for detail in error.errors() if detail["loc"]}
    kept = {name: value for name, value in data.items() if name not in unread} if isinstance(data, dict) else {}
    everything = frozenset(unread) if isinstance(data, dict) else frozenset(ClusterDocument.model_fields)
    return ClusterDocument.model_validate({**_STAND_INS, **kept}), everything, findings


def _null_places(located: LocatedDocument) -> Iterator[tuple[str | int, ...]]:
    """Where the document has a name and no value."""

    def places(value: Any, place: tuple[str | int, ...]) -> Iterator[tuple[str | int, ...]]:
        if value is None and place:
            yield place
        pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
        for name, inner in pairs:
            yield from places(inner, (*place, name))

    return places(located.data, ())


class _Files:
    """Reads what the document names; what is wrong with a file stands at the field that names it, or in the file."""

    def __init__(self, directory: Path, root: Place, document: ClusterDocument, unread: set[str]) -> None:
        self._directory = directory
        self._root = root
        self._document = document
        self._unread = unread
        self.findings: list[Finding] = []

    def draft(self) -> Draft:
        """Everything there is to judge."""
        release = parse_release(self._document.release)
        policy, node = self._policy(), self._node()
        classifications = (*self._classifications(), *self._files_of_classifications())
        security = self._security(release, self._facts(classifications))
        return Draft(
            root=self._root,
            document=self._document,
            release=release,
            security=security,
            policy=policy,
            node=node,
            classifications=classifications,
            unread=frozenset(self._unread),
        )

    def _facts(self, classifications: Sequence[Classification]) -> ClusterFacts:
        """What the security configuration's own rules go by. Kerberos and primaries are `refusals`', with lines."""
        applications = frozenset(name.lower() for name in self._document.applications)
        return ClusterFacts(
            name=self._document.name,
            applications=None if "applications" in self._unread else applications,
            has_custom_ami=None if "custom_ami" in self._unread else self._document.custom_ami is not None,
            classifications={each.name: each.properties for each in classifications if each.group is None},
        )

    def _security(self, release: Release, facts: ClusterFacts) -> SecurityConfiguration | None:
        named = self._document.security_configuration
        known_release = None if "release" in self._unread else release
        if named is None:
            # Nothing is encrypted by default, and EMR does not say so.
            place = self._root.at("security_configuration")
            found = (
                [] if "security_configuration" in self._unread else find_clear_data(None, known_release, cluster=facts)
            )
            self.findings += [place.warn(each.rule, each.message, each.hint) for each in found]
            return None
        if named.file is None:
            return None
        place = self._root.at("security_configuration", "file")
        try:
            security = read_security_configuration(self._directory / named.file)
        except (DocumentError, InputError) as error:
            self._cannot_read(place, "security", error)
            return None
        region = None if "region" in self._unread else self._document.region
        self.findings += lint(security, known_release, region=region, cluster=facts)
        return security

    def _node(self) -> Checked[NodeConfig] | None:
        ringfence = self._document.ringfence
        if ringfence is None:
            return None
        path = self._directory / ringfence.configuration_file
        try:
            # Read once: what is checked is what the digest is of.
            content = read_bounded(path, MAX_DOCUMENT_BYTES, ConfigError)
            config = parse_config(content.decode("utf-8", "replace"), str(path), NodeConfig)
            return Checked(config, hashlib.sha256(content).hexdigest())
        except ConfigError as error:
            self._cannot_read(self._root.at("ringfence", "configuration_file"), "node", error)
            return None

    def _policy(self) -> Checked[Policy] | None:
        zones = self._document.ringfence.zones if self._document.ringfence is not None else None
        if zones is None or zones.policy_file is None:
            return None
        path = self._directory / zones.policy_file
        try:
            # Read once: what is checked is what the digest is of.
            content = read_bounded(path, MAX_DOCUMENT_BYTES, ConfigError)
            policy = parse_policy(content.decode("utf-8", "replace"), str(path))
            return Checked(policy, hashlib.sha256(content).hexdigest())
        except (PolicyError, ConfigError) as error:
            self._cannot_read(self._root.at("ringfence", "zones", "policy_file"), "policy", error)
            return None

    def _classifications(self) -> Iterator[Classification]:
        yield from _placed(self._root.at("configurations"), self._document.configurations, None)
        instances = self._root.at("instances")
        groups = self._document.instances
        yield from _placed(instances.at("primary", "configurations"), groups.primary.configurations, "primary")
        yield from _placed(instances.at("core", "configurations"), groups.core.configurations, "core")
        for index, task in enumerate(groups.task):
            yield from _placed(instances.at("task", index, "configurations"), task.configurations, task.name)

    def _files_of_classifications(self) -> Iterator[Classification]:
        for index, name in enumerate(self._document.configuration_files):
            place = self._root.at("configuration_files", index)
            try:
                located = read_document(self._directory / name, "the classifications", hint="")
            except PolicyError as error:
                self._cannot_read(place, "configuration_files", error)
                continue
            # JSON is YAML but for tabs, and lines are known this way.
            self.findings += located.findings
            try:
                blocks = _BLOCKS.validate_python(located.data)
            except ValidationError as error:
                self.findings += findings_of(error, located, ConfigurationBlock, "a classification")
                self._unread.add("configuration_files")
                continue
            yield from _placed(Place(located), blocks, None)

    def _cannot_read(self, place: Place, part: str, error: DocumentError | InputError | PolicyError) -> None:
        self._unread.add(part)
        found = error.findings if isinstance(error, DocumentError | PolicyError) else ()
        self.findings += found
        if not found:
            self.findings.append(place.error(Rule.BAD_VALUE, error.message, error.hint or _FILE_HINT))


_BLOCKS = TypeAdapter(tuple[ConfigurationBlock, ...])


def _placed(place: Place, blocks: Sequence[ConfigurationBlock], group: str | None) -> Iterator[Classification]:
    for index, block in enumerate(blocks):
        yield Classification(place.at(index), block, group)


def _empty(located: LocatedDocument) -> Finding:
    return Place(located).error(Rule.MISSING_FIELD, "the document is empty", "begin it with  version: 1")


def _refused(located: LocatedDocument, findings: Sequence[Finding]) -> DocumentError:
    # Warnings are told with what is written: among the errors nobody could tell which of them keep it from being so.
    errors = sorted((finding for finding in findings if finding.severity is Severity.ERROR), key=_place_of)
    message = f"{located.name} has {len(errors)} problem{'s' if len(errors) != 1 else ''}; nothing was written"
    return DocumentError(message, errors)


def _place_of(finding: Finding) -> tuple[str, int]:
    name, _, line = finding.path.rpartition(":")
    return name, int(line) if line.isdecimal() else 0
