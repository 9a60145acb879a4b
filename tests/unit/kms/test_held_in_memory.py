"""Keys that Vault holds in one worker's memory, and its look at whether they can be used."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import pytest
from local_stores import LocalStore, new_key

from ringfence_agent.http.generation import GenerationTable
from ringfence_agent.keystore.held import TransitVersion
from ringfence_agent.keystore.interface import NewKey, OpenStore
from ringfence_agent.kms.custody.envelope import EnvelopeKey
from ringfence_agent.kms.custody.held import TransitHeldKey
from ringfence_agent.kms.key_cache import KeyCache
from ringfence_agent.kms.monitoring.transit_health import TransitHealth
from ringfence_agent.kms.store_access import StoreAccess
from ringfence_agent.kms.unready import Unready
from ringfence_zones.errors import ProtectorUnavailableError
from ringfence_zones.keys import DEFAULT_CIPHER

T = TypeVar("T")

KEY = "z-" + "k" * 26
ATTRIBUTES = {"ringfence.custody": "transit"}


class Worker:
    """A store, and one worker's look at Vault: `prove` is what it asks."""

    def __init__(self, directory: Path) -> None:
        directory.chmod(0o700)
        self.store: OpenStore = LocalStore(directory).open()
        self.access = StoreAccess(self.store, GenerationTable(1).view(0), GenerationTable(1).view(0))
        self.now_s = 0.0
        self.asked: list[TransitVersion] = []
        self.problem: Exception | None = None
        self.hangs = asyncio.Event()
        self.hangs.set()
        self.health = TransitHealth(self.access, self.prove, lambda: self.now_s, deadline_s=0.05)

    async def prove(self, place: TransitVersion) -> None:
        self.asked.append(place)
        await self.hangs.wait()
        if self.problem is not None:
            raise self.problem

    def create_held(self, name: str = "held") -> None:
        self.store.create_key(NewKey(name, DEFAULT_CIPHER, 256, TransitVersion(KEY, 3), None, ATTRIBUTES))

    async def ask(self, question: Callable[[], T]) -> T:
        for _ in range(8):
            try:
                return question()
            except Unready as missing:
                await missing.load()
        raise AssertionError("never ready")


async def turns() -> None:
    """A few of the event loop: what was let go ends."""
    for _ in range(5):
        await asyncio.sleep(0)


@pytest.fixture
def worker(tmp_path: Path) -> Iterator[Worker]:
    worker = Worker(tmp_path)
    yield worker
    worker.access.close()


@pytest.mark.parametrize("keep_s", [600.0, 0.0])
def test_a_held_key_is_remembered_with_no_material_and_grows_old_like_others(worker: Worker, keep_s: float) -> None:
    worker.create_held()
    worker.store.roll_key("held", TransitVersion(KEY, 5))
    worker.store.create_key(new_key("plain"))
    cache = KeyCache(worker.access, lambda: worker.now_s, keep_s)

    async def look() -> None:
        held = await worker.ask(lambda: cache.find("held"))
        assert isinstance(held, TransitHeldKey)
        assert (list(held.numbers), held.current.place.version) == ([0, 1], 5)
        assert [held.get_version(number).place.version for number in held.numbers] == [3, 5]
        assert isinstance(await worker.ask(lambda: cache.find("plain")), EnvelopeKey)
        assert cache.find("held") is held
        worker.now_s = 601.0
        cache.drop_old()
        with pytest.raises(Unready):
            cache.find("held")

    asyncio.run(look())


def test_without_a_held_key_vault_is_not_asked_until_there_is_one(worker: Worker) -> None:
    async def look() -> None:
        worker.store.create_key(new_key("plain"))
        for worker.now_s in (0.0, 10.0, 20.0):
            assert await worker.health.find_problem() is None
        assert worker.asked == []
        worker.create_held()
        worker.now_s = 30.0
        assert await worker.health.find_problem() is None
        assert worker.asked == [TransitVersion(KEY, 3)]

    asyncio.run(look())


def test_vault_is_asked_every_ten_seconds_and_every_second_while_it_fails(worker: Worker) -> None:
    worker.create_held()

    async def at(now_s: float) -> str | None:
        worker.now_s = now_s
        return await worker.health.find_problem()

    async def look() -> None:
        assert [await at(now_s) for now_s in (0.0, 1.0, 9.9)] == [None] * 3
        assert worker.asked == [TransitVersion(KEY, 3)]
        worker.problem = ProtectorUnavailableError("Vault is sealed")
        assert [await at(now_s) for now_s in (10.0, 10.5, 11.0)] == ["Vault is sealed"] * 3
        assert len(worker.asked) == 3
        worker.problem = None
        assert await at(12.0) is None
        worker.store.delete_key("held")
        assert await at(30.0) is None
        assert len(worker.asked) == 4

    asyncio.run(look())


def test_a_vault_that_hangs_is_one_look_that_nobody_waits_for_longer(worker: Worker) -> None:
    worker.create_held()

    async def look() -> None:
        worker.hangs.clear()
        first = await asyncio.gather(*(worker.health.find_problem() for _ in range(5)))
        assert set(first) == {"Vault does not answer within 0.05 s"}
        assert await worker.health.find_problem() == first[0]
        assert len(worker.asked) == 1
        worker.hangs.set()
        await turns()
        assert await worker.health.find_problem() is None
        assert len(worker.asked) == 1

    asyncio.run(look())


def test_nobody_waits_again_for_a_vault_that_was_waited_for_in_vain(worker: Worker) -> None:
    deadline_s = 0.5
    worker.health = TransitHealth(worker.access, worker.prove, lambda: worker.now_s, deadline_s)
    worker.create_held()

    async def look() -> None:
        worker.hangs.clear()
        assert await worker.health.find_problem() is not None
        clock = asyncio.get_running_loop().time
        began_s = clock()
        assert {await worker.health.find_problem() for _ in range(20)} == {"Vault does not answer within 0.5 s"}
        assert clock() - began_s < deadline_s
        worker.hangs.set()
        await turns()
        assert await worker.health.find_problem() is None
        worker.hangs.clear()
        worker.now_s = 10.0
        # A new look is waited for again.
        began_s = clock()
        assert await worker.health.find_problem() is not None
        assert clock() - began_s >= deadline_s * 0.9

    asyncio.run(look())


def test_a_held_key_where_vault_is_not_set_up_is_a_problem(worker: Worker) -> None:
    health = TransitHealth(worker.access, None, lambda: 0.0)
    assert asyncio.run(health.find_problem()) is None
    worker.create_held()
    health = TransitHealth(worker.access, None, lambda: 0.0)
    assert "no vault block" in str(asyncio.run(health.find_problem()))
