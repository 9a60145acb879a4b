"""Custody: who holds a zone's key, as policy, key attributes and commands spell it, and what it costs in HDFS. Pure.

Rules:

1. `envelope`: the key server holds the zone key, in memory for a bounded time. `transit`: Vault holds it, and each
   data key is wrapped and opened there.
2. A key has its custody from the attribute `ringfence.custody` that it is made with, and keeps it. Without the
   attribute it is `envelope`.
3. Only Ringfence's KMS knows custody: on any other the attribute is a word without effect, and nothing here reads it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, Literal, get_args

from ringfence_zones.errors import InputError

Custody = Literal["envelope", "transit"]
CUSTODIES: Final[tuple[Custody, ...]] = get_args(Custody)
DEFAULT_CUSTODY: Final[Custody] = "envelope"
# An attribute, so that Hadoop's own `hadoop key create -attr` can say it too.
CUSTODY_ATTRIBUTE: Final = "ringfence.custody"

# What form T1 of an EDEK has around the wrapped data key: a mark of 2 bytes and the key's version of 4, then of
# AES-GCM a nonce of 12 and a tag of 16. An envelope EDEK has nothing around it.
_TRANSIT_OVERHEAD_BYTES = 34


def parse_custody(attributes: Mapping[str, str]) -> Custody:
    """The custody that a key with these attributes is made in. Raises InputError for a word that names none."""
    word = attributes.get(CUSTODY_ATTRIBUTE, DEFAULT_CUSTODY)
    for custody in CUSTODIES:
        if word == custody:
            return custody
    raise InputError(
        f"{CUSTODY_ATTRIBUTE} {word!r} is no custody: it is {' or '.join(CUSTODIES)}",
        hint=f"without the attribute it is {DEFAULT_CUSTODY}",
    )


def custody_word(attributes: Mapping[str, str]) -> str:
    """What an existing key's attributes say, as it stands there: for showing and comparing."""
    return attributes.get(CUSTODY_ATTRIBUTE, DEFAULT_CUSTODY)


def edek_bytes(custody: Custody, length_bits: int) -> int:
    """The length of an EDEK under a key of this length, which each file has in the NameNode's memory."""
    return length_bits // 8 + (_TRANSIT_OVERHEAD_BYTES if custody == "transit" else 0)
