"""Which node of Vault is the active one, found by asking each for `sys/health`.

Everything that changes or lists goes to the active node: a standby answers reads about 100 ms late, and right after a
write most often with what was there before. Only pure operations (decrypt and the like) may go to a standby when there
is no active one.

Health is asked for without a namespace, in which it is refused, and without parameters, which can turn a sealed node
into one that says it is well. It is no proof: 200 is what a node answers, too, whose audit device blocks every call,
and for some seconds a node that was deposed. Who must be the only writer therefore writes by check-and-set.
"""

from __future__ import annotations

import enum
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from ringfence_agent.vault.exchange import PROBE, VaultRequest, Way
from ringfence_zones.errors import ProtectorUnavailableError

HEALTH = VaultRequest(method="GET", path="sys/health")
# A node that said it was active is taken at its word for so long.
_TRUSTED_S = 1.0
_NEVER = float("-inf")


class Role(enum.Enum):
    """What a node says it is; the value is how messages say it."""

    ACTIVE = "active"
    STANDBY = "a standby"
    PERFORMANCE_STANDBY = "a performance standby"
    SECONDARY = "a disaster recovery secondary"
    CUT_OFF = "a standby that cannot reach the active node"
    UNINITIALISED = "not initialised"
    SEALED = "sealed"
    REMOVED = "removed from its cluster"
    UNKNOWN = "something that does not answer sys/health as Vault does"
    SILENT = "not answering"


_ROLES = {
    200: Role.ACTIVE,
    429: Role.STANDBY,
    472: Role.SECONDARY,
    473: Role.PERFORMANCE_STANDBY,
    474: Role.CUT_OFF,
    501: Role.UNINITIALISED,
    503: Role.SEALED,
    530: Role.REMOVED,
}
_SERVES_DECRYPT = (Role.STANDBY, Role.PERFORMANCE_STANDBY)


@dataclass(frozen=True, slots=True)
class NodeHealth:
    """One node as it answered. `version` is the server's, empty when it did not say; `why` is why it is SILENT."""

    address: str
    role: Role
    version: str = ""
    why: str = ""

    @property
    def sentence(self) -> str:
        """`https://a:8200 is sealed`."""
        return f"{self.address} is {self.role.value}" + (f" ({self.why})" if self.why else "")


class Nodes:
    """The nodes of one Vault, by address. Threads may share it."""

    def __init__(self, ways: Mapping[str, Way], clock: Callable[[], float] = time.monotonic) -> None:
        self._ways = dict(ways)
        self._clock = clock
        self._lock = threading.Lock()
        self._active: str | None = None
        self._seen_at = _NEVER

    def choose(self, *, pure: bool) -> str:
        """The active node's address; for a pure operation that of a standby when none is active.

        Raises ProtectorUnavailableError that says what each node is.
        """
        with self._lock:
            if self._active is not None and self._clock() < self._seen_at + _TRUSTED_S:
                return self._active
            seen = []
            for address in self._in_order():
                health = self.probe(address)
                if health.role is Role.ACTIVE:
                    self._active, self._seen_at = address, self._clock()
                    return address
                seen.append(health)
            self._active = None
        reader = next((health.address for health in seen if pure and health.role in _SERVES_DECRYPT), None)
        if reader is None:
            raise _no_active_node(seen)
        return reader

    def forget(self, address: str) -> None:
        """The node failed: who is active is asked again before the next call."""
        with self._lock:
            if self._active == address:
                self._seen_at = _NEVER

    def probe(self, address: str) -> NodeHealth:
        """What one node says of itself; never raises."""
        try:
            answer = self._ways[address].send(HEALTH, PROBE)
        except ProtectorUnavailableError as error:
            return NodeHealth(address, Role.SILENT, why=error.message.rpartition(": ")[2])
        version = answer.json.get("version")
        role = _ROLES.get(answer.status, Role.UNKNOWN)
        if role is Role.ACTIVE and "sealed" not in answer.json:
            role = Role.UNKNOWN
        return NodeHealth(address, role, version if isinstance(version, str) and len(version) < 64 else "")

    def probe_all(self) -> list[NodeHealth]:
        """Every node in the order of the configuration."""
        return [self.probe(address) for address in self._ways]

    def _in_order(self) -> Sequence[str]:
        """The one that was active last first."""
        return sorted(self._ways, key=lambda address: address != self._active)


def _no_active_node(seen: Sequence[NodeHealth]) -> ProtectorUnavailableError:
    roles = {health.role for health in seen}
    hint = "are the addresses in vault.addresses right, and is Vault running?"
    if Role.SEALED in roles:
        hint = "unseal it: what is waiting then goes on by itself"
    elif roles <= {*_SERVES_DECRYPT, Role.SILENT, Role.CUT_OFF} and roles & set(_SERVES_DECRYPT):
        hint = "name every node in vault.addresses; when they are, the cluster is choosing a leader: try again"
    elif Role.UNINITIALISED in roles:
        hint = "initialise and unseal it"
    return ProtectorUnavailableError(
        "no node of Vault is active: " + "; ".join(health.sentence for health in seen),
        hint=hint,
        reason="sealed" if Role.SEALED in roles else "no_active_node",
    )
