"""What HDFS writes about keys: real attributes, and anything else."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ringfence_zones.encryption_xattrs import key_of_version, read_key_name


def _field(number: int, value: bytes) -> bytes:
    assert len(value) < 128
    return bytes([number << 3 | 2, len(value)]) + value


# suite 2, version 2, key name: as the inotify event of a created zone shows it.
ZONE = bytes([8, 2, 16, 2]) + _field(3, b"analytics-data-pii")
FILE = _field(1, b"\x01" * 16) + _field(2, b"\x02" * 16) + _field(3, b"analytics-data-pii@3")


def test_the_key_of_a_zone_and_the_version_of_a_file_are_read() -> None:
    assert read_key_name(ZONE) == "analytics-data-pii"
    assert read_key_name(FILE) == "analytics-data-pii@3"


def test_what_follows_the_name_does_not_matter() -> None:
    reencryption = _field(4, _field(1, b"analytics-data-pii@1") + bytes([16, 5]))
    assert read_key_name(ZONE + reencryption) == "analytics-data-pii"


def test_long_data_keys_and_fixed_fields_are_passed_over() -> None:
    long = bytes([1 << 3 | 2, 0xC8, 0x01]) + b"v" * 200
    fixed = bytes([5 << 3 | 1]) + b"8" * 8 + bytes([6 << 3 | 5]) + b"4" * 4
    assert read_key_name(long + fixed + _field(3, b"k@0")) == "k@0"


@pytest.mark.parametrize(
    "message",
    [b"", b"\x08", b"\x1a\x05abc", b"\xff" * 20, b"\x0b\x01", _field(3, b"\xff\xfe"), bytes([1 << 3 | 2, 100])],
)
def test_what_is_no_such_message_has_no_name(message: bytes) -> None:
    assert read_key_name(message) is None


@given(st.binary(max_size=200))
def test_no_bytes_end_it(message: bytes) -> None:
    name = read_key_name(message)
    assert name is None or isinstance(name, str)


@pytest.mark.parametrize(("version", "key"), [("pii@3", "pii"), ("a@b@0", "a@b"), ("no-version", "")])
def test_a_version_is_of_the_key_before_the_last_at(version: str, key: str) -> None:
    assert key_of_version(version) == key
