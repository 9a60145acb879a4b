"""One unambiguous byte string for a row, the thing that tags, sums and AEAD bindings are computed over.

Rules: every field carries its type and its length, so no two different rows encode alike ("ab","c" against
"a","bc", NULL against an empty string, 1 against "1"). The first field names the kind of row, so that one kind never
passes for another. Described byte for byte in packaging/decisions/0004-embedded-store-format.md.
"""

from __future__ import annotations

import struct

_INTEGER = struct.Struct(">cIq")
_HEAD = struct.Struct(">cI")
_NULL = _HEAD.pack(b"n", 0)

Field = str | int | bytes | None


def encode_row(*fields: Field) -> bytes:
    """Type byte, four-byte big-endian length and value of each field in turn.

    Types: `n` NULL, `i` a signed 64-bit big-endian integer, `t` UTF-8 text, `b` bytes. Raises TypeError for any other
    type, OverflowError for an integer beyond 64 bits and UnicodeEncodeError for text that is not Unicode.
    """
    parts: list[bytes] = []
    for value in fields:
        if isinstance(value, str):
            text = value.encode()
            parts += (_HEAD.pack(b"t", len(text)), text)
        elif isinstance(value, bytes):
            parts += (_HEAD.pack(b"b", len(value)), value)
        elif value is None:
            parts.append(_NULL)
        elif type(value) is int:
            parts.append(_pack_integer(value))
        else:
            raise TypeError(f"a row holds no {type(value).__name__}")
    return b"".join(parts)


def _pack_integer(value: int) -> bytes:
    try:
        return _INTEGER.pack(b"i", 8, value)
    except struct.error as exc:
        raise OverflowError("a row holds integers of 64 bits") from exc
