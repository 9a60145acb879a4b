"""May this transfer be made, and by whom: `ringfence_zones.moves` decides, and nobody decides a second time.

Around that decision stand three rules of transfers alone:

1. An approval (a grant, made by somebody else for this one transfer) may stand in for a missing flow between two zones,
   and for nothing else: never for raw paths, snapshots, clear text, or HDFS's own permissions and the keys' ACLs.
2. Who copies is the requesting user, or the service principal that agent.yaml names for the edge. A service principal
   must be allowed the edge itself, and must not read or write any third zone of the policy: whoever holds two keys can
   carry data between two zones, whoever holds all of them between any. It lends nobody rights: whom it copies for must
   be a reader of the source's zone and a writer of the target's, and a writer of the source's to have that removed.
3. Everything is decided on a fresh look at the cluster (`Board.fresh_state`), at submission and again by the engine.
"""

from __future__ import annotations

from dataclasses import dataclass

from ringfence_agent.api.access import Accounts
from ringfence_agent.snapshot import Board
from ringfence_agent.transfer.config import ServicePrincipal, TransferConfig
from ringfence_agent.transfer.record import Allowed, Zone
from ringfence_zones.errors import ConfigError, PathError, RefusedError
from ringfence_zones.findings import Rule
from ringfence_zones.moves import MoveDecision, ZoneMap, decide_move, final_destination
from ringfence_zones.paths import HdfsPath, PathKind
from ringfence_zones.policy import Policy, policy_digest


@dataclass(frozen=True, slots=True, kw_only=True)
class Cleared:
    """What was decided. `refused` is why the policy does not allow it, where an approval still can, else None;
    `may_remove` is false when a service principal would remove what the user may not."""

    target: HdfsPath
    source_zones: tuple[Zone, ...]
    target_zone: Zone | None
    copy_as: str
    allowed: Allowed
    refused: RefusedError | None
    moves_root: bool
    may_remove: bool


