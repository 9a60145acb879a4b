"""May this be renamed, may it be transferred, and what to do instead: one pure decision, used everywhere.

`ringfence mv`, `ringfence policy decide-move` and the agent's API give the same `MoveDecision`. Rules:

1. A rename is allowed when the NameNode allows it, and the source is neither a zone root nor a directory that holds
   one, and neither end is a raw path or in a snapshot. The NameNode compares the zones of the two parents
   (`EncryptionZoneManager.checkMoveValidity`); two zones with one key are two zones.
2. A transfer is allowed by policy: always inside a zone; between zones by `flows`; to a clear place by `outside`;
   into a zone for its writers. A tree is transferred only when every zone in it may be.
3. What is not known is not allowed: a zone that the policy does not name has no edges and no writers.
4. A refusal says which zones, which rule, and a command that works, or which permission is missing.

`tests/vectors/moves.yaml` holds the expected outcome of every combination. This module asks nobody: zones under
re-encryption, existing targets and HDFS permissions are the NameNode's to refuse.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from itertools import islice, takewhile
from typing import Any, NamedTuple

from ringfence_zones.copy_command import copy_and_compare
from ringfence_zones.errors import PathError
from ringfence_zones.findings import Rule
from ringfence_zones.model import EncryptionZone
from ringfence_zones.paths import HdfsPath, PathKind
from ringfence_zones.policy import Policy


@dataclass(frozen=True, slots=True, kw_only=True)
class MoveDecision:
    """What was decided about one move. `reason`, `rule` and `command` are None when the rename is allowed.

    `command` is None as well when policy sanctions no way at all; `reason` then says what is missing. `grounds` says
    what decided about the transfer, either way; it is for people and no part of the JSON object.
    """

    rename: bool
    transfer: bool
    same_zone: bool
    reason: str | None = None
    rule: Rule | None = None
    command: str | None = None
    grounds: str = ""

    def to_json(self) -> dict[str, Any]:
        """The JSON object of contracts, section 1; all six fields are always there."""
        return {
            "rename": self.rename,
            "transfer": self.transfer,
            "same_zone": self.same_zone,
            "reason": self.reason,
            "rule": self.rule.value if self.rule is not None else None,
            "command": self.command,
        }


class Permission(NamedTuple):
    """Whether data may go somewhere, and what says so: a clause, such as `the policy has no flow from /a to /b`."""

    granted: bool
    because: str


class ZoneMap:
    """Zone roots by path, for lookups by component."""

    def __init__(self, zones: Sequence[EncryptionZone]) -> None:
        self._roots = {HdfsPath.from_namenode(zone.path): zone for zone in zones}
        self._ordered = sorted(self._roots)

    def find_zone_of(self, path: HdfsPath) -> HdfsPath | None:
        """The root of the innermost zone that `path` is in, its own root included; None in clear."""
        current: HdfsPath | None = path
        while current is not None and current not in self._roots:
            current = current.parent
        return current

    def is_root(self, path: HdfsPath) -> bool:
        """Whether `path` is itself a zone's root."""
        return path in self._roots

    def roots_below(self, path: HdfsPath) -> list[HdfsPath]:
        """The roots strictly below `path`, in order."""
        # What is below a path follows it directly, in the order by components.
        after = islice(self._ordered, bisect_right(self._ordered, path), None)
        return list(takewhile(lambda root: root.is_inside(path), after))


