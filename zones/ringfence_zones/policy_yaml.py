"""YAML read with positions: what a policy document says, and on which line it says it.

Events, never `safe_load`: a loader that builds plain objects forgets lines, lets the last of two equal fields win
and reads `0750` as 488. Rules:

1. Plain scalars mean what YAML 1.2's core schema says: `off`, `yes` and dates are text, `true` is a boolean. A
   whole number with a leading zero is refused: readers disagree on what it is.
2. A field written twice is a finding, not a choice.
3. Bounded: file size, nesting depth, and the number of values after aliases are expanded.
4. Tags are refused; nothing in a document ever names a type.

Everything that can be told in one pass is told: only a syntax error ends it early.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import yaml

from ringfence_zones.findings import Finding, Rule, Severity

MAX_DOCUMENT_BYTES = 4 * 1024 * 1024
MAX_DEPTH = 16
MAX_VALUES = 500_000

Location: TypeAlias = tuple[str | int, ...]

_Parser = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_INTEGER = re.compile(r"-?(0|[1-9][0-9]*)")
_LEADING_ZERO = re.compile(r"[-+]?0[0-9_]+|0o[0-7]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_CONSTANTS: dict[str, bool | None] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}


@dataclass(slots=True)
class LocatedDocument:
    """Plain values (dict, list, str, int, float, bool, None), the line of each, and what was wrong with the text."""

    name: str
    data: Any = None
    lines: dict[Location, int] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)

    def where(self, location: Location) -> str:
        """`FILE:LINE` of a value, or of the nearest thing around it that has a line."""
        return f"{self.name}:{self.line(location)}"

    def line(self, location: Location) -> int:
        """The line, counted from 1."""
        for length in range(len(location), -1, -1):
            line = self.lines.get(location[:length])
            if line is not None:
                return line
        return 1


class _StopError(Exception):
    """Reading cannot go on; the finding is in the document already."""


@dataclass(slots=True)
class _Node:
    """A value before it has a place: an alias puts the same node in several."""

    line: int
    scalar: Any = None
    items: list[_Node] | None = None
    fields: list[tuple[str, int, _Node]] | None = None


def read_yaml(text: str, name: str, most_values: int = MAX_VALUES) -> LocatedDocument:
    """Reads one YAML document. `name` is how findings call the file; who reads for others takes fewer values."""
    document = LocatedDocument(name)
    if len(text.encode("utf-8", "surrogatepass")) > MAX_DOCUMENT_BYTES:
        _add(document, 1, f"the document is larger than {MAX_DOCUMENT_BYTES} bytes", "a policy is far smaller")
        return document
    try:
        node = _Composer(document).compose(text)
        if node is not None:
            _Placer(document, most_values).place(node)
    except _StopError:
        pass
    except yaml.YAMLError as error:
        _add_syntax_error(document, text, error)
    return document


def _add(document: LocatedDocument, line: int, message: str, hint: str, rule: Rule = Rule.YAML_SYNTAX) -> None:
    where = f"{document.name}:{line}"
    document.findings.append(Finding(severity=Severity.ERROR, rule=rule, path=where, message=message, hint=hint))


def _add_syntax_error(document: LocatedDocument, text: str, error: yaml.YAMLError) -> None:
    mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
    line = mark.line + 1 if mark is not None else 1
    problem = getattr(error, "problem", None) or getattr(error, "reason", None) or "it cannot be read"
    lines = text.splitlines()
    shown = lines[line - 1] if 0 < line <= len(lines) else ""
    hint = "correct the YAML on or before this line"
    if re.search(r"[\[,:-]\s*[@*]", shown):
        hint = 'quote names that begin with @ or *: "@group", "*"'
    elif "\t" in shown:
        hint = "indent with spaces: YAML takes no tabs"
    _add(document, line, f"not well-formed YAML: {problem}", hint)


class _Composer:
    """Events to nodes, without recursion, so that no depth of brackets overflows a stack."""

    def __init__(self, document: LocatedDocument) -> None:
        self._document = document
        self._anchors: dict[str, _Node] = {}
        self._open: list[_Node] = []
        self._key: tuple[str, int] | None = None
        self._root: _Node | None = None
        self._documents = 0

    def compose(self, text: str) -> _Node | None:
        for event in self._events(text):
            self._take(event)
        return self._root

    @staticmethod
    def _events(text: str) -> Iterator[Any]:
        return iter(yaml.parse(text, Loader=_Parser))

    def _stop(self, line: int, message: str, hint: str) -> _StopError:
        _add(self._document, line, message, hint)
        return _StopError()

    def _take(self, event: Any) -> None:
        line = event.start_mark.line + 1
        match event:
            case yaml.ScalarEvent():
                self._refuse_tag(event, line)
                self._add(self._scalar(event, line), event.anchor)
            case yaml.SequenceStartEvent() | yaml.MappingStartEvent():
                self._refuse_tag(event, line)
                self._enter(event, line)
            case yaml.SequenceEndEvent() | yaml.MappingEndEvent():
                self._open.pop()
            case yaml.AliasEvent():
                self._alias(event.anchor or "", line)
            case yaml.DocumentStartEvent():
                self._documents += 1
                if self._documents > 1:
                    raise self._stop(line, "a second document starts here", "keep one document in one file")

    def _refuse_tag(self, event: Any, line: int) -> None:
        if event.tag is not None and event.tag != "!":
            raise self._stop(line, f"the tag {event.tag} is not used in a policy", "write the value without a tag")

    def _enter(self, event: Any, line: int) -> None:
        node = _Node(line, fields=[]) if isinstance(event, yaml.MappingStartEvent) else _Node(line, items=[])
        if len(self._open) >= MAX_DEPTH:
            raise self._stop(line, f"nested deeper than {MAX_DEPTH} levels", "a policy needs four")
        if self._wants_key():
            raise self._stop(line, "a field's name must be plain text", "write it as  name: value")
        self._add(node, event.anchor)
        self._open.append(node)

    def _wants_key(self) -> bool:
        return bool(self._open) and self._open[-1].fields is not None and self._key is None

    def _scalar(self, event: Any, line: int) -> _Node:
        # libyaml says "" where the Python parser says None.
        plain = not event.style and event.tag is None
        if not plain or self._wants_key():
            return _Node(line, scalar=event.value)
        if _LEADING_ZERO.fullmatch(event.value):
            message = f"{event.value} is not quoted: some readers take it for octal, others for decimal"
            octal = event.value.replace("0o", "0", 1)  # YAML 1.2's mark, which a mode is written without
            _add(self._document, line, message, f'write "{octal}"', Rule.BAD_VALUE)
            return _Node(line, scalar=octal)
        return _Node(line, scalar=_resolve(event.value))

    def _alias(self, anchor: str, line: int) -> None:
        node = self._anchors.get(anchor)
        if node is None:
            hint = 'quote a name that begins with *: "*"'
            raise self._stop(line, f"*{anchor} refers to nothing named &{anchor} before it", hint)
        if any(node is opened for opened in self._open):
            raise self._stop(line, f"*{anchor} contains itself", "write the value out")
        self._add(node, None)

    def _add(self, node: _Node, anchor: str | None) -> None:
        if anchor is not None:
            self._anchors[anchor] = node
        if not self._open:
            self._root = node
            return
        parent = self._open[-1]
        if parent.items is not None:
            parent.items.append(node)
        elif self._key is None:
            if not isinstance(node.scalar, str):
                raise self._stop(node.line, "a field's name must be plain text", "write it as  name: value")
            self._key = (node.scalar, node.line)
        elif parent.fields is not None:
            parent.fields.append((*self._key, node))
            self._key = None


def _resolve(text: str) -> Any:
    """A plain scalar by YAML 1.2's core schema."""
    if text in _CONSTANTS:
        return _CONSTANTS[text]
    if _INTEGER.fullmatch(text):
        return int(text) if len(text) <= 20 else text
    if _FLOAT.fullmatch(text):
        return float(text)
    return text


