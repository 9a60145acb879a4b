"""What is looked at: one node, by its own files. A file that is not there means that a check does not apply, and it
says so; nothing is taken from a table of releases that the node itself can tell.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ringfence_bootstrap.node.facts import NodeFacts, find_kms_conf, find_provider_path, is_emr_node, read_node_facts
from ringfence_zones.errors import RingfenceError
from ringfence_zones.hadoop_conf import HadoopConf, read_hadoop_conf
from ringfence_zones.kerberos import uses_kerberos
from ringfence_zones.kms_uri import KmsUri, parse_kms_uri
from ringfence_zones.named_checks import NotChecked
from ringfence_zones.policy_yaml import MAX_DOCUMENT_BYTES, read_yaml

KMS_YAML = "etc/ringfence/kms.yaml"
# As every command about the key server of a machine finds it.
KMS_CONFIG_VARIABLE = "RINGFENCE_KMS_CONFIG"
_SPARK = "etc/spark/conf/spark-defaults.conf"
_MAX_BYTES = 1024 * 1024
_SEPARATOR = re.compile(r"\s*[=:]\s*|\s+")


@dataclass(frozen=True, slots=True)
class KeyServer:
    """The configuration of a key server on this node. `place` names the file.

    Of Ringfence's own only what is asked here is read, and only as far as kms.yaml itself says it (`own`); Hadoop's is
    `site`, which Ringfence's takes too when kms.yaml names that directory.
    """

    place: Path
    own: Mapping[str, Any] | None
    site: HadoopConf | None


@dataclass(frozen=True, slots=True)
class Node:
    """One node. `root` is `/`, but for tests."""

    root: Path
    hadoop_conf: Path
    environ: Mapping[str, str]
    facts: NodeFacts
    is_emr: bool

    @classmethod
    def here(cls, hadoop_conf: Path, environ: Mapping[str, str], root: Path = Path("/")) -> Node:
        """This machine."""
        return cls(root, hadoop_conf, environ, read_node_facts(root), is_emr_node(root))

    def site(self, *names: str) -> HadoopConf:
        """Hadoop's own files, core-site.xml among them. Raises NotChecked without that, or when one is unreadable."""
        if not (self.hadoop_conf / "core-site.xml").is_file():
            raise NotChecked(f"there is no core-site.xml in {self.hadoop_conf}: no Hadoop is set up here (yet)")
        return _site(self.hadoop_conf, "core-site.xml", *names)

    def is_secure(self) -> bool:
        """Whether the cluster uses Kerberos."""
        return uses_kerberos(self.site())

    @property
    def spark_file(self) -> Path:
        """Spark's defaults, there or not."""
        named = self.environ.get("SPARK_CONF_DIR")
        return Path(named) / "spark-defaults.conf" if named else self.root / _SPARK

    def spark(self) -> Mapping[str, str]:
        """Spark's defaults; empty where it is not installed. Source of the format: java.util.Properties."""
        try:
            with self.spark_file.open("rb") as stream:
                text = stream.read(_MAX_BYTES).decode(errors="replace")
        except FileNotFoundError:
            return {}
        except OSError as error:
            raise NotChecked(f"{self.spark_file} cannot be read: {error.strerror}") from error
        lines = (line.strip() for line in text.splitlines())
        words = (_SEPARATOR.split(line, maxsplit=1) for line in lines if line and line[0] not in "#!")
        return {each[0]: each[1].strip() if len(each) > 1 else "" for each in words}

    def kms(self) -> KmsUri:
        """The KMS that clients on this node call. Raises NotChecked when there is none, or none that can be read."""
        self.site()
        try:
            uri = find_provider_path(self.hadoop_conf)
            if uri is None:
                raise NotChecked("core-site.xml names no KMS")
            return parse_kms_uri(uri)
        except RingfenceError as error:
            raise NotChecked(error.message) from error

    def key_server(self) -> KeyServer:
        """The key server that is configured on this node. Raises NotChecked when none is."""
        named, stock = self.environ.get(KMS_CONFIG_VARIABLE), find_kms_conf(self.root)
        own_file = Path(named) if named else self.root / KMS_YAML
        if own_file.exists():
            own = _read_yaml(own_file)
            conf = own.get("hadoop_conf")
            site = _find_kms_site(self.root / str(conf).lstrip("/")) if isinstance(conf, str) else None
            return KeyServer(own_file, own, site)
        # Where somebody names a directory it is that one's.
        place = self.hadoop_conf if (self.hadoop_conf / "kms-site.xml").exists() else stock
        if place is None:
            raise NotChecked("no key server is configured on this node")
        return KeyServer(place / "kms-site.xml", None, _find_kms_site(place))


def _find_kms_site(place: Path) -> HadoopConf | None:
    files = [name for name in ("core-site.xml", "kms-site.xml") if (place / name).exists()]
    return _site(place, *files) if files else None


def _site(place: Path, *names: str) -> HadoopConf:
    try:
        return read_hadoop_conf(place, *(name for name in names if (place / name).exists()))
    except RingfenceError as error:
        raise NotChecked(error.message) from error
    except OSError as error:
        raise NotChecked(f"{place} cannot be read: {error.strerror}") from error


def _read_yaml(path: Path) -> Mapping[str, Any]:
    try:
        with path.open("rb") as stream:
            text = stream.read(MAX_DOCUMENT_BYTES + 1).decode()
    except OSError as error:
        raise NotChecked(f"{path} cannot be read: {error.strerror}; root and its own user can") from error
    except UnicodeDecodeError:
        text = "\0"
    # With the key server's own reader: bounded, and no alias of an alias takes the node's memory.
    document = read_yaml(text, str(path))
    if document.findings:
        raise NotChecked(f"{path} is not what the key server would start with: see ringfence doctor")
    return document.data if isinstance(document.data, dict) else {}
