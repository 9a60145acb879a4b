"""Edits properties of a Hadoop `*-site.xml` file and leaves every other byte as it was.

`hadoop_conf.py` reads; this module writes, and tells where a property stands. Rules:

1. Only the text of a `<value>` changes, or a `<property>` is added after the last or taken out. Comments, blanks,
   order, line ends and encoding of the rest survive byte for byte: the file belongs to an administrator.
2. What the edit would not mean to Hadoop is refused, not guessed: XInclude, document types, a value written as an
   attribute, several values in one property, encodings other than UTF-8, ASCII and Latin-1.
3. A file is replaced whole or not at all: a temporary file beside it, fsync, rename, fsync of the directory, with
   the owner, mode and extended attributes of the old one. A file somebody changed in between is left alone.

Source of the format: `org.apache.hadoop.conf.Configuration.Parser` (a later property wins unless an earlier one
of the same name was final).
"""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn
from xml.parsers import expat

from ringfence_zones.bounded_file import read_bounded
from ringfence_zones.errors import ConfigError
from ringfence_zones.hadoop_conf import MAX_FILE_BYTES

_FIELDS = ("name", "value", "final")
_ENCODINGS = ("utf-8", "us-ascii", "iso-8859-1")
# XML 1.0, production 2: what a document may hold at all.
_ILLEGAL = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_ESCAPES = {"&": "&amp;", "<": "&lt;", ">": "&gt;", "\r": "&#13;"}


@dataclass(frozen=True, slots=True)
class SiteProperty:
    """A property as the file writes it: entities resolved, blanks kept, `${variables}` not expanded."""

    value: str
    final: bool


def read_property(document: bytes, name: str) -> SiteProperty | None:
    """The property of that name which Hadoop would use, None when the file does not set it.

    Raises ConfigError when the document is not one this module may edit.
    """
    return read_properties(document).get(name)


def read_properties(document: bytes) -> dict[str, SiteProperty]:
    """Every property that Hadoop would use, by name. Raises ConfigError as `read_property`."""
    return {name: SiteProperty(_value_of(found), found.final) for name, found in _effective(_scan(document)).items()}


def property_lines(document: bytes) -> dict[str, int]:
    """By name, the line on which the property that Hadoop would use begins. Raises ConfigError as `read_property`."""
    starts = {name: found.element.start for name, found in _effective(_scan(document)).items()}
    return {name: document.count(b"\n", 0, start) + 1 for name, start in starts.items()}


def set_property(document: bytes, name: str, value: str) -> bytes:
    """The document with that property set and all else untouched.

    The property Hadoop would use is the one edited when several have the name. Raises ConfigError when the
    document or the value cannot be written so that Hadoop reads it back the same.
    """
    return set_properties(document, {name: value})


def set_properties(document: bytes, properties: Mapping[str, str]) -> bytes:
    """As `set_property`, for several; those that are not there are added in the order given."""
    scan = _scan(document)
    found = _effective(scan)
    edited = document
    # From the end of the document to its beginning: an edit moves only what lies behind it.
    new = {name: _escape(value, scan.encoding) for name, value in properties.items() if name not in found}
    if new:
        edited = _insert(edited, scan, new)
    there = [(found[name], value) for name, value in properties.items() if name in found]
    for one, _ in there:
        _refuse_attribute(one)
    for one, value in sorted(there, key=lambda each: each[0].element.start, reverse=True):
        edited = _replace(edited, one, _escape(value, scan.encoding))
    written = read_properties(edited)
    for name, value in properties.items():
        if name not in written or written[name].value != value:
            raise ConfigError(f"the value {value!r} of {name} cannot be written to a Hadoop configuration file")
    return edited


def remove_properties(document: bytes, names: Sequence[str]) -> bytes:
    """The document without those properties, each with the line it stands on. Raises ConfigError as `set_property`."""
    scan = _scan(document)
    edited = document
    for found in sorted(scan.properties, key=lambda each: each.element.start, reverse=True):
        if found.name in names:
            start, end = found.element.start, found.element.end
            line = edited[: edited.rfind(b"\n", 0, start) + 1]
            # Alone on its lines: they go whole.
            if not edited[len(line) : start].strip(b" \t") and edited[end:].lstrip(b" \t")[:1] in (b"\n", b"\r"):
                start, end = len(line), edited.index(b"\n", end) + 1
            edited = edited[:start] + edited[end:]
    return edited


def read_document(path: Path) -> bytes:
    """The bytes of a configuration file, bounded. Raises ConfigError when it is missing, unreadable or too large."""
    return read_bounded(path, MAX_FILE_BYTES, ConfigError, kind="a Hadoop configuration file")


