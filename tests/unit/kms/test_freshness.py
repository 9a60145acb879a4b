"""What a worker may answer from memory, and what makes it look at the store again."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator

import pytest
from memory_keystore import MemoryKeyStore

from ringfence_agent.http.generation import GenerationTable
from ringfence_agent.keystore.interface import Changes, NewKey
from ringfence_agent.keystore.token_store import TokenRecord
from ringfence_agent.kms.authorization.access import AccessRules
from ringfence_agent.kms.authorization.acls import read_acls
from ringfence_agent.kms.freshness import Freshness
from ringfence_agent.kms.key_cache import KeyCache
from ringfence_agent.kms.store_access import StoreAccess
from ringfence_agent.kms.unready import Unready
from ringfence_zones.errors import StoreTamperedError, StoreUnavailableError
from ringfence_zones.hadoop_conf import HadoopConf
from ringfence_zones.secret import Secret

BOUND_S = 30.0


class CountingStore(MemoryKeyStore):
    """Counts looks; fails them while `is_down`; `on_look` runs in the store's thread during one.

    `behind` and `tokens_behind`: by how many changes it was put back.
    """

    def __init__(self) -> None:
        super().__init__()
        self.looks = 0
        self.is_down = False
        self.behind = self.tokens_behind = 0
        self.on_look: Callable[[], object] = lambda: None

    def changes_since(self, number: int) -> Changes:
        self._look()
        changes = super().changes_since(number)
        return Changes(changes.number - self.behind, None) if self.behind else changes

    def change_number(self) -> int:
        self._look()
        return super().change_number()

    def token_change_number(self) -> int:
        return super().token_change_number() - self.tokens_behind

    def _look(self) -> None:
        self.looks += 1
        self.on_look()
        if self.is_down:
            raise StoreUnavailableError("the store is down")


class Worker:
    """One worker's memory of a store that others may share."""

    def __init__(self, store: CountingStore, *, is_shared: bool) -> None:
        table = GenerationTable(2)
        self.other = table.view(1)
        self.store = store
        self.access = StoreAccess(store, table.view(0), GenerationTable(1).view(0), is_shared=is_shared)
        self.now_s = 0.0
        self.keys = KeyCache(self.access, lambda: self.now_s, 600.0)
        rules = AccessRules(read_acls(HadoopConf({})), lambda _: frozenset())
        self.distrust: str | None = None
        self.freshness = Freshness(
            self.access, self.keys, rules, lambda: self.now_s, BOUND_S, find_distrust=lambda: self.distrust
        )

    def catch_up(self) -> None:
        asyncio.run(self.freshness.catch_up())

    def versions(self, name: str) -> int:
        async def find() -> int:
            try:
                key = self.keys.find(name)
            except Unready as missing:
                await missing.load()
                key = self.keys.find(name)
            assert key is not None
            return key.metadata.versions

        return asyncio.run(find())


def new_key(name: str) -> NewKey:
    return NewKey(name, "AES/CTR/NoPadding", 128, Secret(bytes(16)), None, {})


@pytest.fixture
def make() -> Iterator[Callable[..., Worker]]:
    workers = []

    def make(*, is_shared: bool) -> Worker:
        workers.append(Worker(CountingStore(), is_shared=is_shared))
        return workers[-1]

    yield make
    for worker in workers:
        worker.access.close()


def test_nothing_is_answered_from_memory_before_the_first_look(make: Callable[..., Worker]) -> None:
    worker = make(is_shared=False)
    assert not worker.freshness.is_current(newest=False)
    worker.catch_up()
    assert worker.freshness.is_current(newest=False)


def test_a_store_of_its_own_is_looked_at_after_a_change_on_this_server(make: Callable[..., Worker]) -> None:
    worker = make(is_shared=False)
    worker.catch_up()
    assert worker.freshness.is_current(newest=True)
    worker.other.bump()
    assert not worker.freshness.is_current(newest=False)
    worker.catch_up()
    assert worker.freshness.is_current(newest=True)
    assert worker.store.looks == 2


def test_no_look_at_a_store_is_believed_longer_than_the_bound(make: Callable[..., Worker]) -> None:
    worker = make(is_shared=False)
    worker.catch_up()
    worker.now_s = BOUND_S - 0.1
    assert worker.freshness.is_current(newest=True)
    worker.now_s = BOUND_S
    assert not worker.freshness.is_current(newest=True)


def test_catching_up_costs_only_the_keys_that_changed(make: Callable[..., Worker]) -> None:
    worker = make(is_shared=False)
    for name in ("a", "b"):
        worker.store.create_key(new_key(name))
    worker.catch_up()
    assert (worker.versions("a"), worker.versions("b")) == (1, 1)
    worker.store.roll_key("a", None)
    worker.other.bump()
    worker.catch_up()
    reads = worker.store.reads
    assert (worker.versions("a"), worker.versions("b")) == (2, 1)
    assert worker.store.reads == reads + 1


