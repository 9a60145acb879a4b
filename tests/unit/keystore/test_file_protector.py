from __future__ import annotations

import os
import stat
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ringfence_agent.keystore.protector import MaterialBinding
from ringfence_agent.keystore.protectors.file import (
    FileProtector,
    new_root_key_text,
    parse_root_key,
    read_root_key,
)
from ringfence_agent.keystore.sealing import SealBrokenError
from ringfence_agent.keystore.store_root import StoreRoot
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


STORE_ID = b"s" * 16
ROOT = Secret(b"R" * 32)


def test_a_slot_is_recognised_by_its_own_root_key_alone() -> None:
    body = protector().seal_root(STORE_ID, ROOT)
    assert len(body) == 16 + 32 + 1 + 12 + 32 + 16
    assert protector().recognises(body)
    assert not protector(b"q").recognises(body)
    assert not protector().recognises(body[:47])
    assert not protector().recognises(b"")
    assert protector().seal_root(STORE_ID, ROOT)[:48] != body[:48]  # two stores of one root key are not linkable by it


def test_a_slot_gives_the_root_to_its_own_root_key_in_its_own_store() -> None:
    body = protector().seal_root(STORE_ID, ROOT)
    assert protector().open_root(STORE_ID, body) == ROOT
    for stranger, store_id in ((protector(b"q"), STORE_ID), (protector(), b"t" * 16)):
        with pytest.raises(SealBrokenError):
            stranger.open_root(store_id, body)


def test_a_changed_slot_gives_nothing() -> None:
    body = protector().seal_root(STORE_ID, ROOT)
    for position in range(48, len(body)):
        broken = body[:position] + bytes([body[position] ^ 1]) + body[position + 1 :]
        assert protector().recognises(broken)
        with pytest.raises(SealBrokenError):
            protector().open_root(STORE_ID, broken)
    assert not protector().recognises(bytes([body[0] ^ 1]) + body[1:])


def test_in_a_store_of_an_old_format_the_root_key_is_the_root() -> None:
    old = protector().seal_root(STORE_ID, ROOT)[:48]
    assert protector().recognises(old)
    assert protector().open_root(STORE_ID, old) == Secret(b"r" * 32)
    assert protector().materials(old) is None


def test_keys_differ_by_purpose_store_and_root() -> None:
    derived = {
        StoreRoot(Secret(root * 32), store).derive(purpose)
        for root in (b"a", b"b")
        for store in (b"1" * 16, b"2" * 16)
        for purpose in ("row-tag", "row-element")
    }
    assert len(derived) == 8
    assert {len(key) for key in derived} == {32}


def test_material_sealed_under_the_root_opens_where_it_belongs() -> None:
    root = StoreRoot(ROOT, BINDING.store_id)
    sealed = root.seal_material(Secret(b"m" * 32), BINDING.encoded)
    assert len(sealed) == 1 + 12 + 32 + 16
    assert root.open_material(sealed, BINDING.encoded).reveal() == b"m" * 32
    assert root.seal_material(Secret(b"m" * 32), BINDING.encoded) != sealed


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
def test_material_sealed_under_the_root_opens_nowhere_else(change: dict[str, Any]) -> None:
    root = StoreRoot(ROOT, BINDING.store_id)
    sealed = root.seal_material(Secret(b"m" * 32), BINDING.encoded)
    with pytest.raises(SealBrokenError):
        root.open_material(sealed, replace(BINDING, **change).encoded)


def test_changed_or_foreign_seals_do_not_open() -> None:
    root = StoreRoot(ROOT, BINDING.store_id)
    sealed = root.seal_material(Secret(b"m" * 32), BINDING.encoded)
    broken = [
        sealed[:position] + bytes([sealed[position] ^ 1]) + sealed[position + 1 :] for position in range(len(sealed))
    ]
    for attempt in [*broken, sealed[:-1], sealed + b"x", b"", sealed[:28]]:
        with pytest.raises(SealBrokenError):
            root.open_material(attempt, BINDING.encoded)
    with pytest.raises(SealBrokenError):
        StoreRoot(Secret(b"Q" * 32), BINDING.store_id).open_material(sealed, BINDING.encoded)


def test_nothing_prints_the_root_key() -> None:
    canary = Secret(b"canary-root-key-canary-root-key-")
    of_file, root = FileProtector(canary, PATH), StoreRoot(canary, b"s" * 16)
    assert "canary" not in f"{of_file!r}{of_file.label}{vars(of_file)}{root!r}{vars(root)}"
