"""Looks: the cluster through HDFS and the KMS, the policy, and the file that pins go to.

Read-only, and it never asks the KMS for key material. Java runs in the supervised child that `Hdfs` stands for. A KMS
that is away is part of what is seen; a NameNode that is away is an error (`HdfsError` family), for without zones
there is nothing to decide.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path

from ringfence_agent.budgets import BudgetView
from ringfence_agent.enforce import Observation
from ringfence_agent.inspection import Inspector
from ringfence_agent.namenode_logs import RefusalLog, RefusedRename
from ringfence_agent.pins import PinMemory, read_pin_file
from ringfence_agent.policy_source import PolicySource
from ringfence_agent.turn import ALWAYS_MINE, TurnView
from ringfence_zones.hdfs_interface import WatchedHdfs
from ringfence_zones.http_session import PLAIN_ACCESS, HttpAccess
from ringfence_zones.kms_client import KmsClient
from ringfence_zones.observe import observe_cluster

_KEPT_REFUSALS = 100


class Observer:
    """Looks again with each call. Not thread-safe: it belongs to the loop."""

    def __init__(
        self,
        hdfs: WatchedHdfs,
        policies: PolicySource,
        memory: PinMemory,
        *,
        namenode_conf_dir: Path,
        user: str,
        access: HttpAccess = PLAIN_ACCESS,
        kms_timeout_s: float,
        inspector: Inspector | None = None,
        namenode_logs: Sequence[RefusalLog] = (),
        turn: Callable[[], TurnView] = lambda: ALWAYS_MINE,
        budgets: Callable[[], BudgetView] = BudgetView,
    ) -> None:
        self._hdfs = hdfs
        self._policies = policies
        self._memory = memory
        self._namenode_conf_dir = namenode_conf_dir
        self._user = user
        self._access = access
        self._kms_timeout_s = kms_timeout_s
        self._inspector = inspector or Inspector(hdfs)
        self._namenode_logs = namenode_logs
        self._refused: deque[RefusedRename] = deque(maxlen=_KEPT_REFUSALS)
        self._turn = turn
        self._budgets = budgets
        self._kms: KmsClient | None = None
        self._kms_uri: str | None = None

    def observe(self, pin_error: str | None) -> Observation:
        """One look. `pin_error` is the outcome of the last attempt to pin. Raises the `HdfsError` family, and
        ConfigError when the agent's own memory or the KMS's address cannot be used."""
        view = self._policies.look()
        kms = self._connect_kms(self._hdfs.key_provider_uri())
        from_txid = self._hdfs.last_transaction_id()
        state = observe_cluster(self._hdfs, kms, view.policy)
        while self._policies.is_behind(state.kms):  # once at most
            view = self._policies.look()
            from_txid = self._hdfs.last_transaction_id()
            state = observe_cluster(self._hdfs, kms, view.policy)
        to_txid = self._hdfs.last_transaction_id()
        return Observation(
            state=state,
            policy=view.policy,
            policy_problem=view.problem,
            pin_file=read_pin_file(self._namenode_conf_dir),
            owned=self._memory.load(),
            namenodes=tuple(namenode.rpc for namenode in self._hdfs.namenodes),
            pin_error=pin_error,
            from_txid=from_txid,
            to_txid=to_txid,
            inspection=self._inspector.inspect(state, view.policy, to_txid if to_txid == from_txid else None),
            refused=self._read_refused(),
            turn=self._turn(),
            budgets=self._budgets(),
        )

    def _read_refused(self) -> tuple[RefusedRename, ...]:
        for log in self._namenode_logs:
            self._refused += log.read_refused()
        return tuple(self._refused)

    def _connect_kms(self, uri: str | None) -> KmsClient | None:
        if uri != self._kms_uri:
            if self._kms is not None:
                self._kms.close()
            self._kms = (
                KmsClient(uri, self._user, access=self._access, read_timeout_s=self._kms_timeout_s) if uri else None
            )
            self._kms_uri = uri
        return self._kms
