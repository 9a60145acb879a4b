"""A create or roll that comes twice: who gets the first one's answer, and who does not."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence

import pytest
from memory_keystore import MemoryKeyStore

from ringfence_agent.http.generation import GenerationTable
from ringfence_agent.keystore.interface import ChangeOrigin, NewKey, UnconfirmedChange
from ringfence_agent.kms import repeated_change
from ringfence_agent.kms.repeated_change import Made, RepeatedChanges
from ringfence_agent.kms.store_access import StoreAccess
from ringfence_zones.errors import StoreUnavailableError
from ringfence_zones.secret import Secret


class Bench:
    def __init__(self) -> None:
        self.store = MemoryKeyStore()
        self.access = StoreAccess(self.store, GenerationTable(1).view(0), GenerationTable(1).view(0))
        self.repeated = RepeatedChanges(self.access, Secret(bytes(32)))

    def create(self, user: str = "alice", description: str = "d") -> Made:
        origin = self.repeated.origin(user, "CREATE_KEY", "k", description)
        new = NewKey("k", "AES/CTR/NoPadding", 128, Secret(b"m" * 16), description, {})
        return self.repeated.created(self.store.create_key(new, origin), origin)

    def roll_origin(self) -> ChangeOrigin:
        return self.repeated.origin("alice", "ROLL_NEW_VERSION", "k", None)

    def roll(self) -> Made:
        origin = self.roll_origin()
        return self.repeated.rolled(self.store.roll_key("k", None, origin), origin)

    def find_roll(self) -> Made | None:
        return asyncio.run(self.repeated.find("k", self.roll_origin()))

    def notes(self) -> list[int]:
        return [change.version for change in self.store.find_unconfirmed("k")]

    def find(self, user: str = "alice", description: str = "d") -> Made | None:
        origin = self.repeated.origin(user, "CREATE_KEY", "k", description)
        return asyncio.run(self.repeated.find("k", origin))


@pytest.fixture
def bench() -> Iterator[Bench]:
    bench = Bench()
    yield bench
    bench.access.close()


def test_the_same_request_gets_the_first_answer_when_its_maker_died(bench: Bench) -> None:
    made = bench.create()
    bench.store.owners.clear()
    found = bench.find()
    assert found is not None and found.again and not made.again
    assert (found.version.name, found.version.material.reveal()) == ("k@0", b"m" * 16)


@pytest.mark.parametrize(("user", "description"), [("bob", "d"), ("alice", "other")])
def test_another_user_or_another_request_gets_nothing(bench: Bench, user: str, description: str) -> None:
    bench.create()
    bench.store.owners.clear()
    assert bench.find(user, description) is None


def test_what_was_answered_is_not_given_again(bench: Bench) -> None:
    made = bench.create()

    async def answer() -> None:
        made.answered()
        await bench.repeated.close()

    asyncio.run(answer())
    bench.store.owners.clear()
    assert bench.find() is None


def test_an_answer_given_again_is_noted_once_it_was_written(bench: Bench) -> None:
    bench.create()
    bench.store.owners.clear()
    again = bench.find()
    assert again is not None

    async def answer() -> None:
        again.answered()
        await bench.repeated.close()

    asyncio.run(answer())
    assert bench.find() is None


def test_while_the_maker_lives_its_answer_is_waited_for(bench: Bench) -> None:
    made = bench.create()
    origin = bench.repeated.origin("alice", "CREATE_KEY", "k", "d")

    async def race() -> Made | None:
        waiting = asyncio.get_running_loop().create_task(bench.repeated.find("k", origin))
        await asyncio.sleep(0)
        made.answered()
        return await waiting

    assert asyncio.run(race()) is None


def test_a_maker_that_lives_but_never_answered_is_not_waited_for_long(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(repeated_change, "_ANSWER_WAIT_S", 0.05)
    bench.create()
    found = bench.find()
    assert found is not None and found.again


def test_a_key_deleted_in_between_is_not_brought_back(bench: Bench) -> None:
    bench.create()
    bench.store.owners.clear()
    bench.store.delete_key("k")
    assert bench.find() is None


def test_a_digest_needs_the_servers_secret(bench: Bench) -> None:
    other = RepeatedChanges(bench.access, Secret(b"x" * 32))
    assert other.origin("alice", "op", "k") != bench.repeated.origin("alice", "op", "k")


def test_a_note_that_could_not_be_removed_is_removed_when_the_store_is_back(bench: Bench) -> None:
    made = bench.create()
    confirm = bench.store.confirm

    def fail(_changes: object) -> None:
        raise StoreUnavailableError("the store is away")

    async def answer() -> None:
        bench.store.confirm = fail  # type: ignore[method-assign]
        made.answered()
        await bench.repeated.close()
        bench.store.confirm = confirm  # type: ignore[method-assign]
        assert len(bench.store.find_unconfirmed("k")) == 1
        bench.repeated.remove_due()
        await bench.repeated.close()

    asyncio.run(answer())
    assert bench.store.find_unconfirmed("k") == []


def test_a_note_whose_client_went_away_is_forgotten_in_time(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    bench.create()
    asyncio.run(bench.repeated.remove_old())
    assert len(bench.store.find_unconfirmed("k")) == 1
    monkeypatch.setattr(repeated_change, "_KEEP_MS", -1000)
    asyncio.run(bench.repeated.remove_old())
    assert bench.store.find_unconfirmed("k") == []


def test_an_answered_roll_is_given_again_until_the_client_is_done_with_it(bench: Bench) -> None:
    bench.store.create_key(NewKey("k", "AES/CTR/NoPadding", 128, Secret(b"m" * 16), None, {}))
    made = bench.roll()

    async def answer_and_die() -> None:
        made.answered()
        await asyncio.sleep(0.01)
        assert bench.notes() == [1]

    asyncio.run(answer_and_die())
    bench.store.owners.clear()
    bench.repeated = RepeatedChanges(bench.access, Secret(bytes(32)))  # another server's
    again = bench.find_roll()
    assert again is not None and again.version.version == 1

    async def answer_again() -> None:
        again.answered()
        bench.repeated.settle("k", "bob")
        await asyncio.sleep(0.01)
        assert bench.notes() == [1]
        bench.repeated.settle("k", "alice")
        await bench.repeated.close()

    asyncio.run(answer_again())
    assert bench.notes() == []


def test_a_client_that_never_says_it_is_done_is_believed_to_be_so_in_time(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(repeated_change, "_INVALIDATION_WAIT_S", 0.01)
    bench.store.create_key(NewKey("k", "AES/CTR/NoPadding", 128, Secret(b"m" * 16), None, {}))
    made = bench.roll()

    async def answer() -> None:
        loop, removed, confirm = asyncio.get_running_loop(), asyncio.Event(), bench.store.confirm

        def tell(changes: Sequence[UnconfirmedChange]) -> None:
            confirm(changes)
            loop.call_soon_threadsafe(removed.set)

        bench.store.confirm = tell  # type: ignore[method-assign]
        made.answered()
        await asyncio.wait_for(removed.wait(), 10)

    asyncio.run(answer())
    assert bench.notes() == []


def test_whoever_asks_the_worker_that_answered_asks_for_another_roll(bench: Bench) -> None:
    bench.store.create_key(NewKey("k", "AES/CTR/NoPadding", 128, Secret(b"m" * 16), None, {}))
    made = bench.roll()

    async def answer_and_ask() -> Made | None:
        made.answered()
        return await bench.repeated.find("k", bench.roll_origin())

    assert asyncio.run(answer_and_ask()) is None
    assert bench.notes() == []


def settle_elsewhere(bench: Bench) -> list[int]:
    """The notes that are left when another worker is told that the client is done."""
    other = RepeatedChanges(bench.access, Secret(bytes(32)))

    async def settle() -> None:
        other.settle("k", "alice")
        await other.close()

    asyncio.run(settle())
    return bench.notes()


def test_a_client_that_is_done_with_its_roll_may_say_so_to_another_worker(bench: Bench) -> None:
    bench.store.create_key(NewKey("k", "AES/CTR/NoPadding", 128, Secret(b"m" * 16), None, {}))
    bench.roll()
    assert settle_elsewhere(bench) == []


def test_of_two_rolls_by_living_servers_another_worker_cannot_tell_which_is_done(bench: Bench) -> None:
    bench.store.create_key(NewKey("k", "AES/CTR/NoPadding", 128, Secret(b"m" * 16), None, {}))
    bench.roll()
    given = bench.repeated.origin("alice", "ROLL_NEW_VERSION", "k", "material")
    bench.store.roll_key("k", Secret(b"n" * 16), given)
    assert settle_elsewhere(bench) == [1, 2]
    bench.store.owners.clear()
    assert settle_elsewhere(bench) == []
