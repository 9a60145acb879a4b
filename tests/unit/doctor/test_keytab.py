from __future__ import annotations

import struct
from pathlib import Path

import pytest

from ringfence_agent.doctor.keytab import KeytabEntry, read_keytab
from ringfence_zones.errors import ConfigError


def text(value: str) -> bytes:
    return struct.pack(">H", len(value)) + value.encode()


def entry(principal: str, kvno: int, kind: int, *, wide: bool = True) -> bytes:
    name, _, realm = principal.rpartition("@")
    parts = name.split("/")
    data = struct.pack(">H", len(parts)) + text(realm) + b"".join(map(text, parts))
    data += struct.pack(">IIBHH", 1, 0, kvno & 0xFF, kind, 4) + b"key!"
    data += struct.pack(">I", kvno) if wide else b""
    return struct.pack(">i", len(data)) + data


def keytab(*pieces: bytes) -> bytes:
    return b"\x05\x02" + b"".join(pieces)


def write(directory: Path, content: bytes) -> Path:
    path = directory / "kms.keytab"
    path.write_bytes(content)
    return path


def test_entries_are_read_and_holes_passed_over(tmp_path: Path) -> None:
    hole = struct.pack(">i", -8) + bytes(8)
    path = write(tmp_path, keytab(entry("HTTP/kms.example.com@EX", 300, 18), hole, entry("hdfs@EX", 2, 23, wide=False)))
    assert read_keytab(path) == [KeytabEntry("HTTP/kms.example.com@EX", 300, 18), KeytabEntry("hdfs@EX", 2, 23)]


@pytest.mark.parametrize(
    "content", [b"", b"\x05\x01", b"PEM", keytab(entry("a@B", 1, 18)[:-3]), keytab(struct.pack(">i", 2) + b"\0\1")]
)
def test_what_is_no_whole_keytab_is_refused(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(ConfigError, match="keytab"):
        read_keytab(write(tmp_path, content))


def test_a_missing_keytab_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot read the keytab"):
        read_keytab(tmp_path / "none")