def replace_document(path: Path, document: bytes, *, expected: bytes) -> None:
    """Replaces the file atomically, keeping owner, group, mode and extended attributes.

    `expected` is what the caller read: when the file holds anything else by now, it is left alone. A symbolic link
    stays one; its target is replaced. Raises ConfigError, and then nothing was changed.
    """
    try:
        target = path.resolve(strict=True)
        temporary = _write_beside(target, document)
        try:
            _refuse_if_changed(target, expected)
            temporary.replace(target)
        except BaseException:
            with suppress(OSError):
                temporary.unlink()
            raise
        _fsync_directory(target.parent)
    except OSError as error:
        raise ConfigError(
            f"cannot write {path}: {error.strerror}",
            hint="run as a user who may replace the file in its directory and keep its owner",
        ) from error


def _refuse_if_changed(path: Path, expected: bytes) -> None:
    if read_document(path) != expected:
        raise ConfigError(f"{path} changed while it was being edited: nothing was written", hint="try again")


def _write_beside(target: Path, document: bytes) -> Path:
    status = target.stat()
    descriptor, name = tempfile.mkstemp(prefix=f".{target.name}.", suffix=".ringfence", dir=target.parent)
    try:
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(document)
            stream.flush()
            os.fchown(stream.fileno(), status.st_uid, status.st_gid)
            os.fchmod(stream.fileno(), status.st_mode & 0o7777)
            _copy_attributes(target, Path(name))
            os.fsync(stream.fileno())
    except BaseException:
        with suppress(OSError):
            Path(name).unlink()
        raise
    return Path(name)


def _copy_attributes(source: Path, target: Path) -> None:
    # POSIX ACLs live here: without them a reader that the administrator let in would be locked out. A label the
    # file system gives by itself (SELinux) may refuse to be set, and is right already.
    with suppress(OSError):
        for attribute in os.listxattr(source):
            with suppress(OSError):
                os.setxattr(target, attribute, os.getxattr(source, attribute))


def _fsync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


# --- finding the places -------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Element:
    """Byte offsets: `start` of `<`, `inside` after the start tag, `close` at the end tag, `end` after it."""

    start: int
    inside: int
    close: int = -1
    end: int = -1
    text: str = ""
    attributes: dict[str, str] = field(default_factory=dict)

    @property
    def self_closing(self) -> bool:
        return self.close == self.end


@dataclass(slots=True)
class _Property:
    element: _Element
    name: str = ""
    name_start: int = -1
    value: _Element | None = None
    final: bool = False
    # Whether some property of this name was final before its end.
    closed: bool = False


@dataclass(slots=True)
class _Scan:
    configuration: _Element
    properties: list[_Property]
    encoding: str


def _effective(scan: _Scan) -> dict[str, _Property]:
    """By name, the property that counts; one without a name counts for nothing."""
    chosen: dict[str, _Property] = {}
    for candidate in scan.properties:
        known = chosen.get(candidate.name)
        # Hadoop passes over an empty value: it does not take an earlier one's place. A final one keeps its own.
        if known is None or (not known.closed and _says_something(candidate)):
            chosen[candidate.name] = candidate
        if candidate.final:
            chosen[candidate.name].closed = True
    chosen.pop("", None)
    return chosen


def _value_of(found: _Property) -> str:
    return (found.value.text if found.value else "") or found.element.attributes.get("value", "")


def _refuse_attribute(found: _Property) -> None:
    if "value" in found.element.attributes:
        _refuse(f"it writes {found.name} as an attribute: write it as a <value> element")


def _says_something(candidate: _Property) -> bool:
    return bool(candidate.value.text) if candidate.value else "value" in candidate.element.attributes


def _scan(document: bytes) -> _Scan:
    if document[:2] in (b"\xff\xfe", b"\xfe\xff"):
        _refuse("it is UTF-16: use UTF-8")
    try:
        return _Scanner(document).run()
    except expat.ExpatError as error:
        _refuse(f"it is not well-formed XML: {error}")


def _refuse(why: str) -> NoReturn:
    raise ConfigError(
        f"this Hadoop configuration file cannot be edited: {why}", hint="correct the file, or set the property by hand"
    )