class _Placer:
    """Nodes to values with their places. Depth is bounded by the composer, aliases included by `most_values`."""

    def __init__(self, document: LocatedDocument, most_values: int) -> None:
        self._document = document
        self._most_values = most_values
        self._count = 0

    def place(self, node: _Node) -> None:
        self._document.data = self._value(node, (), node.line)

    def _value(self, node: _Node, location: Location, line: int) -> Any:
        self._count += 1
        if self._count > self._most_values or len(location) > 2 * MAX_DEPTH:
            message = f"more than {self._most_values} values once its aliases are written out"
            _add(self._document, node.line, message, "write the values out")
            raise _StopError
        self._document.lines[location] = line
        if node.items is not None:
            return [self._value(item, (*location, at), item.line) for at, item in enumerate(node.items)]
        if node.fields is not None:
            return self._mapping(node.fields, location)
        return node.scalar

    def _mapping(self, fields: list[tuple[str, int, _Node]], location: Location) -> dict[str, Any]:
        out: dict[str, Any] = {}
        for name, line, node in fields:
            if name in out:
                first = self._document.lines[(*location, name)]
                message = f"{name!r} is written twice; the first is on line {first}"
                _add(self._document, line, message, "keep one of the two", Rule.DUPLICATE_FIELD)
                continue
            out[name] = self._value(node, (*location, name), line)
        return out
