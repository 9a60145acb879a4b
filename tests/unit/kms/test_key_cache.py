from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator

import pytest
from memory_keystore import MemoryKeyStore

from ringfence_agent.http.generation import Generation, GenerationTable
from ringfence_agent.keystore.interface import KeyStore, NewKey
from ringfence_agent.kms.key_cache import CachedKey, KeyCache
from ringfence_agent.kms.store_access import StoreAccess
from ringfence_agent.kms.unready import Unready
from ringfence_zones.errors import KeyNotFoundError
from ringfence_zones.secret import Secret

KEEP_S = 600.0


class Bench:
    """A cache over a store, with another worker's view of the generation to bump."""

    def __init__(self) -> None:
        table = GenerationTable(2)
        self.other: Generation = table.view(1)
        self.store = MemoryKeyStore()
        self.access = StoreAccess(self.store, table.view(0), GenerationTable(1).view(0))
        self.now_s = 0.0
        self.cache = KeyCache(self.access, lambda: self.now_s, KEEP_S)

    def create(self, name: str) -> None:
        self.store.create_key(NewKey(name, "AES/CTR/NoPadding", 128, Secret(bytes(16)), None, {}))

    def find(self, name: str) -> CachedKey | None:
        return asyncio.run(self._find(name))

    async def _find(self, name: str) -> CachedKey | None:
        try:
            return self.cache.find(name)
        except Unready as missing:
            await missing.load()
        return self.cache.find(name)


@pytest.fixture
def bench() -> Iterator[Bench]:
    bench = Bench()
    yield bench
    bench.access.close()
    assert bench.store.closed


def test_a_key_is_read_once_and_so_is_the_absence_of_one(bench: Bench) -> None:
    bench.create("k")
    for _ in range(3):
        key = bench.find("k")
        assert key is not None and key.metadata.name == "k"
        assert bench.find("absent") is None
    assert bench.store.reads == 2


def test_nothing_stays_in_memory_longer_than_allowed(bench: Bench) -> None:
    bench.create("k")
    bench.find("k")
    bench.find("absent")
    bench.now_s = KEEP_S - 0.1
    bench.cache.drop_old()
    bench.find("k")
    assert bench.store.reads == 2
    bench.now_s = KEEP_S
    bench.cache.drop_old()
    bench.find("k")
    bench.find("absent")
    assert bench.store.reads == 4


def test_only_the_keys_that_changed_are_read_again(bench: Bench) -> None:
    for name in ("a", "b"):
        bench.create(name)
        bench.find(name)
    bench.cache.forget(["a", "absent"])
    bench.find("a")
    bench.find("b")
    assert bench.store.reads == 3
    bench.cache.forget()
    bench.find("a")
    bench.find("b")
    assert bench.store.reads == 5


def test_another_workers_change_is_told_until_this_one_has_caught_up(bench: Bench) -> None:
    assert not bench.access.has_changed()
    bench.other.bump()
    assert bench.access.has_changed()
    assert bench.access.has_changed()
    asyncio.run(bench.access.catch_up(lambda _: None))
    assert not bench.access.has_changed()


def test_a_commit_while_catching_up_is_told_afterwards(bench: Bench) -> None:
    async def overtaken() -> None:
        # Committed by another worker after our read began, so perhaps not in what was read.
        await bench.access.catch_up(lambda _: bench.other.bump())

    asyncio.run(overtaken())
    assert bench.access.has_changed()


@pytest.mark.parametrize("fails", [False, True])
def test_a_change_is_told_whether_it_failed_or_not(bench: Bench, fails: bool) -> None:
    def change(store: KeyStore) -> None:
        if fails:
            store.delete_key("absent")

    async def run() -> None:
        await bench.access.change(change)

    _run_expecting(run, KeyNotFoundError if fails else None)
    assert bench.access.has_changed()


def _run_expecting(run: Callable[[], object], error: type[Exception] | None) -> None:
    coroutine = run()
    assert asyncio.iscoroutine(coroutine)
    if error is None:
        asyncio.run(coroutine)
    else:
        with pytest.raises(error):
            asyncio.run(coroutine)


def test_many_keys_are_loaded_at_once(bench: Bench) -> None:
    for name in ("a", "b"):
        bench.create(name)
    with pytest.raises(Unready) as caught:
        bench.cache.find_all(["b", "absent", "a"])

    async def load() -> None:
        await caught.value.load()

    asyncio.run(load())
    assert [key and key.metadata.name for key in bench.cache.find_all(["b", "absent", "a"])] == ["b", None, "a"]


def test_a_cached_key_makes_each_cipher_once_and_knows_its_current_one(bench: Bench) -> None:
    bench.create("k")
    bench.store.roll_key("k", Secret(b"x" * 16))
    key = bench.find("k")
    assert key is not None
    assert key.current is key.find_cipher(1)
    assert key.find_cipher(0) is not key.current
    assert key.find_cipher(2) is None
    assert "x" * 4 not in repr(key)
