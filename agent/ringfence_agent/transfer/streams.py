"""Files copied side by side by this machine: `copier.Copier` through the hands of the copying user."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait

from ringfence_agent.transfer.copier import Take
from ringfence_agent.transfer.hands import Hands
from ringfence_agent.transfer.progress import Meter
from ringfence_agent.transfer.record import Item, Transfer
from ringfence_agent.transfer.transient import TRANSIENT


class Streams:
    """See the module. A file that an earlier attempt left half written is written anew."""

    def __init__(self, hands: Hands, meter: Meter, streams: int) -> None:
        """`streams` is how many files are copied side by side."""
        self._hands = hands
        self._meter = meter
        self._streams = streams

    def check(self, transfer: Transfer) -> None:
        """Nothing stands in its way."""

    def copy(self, transfer: Transfer, items: Sequence[Item], take: Take, check_going: Callable[[], None]) -> None:
        """See `Copier`. `take` is called by several threads."""

        def copy_one(item: Item) -> None:
            check_going()
            source, copy = item.below(transfer.request.source), item.below(transfer.staging)
            take(item, self._hands.copy(source, copy, self._meter.moved))

        with ThreadPoolExecutor(self._streams, thread_name_prefix="transfer") as pool:
            under_way = [pool.submit(copy_one, item) for item in items]
            try:
                wait(under_way, return_when=FIRST_EXCEPTION)
                _raise_first(under_way)
            finally:
                for future in under_way:
                    future.cancel()

    def end(self, transfer: Transfer) -> None:
        """Nothing outlives `copy`."""


def _raise_first(futures: Iterable[Future[None]]) -> None:
    """The first failure in the files' order; one that is worth waiting for only when no other says that it is not."""
    done = [future for future in futures if future.done() and not future.cancelled()]
    errors = [error for future in done if (error := future.exception()) is not None]
    final = [error for error in errors if not isinstance(error, TRANSIENT)]
    for error in final or errors:
        raise error
