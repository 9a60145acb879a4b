"""The few Java objects that stand in a JCEKS file, read and written byte for byte as Java's serialisation has them.

This is no deserialiser: nothing is looked up, made or called by name. Only the five classes of `_CLASSES` exist, each
with exactly the fields, serial number and flags written down there; any other class, an object inside an object, or a
stream that ends early is refused. Every length is checked against the bytes at hand before anything is taken.

Source of the format: Java Object Serialization Specification, section 6; the class descriptions are what JDK 8 to 21
and Hadoop 3 put on the wire.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from ringfence_zones.errors import InputError

SEALED = "com.sun.crypto.provider.SealedObjectForKeyProtector"
SECRET_KEY = "javax.crypto.spec.SecretKeySpec"  # noqa: S105 - a class's name
KEY_METADATA = "org.apache.hadoop.crypto.key.JavaKeyStoreProvider$KeyMetadata"
_BYTES = "[B"
_TEXT = "Ljava/lang/String;"

_MAGIC = b"\xac\xed\x00\x05"
_NULL, _REFERENCE, _CLASS, _OBJECT, _STRING, _ARRAY = range(0x70, 0x76)
_BLOCK, _END, _LONG_BLOCK = 0x77, 0x78, 0x7A
_FIRST_HANDLE = 0x7E0000
_HAS_WRITE_METHOD = 0x01
_MAX_SUPERCLASSES = 1
_MAX_DATA_BYTES = 1 << 20


class _Class(NamedTuple):
    """A class as its description on the wire: `fields` are (name, type signature) in the stream's order."""

    serial: int
    flags: int
    fields: tuple[tuple[str, str], ...]
    parent: str | None


_CLASSES = {
    SEALED: _Class(-3650226485480866989, 2, (), "javax.crypto.SealedObject"),
    "javax.crypto.SealedObject": _Class(
        4482838265551344752,
        2,
        (("encodedParams", _BYTES), ("encryptedContent", _BYTES), ("paramsAlg", _TEXT), ("sealAlg", _TEXT)),
        None,
    ),
    SECRET_KEY: _Class(6577238317307289933, 2, (("algorithm", _TEXT), ("key", _BYTES)), None),
    # Its one field is announced and never written: the class writes a block of its own instead.
    KEY_METADATA: _Class(
        8405872419967874451, 3, (("metadata", "Lorg/apache/hadoop/crypto/key/KeyProvider$Metadata;"),), None
    ),
    _BYTES: _Class(-5984413125824719648, 2, (), None),
}


@dataclass(frozen=True, slots=True, repr=False)
class JavaObject:
    """An object: its class, its fields, and what its class wrote beside them. It may hold a key, so it has no repr."""

    class_name: str
    values: Mapping[str, bytes | str]
    data: bytes = b""


def read_object(stream: bytes, at: int = 0) -> tuple[JavaObject, int]:
    """The object whose stream begins at `at`, and where it ends. Raises InputError."""
    reader = _Reader(stream, at)
    if reader.take(len(_MAGIC)) != _MAGIC:
        raise _refused("no Java object where one should be")
    if reader.byte() != _OBJECT:
        raise _refused("something else than a Java object")
    return reader.object(), reader.at


def is_stream(data: bytes) -> bool:
    """Whether this begins as every Java object's stream does."""
    return data.startswith(_MAGIC)


def write_object(made: JavaObject) -> bytes:
    """The stream of an object, as ObjectOutputStream writes it."""
    writer = _Writer()
    writer.object(made)
    return b"".join(writer.parts)


def modified_utf8(text: str) -> bytes:
    """`DataOutput.writeUTF` without the length: zero as two bytes, characters beyond 16 bits as two surrogates."""
    halves = text.encode("utf-16-be", "surrogatepass")
    units = (chr(unit) for (unit,) in struct.iter_unpack(">H", halves))
    return "".join(units).encode("utf-8", "surrogatepass").replace(b"\0", b"\xc0\x80")


def from_modified_utf8(data: bytes) -> str:
    """Raises InputError for what is not modified UTF-8 of proper Unicode text."""
    try:
        halves = data.replace(b"\xc0\x80", b"\0").decode("utf-8", "surrogatepass")
        return halves.encode("utf-16-be", "surrogatepass").decode("utf-16-be")
    except UnicodeDecodeError:
        raise _refused("text that is not Unicode") from None


