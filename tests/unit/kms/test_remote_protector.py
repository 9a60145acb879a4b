"""A worker's memory of keys that a remote protector sealed: how often it is asked, by whom, and what is kept."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import pytest
from local_stores import material_of, new_key
from lockbox import Lockbox, LockboxProtector
from protected_store import ProtectedStore

from ringfence_agent.http.generation import GenerationTable
from ringfence_agent.keystore.sql.store import SqlKeyStore
from ringfence_agent.kms import store_access
from ringfence_agent.kms.key_cache import CachedKey, KeyCache
from ringfence_agent.kms.store_access import StoreAccess
from ringfence_agent.kms.unready import Unready
from ringfence_zones.errors import ProtectorUnavailableError, StoreUnavailableError

T = TypeVar("T")

KEEP_S = 600.0


class Worker:
    """A store whose new keys a lockbox seals, and one worker's cache over it."""

    def __init__(self, directory: Path) -> None:
        self.box = Lockbox()
        place = ProtectedStore(directory, [self.box])
        self.store: SqlKeyStore = place.open()
        self.store.slots.protect_with(LockboxProtector(self.box))
        self.access = StoreAccess(self.store, GenerationTable(1).view(0), GenerationTable(1).view(0))
        self.now_s, self.share = 0.0, 1.0
        self.cache = KeyCache(self.access, lambda: self.now_s, KEEP_S, lambda _low, _high: self.share)

    def create(self, name: str, versions: int = 1) -> None:
        self.store.create_key(new_key(name))
        for version in range(1, versions):
            self.store.roll_key(name, material_of(name, version))
        self.box.calls.clear()

    async def ask(self, question: Callable[[KeyCache], T]) -> T:
        """As the application does: from the top again after each load."""
        for _ in range(8):
            try:
                return question(self.cache)
            except Unready as missing:
                await missing.load()
        raise AssertionError("never ready")

    async def called(self) -> None:
        """Returns when the box was asked for something."""
        while not self.box.calls:  # noqa: ASYNC110 - the box lives in threads
            await asyncio.sleep(0)

    def run(self, question: Callable[[KeyCache], T]) -> T:
        return asyncio.run(self.ask(question))


@pytest.fixture
def worker(tmp_path: Path) -> Iterator[Worker]:
    worker = Worker(tmp_path)
    yield worker
    worker.access.close()


def found(cache: KeyCache, name: str) -> CachedKey:
    key = cache.find(name)
    assert key is not None
    return key


def version(name: str, number: int) -> Callable[[KeyCache], bytes]:
    return lambda cache: found(cache, name).get_version(number).material.reveal()


def test_what_needs_no_material_asks_nobody(worker: Worker) -> None:
    worker.create("k", 3)
    assert worker.run(lambda cache: found(cache, "k").metadata.versions) == 3
    assert worker.run(lambda cache: [key and key.metadata.name for key in cache.find_all(["k", "none"])]) == ["k", None]
    assert worker.box.calls == []


def test_a_version_is_opened_once_and_no_other_with_it(worker: Worker) -> None:
    worker.create("k", 3)
    for _ in range(3):
        assert worker.run(version("k", 1)) == material_of("k", 1).reveal()
    assert worker.run(lambda cache: found(cache, "k").find_cipher(7)) is None
    assert worker.box.calls == [("open", 1)]
    assert worker.run(lambda cache: found(cache, "k").current.number) == 2
    assert worker.box.calls == [("open", 1)] * 2


def test_several_versions_that_one_request_needs_are_one_call(worker: Worker) -> None:
    worker.create("k", 4)
    worker.run(lambda cache: found(cache, "k").require([0, 2, 3]))
    assert worker.box.calls == [("open", 3)]
    worker.run(lambda cache: found(cache, "k").require(found(cache, "k").numbers))
    assert worker.box.calls == [("open", 3), ("open", 1)]


def test_many_who_wait_for_one_version_are_one_call(worker: Worker) -> None:
    worker.create("k")
    all_asked = threading.Event()
    worker.box.on_call = lambda _operation: all_asked.wait(10) and None

    async def together() -> list[bytes]:
        asked = [asyncio.ensure_future(worker.ask(version("k", 0))) for _ in range(50)]
        await worker.called()
        all_asked.set()
        return list(await asyncio.gather(*asked))

    assert set(asyncio.run(together())) == {material_of("k", 0).reveal()}
    assert worker.box.calls == [("open", 1)]


