"""Hadoop's access lists: `user1,user2 group1,group2`, read and written.

Source: `org.apache.hadoop.security.authorize.AccessControlList` and `StringUtils.getTrimmedStrings`. Rules:

1. The first blank separates users from groups; a leading blank means groups only. Names are separated by commas or
   line ends, never by further blanks.
2. `*` alone as either part admits everybody; among other names it is a name.
3. `~alice` among the users admits whomever alice acts for (doAs, or the real user of a delegation token).
4. Nobody is written as one blank: an empty value in a file is no list at all.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from ringfence_zones.hadoop_conf import trim

NOBODY_TEXT = " "
EVERYBODY_TEXT = "*"
# What Java calls white space, not what Python does.
_BETWEEN_NAMES = re.compile("[ \t\n\v\f\r]*[,\n][ \t\n\v\f\r]*")
_REAL_USER = "~"  # AccessControlList.USE_REAL_ACLS

# Called only when a list has groups and the user is not in it by name.
GroupsOf = Callable[[str], frozenset[str]]


@dataclass(frozen=True, slots=True)
class AccessList:
    """Who is on a list. `groups` are asked about only after `users` did not match."""

    users: frozenset[str] = frozenset()
    groups: frozenset[str] = frozenset()
    everybody: bool = False

    def admits(self, user: str, groups_of: GroupsOf, real_user: str | None = None) -> bool:
        """Whether the user, one of the user's groups, or `~` and who acts for the user, is on the list."""
        if self.everybody or user in self.users:
            return True
        if real_user is not None and _REAL_USER + real_user in self.users:
            return True
        return bool(self.groups) and not self.groups.isdisjoint(groups_of(user))

    def covers(self, other: AccessList) -> bool:
        """Whether everybody whom `other` names is named here as well."""
        return self.everybody or (not other.everybody and other.users <= self.users and other.groups <= self.groups)

    def to_text(self) -> str:
        """The list as a property's value. Raises ValueError for a name that would be read as something else."""
        if self.everybody:
            return EVERYBODY_TEXT
        users, groups = sorted(self.users), sorted(self.groups)
        text = ",".join(users) + (" " + ",".join(groups) if groups or not users else "")
        if parse_access_list(text) != self or "${" in text:
            raise ValueError("a name cannot be written in an access list")
        return text


EVERYBODY = AccessList(everybody=True)


def parse_access_list(text: str) -> AccessList:
    """`AccessControlList.buildACL`. An empty or blank text admits nobody."""
    parts = text.split(" ", 1)
    if any(trim(part) == EVERYBODY_TEXT for part in parts):
        return EVERYBODY
    names = [frozenset(_BETWEEN_NAMES.split(trim(part))) - {""} for part in parts]
    return AccessList(names[0], names[1] if len(names) > 1 else frozenset())