def decide_move(
    policy: Policy | None,
    zones: Sequence[EncryptionZone] | ZoneMap,
    *,
    user: str,
    src: HdfsPath,
    dst: HdfsPath,
    groups: Collection[str] = (),
    src_is_directory: bool = False,
    dst_is_directory: bool = False,
) -> MoveDecision:
    """Decides about moving `src` to `dst` for `user`, a member of `groups`.

    `zones` are the cluster's zones, or offline those of the policy; who asks often maps them once. A `dst` that is
    a zone root, `/`, or known to be an existing directory means `dst/basename(src)`. `src_is_directory` only shapes
    the suggested command.
    Raises PathError when `src` is `/` and no zone is below it, which is nothing one can move.
    """
    at = zones if isinstance(zones, ZoneMap) else ZoneMap(zones)
    move = _Move(at, src, final_destination(at, src, dst, dst_is_directory=dst_is_directory))
    if src.is_root and not (at.is_root(src) or move.carried):
        raise PathError(str(src), "is the root of the file system and cannot be moved")
    permission = _permission(policy, move, user, frozenset(groups))
    transfer, rule = permission.granted, _rule(move)
    if rule is None:
        return MoveDecision(rename=True, transfer=transfer, same_zone=move.same_zone, grounds=permission.because)
    command = copy_and_compare(src, move.dst, is_directory=src_is_directory or move.holds_roots) if transfer else None
    reason = _reason(rule, move)
    if not transfer:
        reason = f"{reason}; {permission.because}"
    elif command is not None and move.dst_zone is None:
        reason = f"{reason}; a copy there is stored in clear text"
    elif command is None:
        reason = f"{reason}; Hadoop's shell has no copy command for these two paths"
    return MoveDecision(
        rename=False,
        transfer=transfer,
        same_zone=move.same_zone,
        reason=reason,
        rule=rule,
        command=command,
        grounds=permission.because,
    )


def decide_flow(
    policy: Policy,
    zones: Sequence[EncryptionZone] | ZoneMap,
    *,
    user: str,
    src: HdfsPath,
    dst: HdfsPath,
    groups: Collection[str] = (),
) -> Permission:
    """What the KMS's flow rules say of copying `src` to `dst` with ordinary tools, be they enforced or in shadow.

    They speak of two zones. A copy that begins or ends in clear text, or of raw bytes, is none of theirs and passes,
    whatever `decide_move` says of the transfer: the KMS cannot tell it from a read or a write.
    """
    at = zones if isinstance(zones, ZoneMap) else ZoneMap(zones)
    move = _Move(at, src, final_destination(at, src, dst, dst_is_directory=False))
    if PathKind.RAW in move.kinds:
        return Permission(True, "a copy of raw bytes asks the KMS for nothing")
    target, sources = move.dst_zone, [zone for zone in (move.src_zone, *move.carried) if zone is not None]
    if target is None or not sources:
        return Permission(True, "the flow rules speak of copies between two zones")
    others = [zone for zone in sources if zone != target]
    if not others:
        return Permission(True, f"both ends are in the zone {target}")
    found = [flow_permission(policy, str(zone), str(target), user, frozenset(groups)) for zone in others]
    return next((each for each in found if not each.granted), found[0])


def final_destination(at: ZoneMap, src: HdfsPath, dst: HdfsPath, *, dst_is_directory: bool) -> HdfsPath:
    """Where `src` would end up: in `dst` when that is known to be a directory, else at `dst` itself."""
    if not src.name:
        return dst
    final = dst.child(src.name) if dst_is_directory or dst.is_root else dst
    while at.is_root(final.live):
        final = final.child(src.name)
    return final


class _Move:
    """Both ends of a move with the zones they are in."""

    def __init__(self, at: ZoneMap, src: HdfsPath, dst: HdfsPath) -> None:
        self.src, self.dst = src, dst
        self.kinds = {src.kind, dst.kind}
        self.src_is_root = at.is_root(src.live)
        self.src_zone = at.find_zone_of(src.live)
        # What is moved arrives under its parent: that one decides which zone it will be in.
        parent = dst.live.parent
        self.dst_zone = at.find_zone_of(parent) if parent is not None else None
        self.carried = at.roots_below(src.live)

    @property
    def holds_roots(self) -> bool:
        return self.src_is_root or bool(self.carried)

    @property
    def same_zone(self) -> bool:
        return self.src_zone is not None and self.src_zone == self.dst_zone


def _rule(move: _Move) -> Rule | None:
    if PathKind.RAW in move.kinds:
        return Rule.RAW_PATH
    if PathKind.SNAPSHOT in move.kinds:
        return Rule.SNAPSHOT_PATH
    if move.src_is_root:
        return Rule.ZONE_ROOT
    if move.carried:
        return Rule.ZONE_ROOT_ANCESTOR
    if move.src_zone == move.dst_zone:
        return None
    if move.src_zone is None:
        return Rule.CLEAR_TO_ZONE
    return Rule.ZONE_TO_CLEAR if move.dst_zone is None else Rule.ZONE_TO_ZONE


