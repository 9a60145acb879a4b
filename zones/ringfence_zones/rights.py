"""The rights of a zone's root directory: from a policy's readers and writers to HDFS entries, and the comparison.

Readers get `r-x`, writers and the owner `rwx`, as named entries and again as default entries, so that what is
created below is as usable. `mode` gives the entries of owner, owning group and others; `*` among the readers gives
others `r-x`. The mask is the union of the named entries and the owning group's, as HDFS itself computes it.

Compared are entries, never the printed mode: with an ACL its group digit is the mask. What policy does not name
(an owner or group left open) is not compared.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from ringfence_zones.model import DirectoryState
from ringfence_zones.policy import ZonePolicy
from ringfence_zones.policy_document import EVERYONE

_READ = 0o5
_WRITE = 0o7
# What the mode's digits say apart from the group's: sticky bit, owner, others.
_OWNER_AND_OTHER = 0o1707


@dataclass(frozen=True, slots=True)
class DirectoryRights:
    """Rights to set. `owner` and `group` are None when left as they are; `acl` is in `DirectoryState.acl`'s form."""

    owner: str | None
    group: str | None
    mode: int
    acl: tuple[str, ...]

    @property
    def group_bits(self) -> int:
        """The owning group's entry, 0 to 7."""
        return self.mode >> 3 & 7


def zone_rights(zone: ZonePolicy) -> DirectoryRights:
    """The rights that policy wants on a zone's root."""
    mode = zone.mode | (_READ if EVERYONE in zone.readers else 0)
    if not zone.readers and not zone.writers:
        return DirectoryRights(zone.owner, zone.group, mode, ())
    named = named_entries(zone)
    default = [f"default:{entry}" for entry in _entries(mode, named, with_base=True)]
    return DirectoryRights(zone.owner, zone.group, mode, tuple(sorted([*_entries(mode, named), *default])))


def find_differences(wanted: DirectoryRights, found: DirectoryState) -> tuple[str, ...]:
    """What differs, each a clause such as `the group is hdfs, not pii`; empty when all is as wanted."""
    out = []
    if wanted.owner is not None and found.owner != wanted.owner:
        out.append(f"the owner is {found.owner}, not {wanted.owner}")
    if wanted.group is not None and found.group != wanted.group:
        out.append(f"the group is {found.group}, not {wanted.group}")
    if (found.mode ^ wanted.mode) & _OWNER_AND_OTHER:
        shown = f"{found.mode & _OWNER_AND_OTHER:04o}, not {wanted.mode & _OWNER_AND_OTHER:04o}"
        out.append(f"the entries of owner and others are {shown}")
    if found.group_bits != wanted.group_bits:
        out.append(f"the owning group has {_rwx(found.group_bits)}, not {_rwx(wanted.group_bits)}")
    missing, extra = set(wanted.acl) - set(found.acl), set(found.acl) - set(wanted.acl)
    if missing:
        out.append(f"the ACL lacks {', '.join(sorted(missing))}")
    if extra:
        out.append(f"the ACL also has {', '.join(sorted(extra))}")
    if not missing and not extra:
        mask = _mask(wanted)
        if mask is not None and (found.mode >> 3 & 7) != mask:
            out.append(f"the ACL's mask is {_rwx(found.mode >> 3)}, not {_rwx(mask)}")
    return tuple(out)


def named_entries(zone: ZonePolicy) -> dict[str, int]:
    """The bits of each named entry, by `user:NAME` or `group:NAME`."""
    bits = {_entry_name(name): _READ for name in zone.readers if name != EVERYONE}
    bits |= {_entry_name(name): _WRITE for name in zone.all_writers}
    return bits


def directory_writers(zone: ZonePolicy) -> frozenset[str]:
    """Who holds the zone's key and whom the root's rights let write: the mode may give more than `writers` says.

    `*` is in it when others may write and everybody holds the key.
    """
    group = {f"@{zone.group}"} & zone.all_readers if zone.mode & 0o020 else frozenset()
    others = zone.all_readers if zone.mode & 0o002 else frozenset()
    return zone.all_writers | group | others


def _entry_name(principal: str) -> str:
    return f"group:{principal[1:]}" if principal.startswith("@") else f"user:{principal}"


def _entries(mode: int, named: dict[str, int], *, with_base: bool = False) -> Iterable[str]:
    yield from (f"{name}:{_rwx(bits)}" for name, bits in named.items())
    if not with_base:
        return
    yield f"user::{_rwx(mode >> 6)}"
    yield f"group::{_rwx(mode >> 3)}"
    yield f"other::{_rwx(mode)}"
    if named:  # without a named entry HDFS keeps no mask
        yield f"mask::{_rwx(_union((*named.values(), mode >> 3)))}"


def _mask(wanted: DirectoryRights) -> int | None:
    """The access ACL's mask, None without a named entry."""
    named = [entry for entry in wanted.acl if not entry.startswith("default:")]
    if not named:
        return None
    return _union((*(_bits(entry.rpartition(":")[2]) for entry in named), wanted.group_bits))


def _union(values: Iterable[int]) -> int:
    out = 0
    for value in values:
        out |= value
    return out & 7


def _bits(rwx: str) -> int:
    return sum(4 >> at for at, letter in enumerate(rwx) if letter != "-")


def _rwx(bits: int) -> str:
    return "".join(letter if bits & 4 >> at else "-" for at, letter in enumerate("rwx"))
