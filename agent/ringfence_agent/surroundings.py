"""Where an agent works: its configuration, HDFS through two Java children, the KMS, YARN.

Nothing here starts anything or asks anybody before it is called. What may be replaced while the agent runs (a token
file, the address of a ResourceManager) is read anew with every call.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from ringfence_agent.config import AgentConfig
from ringfence_agent.steps import OnStep
from ringfence_zones.client_config import read_client_config, read_http_access
from ringfence_zones.errors import ConfigError
from ringfence_zones.hadoop_conf import HadoopConf, read_hadoop_conf
from ringfence_zones.hdfs_child import HdfsChild
from ringfence_zones.http_session import HttpAccess
from ringfence_zones.kms_admin import AdminClient, open_admin_client
from ringfence_zones.kms_uri import KEY_PROVIDER, parse_kms_uri
from ringfence_zones.yarn import Life, find_life, resource_managers

_LEASE_TIMEOUT_S = 3.0


@dataclass(frozen=True, slots=True)
class Surroundings:
    """See the module. `hdfs` is for looks and for renames, `events_hdfs` for the event stream; `access` says who the
    agent is to HTTP servers; `on_step` is told the steps that a kill could fall between."""

    config: AgentConfig
    hadoop_conf: Path
    conf: HadoopConf
    access: HttpAccess
    hdfs: HdfsChild
    events_hdfs: HdfsChild
    on_step: OnStep

    @property
    def children(self) -> tuple[HdfsChild, HdfsChild]:
        """Both."""
        return self.hdfs, self.events_hdfs

    def open_kms(self) -> AdminClient:
        """The KMS's admin endpoint. Raises ConfigError."""
        return self._open_kms(self.config.call_timeout)

    def open_leases(self) -> AdminClient:
        """As `open_kms`. A lease lasts seconds: an answer that takes longer than three of them is of no use."""
        return self._open_kms(min(_LEASE_TIMEOUT_S, self.config.call_timeout))

    def _open_kms(self, timeout_s: float) -> AdminClient:
        provider = self.conf.get(KEY_PROVIDER)
        if not provider:
            raise ConfigError("core-site.xml names no KMS, which would have the published policy and the grants")
        client_config = read_client_config(self.hadoop_conf, os.environ)
        access = read_http_access(self.hadoop_conf, os.environ, self.config.kerberos)
        return open_admin_client(client_config, parse_kms_uri(provider), access=access, timeout_s=timeout_s)

    def find_life(self, application: str) -> Life | None:
        """Whether a YARN application runs; see `yarn.find_life`."""
        managers = resource_managers(read_hadoop_conf(self.hadoop_conf, "core-site.xml", "yarn-site.xml"))
        return find_life(managers, application, read_http_access(self.hadoop_conf, os.environ, self.config.kerberos))

    def close(self) -> None:
        """Ends the children. The next call would start them again."""
        for child in self.children:
            child.close()


def look_around(config: AgentConfig, hadoop_conf: Path, on_step: OnStep) -> Surroundings:
    """Reads Hadoop's configuration. Raises ConfigError."""
    access = read_http_access(hadoop_conf, os.environ, config.kerberos)
    as_user = config.user if access.kerberos is None else None
    hdfs, events_hdfs = (
        HdfsChild(hadoop_conf, as_user, keytab=config.kerberos, deadline_s=config.call_timeout) for _ in range(2)
    )
    conf = read_hadoop_conf(hadoop_conf, "core-site.xml", "hdfs-site.xml")
    return Surroundings(config, hadoop_conf, conf, access, hdfs, events_hdfs, on_step)
