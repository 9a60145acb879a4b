"""`kms-acls.xml` with Hadoop's exact meaning: operation ACLs, blacklists and key ACLs.

Source: `org.apache.hadoop.crypto.key.kms.server.{KMSACLs,KeyAuthorizationKeyProvider}` and
`org.apache.hadoop.security.authorize.AccessControlList`. What is easily misread, and therefore tested:

1. An operation ACL that is not set admits everybody; a key ACL that is not set anywhere admits nobody.
2. One `key.acl.K.<op>` line switches every default off for key K; the whitelist stays.
3. `ALL` works for a named key only; as a default or whitelist it is ignored.
4. `<value></value>` sets nothing: an operation ACL written so admits everybody. One blank is how to say nobody.

How a list itself reads is `ringfence_zones.access_list`'s matter.

This module reads no file and resolves no group: it gets properties and is told a user's groups.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass

from ringfence_zones.access_list import AccessList, GroupsOf, parse_access_list
from ringfence_zones.hadoop_conf import HadoopConf

FILE_NAME = "kms-acls.xml"
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


@dataclass(frozen=True, slots=True)
class Decision:
    """Whether something is allowed, and what says so: the name of the property that decided.

    `default:hadoop.kms.acl.X` is Hadoop's own default for an operation without ACL; `key.acl.K` without an operation
    says that lines for K exist, none for this operation; `none` that nothing speaks of the key at all.
    """

    allowed: bool
    rule: str


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
