"""Where zones are, event by event, and what a listing adds to it."""

from __future__ import annotations

from ringfence_agent.events.zone_book import Displaced, KnownZone, ZoneBook, is_at_or_below
from ringfence_zones.hdfs_interface import EventKind, NamespaceEvent
from ringfence_zones.model import EncryptionZone


def _known(path: str, inode: int | None, home: str | None = None) -> KnownZone:
    return KnownZone(path, f"k{inode}", inode, home or path)


BOOK = ZoneBook((_known("/d/a", 1), _known("/d/a2", 2), _known("/z", 3)))


def _renamed(source: str, target: str) -> NamespaceEvent:
    return NamespaceEvent(9, EventKind.RENAME, source, target)


def _places(book: ZoneBook) -> dict[str, int | None]:
    return {zone.path: zone.inode for zone in book.zones}


def test_a_rename_takes_a_root_along_and_keeps_its_home() -> None:
    after = BOOK.after(_renamed("/d/a", "/x"))
    assert _places(after) == {"/x": 1, "/d/a2": 2, "/z": 3}
    assert [zone.home for zone in after.zones] == ["/d/a2", "/d/a", "/z"]


def test_a_rename_above_takes_all_along() -> None:
    assert _places(BOOK.after(_renamed("/d", "/e"))) == {"/e/a": 1, "/e/a2": 2, "/z": 3}


def test_names_are_compared_whole() -> None:
    assert BOOK.after(_renamed("/d/a3", "/x")) is BOOK
    assert not is_at_or_below("/d/a2", "/d/a")
    assert is_at_or_below("/d/a", "/")


def test_what_is_about_no_zone_changes_nothing() -> None:
    assert BOOK.after(_renamed("/d/a/inside", "/d/a/other")) is BOOK
    assert BOOK.after(NamespaceEvent(9, EventKind.CREATE, "/d/new")) is BOOK
    assert BOOK.after(NamespaceEvent(9, EventKind.UNLINK, "/other")) is BOOK


def test_an_empty_zone_that_something_is_renamed_over_is_gone() -> None:
    assert _places(BOOK.after(_renamed("/plain", "/z"))) == {"/d/a": 1, "/d/a2": 2}
    assert _places(BOOK.after(_renamed("/d/a", "/z"))) == {"/d/a2": 2, "/z": 1}


def test_a_removal_takes_everything_below() -> None:
    assert _places(BOOK.after(NamespaceEvent(9, EventKind.UNLINK, "/d"))) == {"/z": 3}


def test_a_new_zone_is_known_before_a_listing_shows_its_inode() -> None:
    made = BOOK.after(NamespaceEvent(9, EventKind.ZONE, "/new", key="kn"))
    assert _places(made)["/new"] is None
    moved = made.after(_renamed("/new", "/elsewhere"))
    listed = [EncryptionZone("/elsewhere", "kn", 5), EncryptionZone("/z", "k3", 3)]
    book, displaced = moved.compare(listed, frozenset())
    assert displaced == []
    assert [(zone.path, zone.inode, zone.home) for zone in book.zones] == [("/elsewhere", 5, "/new"), ("/z", 3, "/z")]


def test_a_zone_whose_attribute_is_written_again_is_the_same() -> None:
    assert BOOK.after(NamespaceEvent(9, EventKind.ZONE, "/z", key="k3")) is BOOK


def test_a_listing_tells_what_moved_unseen_by_inode() -> None:
    listed = [EncryptionZone("/x", "k1", 1), EncryptionZone("/d/a", "new", 8), EncryptionZone("/z", "k3", 3)]
    book, displaced = BOOK.compare(listed, frozenset())
    assert displaced == [Displaced(_known("/d/a", 1), "/x")]
    assert [(zone.path, zone.home) for zone in book.zones] == [("/d/a", "/d/a"), ("/x", "/d/a"), ("/z", "/z")]


def test_where_the_policy_wants_a_zone_it_is_at_home() -> None:
    moved = BOOK.after(_renamed("/z", "/y"))
    book, displaced = moved.compare([EncryptionZone("/y", "k3", 3)], frozenset({"/y"}))
    assert displaced == []
    assert [zone.home for zone in book.zones] == ["/y"]
