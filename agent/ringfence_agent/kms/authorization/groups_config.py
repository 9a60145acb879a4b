"""Where groups come from: Hadoop's `hadoop.security.group.mapping` and its kin, or the `groups` block of kms.yaml.

Hadoop's mappings that ask the operating system are all served by NSS, in this process and without a shell. What needs
a directory client of its own in Java is refused by name: silently finding no groups would open blacklists and close
lists. SSSD or nslcd give NSS the same directory.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from pydantic import Field

from ringfence_zones.config_file import ConfigModel, DurationS
from ringfence_zones.errors import ConfigError
from ringfence_zones.hadoop_conf import HadoopConf

MAPPING = "hadoop.security.group.mapping"
STATIC_MAPPING = "hadoop.user.group.static.mapping.overrides"
_CACHE = "hadoop.security.groups.cache.secs"
_NEGATIVE_CACHE = "hadoop.security.groups.negative-cache.secs"
_CACHE_S = 300
_NEGATIVE_CACHE_S = 30
_STATIC_MAPPING_DEFAULT = "dr.who=;"
_PACKAGE = "org.apache.hadoop.security."
_SYSTEM_MAPPINGS = frozenset(
    {"ShellBasedUnixGroupsMapping", "JniBasedUnixGroupsMapping", "JniBasedUnixGroupsMappingWithFallback"}
)
_NO_MAPPING = "NullGroupsMapping"


@dataclass(frozen=True, slots=True)
class GroupSettings:
    """Where groups come from, and how many seconds a look-up, or one that found nothing, is believed."""

    keep_s: float
    keep_unknown_s: float
    static: Mapping[str, frozenset[str]] = field(default_factory=dict)
    asks_system: bool = True


class GroupsBlock(ConfigModel):
    """The `groups` block of kms.yaml. `static` answers first; `source: none` gives nobody else any group."""

    source: Literal["system", "none"] | None = None
    static: dict[str, list[str]] | None = None
    cache: DurationS | None = Field(None, ge=0)
    negative_cache: DurationS | None = Field(None, ge=0)


def group_settings(block: GroupsBlock, conf: HadoopConf, bound_s: float) -> GroupSettings:
    """What `block` says, else what Hadoop's properties say; nothing is believed longer than `bound_s`.

    Raises ConfigError for a mapping that cannot be served.
    """
    asks_system = _asks_system(conf) if block.source is None else block.source == "system"
    static = (
        parse_static_mapping(conf.find_untrimmed(STATIC_MAPPING) or _STATIC_MAPPING_DEFAULT)
        if block.static is None
        else {user: frozenset(groups) for user, groups in block.static.items()}
    )
    cache_s = block.cache if block.cache is not None else _seconds(conf, _CACHE, _CACHE_S)
    negative_s = (
        block.negative_cache if block.negative_cache is not None else _seconds(conf, _NEGATIVE_CACHE, _NEGATIVE_CACHE_S)
    )
    keep_s = min(cache_s, bound_s)
    return GroupSettings(keep_s, min(negative_s, keep_s), static, asks_system)


def _seconds(conf: HadoopConf, name: str, default: int) -> int:
    value = conf.get_int(name, default)
    if value < 0:
        raise ConfigError(f"{name} must not be negative")
    return value


def _asks_system(conf: HadoopConf) -> bool:
    mapping = conf.get(MAPPING, "")
    name = mapping.removeprefix(_PACKAGE)
    if not mapping or name in _SYSTEM_MAPPINGS:
        return True
    if name == _NO_MAPPING:
        return False
    raise ConfigError(
        f"{MAPPING} is {mapping!r}: groups come from the operating system (NSS) or from a static mapping here",
        hint="let the system resolve the same directory (SSSD, nslcd; `id USER` shows it) and leave the property out,"
        f" or name each user's groups in {STATIC_MAPPING}",
    )


def parse_static_mapping(text: str) -> dict[str, frozenset[str]]:
    """`user1=group1,group2;user2=;user3=group3`, as `Groups.parseStaticMapping`: blanks belong to the names.

    A user without `=` is in no group. Raises ConfigError.
    """
    mapping: dict[str, frozenset[str]] = {}
    for entry in filter(None, text.split(";")):
        # As Java's StringTokenizer: separators in a row are one.
        parts = [part for part in entry.split("=") if part]
        if not 1 <= len(parts) <= 2:
            raise ConfigError(
                f"{STATIC_MAPPING} holds {entry!r}, which is not user=group,group",
                hint="separate users with ';' and their groups with ','",
            )
        mapping[parts[0]] = frozenset(filter(None, parts[1].split(","))) if len(parts) == 2 else frozenset()
    return mapping
