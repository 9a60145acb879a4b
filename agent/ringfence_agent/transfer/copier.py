"""The one step of a transfer that moves data, whoever carries it out: streams of this machine, or a job on YARN.

A copier brings the content of files to their places in the staging place, closed to others, and says for each what it
read of the source and what it read back of the copy. Everything else (which files, whether the two agree, attributes,
whether the source changed, the placing) is the engine's, the same for both. What a copier did before the agent died, it
finds again by itself: the engine asks for what the ledger does not have yet.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from ringfence_agent.transfer.hands import Copied
from ringfence_agent.transfer.record import Item, Transfer

Take = Callable[[Item, Copied], None]
"""Called with each file that lies in the staging place; raises when the copier must not go on."""


class Copier(Protocol):
    """See the module. Methods may raise what `Hands` raises, and `TransferError` with what a user can do about it."""

    def check(self, transfer: Transfer) -> None:
        """Raises when this copier cannot carry out the transfer as things are."""

    def copy(self, transfer: Transfer, items: Sequence[Item], take: Take, check_going: Callable[[], None]) -> None:
        """Copies these files and gives each to `take`. Asks `check_going` often, which raises when it is to stop."""

    def end(self, transfer: Transfer) -> None:
        """Nothing of it runs any more when this returns, and nothing but the staging place is left."""
