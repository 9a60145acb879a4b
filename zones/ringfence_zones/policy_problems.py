"""Turns what pydantic found wrong with a document into findings: the line, a sentence, and what to write instead."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from ringfence_zones.findings import Finding, Rule, Severity
from ringfence_zones.policy_yaml import LocatedDocument, Location

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


def findings_of(error: ValidationError, located: LocatedDocument, model: type[BaseModel], what: str) -> list[Finding]:
    """One finding for each thing pydantic refused in a document of `model`; `what` is what people call one."""
    details = error.errors(include_url=False, include_input=True)
    return [_finding_of(detail, located, model, what) for detail in details]


def _finding_of(detail: ErrorDetails, located: LocatedDocument, model: type[BaseModel], what: str) -> Finding:
    location = tuple(part for part in detail["loc"] if part != "[key]")
    kind, context = detail["type"], detail.get("ctx", {})
    if kind == "ringfence":
        rule = Rule[context["rule"]]
        return finding(located, location, rule, f"{_name(location)}: {context['message']}", context["hint"])
    if kind == "extra_forbidden":
        return _unknown_field(location, located, model, what)
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
    "cases": "list the cases, each with user, from, to and expect",
    "expect": "say what is expected, for example  expect: {transfer: false}",
    "from": "name the path that the data comes from",
    "to": "name the path that the data goes to",
    "user": "name who moves the data",
    "version": "begin the document with  version: 1",
    "cluster": "name the cluster, for example  cluster: analytics",
    "zones": "list the zones, each with its path;  zones: []  for none",
    "who": "name the users or @groups that may move data along this edge",
    "admins": "name who may create and roll keys, for example  admins: [hdfs]",
    "namenode_users": "name the user the NameNode runs as, for example  namenode_users: [hdfs]",
}


def _unknown_field(location: Location, located: LocatedDocument, model: type[BaseModel], what: str) -> Finding:
    name = str(location[-1])
    known = sorted(field.alias or name for name, field in _block_at(location[:-1], model).model_fields.items())
    close = difflib.get_close_matches(name.lower().replace("-", "_"), known, n=1, cutoff=0.6)
    hint = f"did you mean {close[0]!r}?" if close else f"known here: {', '.join(known)}"
    return finding(located, location, Rule.UNKNOWN_FIELD, f"{_name(location)} is not a field of {what}", hint)


def _block_at(location: Location, model: type[BaseModel]) -> type[BaseModel]:
    """The model of the block at a place: places in lists and names in mappings do not lead deeper."""
    for part in location:
        field = next((field for name, field in model.model_fields.items() if part in (name, field.alias)), None)
        model = (_block_in(field.annotation) if field is not None else None) or model
    return model


def _block_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((block for block in map(_block_in, get_args(annotation)) if block is not None), None)


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
