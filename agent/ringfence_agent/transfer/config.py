"""The block `transfers:` of agent.yaml; `packaging/docs/agent.yaml` explains every setting."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from ringfence_zones.config_file import ConfigModel, DurationS, SizeBytes
from ringfence_zones.errors import PathError
from ringfence_zones.kerberos import KerberosKeytab
from ringfence_zones.paths import HdfsPath

Kept = Literal["mode", "times", "owner", "group"]
NEVER_KEPT = ("acl", "xattr", "replication", "erasure-coding", "directory-times")


def _zone_path(text: str) -> str:
    try:
        return str(HdfsPath.parse(text))
    except PathError as error:
        raise ValueError(f"must be the root of a zone: {error.message}") from None


_ZonePath = Annotated[str, AfterValidator(_zone_path)]


class ServicePrincipal(ConfigModel):
    """Who reads and writes along one edge. On a cluster with Kerberos it needs a keytab of its own."""

    source: _ZonePath = Field(alias="from")
    target: _ZonePath = Field(alias="to")
    user: str = Field(min_length=1, max_length=256, pattern=r"^[A-Za-z_][A-Za-z0-9_.-]*$")
    kerberos: KerberosKeytab | None = None


class JobConfig(ConfigModel):
    """From which size on a transfer is one job on YARN, and in which queue (None: YARN's default)."""

    above: SizeBytes = Field(ge=0)
    queue: str | None = Field(default=None, min_length=1, max_length=256, pattern=r"^[A-Za-z0-9_.-]+$")


def _kept() -> list[Kept]:
    return ["mode", "times"]


class TransferConfig(ConfigModel):
    """Settings with their defaults; durations in seconds, sizes in bytes."""

    # Many, for a stream mostly waits: hdfs-native sleeps 500 ms when a file is closed before its block was reported.
    streams: int = Field(default=32, ge=1, le=64)
    at_once: int = Field(default=2, ge=1, le=16)
    max_size: SizeBytes = Field(default=1024**4, ge=1)
    max_files: int = Field(default=50_000, ge=1, le=500_000)
    job: JobConfig | None = None
    keep: list[Kept] = Field(default_factory=_kept)
    give_up_after: DurationS = Field(default=3600.0, ge=1.0, le=7 * 86400.0)
    services: list[ServicePrincipal] = Field(default_factory=list)

    @model_validator(mode="after")
    def _one_service_each(self) -> TransferConfig:
        edges = [(service.source, service.target) for service in self.services]
        if len(set(edges)) != len(edges):
            raise ValueError("services must name each pair of zones once")
        return self

    def find_service(self, source: str, target: str) -> ServicePrincipal | None:
        """The service principal of an edge between two zone roots."""
        return next((each for each in self.services if (each.source, each.target) == (source, target)), None)