class _Scanner:
    """Walks the document once with expat, which reports byte offsets, and notes where each property stands."""

    def __init__(self, document: bytes) -> None:
        self._document = document
        self._stack: list[tuple[str, _Element]] = []
        self._properties: list[_Property] = []
        self._root: _Element | None = None
        self._encoding = "utf-8"
        parser = expat.ParserCreate()
        parser.buffer_text = True
        parser.XmlDeclHandler = self._declaration
        parser.StartDoctypeDeclHandler = lambda *_: _refuse("it declares a document type")
        parser.StartElementHandler = self._start
        parser.EndElementHandler = self._end
        parser.CharacterDataHandler = self._text
        self._parser = parser

    def run(self) -> _Scan:
        self._parser.Parse(self._document, True)
        if self._root is None:  # pragma: no cover - expat refuses a document without an element
            _refuse("it is empty")
        return _Scan(self._root, self._properties, self._encoding)

    def _declaration(self, _version: str, encoding: str | None, _standalone: int) -> None:
        self._encoding = (encoding or "utf-8").lower()
        if self._encoding not in _ENCODINGS:
            _refuse(f"its encoding is {encoding}: use UTF-8")

    def _start(self, tag: str, attributes: dict[str, str]) -> None:
        offset = self._parser.CurrentByteIndex
        element = _Element(offset, _end_of_tag(self._document, offset), attributes=attributes)
        depth = len(self._stack)
        if depth == 0:
            if tag != "configuration":
                _refuse(f"its top element is <{tag}>, not <configuration>")
            self._root = element
        else:
            self._check_place(tag)
        if depth == 1 and tag == "property":
            # Exactly so: Hadoop takes neither `TRUE` nor blanks around it.
            final = attributes.get("final") == "true"
            self._properties.append(_Property(element, attributes.get("name", "").strip(), final=final))
        self._stack.append((tag, element))

    def _check_place(self, tag: str) -> None:
        # Hadoop looks at names of elements, not at where they stand.
        depth, outer = len(self._stack), self._stack[-1][0]
        if tag.rpartition(":")[2] == "include":
            _refuse("it uses XInclude, so what Hadoop reads is not in this file alone")
        misplaced = (tag == "property" and depth != 1) or (tag in _FIELDS and depth != 2)
        if misplaced or outer in _FIELDS:
            _refuse(f"<{tag}> stands inside <{outer}>, where Hadoop reads it in a way of its own")

    def _text(self, text: str) -> None:
        if len(self._stack) == 3:  # configuration, property, name|value|final
            self._stack[-1][1].text += text

    def _end(self, _tag: str) -> None:
        tag, element = self._stack.pop()
        if self._document.startswith(b"/>", element.inside - 2):
            element.close = element.end = element.inside
        else:
            element.close = self._parser.CurrentByteIndex
            element.end = _end_of_tag(self._document, element.close)
        if len(self._stack) == 2 and self._stack[1][0] == "property":
            self._note(self._properties[-1], tag, element)

    @staticmethod
    def _note(owner: _Property, tag: str, element: _Element) -> None:
        if tag == "name":
            owner.name, owner.name_start = element.text.strip(), element.start
        elif tag == "value":
            if owner.value is not None:
                _refuse(f"property {owner.name} has two values")
            owner.value = element
        elif tag == "final":
            owner.final = element.text == "true"


def _end_of_tag(document: bytes, offset: int) -> int:
    """The offset after the `>` that ends the tag at `offset`; quoted attribute values may hold one."""
    quote = 0
    for position in range(offset, len(document)):
        byte = document[position]
        if quote:
            quote = 0 if byte == quote else quote
        elif byte in b"\"'":
            quote = byte
        elif byte == ord(">"):
            return position + 1
    return len(document)


# --- writing ------------------------------------------------------------------------------------------------------


def _escape(value: str, encoding: str) -> bytes:
    illegal = _ILLEGAL.search(value)
    if illegal:
        raise ConfigError(f"the character U+{ord(illegal[0]):04X} cannot stand in a Hadoop configuration file")
    escaped = "".join(_ESCAPES.get(character, character) for character in value)
    return escaped.encode(encoding, "xmlcharrefreplace")


def _replace(document: bytes, found: _Property, value: bytes) -> bytes:
    element = found.value
    if element is None:
        close = found.element.close
        return document[:close] + b"<value>" + value + b"</value>" + document[close:]
    if element.self_closing:
        return document[: element.start] + b"<value>" + value + b"</value>" + document[element.end :]
    return document[: element.inside] + value + document[element.close :]


def _insert(document: bytes, scan: _Scan, properties: Mapping[str, bytes]) -> bytes:
    newline = b"\r\n" if b"\r\n" in document else b"\n"
    outer, inner = _indentation(document, scan.properties)
    block = b"".join(
        newline + outer + b"<property>"
        + newline + inner + b"<name>" + _escape(name, scan.encoding) + b"</name>"
        + newline + inner + b"<value>" + value + b"</value>"
        + newline + outer + b"</property>"
        for name, value in properties.items()
    )  # fmt: skip
    root = scan.configuration
    if root.self_closing:
        opening = document[root.start : root.end].removesuffix(b"/>").rstrip() + b">"
        return document[: root.start] + opening + block + newline + b"</configuration>" + document[root.end :]
    anchor = scan.properties[-1].element.end if scan.properties else root.inside
    tail = b"" if document[anchor : root.close].lstrip(b" \t")[:1] in (b"\r", b"\n") else newline
    return document[:anchor] + block + tail + document[anchor:]


def _indentation(document: bytes, properties: Sequence[_Property]) -> tuple[bytes, bytes]:
    """How the last property is indented, and its name; two and four blanks when there is nothing to go by."""
    if not properties:
        return b"  ", b"    "
    outer = _blank_before(document, properties[-1].element.start, b"  ")
    start = properties[-1].name_start
    return outer, _blank_before(document, start, outer + b"  ") if start >= 0 else outer + b"  "


def _blank_before(document: bytes, offset: int, default: bytes) -> bytes:
    line = document[document.rfind(b"\n", 0, offset) + 1 : offset]
    return line if not line.strip(b" \t") else default