class Clearance:
    """Decides; see the module."""

    def __init__(self, board: Board, accounts: Accounts, config: TransferConfig, *, is_secure: bool) -> None:
        """`is_secure`: the cluster uses Kerberos, where nobody is who they claim to be."""
        self._board = board
        self._accounts = accounts
        self._config = config
        self._is_secure = is_secure

    def clear(self, user: str, source: HdfsPath, target: HdfsPath, *, into: bool, approved: bool = False) -> Cleared:
        """Decides about `user` bringing `source` to `target`, or into it when `into` (it is a directory).

        Raises RefusedError when the policy does not allow it and no approval could, or none was given (`approved`);
        PathError; ConfigError for what agent.yaml lacks; NameNodeUnavailableError when the last look is too old.
        """
        state, policy = self._board.fresh_state(), self._board.snapshot.policy
        zones = ZoneMap(state.zones)
        final = final_destination(zones, source, target, dst_is_directory=into)
        _check_paths(source, final)
        decision = self._decide(policy, zones, user, source, final)
        roots = [zones.find_zone_of(source.live), *zones.roots_below(source.live)]
        parent = final.parent
        target_root = zones.find_zone_of(parent) if parent is not None else None
        keys = {zone.path: zone.key_name for zone in state.zones}
        source_zones = tuple(Zone(path=str(root), key=keys[str(root)]) for root in roots if root is not None)
        target_zone = None if target_root is None else Zone(path=str(target_root), key=keys[str(target_root)])
        if not decision.transfer and not _can_be_approved(decision):
            raise refusal(decision)
        service = self._find_service(source_zones, target_zone)
        if service is not None:
            self._check_service(policy, zones, service, source, final)
            self._check_lender(policy, service, user)
        return Cleared(
            target=final,
            source_zones=source_zones,
            target_zone=target_zone,
            copy_as=service.user if service is not None else user,
            allowed=self._allowed(policy),
            refused=None if decision.transfer or approved else refusal(decision),
            moves_root=zones.is_root(source.live) or bool(zones.roots_below(source.live)),
            may_remove=service is None or self._may_write(policy, service.source, user),
        )

    def _decide(
        self, policy: Policy | None, zones: ZoneMap, user: str, source: HdfsPath, final: HdfsPath
    ) -> MoveDecision:
        groups = self._accounts.groups_of(user)
        return decide_move(policy, zones, user=user, groups=groups, src=source, dst=final)

    def _find_service(self, sources: tuple[Zone, ...], target: Zone | None) -> ServicePrincipal | None:
        found = {self._config.find_service(zone.path, target.path) for zone in sources} if target else {None}
        service = next(iter(found)) if len(found) == 1 else None
        if self._is_secure and (service is None or service.kerberos is None):
            raise ConfigError(
                "on a cluster with Kerberos a transfer needs a service principal with a keytab for its edge",
                hint="add one to transfers.services in agent.yaml; the agent never impersonates its callers",
            )
        return service

    def _check_service(
        self, policy: Policy | None, zones: ZoneMap, service: ServicePrincipal, source: HdfsPath, final: HdfsPath
    ) -> None:
        decision = self._decide(policy, zones, service.user, source, final)
        if not decision.transfer:
            raise refusal(decision)
        if policy is None:
            return
        groups = self._accounts.groups_of(service.user)
        own = {service.source, service.target}
        third = [zone.path for zone in policy.zones if zone.path not in own and zone.can_read(service.user, groups)]
        if third:
            raise ConfigError(
                f"the service principal {service.user} of {service.source} to {service.target} also reads {third[0]}",
                hint="give each edge a principal of its own that can use its two zones alone",
            )

    def _check_lender(self, policy: Policy | None, service: ServicePrincipal, user: str) -> None:
        """HDFS and KMS ask who the service principal is: whether the user may is for the policy to say."""
        readable = policy.find_zone(service.source) if policy is not None else None
        may_read = readable is not None and readable.can_read(user, self._accounts.groups_of(user))
        if not may_read or not self._may_write(policy, service.target, user):
            what = f"a reader of {service.source}" if not may_read else f"a writer of {service.target}"
            raise RefusedError(
                f"{service.user} would copy for {user}, who is not {what} in the policy",
                Rule.ZONE_TO_ZONE,
                hint="a service principal copies for those who may read and write there themselves",
            )

    def _may_write(self, policy: Policy | None, zone: str, user: str) -> bool:
        found = policy.find_zone(zone) if policy is not None else None
        return found is not None and found.can_write(user, self._accounts.groups_of(user))

    def _allowed(self, policy: Policy | None) -> Allowed:
        if policy is None:
            return Allowed(revision=None, digest=None)
        digest = policy_digest(policy)
        kms = self._board.fresh_state().kms
        # The number is the KMS's: it counts only where the KMS enforces this very policy.
        is_published = kms is not None and kms.revision_digest == digest
        return Allowed(revision=kms.revision if kms is not None and is_published else None, digest=digest)


def refusal(decision: MoveDecision) -> RefusedError:
    """A decision against a transfer, as an error: never with a command that would copy past the policy."""
    rule = decision.rule or Rule.ZONE_TO_ZONE
    return RefusedError(decision.reason or rule.meaning, rule, hint="the policy allows no transfer here for this user")


def _can_be_approved(decision: MoveDecision) -> bool:
    return decision.rule is Rule.ZONE_TO_ZONE


def _check_paths(source: HdfsPath, target: HdfsPath) -> None:
    for path in (source, target):
        if path.kind is PathKind.RAW:
            raise RefusedError(f"{path} shows encrypted bytes, which are not transferred", Rule.RAW_PATH)
    if target.kind is PathKind.SNAPSHOT:
        raise RefusedError(f"{target} is in a snapshot, which is read-only", Rule.SNAPSHOT_PATH)
    if source.is_root or target.is_root:
        raise PathError("/", "is the root of the file system and is not transferred")
    if target.is_inside(source) or source.is_inside(target):
        raise PathError(str(target), f"and {source} lie in each other: a copy cannot hold itself")
