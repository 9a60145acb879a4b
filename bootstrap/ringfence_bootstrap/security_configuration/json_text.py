"""JSON read with positions: what a document says, and on which line it says it.

Python's own reader lets the last of two equal members win and forgets lines. Rules:

1. RFC 8259 and nothing more: no comments, no trailing commas, no NaN.
2. A member written twice is a finding, not a choice.
3. Bounded: size, nesting depth, number of values, digits of a number.

Reading goes on after a member that is written twice, and ends at the first thing that is not JSON.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from dataclasses import dataclass, field
from json import JSONDecodeError, JSONDecoder
from typing import Any, TypeAlias

from ringfence_zones.findings import Finding, Rule, Severity

MAX_DOCUMENT_BYTES = 1024 * 1024
MAX_DEPTH = 32
MAX_VALUES = 20_000
_MAX_DIGITS = 100
_MAX_SHOWN_NAME = 200

Location: TypeAlias = tuple[str | int, ...]

_STRINGS = JSONDecoder(strict=True)
_BLANKS = re.compile(r"[ \t\n\r]*")
_NUMBER = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][-+]?[0-9]+)?")
_WORD = re.compile(r"[A-Za-z]+")
_WORDS: dict[str, bool | None] = {"true": True, "false": False, "null": None}


@dataclass(slots=True)
class LocatedJson:
    """Plain values (dict, list, str, int, float, bool, None), the line of each, and what was wrong with the text.

    `data` is whole only when no finding is about syntax; `is_read` says so.
    """

    name: str
    data: Any = None
    lines: dict[Location, int] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)
    is_read: bool = False

    def where(self, location: Location) -> str:
        """`FILE:LINE` of a value, or of the nearest thing around it that has a line."""
        for length in range(len(location), -1, -1):
            line = self.lines.get(location[:length])
            if line is not None:
                return f"{self.name}:{line}"
        return f"{self.name}:1"


def spelled(location: Location) -> str:
    """How a place in a document is written: `EncryptionConfiguration.Overrides[0].BucketName`."""
    text = "".join(f"[{step}]" if isinstance(step, int) else f".{_shortened(step)}" for step in location)
    return text.removeprefix(".")


def _shortened(name: str) -> str:
    """One long name stands in the place of everything below it: findings would be larger than memory."""
    return name if len(name) <= _MAX_SHOWN_NAME else f"{name[:_MAX_SHOWN_NAME]}…"


def read_json(text: str, name: str) -> LocatedJson:
    """Reads one JSON value. `name` is how findings call the file. Never raises: everything wrong is a finding."""
    document = LocatedJson(name)
    if len(text.encode("utf-8", "surrogatepass")) > MAX_DOCUMENT_BYTES:
        _Reader("", document).refuse(0, f"the document is larger than {MAX_DOCUMENT_BYTES} bytes", "is it this file?")
        return document
    reader = _Reader(text, document)
    try:
        document.data = reader.read()
        document.is_read = True
    except _StopError:
        pass
    return document


class _StopError(Exception):
    """Reading cannot go on; the finding is in the document already."""


class _Reader:
    """Recursive descent, of bounded depth."""

    def __init__(self, text: str, document: LocatedJson) -> None:
        self._text = text
        self._document = document
        self._breaks = [match.start() for match in re.finditer("\n", text)]
        self._count = 0

    def read(self) -> Any:
        value, at = self._value(self._skip(0), ())
        at = self._skip(at)
        if at != len(self._text):
            raise self._stop(at, "something stands after the end of the document", "remove it")
        return value

    def refuse(self, at: int, message: str, hint: str, rule: Rule = Rule.EMR_JSON) -> None:
        where = f"{self._document.name}:{self._line(at)}"
        self._document.findings.append(
            Finding(severity=Severity.ERROR, rule=rule, path=where, message=message, hint=hint)
        )

    def _stop(self, at: int, message: str, hint: str) -> _StopError:
        self.refuse(at, message, hint)
        return _StopError()

    def _line(self, at: int) -> int:
        return bisect_right(self._breaks, at - 1) + 1 if at else 1

    def _skip(self, at: int) -> int:
        match = _BLANKS.match(self._text, at)
        return match.end() if match else at

    def _value(self, at: int, location: Location) -> tuple[Any, int]:
        self._count += 1
        if self._count > MAX_VALUES:
            raise self._stop(at, f"more than {MAX_VALUES} values", "is it this file?")
        if len(location) > MAX_DEPTH:
            raise self._stop(at, f"nested deeper than {MAX_DEPTH} levels", "a security configuration needs seven")
        self._document.lines.setdefault(location, self._line(at))
        match self._text[at : at + 1]:
            case "{":
                return self._object(at + 1, location)
            case "[":
                return self._array(at + 1, location)
            case '"':
                return self._string(at)
            case _:
                return self._plain(at)

    def _object(self, at: int, location: Location) -> tuple[dict[str, Any], int]:
        out: dict[str, Any] = {}
        at = self._skip(at)
        if self._text[at : at + 1] == "}":
            return out, at + 1
        while True:
            if self._text[at : at + 1] != '"':
                hint = "remove the comma before it" if self._text[at : at + 1] == "}" else 'write  "name": value'
                raise self._stop(at, "the name of a member is expected here, in double quotes", hint)
            began = at
            name, at = self._string(at)
            at = self._skip(at)
            if self._text[at : at + 1] != ":":
                raise self._stop(at, f"a colon is expected after {name!r}", 'write  "name": value')
            place = (*location, name)
            is_repeated = name in out
            if is_repeated:
                message = f"{spelled(place)} is written twice; the first is on line {self._document.lines[place]}"
                self.refuse(began, message, "keep one of the two", Rule.EMR_DUPLICATE_MEMBER)
            value, at = self._value(self._skip(at + 1), place)
            if not is_repeated:
                out[name] = value
            at = self._skip(at)
            match self._text[at : at + 1]:
                case ",":
                    at = self._skip(at + 1)
                case "}":
                    return out, at + 1
                case _:
                    raise self._stop(at, "a comma or } is expected here", "look at the end of the line before it")

    def _array(self, at: int, location: Location) -> tuple[list[Any], int]:
        out: list[Any] = []
        at = self._skip(at)
        if self._text[at : at + 1] == "]":
            return out, at + 1
        while True:
            value, at = self._value(at, (*location, len(out)))
            out.append(value)
            at = self._skip(at)
            match self._text[at : at + 1]:
                case ",":
                    at = self._skip(at + 1)
                case "]":
                    return out, at + 1
                case _:
                    raise self._stop(at, "a comma or ] is expected here", "look at the end of the line before it")

    def _string(self, at: int) -> tuple[str, int]:
        try:
            text, end = _STRINGS.raw_decode(self._text, at)
        except JSONDecodeError as error:
            message = f"a text that is not well-formed: {error.msg[:1].lower()}{error.msg[1:]}"
            hint = 'texts stand on one line in double quotes, " and \\ in them after a \\'
            raise self._stop(at, message, hint) from error
        return str(text), end

    def _plain(self, at: int) -> tuple[Any, int]:
        number = _NUMBER.match(self._text, at)
        if number is not None:
            digits = number.group()
            if len(digits) > _MAX_DIGITS:
                raise self._stop(at, f"a number of more than {_MAX_DIGITS} digits", "write a smaller one")
            is_whole = number.group(2) is None and number.group(3) is None
            value = int(digits) if is_whole else float(digits)
            if value in (float("inf"), float("-inf")):
                raise self._stop(at, f"{digits} is too large a number", "write a smaller one")
            return value, number.end()
        word = _WORD.match(self._text, at)
        if word is not None and word.group() in _WORDS:
            return _WORDS[word.group()], word.end()
        if at >= len(self._text):
            message = "the document is empty" if not self._text.strip() else "the document ends too early"
            raise self._stop(at, message, "is the file whole?")
        shown = word.group() if word is not None else self._text[at]
        hint = "JSON writes true, false and null in small letters, and texts in double quotes"
        raise self._stop(at, f"no value can begin with {shown!r}", hint)
