"""Work of which nothing remains when it is given up, done for as long as its client is there.

What waits for Vault is such work: a client that ran out of patience comes again, and what it asked for before would
take the turn of others. Work that changes something is never given up like that.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from ringfence_agent.http.request import Request
from ringfence_agent.promise import Promise
from ringfence_zones.errors import StoreUnavailableError

T = TypeVar("T")


async def while_wanted(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """What `work` gives; it is cancelled where it waits when the client goes away.

    Raises StoreUnavailableError then, which is for the audit log and for a client that only closed its side.
    """
    if request.is_gone:
        work.close()
        raise _gone()
    task = asyncio.current_task()
    assert task is not None, "a coroutine that is awaited in a task"
    given_up = False

    def give_up() -> None:
        nonlocal given_up
        given_up = task.cancel()

    request.on_gone = give_up
    try:
        return await work
    except asyncio.CancelledError:
        if given_up and task.uncancel() == 0:
            raise _gone() from None
        raise  # the server's own doing
    finally:
        request.on_gone = None


def give_up_when_gone(request: Request, promise: Promise[Any]) -> None:
    """The same for a promise. Raises StoreUnavailableError at once when the client is gone already."""
    if request.is_gone:
        promise.keep(_gone())
        raise _gone()
    request.on_gone = lambda: promise.keep(_gone())


def _gone() -> StoreUnavailableError:
    return StoreUnavailableError("the client closed the connection before Vault answered: try again")