class _Reader:
    def __init__(self, stream: bytes, at: int) -> None:
        self._stream = stream
        self.at = at
        # What a reference may point to; objects and their arrays are numbered too, but never referred to here.
        self._handles: list[str | None] = []

    def take(self, count: int) -> bytes:
        end = self.at + count
        if count < 0 or end > len(self._stream):
            raise _refused("a Java object that is cut off")
        taken = self._stream[self.at : end]
        self.at = end
        return taken

    def byte(self) -> int:
        return self.take(1)[0]

    def _number(self, form: str) -> int:
        (value,) = struct.unpack(form, self.take(struct.calcsize(form)))
        return int(value)

    def _text(self) -> str:
        return from_modified_utf8(self.take(self._number(">H")))

    def _referred(self) -> str:
        index = self._number(">i") - _FIRST_HANDLE
        found = self._handles[index] if 0 <= index < len(self._handles) else None
        if found is None:
            raise _refused("a reference to nothing usable")
        return found

    def _string(self) -> str:
        kind = self.byte()
        if kind == _REFERENCE:
            return self._referred()
        if kind != _STRING:
            raise _refused("something else where text should be")
        text = self._text()
        self._handles.append(text)
        return text

    def _class(self, depth: int = 0) -> str:
        """The name of a described class, which is then one of ours, described as it should be."""
        kind = self.byte()
        if kind == _REFERENCE:
            name = self._referred()
            if name not in _CLASSES:
                raise _refused("a reference to something that is no class")
            return name
        if kind != _CLASS or depth > _MAX_SUPERCLASSES:
            raise _refused("something else where a class should be described")
        name = self._text()
        known = _CLASSES.get(name)
        if known is None:
            raise _refused(f"an object of the class {name!r}, which has no place in a key store of Hadoop's")
        serial = self._number(">q")
        self._handles.append(name)
        flags, fields = self.byte(), tuple(self._field() for _ in range(self._field_count(known)))
        if self.byte() != _END:
            raise _refused("an annotated class")
        parent = self._parent(depth)
        if _Class(serial, flags, fields, parent) != known:
            raise _refused(f"another version of the class {name}")
        return name

    def _field_count(self, known: _Class) -> int:
        count = self._number(">H")
        if count != len(known.fields):
            raise _refused("a class with other fields than it should have")
        return count

    def _field(self) -> tuple[str, str]:
        type_code, name = chr(self.byte()), self._text()
        signature = self._string()
        if type_code not in "[L" or signature[:1] != type_code:
            raise _refused("a field of a type that no class here has")
        return name, signature

    def _parent(self, depth: int) -> str | None:
        if self._stream[self.at : self.at + 1] == bytes([_NULL]):
            self.at += 1
            return None
        return self._class(depth + 1)

    def object(self) -> JavaObject:
        name = self._class()
        if name == _BYTES:
            raise _refused("an array described as an object")
        self._handles.append(None)
        values: dict[str, bytes | str] = {}
        data = b""
        for described in _lineage(name):
            if described.flags & _HAS_WRITE_METHOD:
                data += self._data()
            else:
                for field, signature in described.fields:
                    values[field] = self._array() if signature == _BYTES else self._string()
        return JavaObject(name, values, data)

    def _array(self) -> bytes:
        if self.byte() != _ARRAY or self._class() != _BYTES:
            raise _refused("something else where bytes should be")
        self._handles.append(None)
        return self.take(self._number(">i"))

    def _data(self) -> bytes:
        parts: list[bytes] = []
        while True:
            kind = self.byte()
            if kind == _END:
                return b"".join(parts)
            if kind not in (_BLOCK, _LONG_BLOCK):
                raise _refused("an object inside a key's metadata")
            parts.append(self.take(self.byte() if kind == _BLOCK else self._number(">i")))
            if sum(map(len, parts)) > _MAX_DATA_BYTES:
                raise _refused(f"a key's metadata of more than {_MAX_DATA_BYTES} bytes")


class _Writer:
    def __init__(self) -> None:
        self.parts = [_MAGIC]
        self._handles: dict[tuple[str, str], int] = {}
        self._next = _FIRST_HANDLE

    def object(self, made: JavaObject) -> None:
        self.parts.append(bytes([_OBJECT]))
        self._class(made.class_name)
        self._next += 1
        for described in _lineage(made.class_name):
            if described.flags & _HAS_WRITE_METHOD:
                self._data(made.data)
            else:
                for field, _ in described.fields:
                    self._value(made.values[field])

    def _class(self, name: str | None) -> None:
        if name is None:
            self.parts.append(bytes([_NULL]))
        elif not self._refer("class", name):
            described = _CLASSES[name]
            self._say(">B", _CLASS)
            self._text(name)
            self._say(">q", described.serial)
            self._number("class", name)
            self._say(">BH", described.flags, len(described.fields))
            for field, signature in described.fields:
                self.parts.append(signature[:1].encode())
                self._text(field)
                if not self._refer("type", signature):
                    self._number("type", signature)
                    self._say(">B", _STRING)
                    self._text(signature)
            self._say(">B", _END)
            self._class(described.parent)

    def _value(self, value: bytes | str) -> None:
        if isinstance(value, str):
            self._say(">B", _STRING)
            self._next += 1
            self._text(value)
        else:
            self._say(">B", _ARRAY)
            self._class(_BYTES)
            self._next += 1
            self._say(">i", len(value))
            self.parts.append(value)

    def _data(self, data: bytes) -> None:
        # ObjectOutputStream hands out its buffer each 1,024 bytes.
        for start in range(0, len(data), 1024):
            block = data[start : start + 1024]
            if len(block) < 256:
                self._say(">BB", _BLOCK, len(block))
            else:
                self._say(">Bi", _LONG_BLOCK, len(block))
            self.parts.append(block)
        self._say(">B", _END)

    def _refer(self, kind: str, name: str) -> bool:
        handle = self._handles.get((kind, name))
        if handle is not None:
            self._say(">Bi", _REFERENCE, handle)
        return handle is not None

    def _number(self, kind: str, name: str) -> None:
        self._handles[kind, name] = self._next
        self._next += 1

    def _text(self, text: str) -> None:
        data = modified_utf8(text)
        self._say(">H", len(data))
        self.parts.append(data)

    def _say(self, form: str, *numbers: int) -> None:
        self.parts.append(struct.pack(form, *numbers))


def _lineage(name: str) -> list[_Class]:
    """The class and what it extends, the eldest first: the order of the fields' values."""
    described = _CLASSES[name]
    return [described] if described.parent is None else [*_lineage(described.parent), described]


def _refused(what: str) -> InputError:
    return InputError(f"the Java key store holds {what}")
