"""The nodes: which is active, which are sealed, how far standbys lag, and what is answered without a token."""

from __future__ import annotations

import secrets
import time
import uuid
from dataclasses import dataclass, field
from typing import Any

from vault_double.clock import Clock, as_rfc3339
from vault_double.flavour import Flavour
from vault_double.wire import Answer, HttpRequest, JsonLimits, RefusedError, parse_body

_NO_TOKEN_PATHS = ("sys/health", "sys/seal-status", "sys/leader", "sys/init", "sys/unseal")
_NOT_INITIALIZED = 501


@dataclass(slots=True)
class Node:
    """One server of the cluster."""

    index: int
    address: str = ""
    is_sealed: bool = False


@dataclass(slots=True)
class Cluster:
    """All nodes over one storage. Standbys see it `lag_s` late, or as it was at `frozen_at` on the monotonic clock."""

    flavour: Flavour
    clock: Clock
    nodes: list[Node] = field(default_factory=list)
    lag_s: float = 0.1
    frozen_at: float | None = None
    is_initialized: bool = True
    unseal_key: str = field(default_factory=lambda: secrets.token_hex(32))
    name: str = "vault-double"
    id: str = field(default_factory=lambda: str(uuid.uuid4()))
    began: float = 0.0
    _active_index: int | None = 0

    def standby_lag_s(self) -> float:
        """How late standbys are now."""
        return self.lag_s if self.frozen_at is None else time.monotonic() - self.frozen_at

    def is_active(self, node: Node) -> bool:
        return node.index == self._active_index

    def get_active(self) -> Node:
        """Raises RefusedError(500) while there is none."""
        if self._active_index is None:
            raise RefusedError(500, "local node not active but active cluster node not found")
        return self.nodes[self._active_index]

    def seal(self, node: Node) -> None:
        """A sealed active node hands over to the next unsealed one, at once."""
        node.is_sealed = True
        if self.is_active(node):
            self._elect()

    def unseal(self, node: Node) -> None:
        node.is_sealed = False
        if self._active_index is None:
            self._elect()

    def step_down(self) -> None:
        """Another unsealed node becomes active, when there is one."""
        active = self._active_index
        others = [node.index for node in self.nodes if not node.is_sealed and node.index != active]
        if others:
            self._active_index = others[0]

    def _elect(self) -> None:
        self._active_index = next((node.index for node in self.nodes if not node.is_sealed), None)

    def answer_unsealed(self, node: Node, request: HttpRequest) -> Answer | None:
        """The answer to what needs neither token nor an unsealed server, or None. Raises RefusedError when sealed."""
        if request.path in _NO_TOKEN_PATHS:
            if request.headers.get("x-vault-namespace", "").strip("/"):
                raise RefusedError(400, "operation unavailable in namespaces")
            return self._answer_status(node, request)
        if not self.is_initialized or node.is_sealed:
            raise RefusedError(503, "Vault is sealed")
        return None

    def _answer_status(self, node: Node, request: HttpRequest) -> Answer:
        if request.path == "sys/health":
            return self._health(node, request)
        if request.path == "sys/leader":
            return Answer(200, self._leader(node))
        if request.path == "sys/init":
            return Answer(200, {"initialized": self.is_initialized})
        if request.path == "sys/unseal":
            return self._unseal(node, request)
        return Answer(200, self._seal_status(node))

    def _health(self, node: Node, request: HttpRequest) -> Answer:
        is_standby = not self.is_active(node)
        status = 200
        if not self.is_initialized:
            status = int(request.query.get("uninitcode", _NOT_INITIALIZED))
        elif node.is_sealed:
            status = int(request.query.get("sealedcode", 503))
        elif is_standby and request.query.get("standbyok", "false") not in ("true", "1", ""):
            status = int(request.query.get("standbycode", 429))
        elif not is_standby:
            status = int(request.query.get("activecode", 200))
        body: dict[str, Any] = {
            "initialized": self.is_initialized,
            "sealed": node.is_sealed,
            "standby": is_standby,
            "server_time_utc": int(self.clock.now()),
            "version": self.flavour.version,
        }
        if not node.is_sealed:
            body |= {"cluster_name": self.name, "cluster_id": self.id}
        return Answer(status, body)

    def _leader(self, node: Node) -> dict[str, Any]:
        if len(self.nodes) == 1:
            return {"ha_enabled": False}
        has_leader = self._active_index is not None and not node.is_sealed
        # What is empty is left out: a standby does not say that it is not the leader.
        leader = {"ha_enabled": True, "leader_address": self.get_active().address if has_leader else ""}
        return leader | ({"is_self": True, "active_time": as_rfc3339(self.began)} if self.is_active(node) else {})

    def _seal_status(self, node: Node) -> dict[str, Any]:
        return {
            "type": "shamir",
            "initialized": self.is_initialized,
            "sealed": node.is_sealed,
            "t": 1,
            "n": 1,
            "progress": 0,
            "nonce": "",
            "version": self.flavour.version,
            "commit_date": "",
            "migration": False,
            "recovery_seal": False,
            "storage_type": "inmem",
        } | ({} if node.is_sealed else {"cluster_name": self.name, "cluster_id": self.id})

    def _unseal(self, node: Node, request: HttpRequest) -> Answer:
        key = parse_body(request, JsonLimits(None)).get("key")
        if not key:
            raise RefusedError(400, "'key' must be specified in request body as JSON, or 'reset' set to true")
        if key != self.unseal_key:
            raise RefusedError(
                400,
                "unable to retrieve stored keys: invalid key: failed to decrypt keys from storage: "
                "cipher: message authentication failed",
            )
        self.unseal(node)
        return Answer(200, self._seal_status(node))