def test_a_thousand_cold_keys_cost_one_call_each(worker: Worker) -> None:
    names = [f"k{number}" for number in range(100)]
    for name in names:
        worker.create(name)

    async def all_twice() -> None:
        await asyncio.gather(*(worker.ask(version(name, 0)) for name in names * 2))

    asyncio.run(all_twice())
    assert worker.box.calls == [("open", 1)] * len(names)


def test_who_asked_first_and_left_does_not_leave_others_without(worker: Worker) -> None:
    worker.create("k")
    asked, go_on = threading.Event(), threading.Event()

    def hold(_operation: str) -> None:
        asked.set()
        go_on.wait(10)

    worker.box.on_call = hold

    async def leave() -> bytes:
        first = asyncio.ensure_future(worker.ask(version("k", 0)))
        await asyncio.get_running_loop().run_in_executor(None, asked.wait, 10)
        second = asyncio.ensure_future(worker.ask(version("k", 0)))
        await asyncio.sleep(0)
        first.cancel()
        go_on.set()
        return await second

    assert asyncio.run(leave()) == material_of("k", 0).reveal()
    assert worker.box.calls == [("open", 1)]


def test_a_failure_is_the_answer_to_all_who_waited_and_to_nobody_later(worker: Worker) -> None:
    worker.create("k")
    worker.box.is_away = True
    asked = threading.Event()
    worker.box.on_call = lambda _operation: asked.wait(0.2) and None

    async def together() -> list[object]:
        return list(await asyncio.gather(*(worker.ask(version("k", 0)) for _ in range(20)), return_exceptions=True))

    assert all(isinstance(error, ProtectorUnavailableError) for error in asyncio.run(together()))
    assert worker.box.calls == [("open", 1)]
    worker.box.is_away = False
    assert worker.run(version("k", 0)) == material_of("k", 0).reveal()


def test_warm_keys_go_on_while_the_protector_is_away_until_their_time(worker: Worker) -> None:
    worker.create("warm")
    worker.create("cold")
    worker.run(version("warm", 0))
    worker.box.is_away = True
    worker.now_s = KEEP_S - 0.1
    worker.cache.drop_old()
    assert worker.run(version("warm", 0)) == material_of("warm", 0).reveal()
    with pytest.raises(ProtectorUnavailableError):
        worker.run(version("cold", 0))
    worker.now_s = KEEP_S
    worker.cache.drop_old()
    with pytest.raises(ProtectorUnavailableError):
        worker.run(version("warm", 0))
    worker.box.is_away = False
    assert worker.run(version("warm", 0)) == material_of("warm", 0).reveal()


def test_keys_that_were_read_together_do_not_all_go_together(worker: Worker) -> None:
    worker.create("a")
    worker.create("b")
    worker.share = 0.8
    worker.run(version("a", 0))
    worker.share = 1.0
    worker.run(version("b", 0))
    worker.now_s = 0.8 * KEEP_S
    worker.cache.drop_old()
    worker.box.calls.clear()
    worker.run(version("b", 0))
    assert worker.box.calls == []
    worker.run(version("a", 0))
    assert worker.box.calls == [("open", 1)]


def test_the_real_jitter_keeps_within_the_key_memory(worker: Worker) -> None:
    cache = KeyCache(worker.access, lambda: 0.0, KEEP_S)
    ends = []
    for number in range(20):
        worker.create(f"k{number}")

    async def load() -> None:
        for number in range(20):
            with pytest.raises(Unready) as missing:
                cache.find(f"k{number}")
            await missing.value.load()
            ends.append(found(cache, f"k{number}").until_s)

    asyncio.run(load())
    assert all(0.8 * KEEP_S <= end <= KEEP_S for end in ends)
    assert len(set(ends)) > 10


def test_a_changed_or_deleted_key_is_forgotten_with_its_material(worker: Worker) -> None:
    worker.create("k", 2)
    worker.run(version("k", 0))
    worker.cache.forget(["k"])
    worker.run(version("k", 0))
    assert worker.box.calls == [("open", 1)] * 2
    worker.store.delete_key("k")
    worker.cache.forget(["k"])
    assert worker.run(lambda cache: cache.find("k")) is None


