"""A security configuration from a file, from standard input, or from what AWS hands out.

What cannot be read as one JSON object raises; everything else becomes a document whose `problems` say which members
EMR does not know, or would not take as they are written.
"""

from __future__ import annotations

import enum
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ringfence_bootstrap.security_configuration.document import SecurityConfiguration
from ringfence_bootstrap.security_configuration.json_text import (
    MAX_DOCUMENT_BYTES,
    LocatedJson,
    Location,
    read_json,
    spelled,
)
from ringfence_bootstrap.security_configuration.names import hint_for_unknown
from ringfence_bootstrap.security_configuration.nodes import Kind, Member, Node
from ringfence_zones.errors import DocumentError, InputError
from ringfence_zones.findings import Finding, Rule, Severity

STANDARD_INPUT = "-"


def read_document(path: Path | str) -> SecurityConfiguration:
    """Reads FILE, or standard input when `path` is `-`. Raises InputError, and DocumentError as `parse_document`."""
    if str(path) == STANDARD_INPUT:
        return parse_document(_decoded(sys.stdin.buffer.read(MAX_DOCUMENT_BYTES + 1), "standard input"), "<stdin>")
    try:
        with Path(path).open("rb") as stream:
            data = stream.read(MAX_DOCUMENT_BYTES + 1)
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from error
    return parse_document(_decoded(data, str(path)), str(path))


def parse_document(text: str, name: str) -> SecurityConfiguration:
    """The document that `text` holds; `name` is what findings call it.

    Raises DocumentError, with every finding, for what is not one JSON object with each member written once.
    """
    source = read_json(text, name)
    if source.is_read and not isinstance(source.data, dict):
        message = "a security configuration is an object, {…}"
        hint = 'begin with  {"EncryptionConfiguration": {…}}'
        source.findings.append(_finding(source, Severity.ERROR, Rule.EMR_BAD_VALUE, (), message, hint))
    if source.findings:
        raise DocumentError(f"{name} is no security configuration that can be read", source.findings)
    reader = _Reader(source)
    attributes = reader.attributes(SecurityConfiguration, source.data, ())
    return SecurityConfiguration(**attributes, source=source, problems=tuple(reader.problems))


def _decoded(data: bytes, name: str) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise InputError(f"{name}:{line}: not UTF-8 text", hint="save the file as UTF-8") from error


def _finding(source: LocatedJson, severity: Severity, rule: Rule, place: Location, message: str, hint: str) -> Finding:
    return Finding(severity=severity, rule=rule, path=source.where(place), message=message, hint=hint)


class _Unreadable:
    """Marks a value that is not what its member should hold; the problem is noted already."""


_UNREADABLE = _Unreadable()
_BOOLEANS = {"true": True, "false": False}


class _Reader:
    """Plain values to nodes. What does not fit is noted in `problems` and kept as it is."""

    def __init__(self, source: LocatedJson) -> None:
        self._source = source
        self.problems: list[Finding] = []

    def attributes(self, kind: type[Node], data: dict[str, Any], place: Location) -> dict[str, Any]:
        """What `kind` is to be made with."""
        known = kind.members()
        out: dict[str, Any] = {}
        others: dict[str, Any] = {}
        for name, value in data.items():
            here = (*place, name)
            if name not in known:
                others[name] = value
                if not kind.is_open:
                    self._unknown(kind, name, here)
                continue
            attribute, member = known[name]
            read = self._read(member, value, here)
            if isinstance(read, _Unreadable):
                others[name] = value
            else:
                out[attribute] = read
        return out | {"place": place, "others": others, "order": tuple(data)}

    def _read(self, member: Member, value: Any, place: Location) -> Any:
        if value is None:
            message = f"{spelled(place)} is null"
            self._note(Severity.WARN, Rule.EMR_BAD_VALUE, place, message, "leave the member out instead")
            return _UNREADABLE
        read = self._fitting(member, value, place)
        if read is not None:
            return read
        message = f"{spelled(place)} must be {member.kind.value}, and is {_described(value)}"
        self._note(Severity.ERROR, Rule.EMR_BAD_VALUE, place, message, _form(member))
        return _UNREADABLE

    def _fitting(self, member: Member, value: Any, place: Location) -> Any:
        """The value as its member's type; None when it is of another."""
        read: Any = None
        match member.kind, value:
            case Kind.TEXT, str() if value or member.may_be_empty:
                read = value
            case Kind.BOOLEAN, bool():
                read = value
            case Kind.BOOLEAN, str() if value.lower() in _BOOLEANS:
                message = f"{spelled(place)} is written as the text {value!r}"
                hint = f"write {value.lower()} without quotes"
                self._note(Severity.WARN, Rule.EMR_TEXT_BOOLEAN, place, message, hint)
                read = _BOOLEANS[value.lower()]
            case Kind.WHOLE, int() if not isinstance(value, bool):
                read = value
            case Kind.CHOICE, str():
                read = self._choice(member, value, place)
            case Kind.TEXTS, list() if all(isinstance(item, str) and item for item in value):
                read = tuple(value)
            case Kind.NODE, dict():
                read = self._node(member, value, place)
            case Kind.NODES, list() if all(isinstance(item, dict) for item in value):
                read = tuple(self._node(member, item, (*place, at)) for at, item in enumerate(value))
        return read

    def _node(self, member: Member, value: dict[str, Any], place: Location) -> Node:
        assert member.of is not None
        assert issubclass(member.of, Node)
        return member.of(**self.attributes(member.of, value, place))

    def _choice(self, member: Member, value: str, place: Location) -> Any:
        words = list(_words(member))
        if value in words:
            assert member.of is not None
            return member.of(value)
        near = next((word for word in words if word.lower() == value.lower()), None)
        hint = f"write {near}" if near is not None else _form(member)
        message = f"{spelled(place)} is {value!r}, which EMR does not know"
        self._note(Severity.ERROR, Rule.EMR_BAD_VALUE, place, message, hint)
        return _UNREADABLE

    def _unknown(self, kind: type[Node], name: str, place: Location) -> None:
        message = f"{spelled(place)}: EMR knows no such member here, and refuses documents that have one"
        self._note(Severity.ERROR, Rule.EMR_UNKNOWN_MEMBER, place, message, hint_for_unknown(kind, name, place))

    def _note(self, severity: Severity, rule: Rule, place: Location, message: str, hint: str) -> None:
        self.problems.append(_finding(self._source, severity, rule, place, message, hint))


def _words(member: Member) -> Iterator[str]:
    if member.of is not None and issubclass(member.of, enum.Enum):
        yield from (word.value for word in member.of)


def _form(member: Member) -> str:
    match member.kind:
        case Kind.CHOICE:
            return f"write one of {', '.join(_words(member))}"
        case Kind.BOOLEAN:
            return "write true or false, without quotes"
        case Kind.WHOLE:
            return "write digits, without quotes"
        case Kind.TEXT:
            return 'write it in double quotes, "…", and not empty'
        case Kind.TEXTS:
            return 'write  ["…", "…"]  with no empty one'
        case Kind.NODES:
            return "write  [{…}, {…}]"
        case Kind.NODE:
            return "write  {…}"


def _described(value: Any) -> str:
    match value:
        case bool():
            return "true" if value else "false"
        case "":
            return "empty"
        case str():
            return f"the text {value!r}" if len(value) <= 80 else "a text"
        case int() | float():
            return f"the number {value}"
        case list():
            return "a list"
        case _:
            return "an object"
