"""What may be told of the server to whom: the `metrics` block of kms.yaml, and the service's name in Hadoop's beans."""

from __future__ import annotations

import enum

from pydantic import Field

from ringfence_zones.config_file import ConfigModel
from ringfence_zones.hadoop_conf import HadoopConf

_PROCESS_NAME = "hadoop.kms.metrics.process.name"


class MetricsAccess(enum.StrEnum):
    """Who may read `/metrics`: callers on this machine, authenticated users too, or everybody."""

    LOCAL = "local"
    AUTHENTICATED = "authenticated"
    ANYONE = "anyone"


class MetricsBlock(ConfigModel):
    """`metrics:` in kms.yaml."""

    access: str = Field(MetricsAccess.LOCAL, pattern="^(local|authenticated|anyone)$")


def service_name(conf: HadoopConf) -> str:
    """What the beans of `/jmx` call this service."""
    return conf.get(_PROCESS_NAME, "KMS")
