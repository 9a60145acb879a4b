"""The event stream: pages of edits behind a position, and what is lost.

Rules:

1. Nothing is remembered but the position; every answer names the edits it covers, so a gap is never passed over.
2. Lost are edits that the NameNode no longer has, and those of a NameNode that is behind the position (restored from
   an older image): in both cases the position means nothing any more.
3. What costs the NameNode nothing is asked first; a page is read only when there is an edit to read.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ringfence_zones.hdfs_interface import EventPage, NamespaceEvent, WatchedHdfs


@dataclass(frozen=True, slots=True)
class Read:
    """What one poll gave: events up to `txid`, the last edit that the NameNode had by then."""

    events: tuple[NamespaceEvent, ...]
    txid: int
    newest_txid: int


@dataclass(frozen=True, slots=True)
class Lost:
    """The edits from `after_txid` + 1 up to `next_txid` - 1 will not be seen; `next_txid` is 0 when a NameNode went
    back behind `after_txid`."""

    after_txid: int
    next_txid: int


class EventStream:
    """Reads through one gateway. Not thread-safe; raises the `HdfsError` family."""

    def __init__(self, hdfs: WatchedHdfs) -> None:
        self._hdfs = hdfs

    def poll(self, after_txid: int, creates_in: Sequence[str] = (), creates_not_in: Sequence[str] = ()) -> Read | Lost:
        """One page of what came after a transaction id."""
        newest = self._hdfs.last_transaction_id()
        if newest < 0:
            return Read((), after_txid, after_txid)  # it has no edit log yet
        if newest < after_txid:
            return Lost(after_txid, 0)
        if newest == after_txid:
            return Read((), after_txid, newest)
        return _judge(after_txid, newest, self._hdfs.read_events(after_txid, creates_in, creates_not_in))


def _judge(after_txid: int, newest: int, page: EventPage) -> Read | Lost:
    if page.first_txid is None or page.last_txid is None:
        return Read((), after_txid, newest)  # written, and not on disk yet
    if page.first_txid > after_txid + 1:
        return Lost(after_txid, page.first_txid)
    return Read(page.events, page.last_txid, max(newest, page.last_txid))
