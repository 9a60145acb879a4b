from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from types import FunctionType, ModuleType

import pytest
from local_stores import LocalStore, new_key
from memory_keystore import MemoryKeyStore

from ringfence_agent.http.generation import Generation, GenerationTable
from ringfence_agent.keystore.interface import KeyStore, NewKey, OpenStore, SealedKey
from ringfence_agent.keystore.store_root import StoreRoot
from ringfence_agent.kms.eek import EekCipher
from ringfence_agent.kms.key_cache import CachedKey, KeyCache
from ringfence_agent.kms.store_access import StoreAccess
from ringfence_agent.kms.unready import Unready
from ringfence_zones.errors import KeyNotFoundError, StoreTamperedError
from ringfence_zones.keys import KeyVersion
from ringfence_zones.secret import Secret

KEEP_S = 600.0


class Bench:
    """A cache over a store, with another worker's view of the generation to bump."""

    def __init__(self, store: MemoryKeyStore | None = None, keep_s: float = KEEP_S) -> None:
        table = GenerationTable(2)
        self.other: Generation = table.view(1)
        self.store = store or MemoryKeyStore()
        self.access = StoreAccess(self.store, table.view(0), GenerationTable(1).view(0))
        self.now_s = 0.0
        self.cache = KeyCache(self.access, lambda: self.now_s, keep_s)

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


@pytest.fixture(params=[KEEP_S, 0.0], ids=["material kept", "sealed"])
def sql(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[KeyCache, OpenStore]]:
    """A cache over a real store with one key of two versions, already asked for."""
    store = LocalStore(tmp_path).open()
    store.create_key(new_key("k"))
    store.roll_key("k", None)
    access = StoreAccess(store, GenerationTable(1).view(0), GenerationTable(1).view(0))
    cache = KeyCache(access, lambda: 0.0, request.param)
    with pytest.raises(Unready) as missing:
        cache.find("k")
    _run_expecting(missing.value.load, None)
    yield cache, store
    access.close()


def test_with_and_without_key_memory_the_same_is_answered(sql: tuple[KeyCache, OpenStore]) -> None:
    cache, store = sql
    stored = store.find_key("k")
    key = cache.find("k")
    assert stored is not None and key is not None
    assert list(key.numbers) == [0, 1]
    iv, dek = bytes(16), b"d" * 32
    for version in stored.versions:
        assert key.get_version(version.version) == version
        cipher = key.find_cipher(version.version)
        assert cipher is not None and cipher.apply(iv, dek) == EekCipher(version).apply(iv, dek)
    assert key.current.number == 1
    assert key.find_cipher(2) is None


def test_without_key_memory_no_material_outlives_its_request(sql: tuple[KeyCache, OpenStore]) -> None:
    cache, store = sql
    key = cache.find("k")
    assert key is not None
    key.current.generate_json(3)
    key.find_cipher(0)
    assert key.metadata_json
    del key
    stored = store.find_key("k")
    assert stored is not None
    held = _held_by(cache._keys)
    material = {version.material.reveal() for version in stored.versions}
    if cache.find("k") is cache.find("k"):  # the control: what is remembered is found by this way of looking
        assert material <= held
    else:
        assert not material & held


def _held_by(root: object) -> set[bytes]:
    """Every bytes object that can be reached, not counting the protector and its keys."""
    seen: dict[int, object] = {}
    waiting = [root]
    while waiting:
        each = waiting.pop()
        if id(each) not in seen and not isinstance(each, type | ModuleType | FunctionType | StoreRoot):
            seen[id(each)] = each
            waiting += gc.get_referents(each)
            waiting += [getattr(each, "_value")] if isinstance(each, Secret) else []  # noqa: B009
    return {each for each in seen.values() if isinstance(each, bytes)}


def test_without_key_memory_a_request_opens_each_version_once_and_the_next_one_again(tmp_path: Path) -> None:
    opened: list[int] = []

    def opener(numbers: Collection[int]) -> list[KeyVersion]:
        opened.extend(numbers)
        return [KeyVersion("k", number, Secret(bytes(16))) for number in numbers]

    class Store(MemoryKeyStore):
        def find_sealed_key(self, name: str) -> SealedKey | None:
            key = super().find_sealed_key(name)
            return key and SealedKey(key.metadata, (0,), opener)

    bench = Bench(Store(), 0.0)
    bench.create("k")
    key = bench.find("k")
    assert key is not None
    opened.clear()
    assert key.current is key.find_cipher(0)
    again = bench.find("k")
    assert again is not None and again.current is not key.current
    assert opened == [0, 0]
    assert bench.store.reads == 1
    bench.access.close()


def test_without_key_memory_a_damaged_version_refuses_the_key_when_it_is_read(tmp_path: Path) -> None:
    def broken(numbers: Collection[int]) -> list[KeyVersion]:
        assert 0 in numbers
        raise StoreTamperedError("version 0 of key 'k' was changed")

    class Store(MemoryKeyStore):
        def find_sealed_key(self, name: str) -> SealedKey | None:
            key = super().find_sealed_key(name)
            return key and SealedKey(key.metadata, key.numbers, broken)

    bench = Bench(Store(), 0.0)
    bench.create("k")
    with pytest.raises(StoreTamperedError):
        bench.find("k")
    bench.access.close()
