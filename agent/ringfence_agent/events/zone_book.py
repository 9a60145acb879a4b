"""Where every zone root is at one transaction, by its inode, and where it belongs.

Pure. A listing of the zones says where they are at some moment near a transaction; events say how they went there. The
book is made from a listing and from then on follows events alone, so that a rename is always judged with the zones as
they were just before it. `home` is where a root was when it was first seen; a rename does not change it.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

from ringfence_zones.hdfs_interface import EventKind, NamespaceEvent
from ringfence_zones.model import EncryptionZone


@dataclass(frozen=True, slots=True)
class KnownZone:
    """A zone's root. `inode` is None until a listing showed it."""

    path: str
    key_name: str
    inode: int | None
    home: str

    def moved(self, source: str, target: str) -> KnownZone:
        """Where it is after a rename of itself or of a directory above it."""
        return replace(self, path=target + self.path[len(source) :])


@dataclass(frozen=True, slots=True)
class Displaced:
    """A root that a listing shows elsewhere than the events did: how it went there is not known."""

    zone: KnownZone
    found_at: str


@dataclass(frozen=True, slots=True)
class ZoneBook:
    """The zones, by path."""

    zones: tuple[KnownZone, ...] = ()

    def at_or_below(self, path: str) -> tuple[KnownZone, ...]:
        """The roots that a rename or removal of `path` takes along."""
        return tuple(zone for zone in self.zones if is_at_or_below(zone.path, path))

    def as_listed(self) -> tuple[EncryptionZone, ...]:
        """The form that `moves.decide_move` takes."""
        return tuple(EncryptionZone(zone.path, zone.key_name, zone.inode) for zone in self.zones)

    def after(self, event: NamespaceEvent) -> ZoneBook:
        """The book after an event; the same object when it is about no zone."""
        match event.kind:
            case EventKind.RENAME if event.target is not None:
                return self._after_rename(event.path, event.target)
            case EventKind.UNLINK:
                gone = self.at_or_below(event.path)
                return self._with(zone for zone in self.zones if zone not in gone) if gone else self
            case EventKind.ZONE if event.key and all(zone.path != event.path for zone in self.zones):
                return self._with((*self.zones, KnownZone(event.path, event.key, None, event.path)))
        return self

    def _after_rename(self, source: str, target: str) -> ZoneBook:
        moving = self.at_or_below(source)
        # An empty zone may have been replaced by what was renamed over it.
        replaced = [zone for zone in self.at_or_below(target) if zone not in moving]
        if not moving and not replaced:
            return self
        staying = (zone for zone in self.zones if zone not in moving and zone not in replaced)
        return self._with([*staying, *(zone.moved(source, target) for zone in moving)])

    def compare(
        self, listed: Sequence[EncryptionZone], policy_roots: Collection[str], *, lost: bool = False
    ) -> tuple[ZoneBook, list[Displaced]]:
        """The book as a listing of the same transaction has it, and the roots that moved unseen.

        A root that is where the policy wants a zone is at home there, unless it is another's home. When events were
        lost, one that is not at home counts wherever the book last had it: it may have gone home and away again.
        """
        by_inode: dict[int | None, KnownZone] = {zone.inode: zone for zone in self.zones if zone.inode is not None}
        unlisted = {zone.path: zone for zone in self.zones if zone.inode is None}
        pairs = [(zone, by_inode.get(zone.inode) or unlisted.get(zone.path)) for zone in listed]
        homes = {known.home: known for _, known in pairs if known is not None}
        zones, displaced = [], []
        for zone, known in pairs:
            wanted = zone.path in policy_roots and homes.get(zone.path, known) is known
            home = zone.path if known is None or wanted else known.home
            if known is not None and zone.path != home and (lost or known.path != zone.path):
                displaced.append(Displaced(known, zone.path))
            zones.append(KnownZone(zone.path, zone.key_name, zone.inode, home))
        return self._with(zones), displaced

    @staticmethod
    def _with(zones: object) -> ZoneBook:
        return ZoneBook(tuple(sorted(zones, key=lambda zone: zone.path)))  # type: ignore[call-overload]


def is_at_or_below(path: str, directory: str) -> bool:
    """Whether a canonical path is `directory` or something in it."""
    return path == directory or path.startswith(f"{directory.rstrip('/')}/")
