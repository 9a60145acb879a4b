"""What a published policy says about flows, as the KMS asks it: edges between keys, and for whom.

The KMS sees keys, and one key is one zone. A key that the policy does not name is a zone without edges.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

from ringfence_zones.access_list import AccessList, GroupsOf
from ringfence_zones.flow_labels import Crossing, Kind, Zone
from ringfence_zones.policy import Policy
from ringfence_zones.publication import Grant

Edge = tuple[Zone, Zone]


@dataclass(frozen=True, slots=True)
class FlowRules:
    """The flows of one revision.

    edges     by source and target key: who may bring data along
    paths     the zone's root by its key, for people
    enforces  flow_control.mode is `enforce`
    on_claims also when callers only claim their names
    """

    edges: Mapping[Edge, AccessList] = field(default_factory=lambda: MappingProxyType({}))
    paths: Mapping[Zone, str] = field(default_factory=lambda: MappingProxyType({}))
    enforces: bool = False
    on_claims: bool = False
    _at: Mapping[Zone, Sequence[Edge]] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        at: dict[Zone, list[Edge]] = {}
        for edge in self.edges:
            for zone in edge:
                at.setdefault(zone, []).append(edge)
        object.__setattr__(self, "_at", MappingProxyType(at))

    def edges_of(self, zone: Zone, user: str, real_user: str | None, groups_of: GroupsOf) -> frozenset[Edge]:
        """The user's edges from and to a zone: an opening of it needs no other. `groups_of` may raise, where groups
        are not known yet.
        """
        return frozenset(edge for edge in self._at.get(zone, ()) if self.edges[edge].admits(user, groups_of, real_user))

    def name_of(self, zone: Zone) -> str:
        """How people know a zone."""
        return self.paths.get(zone) or f"the zone of key {zone} (not in the policy)"

    def explain(self, crossing: Crossing, user: str, revision: int) -> str:
        """Why an opening is refused, and what to do: a sentence each."""
        source, target = self.name_of(crossing.source), self.name_of(crossing.target)
        before = f"has read {source}" if crossing.opened is Kind.WRITE else f"has written to {target}"
        now = f"write to {target}" if crossing.opened is Kind.WRITE else f"read {source}"
        sentence = (
            f"flow refused: {user} may not bring data from {source} to {target}: this session {before} within the last"
            f" minutes and would now {now}, and revision {revision} of the policy has no flow between them for {user}"
            " (rule flow_refused)"
        )
        command = self._command(crossing, user)
        return sentence if command is None else f"{sentence}. To see what is sanctioned: {command}"

    def _command(self, crossing: Crossing, user: str) -> str | None:
        source, target = self.paths.get(crossing.source), self.paths.get(crossing.target)
        if source is None or target is None:
            return None
        return shlex.join(["ringfence", "policy", "decide-move", "--user", user, f"{source}/FILE", target])


def flow_rules(policy: Policy) -> FlowRules | None:
    """What a policy says; None when it has no `flows` key, and so refuses no copy."""
    if policy.flows is None:
        return None
    keys = {zone.path: zone.key for zone in policy.zones}
    who: dict[tuple[Zone, Zone], set[str]] = {}
    for flow in policy.flows:
        who.setdefault((keys[flow.source], keys[flow.target]), set()).update(flow.who)
    granted = {edge: Grant.of(names) for edge, names in who.items()}
    return FlowRules(
        MappingProxyType({edge: AccessList(grant.users, grant.groups) for edge, grant in granted.items()}),
        MappingProxyType({key: path for path, key in keys.items()}),
        policy.flow_control.mode == "enforce",
        policy.flow_control.enforce_on_claimed_identity,
    )
