"""The store's thread as the event loop sees it: how long anybody waits, and for what."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator

import pytest
from memory_keystore import MemoryKeyStore

from ringfence_agent.http.generation import GenerationTable
from ringfence_agent.keystore.interface import OpenStore
from ringfence_agent.kms import store_access
from ringfence_agent.kms.store_access import StoreAccess
from ringfence_zones.errors import StoreUnavailableError


class Hang:
    """A store that does not answer until it is let go."""

    def __init__(self) -> None:
        self.access = StoreAccess(MemoryKeyStore(), GenerationTable(1).view(0), GenerationTable(1).view(0))
        self.begun, self.over = threading.Event(), threading.Event()
        self.done: list[str] = []

    def hang(self, _store: OpenStore) -> None:
        self.begun.set()
        self.over.wait(10)

    def do(self, name: str) -> None:
        self.done.append(name)


@pytest.fixture
def hang(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hang]:
    monkeypatch.setattr(store_access, "_READ_PATIENCE_S", 0.05)
    monkeypatch.setattr(store_access, "_CHANGE_PATIENCE_S", 0.05)
    hang = Hang()
    yield hang
    hang.over.set()
    hang.access.close()


def test_nobody_waits_for_ever_for_a_store_that_hangs(hang: Hang) -> None:
    with pytest.raises(StoreUnavailableError, match=r"did not answer within .* nothing was changed"):
        asyncio.run(hang.access.read(hang.hang))


def test_of_a_change_under_way_nobody_says_that_it_was_not_made(hang: Hang) -> None:
    with pytest.raises(StoreUnavailableError, match="not known"):
        asyncio.run(hang.access.change(hang.hang))


def test_what_had_not_begun_when_its_time_was_up_is_never_done(hang: Hang) -> None:
    async def ask() -> None:
        hanging = asyncio.ensure_future(hang.access.change(hang.hang))
        await asyncio.get_running_loop().run_in_executor(None, hang.begun.wait, 10)
        with pytest.raises(StoreUnavailableError, match="nothing was changed"):
            await hang.access.change(lambda _store: hang.do("late"))
        with pytest.raises(StoreUnavailableError):
            await hanging
        hang.over.set()
        await hang.access.change(lambda _store: hang.do("next"))

    asyncio.run(ask())
    assert hang.done == ["next"]


def test_a_change_that_hangs_holds_up_no_read_and_a_read_no_change(hang: Hang) -> None:
    async def ask(first: str) -> None:
        hanging = asyncio.ensure_future(getattr(hang.access, first)(hang.hang))
        await asyncio.get_running_loop().run_in_executor(None, hang.begun.wait, 10)
        other = hang.access.read if first == "change" else hang.access.change
        await other(lambda _store: hang.do(first))
        with pytest.raises(StoreUnavailableError):
            await hanging
        hang.over.set()

    asyncio.run(ask("change"))
    hang.begun.clear()
    hang.over.clear()
    asyncio.run(ask("read"))
    assert hang.done == ["change", "read"]


def test_what_took_too_long_counts_as_failed(hang: Hang) -> None:
    seen: list[tuple[str, bool]] = []
    hang.access.on_work = lambda kind, _elapsed_s, failed: seen.append((kind, failed))
    with pytest.raises(StoreUnavailableError):
        asyncio.run(hang.access.read(hang.hang))
    assert seen == [("read", True)]


@pytest.mark.parametrize(("may_have_changed", "tells"), [(False, False), (True, True)])
def test_a_store_that_changed_nothing_costs_nobody_what_is_in_memory(may_have_changed: bool, tells: bool) -> None:
    generations = GenerationTable(1)
    access = StoreAccess(MemoryKeyStore(), generations.view(0), GenerationTable(1).view(0))

    def fail(_store: OpenStore) -> None:
        raise StoreUnavailableError("down", may_have_changed=may_have_changed)

    with pytest.raises(StoreUnavailableError):
        asyncio.run(access.change(fail))
    assert access.has_changed() is tells
    access.close()
