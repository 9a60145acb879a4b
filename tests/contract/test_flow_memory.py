"""The flow memory on each engine: which opening is the first, who may, and two workers that ask at once."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from dataclasses import replace

import pytest
from flow_memories import ALICE, BOB, CAROL, SINCE_MS, TAG_KEY, Clock, Open, ask, issue, opening, settle
from sql_places import SqlPlace

from ringfence_agent.flow.automaton import LABEL_LASTS_MS, SENT_AGAIN_S
from ringfence_agent.flow.memory import KEPT_PER_ZONE, Answer, Ask, FlowMemory
from ringfence_agent.flow.place import open_flow_memory
from ringfence_agent.flow.stamp import UNTRACKED, Stamp
from ringfence_zones.flow_labels import KINDS, Crossing, Kind


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def open_memory(sql_place: SqlPlace, clock: Clock) -> Iterator[Open]:
    with opening(sql_place.uri, sql_place.password_file, clock) as open_one:
        yield open_one


@pytest.fixture
def memory(open_memory: Open) -> FlowMemory:
    return open_memory()


def test_the_first_opening_is_a_write_and_every_later_one_a_read(memory: FlowMemory) -> None:
    (iv,) = issue(memory, "a")
    assert settle(memory, ask(memory, "a", iv)) == [Answer(Kind.WRITE)]
    assert settle(memory, ask(memory, "a", iv, BOB)) == [Answer(Kind.READ)]


def test_a_repeated_opening_by_the_same_session_keeps_its_label_for_a_minute(memory: FlowMemory, clock: Clock) -> None:
    (iv,) = issue(memory, "a")
    assert settle(memory, ask(memory, "a", iv), ask(memory, "a", iv)) == [Answer(Kind.WRITE)] * 2
    clock.ms += SENT_AGAIN_S * 1000 - 1
    assert settle(memory, ask(memory, "a", iv)) == [Answer(Kind.WRITE)]
    clock.ms += 1
    assert settle(memory, ask(memory, "a", iv)) == [Answer(Kind.READ)]


def test_another_worker_knows_what_was_opened(memory: FlowMemory, open_memory: Open) -> None:
    other = open_memory()
    assert other.epoch(SINCE_MS) == memory.epoch(SINCE_MS)
    (iv,) = issue(memory, "a")
    assert settle(other, ask(other, "a", iv)) == [Answer(Kind.WRITE)]
    assert settle(memory, ask(memory, "a", iv, BOB)) == [Answer(Kind.READ)]


def test_memory_outlives_whoever_has_it_open(open_memory: Open) -> None:
    first = open_memory()
    opened, kept = issue(first, "a", 2)
    settle(first, ask(first, "a", opened, BOB), ask(first, "b"))
    first.close()
    again = open_memory()
    assert settle(again, ask(again, "a", opened, CAROL), ask(again, "a", kept, CAROL)) == [
        Answer(Kind.READ), Answer(Kind.WRITE),
    ]  # fmt: skip
    crossing = Crossing("b", "c", Kind.WRITE)
    (iv,) = issue(again, "c")
    assert settle(again, ask(again, "c", iv)) == [Answer(Kind.WRITE, crossing)]


def test_the_memory_of_another_store_is_begun_anew(memory: FlowMemory, sql_place: SqlPlace, clock: Clock) -> None:
    (iv,) = issue(memory, "a")
    other = open_flow_memory(sql_place.uri, sql_place.password_file, bytes(16), TAG_KEY, clock)
    try:
        assert other.epoch(SINCE_MS) != memory.epoch(SINCE_MS)
        assert settle(other, ask(other, "a", iv)) == [Answer(Kind.READ)]
    finally:
        other.close()
    # Whoever had it open notices, and no EDEK is handed out as noted that is not.
    before = memory.epoch(SINCE_MS)
    assert not memory.note_issued("a", [os.urandom(16)], before, SINCE_MS)
    assert memory.epoch(SINCE_MS) == other.epoch(SINCE_MS)


def test_what_nobody_noted_counts_as_the_asker_says(memory: FlowMemory) -> None:
    for stamp in (None, Stamp(UNTRACKED, 0), Stamp(memory.epoch(SINCE_MS) % 0xFFFF + 1, 0)):
        for kind in KINDS:
            session = os.urandom(32)
            question = ask(memory, "a", session=session, stamp=stamp, unknown=kind)
            assert settle(memory, question) == [Answer(kind)]


def test_a_refused_opening_changes_nothing_and_one_in_shadow_only_the_edek(memory: FlowMemory) -> None:
    (iv,) = issue(memory, "b")
    settle(memory, ask(memory, "a"))
    crossing = Crossing("a", "b", Kind.WRITE)
    for _ in range(2):
        assert settle(memory, ask(memory, "b", iv)) == [Answer(Kind.WRITE, crossing)]
    assert settle(memory, ask(memory, "b", iv, enforced=False)) == [Answer(Kind.WRITE, crossing)]
    assert settle(memory, ask(memory, "b", iv, BOB)) == [Answer(Kind.READ)]
    # No label of a write of b: a is still read.
    assert settle(memory, ask(memory, "a")) == [Answer(Kind.READ)]
    clock_edges = frozenset({("a", "b")})
    (allowed,) = issue(memory, "b")
    assert settle(memory, ask(memory, "b", allowed, edges=clock_edges)) == [Answer(Kind.WRITE)]


def test_asks_of_one_batch_see_each_other(memory: FlowMemory) -> None:
    (iv,) = issue(memory, "b")
    answers = settle(memory, ask(memory, "b", iv), ask(memory, "a"), ask(memory, "a", session=BOB))
    assert answers == [Answer(Kind.WRITE), Answer(Kind.READ, Crossing("a", "b", Kind.READ)), Answer(Kind.READ)]


def test_labels_last_and_end(memory: FlowMemory, clock: Clock) -> None:
    settle(memory, ask(memory, "a"))
    clock.ms += LABEL_LASTS_MS - 1
    first, second = issue(memory, "b", 2)
    assert settle(memory, ask(memory, "b", first))[0].crossing is not None
    clock.ms += 1
    assert settle(memory, ask(memory, "b", second)) == [Answer(Kind.WRITE)]


def test_what_a_worker_remembers_as_granted_is_not_labelled_again(memory: FlowMemory, clock: Clock) -> None:
    """Or its memory would outlast the label that it stands for."""
    settle(memory, ask(memory, "a"))
    clock.ms += LABEL_LASTS_MS // 2
    assert settle(memory, ask(memory, "a", granted=Kind.READ)) == [Answer(Kind.READ)]
    (iv,) = issue(memory, "a")
    assert settle(memory, ask(memory, "a", iv, granted=Kind.BOTH)) == [Answer(Kind.WRITE)]
    clock.ms += LABEL_LASTS_MS // 2
    (iv,) = issue(memory, "b")
    assert settle(memory, ask(memory, "b", iv)) == [Answer(Kind.WRITE)]


def test_a_first_opening_is_noted_although_writing_was_granted_before(memory: FlowMemory) -> None:
    one, two = issue(memory, "a", 2)
    settle(memory, ask(memory, "a", one))
    assert settle(memory, ask(memory, "a", two, granted=Kind.WRITE)) == [Answer(Kind.WRITE)]
    assert settle(memory, ask(memory, "a", two, BOB)) == [Answer(Kind.READ)]


def test_a_zone_keeps_its_newest_and_no_other_loses_any(memory: FlowMemory, clock: Clock) -> None:
    (slow,) = issue(memory, "slow")
    batches = []
    for _ in range(KEPT_PER_ZONE // 500 + 2):
        clock.ms += 1000
        batches.append(issue(memory, "busy", 500))
    assert settle(memory, ask(memory, "busy", batches[0][0])) == [Answer(Kind.READ)]
    for batch in batches[-4:]:
        assert settle(memory, ask(memory, "busy", batch[0])) == [Answer(Kind.WRITE)]
    assert settle(memory, ask(memory, "slow", slow, BOB)) == [Answer(Kind.WRITE)]


def test_of_two_halves_asked_of_two_workers_at_once_one_is_refused(open_memory: Open) -> None:
    workers = [open_memory(), open_memory()]
    for _ in range(25):
        session = os.urandom(32)
        (iv,) = issue(workers[0], "b")
        halves = [ask(workers[0], "a", session=session), ask(workers[1], "b", iv, session)]
        found: list[Answer] = []
        barrier = threading.Barrier(2)

        def run(
            memory: FlowMemory, half: Ask, barrier: threading.Barrier = barrier, found: list[Answer] = found
        ) -> None:
            barrier.wait()
            found.extend(memory.settle([half], SINCE_MS))

        threads = [threading.Thread(target=run, args=pair) for pair in zip(workers, halves, strict=True)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(answer.crossing is None for answer in found) == [False, True]


def test_of_two_sessions_that_open_one_edek_at_once_one_was_first(open_memory: Open) -> None:
    workers = [open_memory(), open_memory()]
    for _ in range(25):
        (iv,) = issue(workers[0], "a")
        found: list[Answer] = []
        barrier = threading.Barrier(2)

        def run(
            memory: FlowMemory, session: bytes, barrier: threading.Barrier = barrier, found: list[Answer] = found,
            iv: bytes = iv,
        ) -> None:  # fmt: skip
            barrier.wait()
            found.extend(memory.settle([ask(memory, "a", iv, session)], SINCE_MS))

        threads = [threading.Thread(target=run, args=pair) for pair in zip(workers, (ALICE, BOB), strict=True)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(answer.kind for answer in found) == [Kind.READ, Kind.WRITE]


def test_a_new_run_of_flows_knows_nothing_of_the_edeks_before_it_and_keeps_the_labels(
    memory: FlowMemory, open_memory: Open
) -> None:
    """Between two runs nobody notes what is opened: what was outstanding may have been opened since."""
    (before,) = issue(memory, "b")
    settle(memory, ask(memory, "a"))
    question, old_epoch = ask(memory, "b", before), memory.epoch(SINCE_MS)
    later = open_memory()
    assert later.settle([replace(question, session=BOB)], SINCE_MS + 1) == [Answer(Kind.BOTH)]
    assert later.epoch(SINCE_MS + 1) != old_epoch
    # Whoever does not know of it yet decides by it all the same, and notes nothing of its own epoch.
    assert memory.settle([replace(question, session=CAROL, granted=Kind.READ)], SINCE_MS) == [Answer(Kind.BOTH)]
    assert memory.epoch(SINCE_MS) == later.epoch(SINCE_MS + 1)
    crossing = Crossing("a", "b", Kind.WRITE)
    assert later.settle([replace(question, unknown=Kind.WRITE)], SINCE_MS + 1) == [Answer(Kind.WRITE, crossing)]


def test_a_worker_that_has_not_heard_of_a_new_run_does_not_answer_from_what_was(
    memory: FlowMemory, open_memory: Open
) -> None:
    settle(memory, ask(memory, "a"))
    question = ask(memory, "a", granted=Kind.READ)
    assert memory.settle([question], SINCE_MS) == [Answer(Kind.READ)]
    open_memory().require(SINCE_MS + 1)
    assert memory.settle([question], SINCE_MS) == [Answer(Kind.BOTH)]


def test_what_was_opened_undecided_is_not_outstanding(memory: FlowMemory) -> None:
    one, two = issue(memory, "a", 2)
    memory.note_opened([one, os.urandom(16)])
    assert settle(memory, ask(memory, "a", one), ask(memory, "a", two)) == [Answer(Kind.READ), Answer(Kind.WRITE)]


def test_who_opens_a_new_memory_at_once_opens_the_same(open_memory: Open) -> None:
    found: list[int] = []
    barrier = threading.Barrier(4)

    def run() -> None:
        barrier.wait()
        found.append(open_memory().epoch(SINCE_MS))

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4
    assert len({*found, open_memory().epoch(SINCE_MS)}) == 1
