"""`kms-acls.xml` with Hadoop's exact meaning: operation ACLs, blacklists and key ACLs.

Source: `org.apache.hadoop.crypto.key.kms.server.{KMSACLs,KeyAuthorizationKeyProvider}` and
`org.apache.hadoop.security.authorize.AccessControlList`. What is easily misread, and therefore tested:

1. An operation ACL that is not set admits everybody; a key ACL that is not set anywhere admits nobody.
2. One `key.acl.K.<op>` line switches every default off for key K; the whitelist stays.
3. `ALL` works for a named key only; as a default or whitelist it is ignored.
4. A list is `users groups`, split at the first blank: a leading blank means groups only. `*` alone as either part
   admits everybody. Names are separated by commas or line ends, never by further blanks.
5. `<value></value>` sets nothing: an operation ACL written so admits everybody. One blank is how to say nobody.
6. `~alice` among the users admits whomever alice acts for (doAs, or the real user of a delegation token).

This module reads no file and resolves no group: it gets properties and is told a user's groups.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from ringfence_zones.hadoop_conf import HadoopConf, trim

FILE_NAME = "kms-acls.xml"
_OPERATION_ACL = "hadoop.kms.acl."
_BLACKLIST = "hadoop.kms.blacklist."
_KEY_ACL = "key.acl."
_DEFAULT_KEY_ACL = "default.key.acl."
_WHITELIST_KEY_ACL = "whitelist.key.acl."
# `StringUtils.getTrimmedStrings`: what Java calls white space, not what Python does.
_BETWEEN_NAMES = re.compile("[ \t\n\v\f\r]*[,\n][ \t\n\v\f\r]*")
_REAL_USER = "~"  # AccessControlList.USE_REAL_ACLS


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

    def admits(self, user: str, groups_of: GroupsOf, real_user: str | None = None) -> bool:
        """Whether the user, one of the user's groups, or `~` and who acts for the user, is on the list."""
        if self.everybody or user in self.users:
            return True
        if real_user is not None and _REAL_USER + real_user in self.users:
            return True
        return bool(self.groups) and not self.groups.isdisjoint(groups_of(user))


EVERYBODY = AccessList(everybody=True)


@dataclass(frozen=True, slots=True)
class Decision:
    """Whether something is allowed, and what says so: the name of the property that decided.

    `default:hadoop.kms.acl.X` is Hadoop's own default for an operation without ACL; `key.acl.K` without an operation
    says that lines for K exist, none for this operation; `none` that nothing speaks of the key at all.
    """

    allowed: bool
    rule: str


def parse_access_list(text: str) -> AccessList:
    """`AccessControlList.buildACL`. An empty or blank text admits nobody."""
    parts = text.split(" ", 1)
    if any(trim(part) == "*" for part in parts):
        return EVERYBODY
    names = [frozenset(_BETWEEN_NAMES.split(trim(part))) - {""} for part in parts]
    return AccessList(names[0], names[1] if len(names) > 1 else frozenset())


@dataclass(frozen=True, slots=True)
class KmsAcls:
    """Everything a `kms-acls.xml` says."""

    operations: Mapping[Operation, AccessList]
    blacklists: Mapping[Operation, AccessList]
    keys: Mapping[str, Mapping[KeyOperation, AccessList]]
    defaults: Mapping[KeyOperation, AccessList]
    whitelist: Mapping[KeyOperation, AccessList]

    def decide_operation(
        self, operation: Operation, user: str, groups_of: GroupsOf, real_user: str | None = None
    ) -> Decision:
        """On the operation's list and not on its blacklist (`KMSACLs.hasAccess`)."""
        acl = self.operations.get(operation)
        if acl is not None and not acl.admits(user, groups_of, real_user):
            return Decision(False, _OPERATION_ACL + operation.value)
        blacklist = self.blacklists.get(operation)
        if blacklist is not None and blacklist.admits(user, groups_of, real_user):
            return Decision(False, _BLACKLIST + operation.value)
        return Decision(True, ("default:" if acl is None else "") + _OPERATION_ACL + operation.value)

    def decide_key(
        self, acl_name: str, operation: KeyOperation, user: str, groups_of: GroupsOf, real_user: str | None = None
    ) -> Decision:
        """Whether the key ACLs of `acl_name` admit the user for the operation, by itself or by ALL.

        `KeyAuthorizationKeyProvider.checkAccess`: `isACLPresent`, then `hasAccessToKey` for the operation and for ALL.
        """
        own = self.keys.get(acl_name)
        # Any line of the key's own switches the defaults off for it; ALL exists for named keys only.
        candidates = [
            (f"{_KEY_ACL}{acl_name}.{operation.value}", (own or {}).get(operation)),
            (f"{_KEY_ACL}{acl_name}.ALL", (own or {}).get(KeyOperation.ALL)),
            (_DEFAULT_KEY_ACL + operation.value, self.defaults.get(operation) if own is None else None),
            (_WHITELIST_KEY_ACL + operation.value, self.whitelist.get(operation)),
        ]
        speaking = [(name, acl) for name, acl in candidates if acl is not None]
        for name, acl in speaking:
            if acl.admits(user, groups_of, real_user):
                return Decision(True, name)
        if own is not None:
            return Decision(False, speaking[0][0] if operation in own else _KEY_ACL + acl_name)
        return Decision(False, speaking[0][0] if speaking else "none")


def read_acls(conf: HadoopConf) -> KmsAcls:
    """The ACLs in `conf`. As in Hadoop, names that mean nothing are passed over; `find_ineffective` tells of them."""
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


def find_ineffective(conf: HadoopConf) -> dict[str, str]:
    """The properties that look like ACLs and do nothing, each with a sentence that says why."""
    known = {prefix + operation.value for prefix in (_OPERATION_ACL, _BLACKLIST) for operation in Operation}
    known |= {
        prefix + operation.value
        for prefix in (_DEFAULT_KEY_ACL, _WHITELIST_KEY_ACL)
        for operation in KeyOperation
        if operation is not KeyOperation.ALL
    }
    ineffective = {}
    for name in (*conf, *conf.empty):
        if not name.startswith((_OPERATION_ACL, _BLACKLIST, _KEY_ACL, _DEFAULT_KEY_ACL, _WHITELIST_KEY_ACL)):
            continue
        if name not in known and _split_key_acl(name) is None:
            ineffective[name] = f"the ACL property {name} has no effect: it names no operation that Hadoop knows there"
        elif name in conf.empty:
            ineffective[name] = f"the ACL property {name} has an empty value, which to Hadoop is no ACL at all"
    return ineffective


def key_of(name: str) -> str | None:
    """The key that a property `key.acl.KEY.OPERATION` is about, None for every other property."""
    split = _split_key_acl(name)
    return split[0] if split is not None else None


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
