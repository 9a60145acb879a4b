"""The policy: which zones a cluster has, who uses them, where data may move.

`load_policy` and `parse_policy` read the document people write; `policy_from_json` reads the one that was published.
All three give a `Policy` in which nothing is left to be derived, or raise one PolicyError with every problem found.

`canonical_json` is what gets published: the resolved policy as JSON with sorted names, no blanks, zones in path
order. Two documents that mean the same have the same digest, whatever their comments, order or defaults.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from ringfence_zones.custody import Custody
from ringfence_zones.errors import PolicyError
from ringfence_zones.findings import Finding, Rule, Severity
from ringfence_zones.keys import POLICY_KEY_NAME
from ringfence_zones.naming import derive_key_name
from ringfence_zones.paths import HdfsPath
from ringfence_zones.policy_document import (
    EVERYONE,
    AgentBlock,
    FlowControlBlock,
    KmsBlock,
    PolicyDocument,
    Trash,
    ZoneBlock,
    duration_s,
)
from ringfence_zones.policy_problems import findings_of, replace_nulls
from ringfence_zones.policy_rules import DraftZone, check_rules
from ringfence_zones.policy_yaml import MAX_DEPTH, MAX_DOCUMENT_BYTES, MAX_VALUES, LocatedDocument, read_yaml


class _Value(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ZonePolicy(_Value):
    """One zone with everything decided. `mode` holds permission bits, `rotate_every_s` seconds or None.

    `owner` and `group` are None where policy leaves them as they are. Principals are users, `@groups`, and in
    `readers` also `*`.
    """

    path: str
    key: str
    length_bits: int
    custody: Custody
    rotate_every_s: int | None
    trash: Trash
    owner: str | None
    group: str | None
    mode: int
    readers: tuple[str, ...]
    writers: tuple[str, ...]
    nested: bool

    @property
    def hdfs_path(self) -> HdfsPath:
        """The root as a path."""
        return HdfsPath.parse(self.path)

    @property
    def all_writers(self) -> frozenset[str]:
        """Writers, the owner among them."""
        return frozenset(self.writers) | ({self.owner} if self.owner else frozenset())

    @property
    def all_readers(self) -> frozenset[str]:
        """Everybody who may read: readers, writers, the owner, the owning group where the mode lets it read, `*`."""
        group = {f"@{self.group}"} if self.group and self.mode & 0o040 else frozenset()
        return frozenset(self.readers) | self.all_writers | group

    def can_read(self, user: str, groups: frozenset[str] = frozenset()) -> bool:
        """Whether policy lets `user`, a member of `groups`, read here."""
        return EVERYONE in self.readers or _is_named(user, groups, self.all_readers)

    def can_write(self, user: str, groups: frozenset[str] = frozenset()) -> bool:
        """Whether policy lets `user`, a member of `groups`, write here."""
        return _is_named(user, groups, self.all_writers)


class Flow(_Value):
    """An edge between two zone roots, for the principals in `who`."""

    source: str
    target: str
    who: tuple[str, ...]

    def allows(self, user: str, groups: frozenset[str] = frozenset()) -> bool:
        """Whether `user`, a member of `groups`, may move data along this edge."""
        return _is_named(user, groups, frozenset(self.who))


class Policy(_Value):
    """A whole policy. `flows` and `outside` are None when the document has no such key: then they bind nothing.

    `zones` is in path order, a nested zone after the one around it. `outside` maps a clear-text directory to the
    zone roots that may send data there.
    """

    version: Literal[1]
    cluster: str
    zones: tuple[ZonePolicy, ...]
    flows: tuple[Flow, ...] | None
    outside: Mapping[str, tuple[str, ...]] | None
    must_encrypt: tuple[str, ...]
    flow_control: FlowControlBlock
    kms: KmsBlock | None
    agent: AgentBlock

    def find_zone(self, path: str) -> ZonePolicy | None:
        """The zone whose root is exactly `path`."""
        return next((zone for zone in self.zones if zone.path == path), None)


def load_policy(path: Path) -> Policy:
    """Reads a policy file. Raises PolicyError with every problem, the file's own unreadability included."""
    return _build(read_document(path, "the policy", hint="name the policy file with -f FILE"))


def read_document(path: Path, what: str, *, hint: str) -> LocatedDocument:
    """A YAML file with the places of its values; `what` is what a message calls it. Raises PolicyError."""
    try:
        with path.open("rb") as stream:
            raw = stream.read(MAX_DOCUMENT_BYTES + 1)
    except OSError as error:
        raise PolicyError(f"cannot read {what} {path}: {error.strerror}", (), hint=hint) from error
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        finding = Finding(
            severity=Severity.ERROR,
            rule=Rule.YAML_SYNTAX,
            path=f"{path}:{line}",
            message="not UTF-8",
            hint="save the file as UTF-8",
        )
        raise document_error(str(path), [finding]) from error
    return read_yaml(text, str(path))


def parse_policy(text: str, name: str, most_values: int = MAX_VALUES) -> Policy:
    """Reads a policy from YAML text; `name` is how findings call it. Raises PolicyError with every problem."""
    return _build(read_yaml(text, name, most_values))


def policy_from_json(document: Any, name: str = "policy") -> Policy:
    """The policy in a decoded JSON document, the form `canonical_json` writes. Raises PolicyError."""
    if _is_deep(document):
        message = f"nested deeper than {MAX_DEPTH} levels"
        finding = Finding(
            severity=Severity.ERROR,
            rule=Rule.YAML_SYNTAX,
            path=f"{name}:1",
            message=message,
            hint="a policy needs four",
        )
        raise document_error(name, [finding])
    return _build(LocatedDocument(name, document))


