"""Past accesses against a policy: which of them it would have refused. Pure; one access after another.

Judged is what each log tells, as if the zones, keys and rights had been those of the policy:

- of a KMS: the key's grants (`publication.key_grants`), that no key material is handed out, and the flow rules over
  what each session opened (`sessions`);
- of a NameNode: renames, by the one function that decides about moves (`moves.decide_move`); `open` and `create`, for
  which the KMS needs DECRYPT_EEK on the zone's key, `create` also by the rights of the zone's root; and the flow
  rules, where `open` is a read and `create` a write.

What is certain and what is possible are kept apart. Possible is what hangs on groups that are not known, on the rights
of directories that were made before, on a log that does not say what was read and what was written, and on `open`,
which a NameNode also logs for who only asks where blocks are: that takes a reader's right as well, but no key.

A file that is put into the trash goes to that of its zone, where Hadoop's client looks first: that is no rename across
a border. An append is a read to the flow rules, because it is one to the KMS. A path in no zone of the policy is not
judged, nor is the right to a key that the policy does not name; to the flow rules such a key is a zone without edges,
as in the KMS.
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from ringfence_zones.errors import PathError
from ringfence_zones.findings import Finding, Rule, Severity
from ringfence_zones.flow_labels import Kind
from ringfence_zones.memberships import Memberships
from ringfence_zones.model import EncryptionZone
from ringfence_zones.moves import ZoneMap, decide_move, final_destination
from ringfence_zones.paths import HdfsPath, PathKind
from ringfence_zones.policy import Policy
from ringfence_zones.publication import Grant, KeyOp, key_grants
from ringfence_zones.replay.access import Access, KmsAccess, NameNodeAccess, Outcome
from ringfence_zones.replay.sessions import ALLOWED, Certainty, Sessions, Verdict
from ringfence_zones.rights import directory_writers

CLEAR = "clear text"
UNNAMED = "a key that the policy does not name"
_MATERIAL = frozenset({"GET_KEY_VERSION", "GET_KEY_VERSIONS", "GET_CURRENT_KEY"})
# Source: KeyAuthorizationKeyProvider's doAccessCheck calls.
_KEY_OPS: Mapping[str, KeyOp] = {
    "DECRYPT_EEK": KeyOp.DECRYPT_EEK,
    "GENERATE_EEK": KeyOp.GENERATE_EEK,
    "REENCRYPT_EEK": KeyOp.GENERATE_EEK,
    "REENCRYPT_EEK_BATCH": KeyOp.GENERATE_EEK,
    "CREATE_KEY": KeyOp.MANAGEMENT,
    "DELETE_KEY": KeyOp.MANAGEMENT,
    "ROLL_NEW_VERSION": KeyOp.MANAGEMENT,
    "INVALIDATE_CACHE": KeyOp.MANAGEMENT,
    "GET_METADATA": KeyOp.READ,
}
_OPENINGS = {"open": Kind.READ, "append": Kind.READ, "create": Kind.WRITE}
_PINNED = (Rule.ZONE_ROOT, Rule.ZONE_ROOT_ANCESTOR)
_DIRECTORIES_KEPT = 65_536
_OTHER_KEYS_KEPT = 1000


class Refusal(NamedTuple):
    """What the policy would have refused, without what tells one such access from the next.

    `op` is the KMS's or the NameNode's word; `zone` and `to` are zone roots or `clear text`, `to` None for an access
    to one zone. `directed`: data went, or would have gone, from `zone` to `to`; else it may have been either way.
    """

    rule: Rule
    certain: bool
    user: str
    op: str
    zone: str
    to: str | None
    why: str
    directed: bool = True

    def to_finding(self, count: int, where: str) -> Finding:
        """As a finding; `where` is the first such line of a log."""
        places = self.zone if self.to is None else f"{self.zone} and {self.to}"
        would = "would have been" if self.certain else "may have been"
        times = "once" if count == 1 else f"{count} times"
        return Finding(
            severity=Severity.ERROR if self.certain else Severity.WARN,
            rule=self.rule,
            path=where,
            message=f"{self.user}: {self.op} in {places} {would} refused {times}: {self.why}",
            hint=self._hint,
        )

    @property
    def _hint(self) -> str:
        if self.rule is Rule.ACCESS_REFUSED:
            return f"if it is meant, let {self.user} do so in the policy; else find out what will fail"
        if self.rule is Rule.FLOW_REFUSED:
            return f"if it is meant, list a flow for {self.user}; else find out what will fail"
        return "ringfence policy decide-move shows a way that works, or what is missing"


@dataclass(slots=True)
class Counts:
    """Of the accesses in the logs of one kind. `outside`: keys and paths in no zone; `other`: nothing to judge."""

    judged: int = 0
    failed: int = 0
    outside: int = 0
    other: int = 0
    realms: int = 0
    claimed: int = 0
    other_keys: Counter[str] = field(default_factory=Counter)


class Judge:
    """For the logs of one kind. `memberships` None: nobody's groups are known."""

    def __init__(self, policy: Policy, memberships: Memberships | None, window_s: float) -> None:
        self._policy = policy
        self._memberships = memberships
        self._zones = ZoneMap([EncryptionZone(zone.path, zone.key) for zone in policy.zones])
        self._root_of_key = {zone.key: zone.path for zone in policy.zones}
        grants = key_grants(policy)
        self._grants = {zone.path: grants[zone.key] for zone in policy.zones}
        self._writers = {zone.path: Grant.of(directory_writers(zone)) for zone in policy.zones}
        who: dict[tuple[str, str], set[str]] = {}
        for flow in policy.flows or ():
            who.setdefault((flow.source, flow.target), set()).update(flow.who)
        self._edges = {edge: Grant.of(names) for edge, names in who.items()}
        self._root_of = functools.lru_cache(_DIRECTORIES_KEPT)(self._find_root)
        self.sessions = Sessions(window_s, self._edge)
        self.counts = Counts()

    def judge(self, access: Access) -> Iterator[tuple[Refusal, int]]:
        """Why the policy would have refused it, and how many accesses; nothing when it would not."""
        counts = self.counts
        if access.realm:
            counts.realms += 1
        if access.outcome is Outcome.FAILED:
            counts.failed += 1
        elif access.outcome is Outcome.OTHER:
            counts.other += 1
        elif isinstance(access, KmsAccess):
            yield from self._of_kms(access)
        else:
            yield from self._of_namenode(access)

    def _of_kms(self, access: KmsAccess) -> Iterator[tuple[Refusal, int]]:
        op, counts = _KEY_OPS.get(access.op), self.counts
        # Without a kms block the policy says only who reads and writes.
        if op is not None and op is not KeyOp.DECRYPT_EEK and self._policy.kms is None:
            op = None
        if access.user is None or access.key is None or (op is None and access.op not in _MATERIAL):
            counts.other += access.count
            return
        root = self._root_of_key.get(access.key)
        if root is None:
            counts.outside += access.count
            if len(counts.other_keys) < _OTHER_KEYS_KEPT or access.key in counts.other_keys:
                counts.other_keys[access.key] += access.count
            if op is KeyOp.DECRYPT_EEK:
                yield from self._flow(access.user, access, f"key {access.key}", access.opened)
            return
        counts.judged += access.count
        counts.claimed += access.claimed
        if op is None:
            why = "the policy hands out no key material"
            yield Refusal(Rule.ACCESS_REFUSED, True, access.user, access.op, root, None, why), access.count
            return
        verdict = self._verdict(self._grants[root][op], access.user)
        if verdict.certainty is not Certainty.ALLOWED:
            yield _access(access.user, access.op, root, verdict, f"no right to {op.value} on its key"), access.count
        if op is KeyOp.DECRYPT_EEK and verdict.certainty is not Certainty.REFUSED:
            yield from self._flow(access.user, access, root, access.opened)

    def _of_namenode(self, access: NameNodeAccess) -> Iterator[tuple[Refusal, int]]:
        if access.op == "rename":
            yield from self._rename(access)
            return
        opened = _OPENINGS.get(access.op)
        if opened is None or access.src is None:
            self.counts.other += 1
            return
        root = self._root_of(access.src.rpartition("/")[0])
        if root is None:
            self.counts.outside += 1
            return
        self.counts.judged += 1
        verdict = self._verdict(self._grants[root][KeyOp.DECRYPT_EEK], access.user)
        if verdict.certainty is not Certainty.ALLOWED:
            refused = _access(access.user, access.op, root, verdict, "no right to DECRYPT_EEK on its key")
            if access.op == "open" and self._policy.kms and access.user in self._policy.kms.namenode_users:
                why = f"{refused.why}; HDFS's superuser may have asked where blocks are, without it"
                refused = refused._replace(certain=False, why=why)
            yield refused, 1
        elif opened is Kind.WRITE and self._verdict(self._writers[root], access.user).certainty is Certainty.REFUSED:
            why = "the rights of the zone's root do not let them write; directories made before keep theirs"
            yield Refusal(Rule.ACCESS_REFUSED, False, access.user, access.op, root, None, why), 1
        if verdict.certainty is not Certainty.REFUSED:
            yield from self._flow(access.user, access, root, opened)

    def _rename(self, access: NameNodeAccess) -> Iterator[tuple[Refusal, int]]:
        if access.src is None or access.dst is None:
            self.counts.other += 1
            return
        # The NameNode applies its rules to the places that raw paths show.
        src, dst = HdfsPath.from_namenode(access.src).live, HdfsPath.from_namenode(access.dst).live
        try:
            decision = decide_move(self._policy, self._zones, user=access.user, src=src, dst=dst)
        except PathError:
            self.counts.other += 1
            return
        final = final_destination(self._zones, src, dst, dst_is_directory=False)
        source, target = self._zones.find_zone_of(src), self._zones.find_zone_of(final.parent or final)
        if decision.rule is None and source is None:
            self.counts.outside += 1
            return
        self.counts.judged += 1
        if decision.rule is not None and not (access.to_trash and decision.rule is Rule.ZONE_TO_CLEAR):
            certain = decision.rule not in _PINNED
            why = decision.rule.meaning if certain else f"{decision.rule.meaning} What refuses it is its pin."
            zone, to = str(source or CLEAR), str(target or CLEAR)
            yield Refusal(decision.rule, certain, access.user, access.op, zone, to, why.rstrip(".")), 1

    def _flow(self, user: str, access: Access, root: str, opened: Kind | None) -> Iterator[tuple[Refusal, int]]:
        if self._policy.flows is None:
            return
        for crossing in self.sessions.open(access.session, user, root, opened, access.time_s):
            certain = crossing.verdict.certainty is Certainty.REFUSED and isinstance(access, KmsAccess)
            # Keys without a zone are one to the report: there may be any number of them.
            source, target = (
                place if place.startswith("/") else UNNAMED for place in (crossing.source, crossing.target)
            )
            way = f"from {source} to {target}" if crossing.is_directed else f"between {source} and {target}"
            why = f"no flow {way} for {user}{_unless(crossing.verdict)}"
            if opened is None:
                why = f"{why}; the log does not tell a copy from two reads"
            elif isinstance(access, NameNodeAccess):
                why = f"{why}; `open` may have asked where blocks are"
            refused = Refusal(Rule.FLOW_REFUSED, certain, user, access.op, source, target, why, crossing.is_directed)
            yield refused, 1

    def _find_root(self, directory: str) -> str | None:
        """The zone of what lies in a directory; None in clear, and where nothing is decrypted."""
        path = HdfsPath.from_namenode(directory)
        if path.kind is PathKind.RAW or path.components[:1] == (".reserved",):
            return None
        root = self._zones.find_zone_of(path.live)
        return None if root is None else str(root)

    def _edge(self, user: str, source: str, target: str) -> Verdict:
        grant = self._edges.get((source, target))
        return Verdict(Certainty.REFUSED) if grant is None else self._verdict(grant, user)

    def _verdict(self, grant: Grant, user: str) -> Verdict:
        groups = frozenset() if self._memberships is None else self._memberships.get(user, frozenset())
        if grant.allows(user, groups):
            return ALLOWED
        if self._memberships is None and grant.groups:
            return Verdict(Certainty.POSSIBLE, tuple(sorted(grant.groups)))
        return Verdict(Certainty.REFUSED)


def _access(user: str, op: str, root: str, verdict: Verdict, why: str) -> Refusal:
    certain = verdict.certainty is Certainty.REFUSED
    return Refusal(Rule.ACCESS_REFUSED, certain, user, op, root, None, f"{why}{_unless(verdict)}")


def _unless(verdict: Verdict) -> str:
    return f", unless in {' or '.join(f'@{group}' for group in verdict.unless)}" if verdict.unless else ""