def test_a_key_that_changed_while_it_was_opened_is_read_again(worker: Worker) -> None:
    worker.create("k")

    def roll(_operation: str) -> None:
        worker.box.on_call = lambda _operation: None
        worker.store.roll_key("k", material_of("k", 1))

    worker.box.on_call = roll

    async def ask() -> int:
        opening = asyncio.ensure_future(worker.ask(lambda cache: found(cache, "k").current.number))
        await worker.called()
        worker.cache.forget(["k"])
        return await opening

    assert asyncio.run(ask()) == 1


def test_local_versions_of_a_mixed_key_are_open_at_once(worker: Worker, tmp_path: Path) -> None:
    directory = tmp_path / "mixed"
    directory.mkdir(mode=0o700)
    place = ProtectedStore(directory, [worker.box])
    store = place.open()
    store.create_key(new_key("k"))
    store.slots.protect_with(LockboxProtector(worker.box))
    store.roll_key("k", material_of("k", 1))
    worker.box.calls.clear()
    access = StoreAccess(store, GenerationTable(1).view(0), GenerationTable(1).view(0))
    cache = KeyCache(access, lambda: 0.0, KEEP_S)

    async def ask() -> None:
        with pytest.raises(Unready) as missing:
            cache.find("k")
        await missing.value.load()
        assert found(cache, "k").get_version(0).material == material_of("k", 0)
        assert worker.box.calls == []
        with pytest.raises(Unready):
            found(cache, "k").get_version(1)

    asyncio.run(ask())
    access.close()


def test_a_protector_that_hangs_holds_up_neither_reads_nor_changes(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker.create("k")
    monkeypatch.setattr(store_access, "_OPENING_PATIENCE_S", 0.3)
    over = threading.Event()

    def hang(operation: str) -> None:
        if operation == "open":
            over.wait(10)

    worker.box.on_call = hang

    async def ask() -> None:
        opening = asyncio.ensure_future(worker.ask(version("k", 0)))
        await worker.called()
        assert len(await worker.access.read(lambda store: store.list_metadata())) == 1
        await worker.access.change(lambda store: store.create_key(new_key("other")))
        with pytest.raises(ProtectorUnavailableError, match=r"did not answer within 0\.3 s"):
            await opening
        over.set()

    asyncio.run(ask())


def test_what_a_protector_opens_is_counted_apart(worker: Worker) -> None:
    worker.create("k")
    seen: list[tuple[str, bool]] = []
    worker.access.on_work = lambda kind, _elapsed_s, failed: seen.append((kind, failed))
    worker.run(version("k", 0))
    worker.cache.forget()
    worker.box.is_away = True
    with pytest.raises(StoreUnavailableError):
        worker.run(version("k", 0))
    assert seen == [("read", False), ("unwrap", False), ("read", False), ("unwrap", True)]


def test_a_protector_that_hangs_keeps_no_key_of_another_waiting(tmp_path: Path) -> None:
    hanging, other = Lockbox("hanging"), Lockbox("other")
    store = ProtectedStore(tmp_path, [hanging, other]).open()
    for box in (hanging, other):
        store.slots.protect_with(LockboxProtector(box))
        for number in range(5):
            store.create_key(new_key(f"{box.name}-{number}"))
    access = StoreAccess(store, GenerationTable(1).view(0), GenerationTable(1).view(0))
    begun, let_go = threading.Semaphore(0), threading.Event()

    def hang(_operation: str) -> None:
        begun.release()
        let_go.wait(30)

    hanging.on_call = hang

    async def open_key(name: str) -> bytes:
        key = await access.read(lambda opened: opened.find_sealed_key(name))
        assert key is not None
        (version,) = await access.open_versions(key, [0])
        return version.material.reveal()

    async def run() -> None:
        waiting = [asyncio.create_task(open_key(f"hanging-{number}")) for number in range(5)]
        for _ in range(4):
            assert await asyncio.to_thread(begun.acquire, timeout=10)
        found = await asyncio.wait_for(asyncio.gather(*(open_key(f"other-{number}") for number in range(5))), 10)
        assert found == [material_of(f"other-{number}", 0).reveal() for number in range(5)]
        assert not any(task.done() for task in waiting)
        let_go.set()
        assert await waiting[4] == material_of("hanging-4", 0).reveal()
        await asyncio.gather(*waiting)

    asyncio.run(run())
    access.close()
