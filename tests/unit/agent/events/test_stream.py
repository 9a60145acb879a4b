"""Positions and gaps, with answers that tests write."""

from __future__ import annotations

import pytest

from ringfence_agent.events.stream import EventStream, Lost, Read
from ringfence_zones.hdfs_interface import EventKind, EventPage, NamespaceEvent

EVENT = NamespaceEvent(12, EventKind.RENAME, "/a", "/b")


class _NameNode:
    def __init__(self, newest: int, page: EventPage | None = None) -> None:
        self.newest = newest
        self.page = page

    def last_transaction_id(self) -> int:
        return self.newest

    def read_events(self, after_txid: int, _within: object, _not_within: object) -> EventPage:
        assert self.page is not None, f"nothing was to be read after {after_txid}"
        return self.page


@pytest.mark.parametrize(
    ("namenode", "outcome"),
    [
        (_NameNode(10), Read((), 10, 10)),
        (_NameNode(12, EventPage((EVENT,), 11, 12, 12)), Read((EVENT,), 12, 12)),
        # More than fits into a page, and an edit that came in between.
        (_NameNode(5000, EventPage((EVENT,), 11, 1010, 5000)), Read((EVENT,), 1010, 5000)),
        (_NameNode(11, EventPage((EVENT,), 11, 12, 12)), Read((EVENT,), 12, 12)),
        # Written and not on disk yet; a NameNode that is becoming the active one.
        (_NameNode(12, EventPage((), None, None, 10)), Read((), 10, 12)),
        (_NameNode(-1), Read((), 10, 10)),
        # Purged; restored from an older image.
        (_NameNode(90, EventPage((EVENT,), 51, 90, 90)), Lost(10, 51)),
        (_NameNode(9), Lost(10, 0)),
    ],
)
def test_every_answer_names_the_edits_it_covers(namenode: _NameNode, outcome: Read | Lost) -> None:
    stream = EventStream(namenode)  # type: ignore[arg-type]
    assert stream.poll(10) == outcome
