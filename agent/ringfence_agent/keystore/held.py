"""Key versions that somebody else holds: Vault Transit has the key, and the store only where it is there.

A key is held as a whole or not at all: each of its live versions is a version of one Transit key, whose name is random
and never used again. Nothing here is secret. Numbers of versions need not agree: Hadoop's count from 0 and go on after
a recreate, Transit's count from 1, with gaps where a rotation was made that no roll took.
"""

from __future__ import annotations

import base64
import re
import secrets
import struct
from dataclasses import dataclass

from ringfence_zones.keys import KeyMetadata, KeyVersion, version_name
from ringfence_zones.secret import Secret

_NAME = re.compile(r"z-[a-z2-7]{26}", re.ASCII)
_NAME_BYTES = 16
_VERSION = struct.Struct(">I")
_MAX_VERSION = 2**32 - 1


@dataclass(frozen=True, slots=True)
class TransitVersion:
    """Where a version is held: the name of the Transit key, and its version there, from 1."""

    key: str
    version: int

    def __post_init__(self) -> None:
        if _NAME.fullmatch(self.key) is None or not 1 <= self.version <= _MAX_VERSION:
            raise ValueError("this is no version of a Transit key for a zone")

    def __str__(self) -> str:
        return f"version {self.version} of the Transit key {self.key}"

    def to_bytes(self) -> bytes:
        """The version (4 bytes, big-endian) and the name in ASCII."""
        return _VERSION.pack(self.version) + self.key.encode()

    @classmethod
    def from_bytes(cls, content: bytes) -> TransitVersion:
        """What `to_bytes` gave. Raises ValueError."""
        if len(content) < _VERSION.size:
            raise ValueError("this is no version of a Transit key")
        (version,) = _VERSION.unpack_from(content)
        return cls(content[_VERSION.size :].decode("ascii"), version)


def new_transit_name() -> str:
    """`z-` and 128 random bits in 26 letters of base32: no two keys ever have the same, and it tells nothing."""
    return "z-" + base64.b32encode(secrets.token_bytes(_NAME_BYTES)).decode().rstrip("=").lower()


def is_zone_key_name(name: str) -> bool:
    """Whether a Transit key of this name can be a zone's."""
    return _NAME.fullmatch(name) is not None


@dataclass(frozen=True, slots=True)
class HeldVersion:
    """One version of a key without its material."""

    key_name: str
    version: int
    place: TransitVersion

    @property
    def name(self) -> str:
        """`name@N`."""
        return version_name(self.key_name, self.version)


@dataclass(frozen=True, slots=True)
class HeldKey:
    """A live key that is held, with all its live versions, oldest first."""

    metadata: KeyMetadata
    versions: tuple[HeldVersion, ...]

    @property
    def numbers(self) -> tuple[int, ...]:
        """Its live versions' numbers, oldest first."""
        return tuple(version.version for version in self.versions)

    @property
    def current(self) -> HeldVersion:
        """The version that new EDEKs are made with."""
        return self.versions[-1]


Material = Secret | TransitVersion
"""What a version is made of: material that the store seals, or the place where it is held."""
AnyVersion = KeyVersion | HeldVersion


def made_version(key_name: str, number: int, material: Material) -> AnyVersion:
    """The version that was made of this."""
    if isinstance(material, TransitVersion):
        return HeldVersion(key_name, number, material)
    return KeyVersion(key_name, number, material)