def test_on_a_shared_store_newest_answers_need_a_look_each_and_opens_do_not(make: Callable[..., Worker]) -> None:
    worker = make(is_shared=True)
    worker.catch_up()
    assert not worker.freshness.is_current(newest=True)
    worker.now_s = BOUND_S - 0.1
    assert worker.freshness.is_current(newest=False)
    worker.now_s = BOUND_S
    assert not worker.freshness.is_current(newest=False)


def test_the_bound_counts_from_before_the_look(make: Callable[..., Worker]) -> None:
    worker = make(is_shared=True)

    def slow() -> None:
        worker.now_s += 20.0

    worker.store.on_look = slow
    worker.catch_up()
    worker.now_s = BOUND_S
    assert not worker.freshness.is_current(newest=False)


def test_a_store_that_is_down_leaves_the_bound_as_it_was(make: Callable[..., Worker]) -> None:
    worker = make(is_shared=True)
    worker.catch_up()
    worker.store.is_down = True
    worker.now_s = 10.0
    with pytest.raises(StoreUnavailableError):
        worker.catch_up()
    assert worker.freshness.is_current(newest=False)
    worker.now_s = BOUND_S
    assert not worker.freshness.is_current(newest=False)


def test_who_asks_during_a_look_is_served_by_one_more_look_together(make: Callable[..., Worker]) -> None:
    worker = make(is_shared=True)

    all_asked = threading.Event()
    worker.store.on_look = lambda: all_asked.wait(10)  # the first look lasts until everybody has asked

    async def ask() -> list[BaseException | None]:
        asked = asyncio.gather(*(worker.freshness.catch_up() for _ in range(21)), return_exceptions=True)
        await asyncio.sleep(0)
        all_asked.set()
        return list(await asked)

    assert asyncio.run(ask()) == [None] * 21
    assert worker.store.looks == 2


def test_a_failed_look_fails_all_who_waited_for_it_without_a_look_each(make: Callable[..., Worker]) -> None:
    worker = make(is_shared=True)
    worker.store.is_down = True

    async def ask() -> list[BaseException | None]:
        return list(await asyncio.gather(*(worker.freshness.catch_up() for _ in range(20)), return_exceptions=True))

    assert all(isinstance(error, StoreUnavailableError) for error in asyncio.run(ask()))
    assert worker.store.looks == 1


def test_who_asked_for_a_look_and_left_does_not_leave_others_with_what_was_before(make: Callable[..., Worker]) -> None:
    worker = make(is_shared=True)
    worker.catch_up()
    looking, changed = threading.Event(), threading.Event()

    def hold() -> None:
        looking.set()
        changed.wait(10)

    worker.store.on_look = hold

    async def ask() -> int:
        leaver = asyncio.ensure_future(worker.freshness.catch_up())
        others = asyncio.ensure_future(worker.freshness.catch_up())
        await asyncio.get_running_loop().run_in_executor(None, looking.wait, 10)
        leaver.cancel()
        worker.store.on_look = lambda: None
        looks = worker.store.looks
        changed.set()
        await others
        return worker.store.looks - looks

    assert asyncio.run(ask()) == 1


def test_a_token_change_of_another_server_is_passed_on(make: Callable[..., Worker]) -> None:
    worker = make(is_shared=True)
    worker.catch_up()
    worker.access.tokens_have_changed()
    worker.catch_up()
    assert not worker.access.tokens_have_changed()
    worker.store.add_master_key(0, Secret(b"k" * 32), 0, 1)
    worker.catch_up()
    assert worker.access.tokens_have_changed()


@pytest.mark.parametrize(("behind", "tokens_behind"), [(1, 0), (0, 1)])
def test_a_store_put_back_to_an_earlier_state_is_refused_from_then_on(
    make: Callable[..., Worker], behind: int, tokens_behind: int
) -> None:
    worker = make(is_shared=True)
    store = worker.store
    store.create_key(new_key("k"))
    store.add_token(TokenRecord(store.next_sequence(), b"", 1))
    store.cancel_token(1)
    worker.catch_up()
    store.behind, store.tokens_behind = behind, tokens_behind
    for _ in range(2):
        with pytest.raises(StoreTamperedError, match="as it was earlier"):
            worker.catch_up()
    worker.now_s = BOUND_S
    assert not worker.freshness.is_current(newest=False)


def test_nothing_is_answered_from_a_store_that_is_not_genuine_nor_kept_of_it(make: Callable[..., Worker]) -> None:
    worker = make(is_shared=False)
    worker.store.create_key(new_key("k"))
    worker.catch_up()
    assert worker.versions("k") == 1
    worker.distrust = "rows were swapped"
    looks = worker.store.looks
    assert not worker.freshness.is_current(newest=False)
    with pytest.raises(StoreTamperedError, match="rows were swapped"):
        worker.catch_up()
    assert worker.store.looks == looks
    worker.distrust = None
    # What was read meanwhile may be what was wrong: it is read again, although the store counts no change.
    reads = worker.store.reads
    assert not worker.freshness.is_current(newest=False)
    worker.catch_up()
    assert worker.freshness.is_current(newest=False)
    assert worker.versions("k") == 1
    assert worker.store.reads == reads + 1
