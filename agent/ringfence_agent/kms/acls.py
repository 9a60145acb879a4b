"""`kms-acls.xml` with Hadoop's exact meaning: operation ACLs, blacklists and key ACLs.

Source: `org.apache.hadoop.crypto.key.kms.server.{KMSACLs,KeyAuthorizationKeyProvider}` and
`org.apache.hadoop.security.authorize.AccessControlList`. What is easily misread, and therefore tested:

1. An operation ACL that is not set admits everybody; a key ACL that is not set anywhere admits nobody.
2. One `key.acl.K.<op>` line switches every default off for key K; the whitelist stays.
3. `ALL` works for a named key only; as a default or whitelist it is ignored.
4. A list is `users groups`, split at the first blank: a leading blank means groups only. `*` alone as either part
   admits everybody.

This module reads no file and resolves no group: it gets properties and is told a user's groups.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from ringfence_zones.hadoop_conf import HadoopConf

_OPERATION_ACL = "hadoop.kms.acl."
_BLACKLIST = "hadoop.kms.blacklist."
_KEY_ACL = "key.acl."
_DEFAULT_KEY_ACL = "default.key.acl."
_WHITELIST_KEY_ACL = "whitelist.key.acl."


class Operation(enum.Enum):
    """`KMSACLs.Type`: what an operation ACL is about."""

    # Members are singletons; Enum's own hash is Python code, and this is looked up on every request.
    __hash__ = object.__hash__

    CREATE = "CREATE"
    DELETE = "DELETE"
    ROLLOVER = "ROLLOVER"
    GET = "GET"
    GET_KEYS = "GET_KEYS"
    GET_METADATA = "GET_METADATA"
    SET_KEY_MATERIAL = "SET_KEY_MATERIAL"
    GENERATE_EEK = "GENERATE_EEK"
    DECRYPT_EEK = "DECRYPT_EEK"


class KeyOperation(enum.Enum):
    """`KeyAuthorizationKeyProvider.KeyOpType`: what a key ACL is about."""

    # Members are singletons; Enum's own hash is Python code, and this is looked up on every request.
    __hash__ = object.__hash__

    ALL = "ALL"
    READ = "READ"
    MANAGEMENT = "MANAGEMENT"
    GENERATE_EEK = "GENERATE_EEK"
    DECRYPT_EEK = "DECRYPT_EEK"


# Called only when a list has groups and the user is not in it by name.
GroupsOf = Callable[[str], frozenset[str]]


@dataclass(frozen=True, slots=True)
class AccessList:
    """Who is on a list. `groups` are asked about only after `users` did not match."""

    users: frozenset[str] = frozenset()
    groups: frozenset[str] = frozenset()
    everybody: bool = False

    def admits(self, user: str, groups_of: GroupsOf) -> bool:
        """Whether the user, or one of the user's groups, is on the list."""
        if self.everybody or user in self.users:
            return True
        return bool(self.groups) and not self.groups.isdisjoint(groups_of(user))


EVERYBODY = AccessList(everybody=True)


def parse_access_list(text: str) -> AccessList:
    """`AccessControlList.buildACL`. An empty or blank text admits nobody."""
    parts = text.split(" ", 1)
    if any(part.strip() == "*" for part in parts):
        return EVERYBODY
    names = [frozenset(filter(None, (name.strip() for name in part.split(",")))) for part in parts]
    return AccessList(names[0], names[1] if len(names) > 1 else frozenset())


