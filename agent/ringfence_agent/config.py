"""The agent's own configuration, `/etc/ringfence/agent.yaml`.

    hadoop_conf: /etc/hadoop/conf          # how the agent reaches HDFS and the KMS; default: --hadoop-conf
    namenode_conf_dir: /etc/hadoop/conf    # whose core-site.xml the NameNode reads and pins are written to
    policy: /etc/ringfence/zones.yaml      # absent: the revision that the Ringfence KMS enforces
    socket: /run/ringfence/agent.sock
    state_dir: /var/lib/ringfence/agent    # remembers which pins are the agent's
    kerberos: {principal: hdfs@EXAMPLE.COM, keytab: /etc/security/hdfs.keytab}   # else the ticket cache
    user: hdfs                             # under simple authentication; listing zones needs a superuser
    interval: 5s
    call_timeout: 30s                      # one call to HDFS or the KMS; a child that stalls longer is replaced
    stale_after: 60s                       # older than this, the loop is not live and answers are refused
    allowed_users: [hadoop]                # may ask; root and the agent's own user always may
    allowed_groups: [ringfence]
    delegate_users: []                     # of those, may ask on behalf of another user
    socket_group: ringfence                # group of the socket's file (mode 0660)

What the agent *does* (observe or enforce, how to pin) is not here: it is policy, and stands in the policy document.
Unknown settings stop the agent; see `ringfence_zones.config_file`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field, StringConstraints, model_validator

from ringfence_zones.config_file import AbsolutePath, ConfigModel, DurationS, read_config
from ringfence_zones.errors import ConfigError
from ringfence_zones.kerberos import KerberosKeytab

DEFAULT_CONFIG_FILE = Path("/etc/ringfence/agent.yaml")

# Names as useradd makes them, so that a typing mistake is not taken for a user who never comes.
AccountName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_.-]{0,254}\$?$")]
MAX_PATH_BYTES = 107  # sun_path of sockaddr_un, without the closing NUL


class AgentConfig(ConfigModel):
    """Settings with their defaults; durations in seconds."""

    hadoop_conf: AbsolutePath | None = None
    namenode_conf_dir: AbsolutePath | None = None
    policy: AbsolutePath | None = None
    socket: AbsolutePath = Path("/run/ringfence/agent.sock")
    socket_group: AccountName | None = None
    state_dir: AbsolutePath = Path("/var/lib/ringfence/agent")
    kerberos: KerberosKeytab | None = None
    user: AccountName = "hdfs"
    interval: DurationS = Field(default=5.0, ge=0.2, le=3600.0)
    call_timeout: DurationS = Field(default=30.0, ge=1.0, le=600.0)
    stale_after: DurationS = Field(default=60.0, ge=1.0, le=86400.0)
    allowed_users: list[AccountName] = Field(default_factory=list)
    allowed_groups: list[AccountName] = Field(default_factory=list)
    delegate_users: list[AccountName] = Field(default_factory=list)

    @model_validator(mode="after")
    def _consistent(self) -> AgentConfig:
        if self.stale_after < 2 * self.interval:
            raise ValueError("stale_after must be at least twice the interval: a healthy agent would count as dead")
        if len(bytes(self.socket)) > MAX_PATH_BYTES:
            raise ValueError(f"socket must be at most {MAX_PATH_BYTES} bytes long, which is all a Unix socket takes")
        return self


def load_config(path: Path | None) -> AgentConfig:
    """The file's settings; without a path the default file, and all defaults when that does not exist.

    Raises ConfigError with every problem of the file.
    """
    if path is None:
        return read_config(DEFAULT_CONFIG_FILE, AgentConfig) if DEFAULT_CONFIG_FILE.exists() else AgentConfig()
    if not path.exists():
        raise ConfigError(f"the configuration file {path} does not exist", hint="give --config FILE")
    return read_config(path, AgentConfig)
