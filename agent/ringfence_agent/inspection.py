"""Looks at what is in directories: clear data where policy wants encryption, and samples of files' key versions.

Read-only and bounded: only directories above zones are listed, for what is in clear lies beside a zone or is one level
below such a directory; a directory in clear is one find, whatever is in it. Key versions are sampled: a few files of
zones chosen at random with each look, and every file that an event named. A sample proves nothing about the rest, and
findings say so.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ringfence_agent.events.zone_book import is_at_or_below
from ringfence_zones.encryption_xattrs import key_of_version
from ringfence_zones.errors import HdfsNotFoundError
from ringfence_zones.hdfs_interface import Entry, WatchedHdfs
from ringfence_zones.model import ClusterState, EncryptionZone
from ringfence_zones.policy import Policy

MAX_CLEAR = 100
MAX_PAGES = 20
SAMPLED_FILES = 4
_MAX_DEPTH = 12
_MAX_FOREIGN = 200
_LOOK_AGAIN_S = 60.0


@dataclass(frozen=True, slots=True)
class ForeignFile:
    """A file whose data key another key than its zone's wraps."""

    path: str
    zone: str
    zone_key: str
    version_name: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Inspection:
    """`clear` are entries in clear under `must_encrypt`, the first `MAX_CLEAR`; `clear_is_complete` says whether
    everything was looked at. `sampled` counts the files whose key version was read since the agent started."""

    clear: tuple[Entry, ...] = ()
    clear_is_complete: bool = True
    foreign: tuple[ForeignFile, ...] = ()
    sampled: int = 0


class Inspector:
    """Inspects when it is worth it, and otherwise says again what it saw. Belongs to the loop. `suspects` are files
    that events named; `forget` gets those that are in order."""

    def __init__(
        self,
        hdfs: WatchedHdfs,
        *,
        has_room: Callable[[], bool] = lambda: True,
        suspects: Callable[[], Sequence[str]] = lambda: (),
        forget: Callable[[Sequence[str]], None] = lambda _paths: None,
        clock: Callable[[], float] = time.monotonic,
        choose: random.Random | None = None,
    ) -> None:
        self._hdfs = hdfs
        self._has_room = has_room
        self._suspects = suspects
        self._forget = forget
        self._clock = clock
        self._choose = choose or random.Random()  # noqa: S311 - which files to look at is no secret
        self._foreign: dict[str, ForeignFile] = {}
        self._sampled = 0
        self._looked_again_s = float("-inf")
        self._clear: tuple[tuple[Entry, ...], bool] = ((), True)
        self._clear_of: tuple[object, ...] = ()

    def inspect(self, state: ClusterState, policy: Policy | None, txid: int | None) -> Inspection:
        """One look. Nothing is listed again while no edit was made since (`txid`). Raises the `HdfsError` family."""
        places = policy.must_encrypt if policy is not None else ()
        about = (txid, places, state.zones)
        if txid is None or about != self._clear_of:
            self._clear = self._find_clear(places, state.zones)
            self._clear_of = about
        self._look_again(state.zones)
        if self._has_room():
            for _ in range(SAMPLED_FILES):
                self._sample(state.zones)
        clear, is_complete = self._clear
        return Inspection(
            clear=clear,
            clear_is_complete=is_complete,
            foreign=tuple(self._foreign[path] for path in sorted(self._foreign)),
            sampled=self._sampled,
        )

    # Clear data

    def _find_clear(self, places: Sequence[str], zones: Sequence[EncryptionZone]) -> tuple[tuple[Entry, ...], bool]:
        found: list[Entry] = []
        pages = MAX_PAGES
        waiting = [place for place in places if not _zone_of(place, zones)]
        while waiting:
            directory = waiting.pop()
            after, has_more = "", True
            while has_more:
                if pages == 0 or len(found) >= MAX_CLEAR:
                    return tuple(found[:MAX_CLEAR]), False
                pages -= 1
                try:
                    page = self._hdfs.list_entries(directory, after)
                except HdfsNotFoundError:
                    break
                for entry in page.entries:
                    if _holds_zone(entry.path, zones):
                        waiting.append(entry.path)
                    elif not entry.is_encrypted:
                        found.append(entry)
                has_more = page.has_more and bool(page.entries)
                after = page.entries[-1].path.rpartition("/")[2] if page.entries else ""
        return tuple(sorted(found, key=lambda entry: entry.path)), True

    # Key versions

    def _look_again(self, zones: Sequence[EncryptionZone]) -> None:
        """At what events named since the last time, and once a minute at all that was found."""
        named = [path for path in self._suspects() if path not in self._foreign]
        if self._clock() >= self._looked_again_s + _LOOK_AGAIN_S:
            self._looked_again_s = self._clock()
            named = sorted({*self._suspects(), *self._foreign})
        for path in named[:_MAX_FOREIGN]:
            self._check(path, zones)
        self._forget([path for path in named[:_MAX_FOREIGN] if path not in self._foreign])

    def _sample(self, zones: Sequence[EncryptionZone]) -> None:
        if not zones:
            return
        place = self._choose.choice(zones).path
        for _ in range(_MAX_DEPTH):
            try:
                entries = self._hdfs.list_entries(place).entries
            except HdfsNotFoundError:
                return
            if not entries:
                return
            entry = self._choose.choice(entries)
            if not entry.is_directory:
                self._sampled += 1
                self._check(entry.path, zones)
                return
            place = entry.path

    def _check(self, path: str, zones: Sequence[EncryptionZone]) -> None:
        zone = _zone_of(path, zones)
        try:
            version = self._hdfs.find_key_version(path) if zone is not None else None
        except HdfsNotFoundError:
            version = None
        self._foreign.pop(path, None)
        if zone is None or version is None or key_of_version(version) == zone.key_name:
            return
        if len(self._foreign) < _MAX_FOREIGN:
            self._foreign[path] = ForeignFile(path, zone.path, zone.key_name, version)


def _zone_of(path: str, zones: Sequence[EncryptionZone]) -> EncryptionZone | None:
    around = [zone for zone in zones if is_at_or_below(path, zone.path)]
    return max(around, key=lambda zone: len(zone.path), default=None)


def _holds_zone(path: str, zones: Sequence[EncryptionZone]) -> bool:
    return any(zone.path != path and is_at_or_below(zone.path, path) for zone in zones) and not _zone_of(path, zones)
