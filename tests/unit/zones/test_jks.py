"""The JKS container, from bytes written here: what keytool makes is read in the tests of its two users."""

from __future__ import annotations

import hashlib
import struct
from pathlib import Path

import pytest

from ringfence_zones.errors import ConfigError
from ringfence_zones.jks import Jks, JksKey, is_jks, parse_jks, read_store_file
from ringfence_zones.secret import Secret

PASSWORD = Secret("pässword".encode())


def text(value: str) -> bytes:
    return struct.pack(">H", len(value.encode())) + value.encode()


def sized(value: bytes) -> bytes:
    return struct.pack(">I", len(value)) + value


def jks(*entries: bytes, version: int = 2, count: int | None = None) -> bytes:
    body = struct.pack(">III", 0xFEEDFEED, version, len(entries) if count is None else count) + b"".join(entries)
    whole = "pässword".encode("utf-16-be") + b"Mighty Aphrodite" + body
    return body + hashlib.sha1(whole, usedforsecurity=False).digest()


KEY = struct.pack(">I", 1) + text("kms") + bytes(8) + sized(b"hidden") + struct.pack(">I", 1)
CHAIN = text("X.509") + sized(b"leaf")
TRUSTED = struct.pack(">I", 2) + text("ca") + bytes(8) + text("X.509") + sized(b"authority")


def test_keys_stay_hidden_and_certificates_come_as_they_are() -> None:
    store = parse_jks(jks(KEY + CHAIN, TRUSTED), PASSWORD, "it")
    assert store == Jks((JksKey("kms", Secret(b"hidden"), (b"leaf",)),), (b"authority",))
    assert "hidden" not in repr(store).replace("hidden=", "")


def test_version_1_names_no_kind_of_certificate() -> None:
    old = struct.pack(">I", 2) + text("ca") + bytes(8) + sized(b"authority")
    assert parse_jks(jks(old, version=1), PASSWORD, "it").trusted == (b"authority",)


@pytest.mark.parametrize("length", range(len(jks(KEY + CHAIN, TRUSTED)) - 20))
def test_a_file_that_ends_anywhere_is_refused_with_and_without_its_password(length: int) -> None:
    whole = jks(KEY + CHAIN, TRUSTED)
    for password in (PASSWORD, None):
        with pytest.raises(ConfigError, match="it "):
            parse_jks(whole[:length] + bytes(20) if password is None else whole[:length], password, "it")


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (jks(version=3), "of a version"),
        (jks(count=2_000_000_000), "number of entries"),
        (jks(struct.pack(">I", 3) + text("x") + bytes(8)), "unknown kind"),
        (jks(KEY[:-4] + struct.pack(">I", 4_000_000_000)), "cut off"),
        (jks(TRUSTED.replace(b"X.509", b"X.510")), "not X.509"),
    ],
)
def test_a_damaged_file_is_refused_and_named(content: bytes, why: str) -> None:
    with pytest.raises(ConfigError, match=why) as refused:
        parse_jks(content, PASSWORD, "the store")
    assert refused.value.message.startswith("the store ")


def test_another_password_is_refused() -> None:
    with pytest.raises(ConfigError, match="password is another one"):
        parse_jks(jks(TRUSTED), Secret(b"other"), "it")


def test_a_file_is_read_to_a_bound_and_known_by_its_first_bytes(tmp_path: Path) -> None:
    large = tmp_path / "s"
    with large.open("wb") as stream:
        stream.truncate(9 * 1024 * 1024)
    with pytest.raises(ConfigError, match="larger than"):
        read_store_file(large, "the store")
    assert is_jks(jks())
    assert not is_jks(b"\x30")
