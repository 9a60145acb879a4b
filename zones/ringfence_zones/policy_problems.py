"""Turns what pydantic found wrong with a document into findings: the line, a sentence, and what to write instead."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from ringfence_zones.findings import Finding, Rule, Severity
from ringfence_zones.policy_document import (
    AgentBlock,
    DefaultsBlock,
    FlowBlock,
    FlowControlBlock,
    KmsBlock,
    OutsideBlock,
    PolicyDocument,
    ZoneBlock,
)
from ringfence_zones.policy_yaml import LocatedDocument, Location

# Which model describes the block at the top-level field named; "" is the document itself.
_BLOCKS: dict[str, type[BaseModel]] = {
    "": PolicyDocument,
    "agent": AgentBlock,
    "defaults": DefaultsBlock,
    "flow_control": FlowControlBlock,
    "flows": FlowBlock,
    "kms": KmsBlock,
    "outside": OutsideBlock,
    "zones": ZoneBlock,
}
_WANTED = {
    "string_type": ("text", "quote it if it looks like a number or true/false"),
    "bool_type": ("true or false", "write true or false, unquoted"),
    "int_type": ("a whole number", "write it without quotes"),
    "tuple_type": ("a list", "write it as [one, two] or with one '- ' per line"),
    "dict_type": ("a block of fields", "indent its fields below it"),
    "model_type": ("a block of fields", "indent its fields below it"),
    "model_attributes_type": ("a block of fields", "indent its fields below it"),
}


def finding(located: LocatedDocument, location: Location, rule: Rule, message: str, hint: str) -> Finding:
    """An error at a place of the document."""
    where = located.where(location)
    return Finding(severity=Severity.ERROR, rule=rule, path=where, message=message, hint=hint)


def replace_nulls(located: LocatedDocument) -> tuple[Any, list[Finding]]:
    """The data without empty values, and a finding for each.

    Two fields mean something when empty: `flows:` and `outside:` then allow nothing, which is not what leaving
    them out means.
    """
    found: list[Finding] = []

    def clean(value: Any, location: Location) -> Any:
        if isinstance(value, dict):
            return {
                name: clean(item, (*location, name)) for name, item in value.items() if keep(item, (*location, name))
            }
        if isinstance(value, list):
            return [clean(item, (*location, at)) for at, item in enumerate(value) if keep(item, (*location, at))]
        if value is None:
            return [] if location == ("flows",) else {}
        return value

    def keep(item: Any, location: Location) -> bool:
        if item is not None or location in (("flows",), ("outside",)):
            return True
        found.append(
            finding(
                located, location, Rule.BAD_VALUE, f"{_name(location)} has no value", "give it one or remove the line"
            )
        )
        return False

    return clean(located.data, ()), found


def findings_of(error: ValidationError, located: LocatedDocument) -> list[Finding]:
    """One finding for each thing pydantic refused."""
    details = error.errors(include_url=False, include_input=True)
    return [_finding_of(detail, located) for detail in details]


def _finding_of(detail: ErrorDetails, located: LocatedDocument) -> Finding:
    location = tuple(part for part in detail["loc"] if part != "[key]")
    kind, context = detail["type"], detail.get("ctx", {})
    if kind == "ringfence":
        rule = Rule[context["rule"]]
        return finding(located, location, rule, f"{_name(location)}: {context['message']}", context["hint"])
    if kind == "extra_forbidden":
        return _unknown_field(location, located)
    if kind == "missing":
        hint = _MISSING_HINTS.get(str(location[-1]), "add it")
        return finding(located, location, Rule.MISSING_FIELD, f"{_name(location)} is missing", hint)
    if kind == "too_short":
        message = f"{_name(location)} is empty"
        return finding(located, location, Rule.BAD_VALUE, message, "name at least one user or @group")
    if kind == "literal_error":
        wanted = context["expected"]
        message = f"{_name(location)} is {_shown(detail['input'])}, which is none of {wanted}"
        return finding(located, location, Rule.BAD_VALUE, message, _nearest_literal(detail["input"], wanted))
    wanted, hint = _WANTED.get(kind, (detail["msg"], "correct the value"))
    message = f"{_name(location)} must be {wanted}, not {_shown(detail['input'])}"
    return finding(located, location, Rule.BAD_VALUE, message, hint)


_MISSING_HINTS = {
    "version": "begin the document with  version: 1",
    "cluster": "name the cluster, for example  cluster: analytics",
    "zones": "list the zones, each with its path;  zones: []  for none",
    "who": "name the users or @groups that may move data along this edge",
    "admins": "name who may create and roll keys, for example  admins: [hdfs]",
    "namenode_users": "name the user the NameNode runs as, for example  namenode_users: [hdfs]",
}


def _unknown_field(location: Location, located: LocatedDocument) -> Finding:
    name = str(location[-1])
    known = _known_fields(location)
    close = difflib.get_close_matches(name.lower().replace("-", "_"), known, n=1, cutoff=0.6)
    hint = f"did you mean {close[0]!r}?" if close else f"known here: {', '.join(known)}"
    return finding(located, location, Rule.UNKNOWN_FIELD, f"{_name(location)} is not a field of a policy", hint)


def _known_fields(location: Location) -> list[str]:
    block = _BLOCKS[str(location[0])] if len(location) > 1 else PolicyDocument
    return sorted(field.alias or name for name, field in block.model_fields.items())


def _nearest_literal(value: Any, wanted: str) -> str:
    words = [word.strip(" '\"") for word in wanted.replace(" or ", ",").split(",")]
    close = difflib.get_close_matches(str(value).lower(), words, n=1, cutoff=0.5)
    return f"did you mean {close[0]!r}?" if close else f"write {wanted}"


def _name(location: Iterable[str | int]) -> str:
    """`zones[1].mode`, the way people point at a value; counted from 0 like every path into a document."""
    out = ""
    for part in location:
        out += f"[{part}]" if isinstance(part, int) else f".{part}" if out else part
    return out or "the document"


def _shown(value: Any) -> str:
    if isinstance(value, dict):
        return "a block of fields"
    if isinstance(value, list):
        return "a list"
    text = {True: "true", False: "false"}.get(value, repr(value)) if isinstance(value, bool) else repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
