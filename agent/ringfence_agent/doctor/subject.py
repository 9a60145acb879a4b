"""What is looked at: the configuration of Ringfence's KMS on this machine, of Hadoop's own, or of neither."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ringfence_agent.kms.config import Options, Settings, default_file, load_settings
from ringfence_zones.errors import RingfenceError
from ringfence_zones.hadoop_conf import HadoopConf, read_hadoop_conf

_PROVIDER = "hadoop.kms.key.provider.uri"
_JAVA_STORES = ("jceks:", "localjceks:", "bcfks:", "localbcfks:")


@dataclass(frozen=True, slots=True)
class Subject:
    """`settings` are Ringfence's, None without any or when they cannot be used (`problem` says why then).

    `stock` are the properties of Hadoop's own KMS when kms-site.xml names a Java key store. `place` is how messages
    name the configuration.
    """

    hadoop_conf: Path
    place: str
    environ: Mapping[str, str]
    settings: Settings | None = None
    problem: RingfenceError | None = None
    stock: HadoopConf | None = None


def find_subject(config: Path | None, hadoop_conf: Path, *, named: bool) -> Subject:
    """`named`: whether somebody asked for this Hadoop directory; else kms.yaml goes first, as in `kms serve`."""
    environ = os.environ
    own_file = config or (default_file() if default_file().exists() and not named else None)
    if own_file is None and not (hadoop_conf / "kms-site.xml").is_file():
        return Subject(hadoop_conf, "this machine", environ)
    place = str(own_file or hadoop_conf / "kms-site.xml")
    try:
        if own_file is None:
            conf = read_hadoop_conf(hadoop_conf, "core-site.xml", "kms-site.xml")
            if conf.get(_PROVIDER, _JAVA_STORES[0]).lower().startswith(_JAVA_STORES):
                return Subject(hadoop_conf, place, environ, stock=conf)
        settings = load_settings(Options(config=own_file, hadoop_conf=hadoop_conf if own_file is None else None))
    except RingfenceError as error:
        return Subject(hadoop_conf, place, environ, problem=error)
    return Subject(hadoop_conf, place, environ, settings=settings)