def _permission(policy: Policy | None, move: _Move, user: str, groups: frozenset[str]) -> Permission:
    """Whether policy lets all of this be transferred."""
    if PathKind.RAW in move.kinds:
        return Permission(False, "encrypted bytes are not moved as they are: name the paths without /.reserved/raw")
    if move.dst.kind is PathKind.SNAPSHOT:
        return Permission(False, "nothing is ever written into a snapshot")
    # A tree carries the zones below it: each of them has to be allowed to go.
    found = [_zone_permission(policy, zone, move, user, groups) for zone in (move.src_zone, *move.carried)]
    return next((each for each in found if not each.granted), found[0])


def _zone_permission(
    policy: Policy | None, zone: HdfsPath | None, move: _Move, user: str, groups: frozenset[str]
) -> Permission:
    target = move.dst_zone
    if policy is None:
        return Permission(True, "there is no policy")
    if zone == target:
        return Permission(True, f"both ends are in the zone {zone}" if zone else "both ends are in clear text")
    if zone is None:
        writable = policy.find_zone(str(target))
        if writable is not None and writable.can_write(user, groups):
            return Permission(True, f"{user} is a writer of {target}")
        return Permission(False, f"{user} is not a writer of {target} in the policy")
    if target is None:
        return _outside_permission(policy, zone, move.dst)
    return flow_permission(policy, str(zone), str(target), user, groups)


def flow_permission(
    policy: Policy, source: str, target: str, user: str, groups: frozenset[str] = frozenset()
) -> Permission:
    """Whether the flow rules let `user`, a member of `groups`, carry data from one zone's root into another's."""
    if policy.flows is None:
        return Permission(True, "the policy has no 'flows': zones may be copied freely")
    for flow in policy.flows:
        if (flow.source, flow.target) == (source, target) and flow.allows(user, groups):
            return Permission(True, f"the flow from {source} to {target} for {', '.join(flow.who)}")
    return Permission(False, f"the policy has no flow from {source} to {target} for {user}")


def _outside_permission(policy: Policy, zone: HdfsPath, dst: HdfsPath) -> Permission:
    if policy.outside is None:
        if policy.flows is None:
            return Permission(True, "the policy has neither 'flows' nor 'outside'")
        return Permission(False, f"the policy has no 'outside' that lets {zone} send data to clear text")
    places = [(HdfsPath.parse(place), sources) for place, sources in policy.outside.items()]
    around = [(place, sources) for place, sources in places if dst.live.is_inside(place)]
    if around:
        place, sources = max(around, key=lambda item: len(item[0].components))
        if str(zone) in sources:
            return Permission(True, f"'outside' lets {zone} send data to {place}")
    return Permission(False, f"the policy's 'outside' does not let {zone} send data to {dst}")


def _reason(rule: Rule, move: _Move) -> str:
    src, dst = move.src, move.dst
    match rule:
        case Rule.RAW_PATH:
            return f"{src if src.kind is PathKind.RAW else dst} shows encrypted bytes and is not renamed"
        case Rule.SNAPSHOT_PATH:
            return f"{src if src.kind is PathKind.SNAPSHOT else dst} is in a snapshot, which is read-only"
        case Rule.ZONE_ROOT:
            return f"{src} is the root of an encryption zone, which stays where it is"
        case Rule.ZONE_ROOT_ANCESTOR:
            return f"{src} holds {_named(move.carried)}, which would move along"
        case Rule.CLEAR_TO_ZONE:
            return f"{src} is in no encryption zone and {dst} is in the zone {move.dst_zone}: a rename encrypts nothing"
        case Rule.ZONE_TO_CLEAR:
            return f"{src} is in the encryption zone {move.src_zone} and {dst} is in none: a rename decrypts nothing"
        case _:
            return (
                f"{src} is in the encryption zone {move.src_zone} and {dst} in the zone {move.dst_zone}: "
                "a rename does not change the key"
            )


def _named(roots: list[HdfsPath]) -> str:
    if len(roots) == 1:
        return f"the encryption zone {roots[0]}"
    shown = ", ".join(str(root) for root in roots[:3])
    more = f" and {len(roots) - 3} more" if len(roots) > 3 else ""
    return f"the encryption zones {shown}{more}"
