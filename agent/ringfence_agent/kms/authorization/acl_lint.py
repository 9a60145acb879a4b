"""Looks through a `kms-acls.xml` for what reads one way and means another.

The traps are Hadoop's own and stay as they are, for the server decides exactly as Hadoop does: here they are named,
each with the line to change. What is merely a choice (a list, whoever is on it) is no finding.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Collection, Iterator, Mapping

from ringfence_agent.kms.authorization.acl_document import AclDocument
from ringfence_agent.kms.authorization.acls import KeyOperation, Operation, find_ineffective, key_of
from ringfence_zones.access_list import EVERYBODY, AccessList, parse_access_list
from ringfence_zones.findings import Finding, Rule, Severity
from ringfence_zones.hadoop_conf import trim

_ACL = "hadoop.kms.acl."
_BLACKLIST = "hadoop.kms.blacklist."
_CHANGES = frozenset({Operation.CREATE, Operation.DELETE, Operation.ROLLOVER, Operation.SET_KEY_MATERIAL})
_VARIABLE = re.compile(r"\$\{[^{}]*\}")


def find_acl_problems(
    document: AclDocument, superuser: str = "hdfs", published_keys: Collection[str] = ()
) -> list[Finding]:
    """Every trap in the file, in its order, then what is not in it. May ask the system for users and groups.

    `superuser` runs the NameNode; `published_keys` take their key ACLs from a policy, whatever the file says.
    """
    findings = [
        finding for name in document.conf if _is_acl(name) for finding in _line_problems(document, name, published_keys)
    ]
    findings += (
        _finding(document, name, Severity.ERROR if name in document.conf.empty else Severity.WARN, rule, why, hint)
        for name, why, rule, hint in _ineffective(document)
    )
    findings += _open_operations(document)
    findings += _key_problems(document)
    findings += _superuser_problems(document, superuser)
    return sorted(findings, key=_line_of)


def _line_of(finding: Finding) -> int:
    number = finding.path.rpartition(":")[2]
    return int(number) if number.isdigit() else sys.maxsize


def _is_acl(name: str) -> bool:
    return name.startswith((_ACL, _BLACKLIST, "key.acl.", "default.key.acl.", "whitelist.key.acl."))


def _finding(document: AclDocument, name: str, severity: Severity, rule: Rule, why: str, hint: str) -> Finding:
    return Finding(severity=severity, rule=rule, path=document.place(name), key=key_of(name), message=why, hint=hint)


def _ineffective(document: AclDocument) -> Iterator[tuple[str, str, Rule, str]]:
    for name, why in find_ineffective(document.conf).items():
        if name in document.conf.empty:
            everybody = name.startswith(_ACL)
            effect = ", so everybody is admitted" if everybody else ""
            yield name, why + effect, Rule.ACL_EMPTY, "write one blank, <value> </value>, to admit nobody"
        else:
            operations = Operation if name.startswith((_ACL, _BLACKLIST)) else KeyOperation
            known = ", ".join(each.value for each in operations)
            hint = f"correct the name (operations here: {known}; ALL only for a named key), or remove the line"
            yield name, why, Rule.ACL_NO_EFFECT, hint


def _line_problems(document: AclDocument, name: str, published_keys: Collection[str]) -> Iterator[Finding]:
    text = document.conf.find_untrimmed(name) or ""
    acl = parse_access_list(text)
    key = key_of(name)
    if key is not None and key in published_keys:
        why = f"{name} has no effect: the published policy names the key {key} and decides alone"
        yield _finding(
            document, name, Severity.INFO, Rule.ACL_NO_EFFECT, why, "remove the line: the policy document says who may"
        )
    if key is not None and key != key.lower():
        why = f"{name} is for a key with upper-case letters, which Hadoop's Java key stores write in lower case"
        yield _finding(document, name, Severity.WARN, Rule.ACL_KEY_CASE, why, f"see whether the key is {key.lower()}")
    variable = _VARIABLE.search(text)
    if variable:
        why = f"{variable[0]} in {name} is not defined in the file; Hadoop would ask Java's system properties"
        yield _finding(document, name, Severity.WARN, Rule.ACL_VARIABLE, why, "write the value itself")
    if acl.groups and not acl.users and trim(text) != text.strip(" "):
        why = f"the value of {name} begins on a line of its own: with a blank before them, its names are groups"
        hint = "write the value on one line; users come first, without a blank in front"
        yield _finding(document, name, Severity.WARN, Rule.ACL_NAMES_ARE_GROUPS, why, hint)
    yield from _name_problems(document, name, acl)


def _name_problems(document: AclDocument, name: str, acl: AccessList) -> Iterator[Finding]:
    if acl.everybody:
        return
    for entry in sorted(acl.users | acl.groups):
        if entry == "*":
            why = f"the * in {name} stands among other names and means nobody"
            hint = "write <value>*</value> to admit everybody"
            yield _finding(document, name, Severity.WARN, Rule.ACL_WILDCARD_IN_LIST, why, hint)
    for entry in sorted(acl.groups):
        if " " in entry or "\t" in entry:
            why = f"{name} names a group {entry!r}: only the first blank of a list separates, users from groups"
            hint = "separate names by commas: user1,user2 group1,group2"
            yield _finding(document, name, Severity.WARN, Rule.ACL_BLANK_IN_NAME, why, hint)
        elif entry != "*":
            yield from _group_problems(document, name, entry)
    for entry in sorted(acl.users - {"*"}):
        # `~alice`: whomever alice acts for.
        if not document.knows_user(entry.removeprefix("~")):
            why = f"{name} names the user {entry.removeprefix('~')}, whom this machine does not know"
            hint = "correct the name; a user without account here still counts by name, but has no groups"
            yield _finding(document, name, Severity.INFO, Rule.ACL_UNKNOWN_NAME, why, hint)


def _group_problems(document: AclDocument, name: str, group: str) -> Iterator[Finding]:
    if document.knows_group(group):
        return
    if document.knows_user(group):
        why = f"{name} names {group} after the first blank, as a group; {group} is a user"
        hint = f"write users before the first blank, without one in front: <value>{group}</value>"
        yield _finding(document, name, Severity.ERROR, Rule.ACL_NAMES_ARE_GROUPS, why, hint)
        return
    why = f"{name} names the group {group}, which this machine does not know: it has no members here"
    hint = "correct the name, or let this machine resolve it (`getent group`)"
    yield _finding(document, name, Severity.WARN, Rule.ACL_UNKNOWN_NAME, why, hint)


def _open_operations(document: AclDocument) -> Iterator[Finding]:
    for operation in Operation:
        name = _ACL + operation.value
        acl = document.acls.operations.get(operation, EVERYBODY)
        if acl.everybody and operation is Operation.GET:
            why = f"{name} {'admits everybody' if name in document.conf else 'is not set, so it admits everybody'}"
            why += ": with READ on a key that hands out its material"
            hint = "set it to one blank, <value> </value>: neither HDFS nor its clients ever need it"
            yield _finding(document, name, Severity.ERROR, Rule.ACL_GET_OPEN, why, hint)
        elif name not in document.conf and name not in document.conf.empty:
            severity = Severity.WARN if operation in _CHANGES else Severity.INFO
            why = f"{name} is not set, so it admits everybody"
            yield _finding(
                document, name, severity, Rule.ACL_UNSET, why, "name who may, or write * to say that you mean it"
            )


def _key_problems(document: AclDocument) -> Iterator[Finding]:
    acls = document.acls
    if not document.key_authorization:
        why = "hadoop.kms.key.authorization.enable is false: no key ACL is looked at"
        hint = "set it to true in kms-site.xml, or know that every operation ACL is for all keys"
        yield _finding(document, "", Severity.WARN, Rule.ACL_NO_EFFECT, why, hint)
    elif not (acls.keys or acls.defaults or acls.whitelist):
        why = "the file has no key ACL at all: nobody can use or make a key that no published policy names"
        hint = "add default.key.acl.* or key.acl.KEY.* lines, or publish a policy that names the keys"
        yield _finding(document, "", Severity.WARN, Rule.ACL_KEYS_CLOSED, why, hint)
    for key, own in acls.keys.items():
        if KeyOperation.ALL not in own:
            yield from _defaults_off(document, key, own)
    yield from _open_management(document)


def _defaults_off(document: AclDocument, key: str, own: Mapping[KeyOperation, AccessList]) -> Iterator[Finding]:
    lost = [each for each in document.acls.defaults if each not in own and each not in document.acls.whitelist]
    if lost:
        names = ", ".join(each.value for each in lost)
        first = f"key.acl.{key}.{next(iter(own)).value}"
        why = f"the lines for key {key} switch every default off for it: nobody has {names} on it"
        hint = f"add key.acl.{key}.{lost[0].value} and the like, or put the few who need all keys on the whitelist"
        yield _finding(document, first, Severity.WARN, Rule.ACL_DEFAULTS_OFF, why, hint)


def _open_management(document: AclDocument) -> Iterator[Finding]:
    acls = document.acls
    deletes = acls.operations.get(Operation.DELETE, EVERYBODY).everybody
    for prefix, lists in (("default.key.acl.", acls.defaults), ("whitelist.key.acl.", acls.whitelist)):
        acl = lists.get(KeyOperation.MANAGEMENT)
        if deletes and acl is not None and acl.everybody:
            name = prefix + KeyOperation.MANAGEMENT.value
            why = f"{name} and {_ACL}DELETE admit everybody: anybody may delete keys, and with them the data"
            hint = "name the key administrators in either"
            yield _finding(document, name, Severity.ERROR, Rule.ACL_OPEN, why, hint)


def _superuser_problems(document: AclDocument, superuser: str) -> Iterator[Finding]:
    decision = document.acls.decide_operation(Operation.DECRYPT_EEK, superuser, document.groups_of)
    if decision.allowed:
        name = _BLACKLIST + Operation.DECRYPT_EEK.value
        why = f"{superuser}, who runs the NameNode and may read every file's bytes, is not on {name}"
        hint = f"set {name} to {superuser}; the NameNode itself never decrypts"
        yield _finding(document, name, Severity.WARN, Rule.ACL_SUPERUSER_DECRYPTS, why, hint)
