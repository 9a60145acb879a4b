"""A `kms-acls.xml` for people: what it says, on which line, and who its names are on this machine.

Only for commands; the server reads through `acl_file.py`. Nothing here is remembered or written.
"""

from __future__ import annotations

import grp
import pwd
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from ringfence_agent.kms.authorization.acls import FILE_NAME, KmsAcls, read_acls
from ringfence_agent.kms.authorization.groups_config import GroupsBlock, GroupSettings, group_settings
from ringfence_agent.kms.authorization.system_groups import look_up_system_groups
from ringfence_zones.errors import ConfigError
from ringfence_zones.hadoop_conf import HadoopConf, read_hadoop_conf
from ringfence_zones.hadoop_xml import property_lines, read_document

_UNBOUNDED_S = float("inf")


@dataclass(frozen=True, slots=True)
class AclDocument:
    """The file at `path`; `lines` by property, `key_authorization` from the kms-site.xml beside it."""

    path: Path
    conf: HadoopConf
    acls: KmsAcls
    lines: Mapping[str, int]
    groups: GroupSettings
    key_authorization: bool

    def place(self, name: str) -> str:
        """`FILE:LINE` of a property, the file alone for one that is not in it."""
        line = self.lines.get(name)
        return str(self.path) if line is None else f"{self.path}:{line}"

    def groups_of(self, user: str) -> frozenset[str]:
        """As the server would find them. May block."""
        static = self.groups.static.get(user)
        if static is not None:
            return static
        return look_up_system_groups(user) if self.groups.asks_system else frozenset()

    def knows_user(self, name: str) -> bool:
        """Whether anybody of that name is known here. May block."""
        return name in self.groups.static or _is_known(lambda: pwd.getpwnam(name))

    def knows_group(self, name: str) -> bool:
        """Whether a group of that name is known here. May block."""
        return any(name in groups for groups in self.groups.static.values()) or _is_known(lambda: grp.getgrnam(name))


def read_acl_document(path: Path) -> AclDocument:
    """The file at `path`, with core-site.xml and kms-site.xml beside it. Raises ConfigError."""
    if not path.is_file():
        raise ConfigError(
            f"there is no {path}",
            hint=f"name the directory of the KMS's {FILE_NAME} with --hadoop-conf, for example /etc/hadoop-kms/conf",
        )
    conf = read_hadoop_conf(path.parent, path.name)
    site = read_hadoop_conf(path.parent, "core-site.xml", "kms-site.xml")
    return AclDocument(
        path=path,
        conf=conf,
        acls=read_acls(conf),
        lines=property_lines(read_document(path)),
        groups=group_settings(GroupsBlock(), site, _UNBOUNDED_S),
        key_authorization=site.get_bool("hadoop.kms.key.authorization.enable", True),
    )


def _is_known(look_up: Callable[[], object]) -> bool:
    try:
        look_up()
    except (KeyError, ValueError, OSError):
        return False
    return True