@dataclass(frozen=True, slots=True)
class KmsAcls:
    """Everything a `kms-acls.xml` says."""

    operations: Mapping[Operation, AccessList]
    blacklists: Mapping[Operation, AccessList]
    keys: Mapping[str, Mapping[KeyOperation, AccessList]]
    defaults: Mapping[KeyOperation, AccessList]
    whitelist: Mapping[KeyOperation, AccessList]

    def allows_operation(self, operation: Operation, user: str, groups_of: GroupsOf) -> bool:
        """On the operation's list and not on its blacklist."""
        if not self.operations.get(operation, EVERYBODY).admits(user, groups_of):
            return False
        blacklist = self.blacklists.get(operation)
        return blacklist is None or not blacklist.admits(user, groups_of)

    def mentions(self, acl_name: str, operation: KeyOperation) -> bool:
        """`isACLPresent`: anything about the key at all, or a default or whitelist for the operation."""
        return acl_name in self.keys or operation in self.defaults or operation in self.whitelist

    def allows_key(self, acl_name: str, operation: KeyOperation, user: str, groups_of: GroupsOf) -> bool:
        """Whether the key ACLs of `acl_name` admit the user for the operation, by itself or by ALL."""
        if not self.mentions(acl_name, operation):
            return False
        return any(self._admits(acl_name, candidate, user, groups_of) for candidate in (operation, KeyOperation.ALL))

    def _admits(self, acl_name: str, operation: KeyOperation, user: str, groups_of: GroupsOf) -> bool:
        own = self.keys.get(acl_name, self.defaults).get(operation)
        if own is not None and own.admits(user, groups_of):
            return True
        whitelist = self.whitelist.get(operation)
        return whitelist is not None and whitelist.admits(user, groups_of)


def read_acls(conf: HadoopConf) -> KmsAcls:
    """The ACLs in `conf`. As in Hadoop, names that mean nothing are passed over; `find_problems` tells of them."""
    keys: dict[str, dict[KeyOperation, AccessList]] = {}
    for name in conf:
        found = _split_key_acl(name)
        if found is not None:
            key, operation = found
            keys.setdefault(key, {})[operation] = _list_of(conf, name)
    return KmsAcls(
        operations=_by_operation(conf, _OPERATION_ACL),
        blacklists=_by_operation(conf, _BLACKLIST),
        keys=keys,
        defaults=_by_key_operation(conf, _DEFAULT_KEY_ACL),
        whitelist=_by_key_operation(conf, _WHITELIST_KEY_ACL),
    )


def find_problems(conf: HadoopConf) -> list[str]:
    """One sentence for each property that looks like an ACL and has no effect."""
    known = {prefix + operation.value for prefix in (_OPERATION_ACL, _BLACKLIST) for operation in Operation}
    known |= {
        prefix + operation.value
        for prefix in (_DEFAULT_KEY_ACL, _WHITELIST_KEY_ACL)
        for operation in KeyOperation
        if operation is not KeyOperation.ALL
    }
    prefixes = (_OPERATION_ACL, _BLACKLIST, _KEY_ACL, _DEFAULT_KEY_ACL, _WHITELIST_KEY_ACL)
    return [
        f"the ACL property {name} has no effect: it names no operation that Hadoop knows there"
        for name in conf
        if name.startswith(prefixes) and name not in known and _split_key_acl(name) is None
    ]


def _split_key_acl(name: str) -> tuple[str, KeyOperation] | None:
    # Key names may hold dots: the operation follows the last one.
    if not name.startswith(_KEY_ACL):
        return None
    key, _, operation = name.removeprefix(_KEY_ACL).rpartition(".")
    return (key, KeyOperation[operation]) if key and operation in KeyOperation.__members__ else None


def _by_operation(conf: HadoopConf, prefix: str) -> dict[Operation, AccessList]:
    return {
        operation: _list_of(conf, prefix + operation.value)
        for operation in Operation
        if prefix + operation.value in conf
    }


def _by_key_operation(conf: HadoopConf, prefix: str) -> dict[KeyOperation, AccessList]:
    return {
        operation: _list_of(conf, prefix + operation.value)
        for operation in KeyOperation
        if operation is not KeyOperation.ALL and prefix + operation.value in conf
    }


def _list_of(conf: HadoopConf, name: str) -> AccessList:
    return parse_access_list(conf.find_untrimmed(name) or "")
