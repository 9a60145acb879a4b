from __future__ import annotations

import os
import stat
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ringfence_agent.keystore.file_protector import (
    FileProtector,
    new_root_key_text,
    parse_root_key,
    read_root_key,
)
from ringfence_agent.keystore.protector import MaterialBinding
from ringfence_agent.keystore.sealing import SealBrokenError
from ringfence_zones.errors import ConfigError
from ringfence_zones.secret import Secret

PATH = Path("/etc/ringfence/root.key")
HEX = b"0123456789abcdef" * 4
BINDING = MaterialBinding(1, b"s" * 16, "k", 0, "AES/CTR/NoPadding", 256, 1_700_000_000_000)


def write_key(path: Path, content: bytes = HEX, mode: int = 0o600) -> Path:
    path.write_bytes(content)
    path.chmod(mode)
    return path


def protector(byte: bytes = b"r") -> FileProtector:
    return FileProtector(Secret(byte * 32), PATH)


@pytest.mark.parametrize("content", [HEX, HEX + b"\n", HEX.upper()])
def test_64_hex_digits_are_32_bytes_with_or_without_one_newline(content: bytes) -> None:
    assert parse_root_key(content, PATH).reveal() == bytes.fromhex(HEX.decode())


@pytest.mark.parametrize("content", [b"\x00" * 32, b"\n" * 32, bytes(range(32)), b"z" * 31 + b"\n"])
def test_32_raw_bytes_are_taken_as_they_are(content: bytes) -> None:
    assert parse_root_key(content, PATH).reveal() == content


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\n",
        b"x" * 31,
        b"x" * 33,
        b"\x00" * 32 + b"\n",  # raw and a newline: is the newline part of it?
        HEX[:32],  # 128 bits in hex, not 256 raw
        HEX[:63],
        HEX + b"\n\n",
        HEX + b"\r\n",
        b" " + HEX,
        HEX + b"0",
        b"g" * 64,
        "é".encode() * 32,
    ],
)
def test_any_other_content_is_refused_without_quoting_it(content: bytes) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_root_key(content, PATH)
    assert str(caught.value) == f"root key file {PATH} holds neither 32 raw bytes nor 64 hex digits"


def test_a_new_root_key_is_random_and_readable() -> None:
    first, second = (parse_root_key(new_root_key_text(), PATH) for _ in range(2))
    assert len(first) == 32
    assert first != second


@pytest.mark.parametrize("mode", [0o600, 0o400])
def test_a_private_file_is_read(tmp_path: Path, mode: int) -> None:
    assert len(read_root_key(write_key(tmp_path / "key", mode=mode))) == 32


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o601, 0o777])
def test_a_file_that_others_can_reach_is_refused_with_the_command(tmp_path: Path, mode: int) -> None:
    path = write_key(tmp_path / "key", mode=mode)
    with pytest.raises(ConfigError, match=f"mode {mode:04o}") as caught:
        read_root_key(path)
    assert caught.value.command == f"chmod 600 {path}"


def test_a_symbolic_link_is_refused(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(write_key(tmp_path / "key"))
    with pytest.raises(ConfigError, match="symbolic link"):
        read_root_key(tmp_path / "link")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="does not exist"):
        read_root_key(tmp_path / "none")


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir, lambda path: os.mknod(path, stat.S_IFSOCK | 0o600)])
def test_what_is_not_a_file_is_refused_without_waiting_for_it(tmp_path: Path, make: object) -> None:
    assert callable(make)
    make(tmp_path / "key")
    with pytest.raises(ConfigError, match=r"not a regular file|cannot be opened"):
        read_root_key(tmp_path / "key")


def test_a_file_of_another_owner_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_key(tmp_path / "key")
    owner = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: owner + 1)
    with pytest.raises(ConfigError, match=f"belongs to uid {owner}"):
        read_root_key(path)


def test_the_header_is_recognised_by_its_own_root_key_alone() -> None:
    header = protector().new_header()
    assert protector().recognises(header)
    assert not protector(b"q").recognises(header)
    assert not protector().recognises(header[:-1])
    assert not protector().recognises(b"")
    assert protector().new_header() != header  # two stores of one root key are not linkable by it


def test_keys_differ_by_purpose_store_and_root_key() -> None:
    derived = {
        protector(root).open(store).derive(purpose)
        for root in (b"a", b"b")
        for store in (b"1" * 16, b"2" * 16)
        for purpose in ("row-tag", "row-element")
    }
    assert len(derived) == 8
    assert {len(key) for key in derived} == {32}


def test_sealed_material_opens_where_it_belongs() -> None:
    keys = protector().open(BINDING.store_id)
    sealed = keys.seal_material(BINDING, Secret(b"m" * 32))
    assert len(sealed) == 1 + 12 + 32 + 16
    assert keys.open_material(BINDING, sealed).reveal() == b"m" * 32
    assert keys.seal_material(BINDING, Secret(b"m" * 32)) != sealed


@pytest.mark.parametrize(
    "change",
    [
        {"schema": 2},
        {"store_id": b"t" * 16},
        {"key_name": "l"},
        {"version": 1},
        {"cipher": "AES/GCM/NoPadding"},
        {"length_bits": 128},
        {"created_ms": 0},
    ],
    ids=lambda change: next(iter(change)),
)
def test_sealed_material_opens_nowhere_else(change: dict[str, Any]) -> None:
    other = replace(BINDING, **change)
    keys = protector().open(BINDING.store_id)
    sealed = keys.seal_material(BINDING, Secret(b"m" * 32))
    with pytest.raises(SealBrokenError):
        keys.open_material(other, sealed)


def test_changed_or_foreign_seals_do_not_open() -> None:
    keys = protector().open(BINDING.store_id)
    sealed = keys.seal_material(BINDING, Secret(b"m" * 32))
    broken = [
        sealed[:position] + bytes([sealed[position] ^ 1]) + sealed[position + 1 :] for position in range(len(sealed))
    ]
    for attempt in [*broken, sealed[:-1], sealed + b"x", b"", sealed[:28]]:
        with pytest.raises(SealBrokenError):
            keys.open_material(BINDING, attempt)
    with pytest.raises(SealBrokenError):
        protector(b"q").open(BINDING.store_id).open_material(BINDING, sealed)


def test_nothing_prints_the_root_key() -> None:
    root = FileProtector(Secret(b"canary-root-key-canary-root-key-"), PATH)
    assert "canary" not in f"{root!r}{root.label}{vars(root)}{vars(root.open(b's' * 16))}"
