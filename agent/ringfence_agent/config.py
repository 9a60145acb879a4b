"""The agent's own configuration, `/etc/ringfence/agent.yaml`; `packaging/docs/agent.yaml` explains every setting.

What the agent *does* (observe or enforce, how to pin) is not here: it is policy, and stands in the policy document.

Refused: unknown settings (see `ringfence_zones.config_file`), a network address without TLS or without a way to prove
callers, and the user of all steps as an administrator.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BeforeValidator, Field, StringConstraints, model_validator

from ringfence_agent.http.listening import parse_listen
from ringfence_agent.http.tls_settings import TlsBlock
from ringfence_agent.spnego.settings import KerberosBlock
from ringfence_agent.transfer.config import TransferConfig
from ringfence_zones.config_file import AbsolutePath, ConfigModel, DurationS, SizeBytes, read_config
from ringfence_zones.errors import ConfigError
from ringfence_zones.kerberos import KerberosKeytab

DEFAULT_CONFIG_FILE = Path("/etc/ringfence/agent.yaml")

# Names as useradd makes them, so that a typing mistake is not taken for a user who never comes.
AccountName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_.-]{0,254}\$?$")]
# EMR runs every step as this user: what it may do, every job may do.
STEP_USER = "hadoop"
MAX_PATH_BYTES = 107  # sun_path of sockaddr_un, without the closing NUL


class BudgetsConfig(ConfigModel):
    """What the agent may cost; see `budgets`. `cpu_percent` is of one processor."""

    hdfs_calls_per_minute: int = Field(default=6000, ge=300, le=600_000)
    cpu_percent: int = Field(default=25, ge=1, le=400)
    memory: SizeBytes = Field(default=1024**3, ge=256 * 1024**2)


def _listen_address(text: str) -> str:
    try:
        parse_listen(text)
    except ConfigError as error:
        raise ValueError(error.hint or error.message) from None
    return text


def _one_or_more(value: object) -> object:
    return [value] if isinstance(value, str) else value


# Of one NameNode mostly; of each where two run on one machine.
LogFiles = Annotated[list[AbsolutePath], BeforeValidator(_one_or_more), Field(max_length=8)]


class MembersBlock(ConfigModel):
    """`operators` and `admins`: users and groups of this machine by name."""

    users: list[AccountName] = Field(default_factory=list)
    groups: list[AccountName] = Field(default_factory=list)


class RatesBlock(ConfigModel):
    """`rates`: requests of one caller in a second; twice as many at once."""

    requests: float = Field(default=500.0, ge=1.0, le=1e6)
    changes: float = Field(default=5.0, ge=0.01, le=1e6)


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
    operators: MembersBlock = Field(default_factory=MembersBlock)
    admins: MembersBlock = Field(default_factory=MembersBlock)
    delegate_users: list[AccountName] = Field(default_factory=list)
    listen: Annotated[str, AfterValidator(_listen_address)] | None = None
    tls: TlsBlock | None = None
    spnego: KerberosBlock | None = None
    tokens: bool = True
    rates: RatesBlock = Field(default_factory=RatesBlock)
    transfers: TransferConfig = Field(default_factory=TransferConfig)

    event_interval: DurationS = Field(default=0.2, ge=0.05, le=60.0)
    namenode_audit_log: LogFiles = Field(default_factory=list)
    namenode_log: LogFiles = Field(default_factory=list)
    without_lease: Literal["act", "watch"] = "act"
    budgets: BudgetsConfig = BudgetsConfig()

    @model_validator(mode="after")
    def _consistent(self) -> AgentConfig:
        if self.stale_after < 2 * self.interval:
            raise ValueError("stale_after must be at least twice the interval: a healthy agent would count as dead")
        if len(bytes(self.socket)) > MAX_PATH_BYTES:
            raise ValueError(f"socket must be at most {MAX_PATH_BYTES} bytes long, which is all a Unix socket takes")
        if STEP_USER in self.admins.users:
            raise ValueError(f"admins must not name {STEP_USER}: every step runs as that user; give it a token instead")
        self._check_listener()
        return self

    def _check_listener(self) -> None:
        if self.listen is None:
            if self.tls is not None or self.spnego is not None:
                raise ValueError("tls and spnego are for the network: name listen too, or leave them out")
            return
        if self.tls is None:
            raise ValueError("listen takes tls: callers prove themselves over it with secrets")
        if not self.tokens and self.spnego is None and self.tls.client_ca is None:
            raise ValueError("nobody could prove themselves: name spnego or tls.client_ca, or take tokens")


def load_config(path: Path | None) -> AgentConfig:
    """The file's settings; without a path the default file, and all defaults when that does not exist.

    Raises ConfigError with every problem of the file.
    """
    if path is None:
        return read_config(DEFAULT_CONFIG_FILE, AgentConfig) if DEFAULT_CONFIG_FILE.exists() else AgentConfig()
    if not path.exists():
        raise ConfigError(f"the configuration file {path} does not exist", hint="give --config FILE")
    return read_config(path, AgentConfig)
