"""The settings of the audit log: the `audit` block of kms.yaml.

Hadoop's kms-site.xml has nothing to say here but `hadoop.kms.audit.logger`, which names Java classes, and the
aggregation window, which has no counterpart: nothing is merged. A configuration that names another logger class than
Hadoop's own is told so, and served.
"""

from __future__ import annotations

import enum
import logging
from dataclasses import dataclass
from pathlib import Path

from pydantic import Field

from ringfence_zones.config_file import AbsolutePath, ConfigModel, DurationS, SizeBytes
from ringfence_zones.hadoop_conf import HadoopConf

_log = logging.getLogger(__name__)

_LOGGER = "hadoop.kms.audit.logger"
_HADOOPS_OWN = "org.apache.hadoop.crypto.key.kms.server.SimpleKMSAuditLogger"
_MIB = 1024 * 1024
# Where the audit of a KMS goes that keeps its keys in a database server.
_SYSTEM_DIRECTORY = Path("/var/log/ringfence/kms.audit.d")


class AuditFormat(enum.StrEnum):
    """Which files a worker writes."""

    JSON = "json"
    HADOOP = "hadoop"
    BOTH = "both"


class AuditBlock(ConfigModel):
    """`audit:` in kms.yaml.

    directory    one file per worker goes there; `<store>.audit.d` beside an SQLite store unless named, else
                 /var/log/ringfence/kms.audit.d
    format       `json`, or lines as Hadoop's kms-audit.log has them (`hadoop`), or `both`
    sync         a record is on disk this long after its answer left, at the latest: what a power cut can take
    required     whether a request is refused whose record cannot be written
    rotate_size  a file that has grown past this is put aside
    rotate_age   a file that was begun so long ago is put aside; never unless given
    keep_age     files put aside so long ago are deleted; kept for ever unless given
    keep_files   of the files put aside, so many of the newest are kept; all unless given
    """

    directory: AbsolutePath | None = None
    format: str = Field(AuditFormat.JSON, pattern="^(json|hadoop|both)$")
    sync: DurationS = Field(0.1, ge=0.001, le=60)
    required: bool = True
    rotate_size: SizeBytes = Field(256 * _MIB, ge=_MIB)
    rotate_age: DurationS | None = Field(None, ge=60)
    keep_age: DurationS | None = Field(None, ge=3600)
    keep_files: int | None = Field(None, ge=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditSettings:
    """Decided. Times are seconds, sizes bytes; None is never, or all."""

    directory: Path
    format: AuditFormat = AuditFormat.JSON
    sync_s: float = 0.1
    required: bool = True
    rotate_bytes: int = 256 * _MIB
    rotate_s: float | None = None
    keep_s: float | None = None
    keep_files: int | None = None


def audit_settings(block: AuditBlock, store_file: Path | None) -> AuditSettings:
    """The settings; `store_file` is the SQLite store, None for another kind of store."""
    beside = store_file.with_name(store_file.name + ".audit.d") if store_file is not None else _SYSTEM_DIRECTORY
    return AuditSettings(
        directory=block.directory or beside,
        format=AuditFormat(block.format),
        sync_s=block.sync,
        required=block.required,
        rotate_bytes=block.rotate_size,
        rotate_s=block.rotate_age,
        keep_s=block.keep_age,
        keep_files=block.keep_files,
    )


def warn_of_other_loggers(conf: HadoopConf) -> None:
    """Says that a Java class cannot write this log."""
    others = [name for name in conf.get_list(_LOGGER) if name != _HADOOPS_OWN]
    if others:
        _log.warning("%s names %s: a Java class cannot be used here; see audit.format", _LOGGER, ", ".join(others))
