"""What the agent gives the tasks of a job to do, and what it believes of what they write. Pure functions.

The listing has one line for each map, a JSON array of files; a part file has one line of JSON for each file that was
copied (`copy_task` has the formats). Part files are written by containers as the copying user: they are read up to a
bound, and a record counts only when it names a file of the listing, once, and a copy that this file's number may have.
"""

from __future__ import annotations

import heapq
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, TypeAdapter, ValidationError

from ringfence_agent.transfer.hands import Copied
from ringfence_agent.transfer.record import Item
from ringfence_zones.errors import TransferError
from ringfence_zones.receipt import Sha256

MAX_PART_BYTES = 1024 * 1024
"""Of the records of one map: `_MAP_FILES` of the longest paths, every character escaped."""
_MAP_BYTES = 1024**3
_MAP_FILES = 32
PART = re.compile(r"part-[0-9]{5,9}")
_COPY = re.compile(r"([0-9]{1,9})\.m_[0-9]{1,9}_[0-9]{1,4}")
_ERROR_CHARACTERS = 400

_Length = Annotated[int, Field(ge=0, le=2**63 - 1)]


class _Line(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)
    path: str


class _Read(_Line):
    copy_name: Annotated[str, StringConstraints(max_length=64)] = Field(alias="copy")
    bytes_read: _Length
    sha256_read: Sha256
    bytes_back: _Length
    sha256_back: Sha256


class _Failed(_Line):
    error: str


_RECORD: TypeAdapter[_Read | _Failed] = TypeAdapter(_Read | _Failed)


class Records:
    """Takes part files one after the other; `numbers` are those of the listing's files, by path."""

    def __init__(self, numbers: Mapping[str, int]) -> None:
        self._numbers = numbers
        self._seen: set[str] = set()

    def take(self, part: str, content: bytes) -> list[tuple[str, str, Copied]]:
        """Path, name of the copy and what was read, of each file of a part.

        Raises TransferError for a record that is none, names no file of the listing, or one for the second time; and
        with a task's own words when it says that it could not copy a file.
        """
        found = []
        for line in content.decode("ascii", "replace").splitlines():
            # TextOutputFormat ends a key without a value with a tab.
            record = _parse(part, line.removesuffix("\t"))
            number = self._numbers.get(record.path)
            if number is None:
                raise TransferError(f"the job wrote of a file that it was not given ({part})", hint=_DISBELIEF)
            if record.path in self._seen:
                raise TransferError(f"the job wrote of one file twice ({part})", hint=_DISBELIEF)
            self._seen.add(record.path)
            if isinstance(record, _Failed):
                raise TransferError(f"the job could not copy {record.path or 'the source'}: {_printable(record.error)}")
            match = _COPY.fullmatch(record.copy_name)
            if match is None or match[1] != str(number):
                raise TransferError(f"the job wrote of a copy that is not this file's ({part})", hint=_DISBELIEF)
            copied = Copied(record.bytes_read, record.sha256_read, record.bytes_back, record.sha256_back)
            found.append((record.path, record.copy_name, copied))
        return found


_DISBELIEF = "nothing of it is believed; who else writes as the copying user in the target's zone?"


def encode_listing(items: Sequence[Item], numbers: Mapping[str, int], at_least: int) -> bytes:
    """The input of a job: as many lines as there will be maps, `at_least` so many where there are as many files.

    A map gets up to 32 files and about 1 GiB (one larger file makes a map of its own).
    """
    lines = []
    for share in _shares(items, at_least):
        files = [{"number": numbers[item.path], "path": item.path, "bytes": item.bytes} for item in share]
        lines.append(json.dumps(files, separators=(",", ":"), ensure_ascii=True))
    return "".join(f"{line}\n" for line in lines).encode("ascii")


def _shares(items: Sequence[Item], at_least: int) -> list[list[Item]]:
    needed = max(-(-sum(item.bytes for item in items) // _MAP_BYTES), -(-len(items) // _MAP_FILES), at_least, 1)
    count = min(needed, len(items))
    # The largest first, each to whoever has least: no map is much longer than the others.
    lightest = [(0, number) for number in range(count)]
    shares: list[list[Item]] = [[] for _ in range(count)]
    for item in sorted(items, key=lambda item: (-item.bytes, item.path)):
        weight, number = heapq.heappop(lightest)
        shares[number].append(item)
        if len(shares[number]) < _MAP_FILES:
            heapq.heappush(lightest, (weight + item.bytes, number))
    return shares


def numbers_of(items: Iterable[Item]) -> dict[str, int]:
    """The number of each file of a transfer, by its path: the same in each attempt."""
    return {item.path: number for number, item in enumerate(item for item in items if not item.is_directory)}


def _parse(part: str, line: str) -> _Read | _Failed:
    try:
        return _RECORD.validate_json(line)
    except ValidationError:
        raise TransferError(f"the job wrote what is no record ({part})", hint=_DISBELIEF) from None


def _printable(text: str) -> str:
    return "".join(each if each.isprintable() else "?" for each in text)[:_ERROR_CHARACTERS]
