"""Looks: the cluster through HDFS and the KMS, the policy, and the file that pins go to.

Read-only, and it never asks the KMS for key material. Java runs in the supervised child that `Hdfs` stands for. A KMS
that is away is part of what is seen; a NameNode that is away is an error (`HdfsError` family), for without zones
there is nothing to decide.
"""

from __future__ import annotations

from pathlib import Path

from ringfence_agent.enforce import Observation
from ringfence_agent.pins import PinMemory, read_pin_file
from ringfence_agent.policy_source import PolicySource
from ringfence_zones.hdfs_interface import Hdfs
from ringfence_zones.http_session import PLAIN_ACCESS, HttpAccess
from ringfence_zones.kms_client import KmsClient
from ringfence_zones.observe import observe_cluster


class Observer:
    """Looks again with each call. Not thread-safe: it belongs to the loop."""

    def __init__(
        self,
        hdfs: Hdfs,
        policies: PolicySource,
        memory: PinMemory,
        *,
        namenode_conf_dir: Path,
        user: str,
        access: HttpAccess = PLAIN_ACCESS,
        kms_timeout_s: float,
    ) -> None:
        self._hdfs = hdfs
        self._policies = policies
        self._memory = memory
        self._namenode_conf_dir = namenode_conf_dir
        self._user = user
        self._access = access
        self._kms_timeout_s = kms_timeout_s
        self._kms: KmsClient | None = None
        self._kms_uri: str | None = None

    def observe(self, pin_error: str | None) -> Observation:
        """One look. `pin_error` is the outcome of the last attempt to pin. Raises the `HdfsError` family, and
        ConfigError when the agent's own memory or the KMS's address cannot be used."""
        view = self._policies.look()
        kms = self._connect_kms(self._hdfs.key_provider_uri())
        state = observe_cluster(self._hdfs, kms, view.policy)
        while self._policies.is_behind(state.kms):  # once at most
            view = self._policies.look()
            state = observe_cluster(self._hdfs, kms, view.policy)
        return Observation(
            state=state,
            policy=view.policy,
            policy_problem=view.problem,
            pin_file=read_pin_file(self._namenode_conf_dir),
            owned=self._memory.load(),
            namenodes=tuple(namenode.rpc for namenode in self._hdfs.namenodes),
            pin_error=pin_error,
        )

    def _connect_kms(self, uri: str | None) -> KmsClient | None:
        if uri != self._kms_uri:
            if self._kms is not None:
                self._kms.close()
            self._kms = (
                KmsClient(uri, self._user, access=self._access, read_timeout_s=self._kms_timeout_s) if uri else None
            )
            self._kms_uri = uri
        return self._kms