def _is_deep(document: Any) -> bool:
    # Level by level: what reads the document afterwards descends by recursion.
    level = [document]
    for _ in range(MAX_DEPTH + 1):
        level = [
            inner
            for value in level
            for inner in (value.values() if isinstance(value, dict) else value if isinstance(value, list) else ())
        ]
        if not level:
            return False
    return True


def canonical_json(policy: Policy) -> bytes:
    """The published form, UTF-8: itself a policy document, with nothing left to defaults."""
    return json.dumps(_to_document(policy), sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def policy_digest(policy: Policy) -> str:
    """SHA-256 of the canonical JSON, in hex."""
    return hashlib.sha256(canonical_json(policy)).hexdigest()


def _is_named(user: str, groups: frozenset[str], principals: frozenset[str]) -> bool:
    return user in principals or any(f"@{group}" in principals for group in groups)


def document_error(name: str, findings: list[Finding]) -> PolicyError:
    """What is raised for a document with problems; they are told in the order of its lines."""
    count = len(findings)
    return PolicyError(f"{name} has {count} problem{'s' if count != 1 else ''}", sorted(findings, key=_line_of))


def _build(located: LocatedDocument) -> Policy:
    if located.findings and located.data is None:
        raise document_error(located.name, located.findings)
    findings = list(located.findings)
    data, problems = replace_nulls(located)
    findings += problems
    document: PolicyDocument | None = None
    try:
        document = PolicyDocument.model_validate(data)
    except ValidationError as error:
        findings += findings_of(error, located, PolicyDocument, "a policy")
    # Rules between values are checked over every block that is right by itself, so that one wrong mode does not
    # hide a shared key elsewhere.
    drafts = _drafts(data)
    findings += check_rules(data, drafts, located)
    if document is None or findings:
        raise document_error(located.name, findings)
    return _resolve(document, drafts)


def _line_of(finding: Finding) -> int:
    line = finding.path.rpartition(":")[2]
    return int(line) if line.isdecimal() else 0


def _drafts(data: Any) -> list[DraftZone]:
    zones = data.get("zones") if isinstance(data, dict) else None
    cluster = data.get("cluster") if isinstance(data, dict) else None
    drafts = []
    for index, raw in enumerate(zones if isinstance(zones, list) else []):
        try:
            block = ZoneBlock.model_validate(raw)
        except ValidationError:
            continue
        key = block.key
        if key is None and isinstance(cluster, str):
            key = derive_key_name(cluster, HdfsPath.parse(block.path))
        drafts.append(DraftZone(index, block, HdfsPath.parse(block.path), key))
    return drafts


def _resolve(document: PolicyDocument, drafts: list[DraftZone]) -> Policy:
    flows, outside = document.flows, document.outside
    return Policy(
        version=document.version,
        cluster=document.cluster,
        zones=tuple(_zone(document, draft) for draft in sorted(drafts, key=lambda draft: draft.path)),
        flows=None
        if flows is None
        else tuple(Flow(source=flow.from_, target=flow.to, who=_ordered(flow.who)) for flow in flows),
        outside=None if outside is None else {path: _ordered(block.from_) for path, block in sorted(outside.items())},
        must_encrypt=_ordered(document.must_encrypt),
        flow_control=document.flow_control,
        kms=document.kms,
        agent=document.agent,
    )


def _zone(document: PolicyDocument, draft: DraftZone) -> ZonePolicy:
    block, defaults = draft.block, document.defaults
    assert draft.key is not None and POLICY_KEY_NAME.fullmatch(draft.key)
    rotate_every = block.rotate_every or defaults.rotate_every
    return ZonePolicy(
        path=block.path,
        key=draft.key,
        length_bits=block.length_bits or defaults.length_bits,
        custody=block.custody or defaults.custody,
        rotate_every_s=duration_s(rotate_every) if rotate_every else None,
        trash=block.trash or defaults.trash,
        owner=block.owner,
        group=block.group,
        mode=block.mode_bits,
        readers=_ordered(block.readers),
        writers=_ordered(block.writers),
        nested=block.nested,
    )


def _ordered(names: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(sorted(set(names)))


def _to_document(policy: Policy) -> dict[str, Any]:
    out: dict[str, Any] = {
        "version": policy.version,
        "cluster": policy.cluster,
        "zones": [_zone_document(zone) for zone in policy.zones],
        "must_encrypt": list(policy.must_encrypt),
        "flow_control": policy.flow_control.model_dump(),
        "agent": policy.agent.model_dump(),
    }
    if policy.kms is not None:
        out["kms"] = {
            "namenode_users": sorted(set(policy.kms.namenode_users)),
            "admins": sorted(set(policy.kms.admins)),
        }
    if policy.flows is not None:
        flows = [{"from": flow.source, "to": flow.target, "who": list(flow.who)} for flow in policy.flows]
        out["flows"] = sorted(flows, key=lambda flow: (flow["from"], flow["to"], flow["who"]))
    if policy.outside is not None:
        out["outside"] = {path: {"from": list(sources)} for path, sources in policy.outside.items()}
    return out


def _zone_document(zone: ZonePolicy) -> dict[str, Any]:
    out = zone.model_dump(exclude={"rotate_every_s", "mode"}, exclude_none=True, mode="json")
    out["mode"] = f"{zone.mode:04o}"
    if zone.rotate_every_s is not None:
        out["rotate_every"] = f"{zone.rotate_every_s}s"
    return out
