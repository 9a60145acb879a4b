"""Keys as Hadoop's key providers see them: names, versions, metadata.

Source of the formats: `org.apache.hadoop.crypto.key.KeyProvider` (version names `name@N`, metadata) and
`org.apache.hadoop.crypto.CipherSuite`.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from ringfence_zones.secret import Secret

DEFAULT_LENGTH_BITS = 256
IV_BYTES = 16

# What every Hadoop key provider, JCEKS included, takes: the policy document allows no other name, although the
# KMS itself serves any name a Hadoop client creates.
POLICY_KEY_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,199}")


class CipherSuite(enum.Enum):
    """A cipher with the lengths it takes, in bits. OpenSSL's CTR codec on clients refuses 192, so it is not offered."""

    AES_CTR_NOPADDING = ("AES/CTR/NoPadding", (128, 256))

    def __init__(self, hadoop_name: str, lengths_bits: tuple[int, ...]) -> None:
        self.hadoop_name = hadoop_name
        self.lengths_bits = lengths_bits


DEFAULT_CIPHER = CipherSuite.AES_CTR_NOPADDING.hadoop_name


def version_name(key_name: str, version: int) -> str:
    """`name@N`, N counting from 0."""
    return f"{key_name}@{version}"


def split_version_name(name: str) -> tuple[str, int] | None:
    """`("name", N)`, split at the last `@`; None when it is not a version name."""
    base, at, number = name.rpartition("@")
    if not at or not base or not number.isascii() or not number.isdigit() or len(number) > 9:
        return None
    return base, int(number)


@dataclass(frozen=True, slots=True)
class KeyMetadata:
    """What a KMS tells about a key without its material.

    `length_bits` is the length of the material, `created_ms` epoch milliseconds, `versions` how many there are:
    the current one is `name@(versions - 1)`.
    """

    name: str
    cipher: str
    length_bits: int
    created_ms: int
    versions: int
    description: str | None = None
    attributes: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))

    @property
    def current_version_name(self) -> str:
        """The version that new EDEKs are made with."""
        return version_name(self.name, self.versions - 1)


@dataclass(frozen=True, slots=True)
class KeyVersion:
    """One version of a key with its material."""

    key_name: str
    version: int
    material: Secret

    @property
    def name(self) -> str:
        """`name@N`."""
        return version_name(self.key_name, self.version)
