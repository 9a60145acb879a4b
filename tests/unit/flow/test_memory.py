"""What is particular to a flow memory in an SQLite file."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from flow_memories import SINCE_MS, Clock, Open, ask, issue, opening, settle

from ringfence_agent.flow.automaton import LABEL_LASTS_MS
from ringfence_agent.flow.memory import Answer, FlowMemory
from ringfence_agent.flow.place import flows_path
from ringfence_zones.errors import StoreTamperedError, StoreUnavailableError
from ringfence_zones.flow_labels import Kind


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def open_memory(tmp_path: Path, clock: Clock) -> Iterator[Open]:
    tmp_path.chmod(0o700)
    with opening(f"sqlite:///{tmp_path}/k.db", None, clock) as open_one:
        yield open_one


@pytest.fixture
def memory(open_memory: Open) -> FlowMemory:
    return open_memory()


def test_a_lost_memory_counts_what_it_had_as_read_and_write(open_memory: Open, tmp_path: Path) -> None:
    first = open_memory()
    (iv,) = issue(first, "a")
    question = ask(first, "a", iv)
    first.close()
    flows_path(tmp_path / "k.db").unlink()
    again = open_memory()
    assert again.epoch(SINCE_MS) != first.epoch(SINCE_MS), "once in 65,535 times"
    assert settle(again, question) == [Answer(Kind.BOTH)]


def test_what_ended_is_cleared_away(memory: FlowMemory, clock: Clock, tmp_path: Path) -> None:
    for iv in issue(memory, "a", 20):
        settle(memory, ask(memory, "a", iv, os.urandom(32)))
    clock.ms += LABEL_LASTS_MS
    settle(memory, ask(memory, "a"))
    with closing(sqlite3.connect(flows_path(tmp_path / "k.db"))) as connection:
        counts = {
            table: connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0]
            for table in ("flow_outstanding", "flow_first", "flow_label")
        }
    assert counts == {"flow_outstanding": 0, "flow_first": 0, "flow_label": 1}


def test_the_file_is_its_owners_alone(memory: FlowMemory, tmp_path: Path) -> None:
    assert memory.epoch(SINCE_MS)
    assert flows_path(tmp_path / "k.db").stat().st_mode & 0o777 == 0o600


def test_a_memory_of_another_format_is_left_alone(open_memory: Open, tmp_path: Path) -> None:
    memory = open_memory()
    with closing(sqlite3.connect(flows_path(tmp_path / "k.db"))) as connection, connection:
        connection.execute("UPDATE flow_state SET format = 2, epoch = 77")
    for use in (memory.require, open_memory):
        with pytest.raises(StoreUnavailableError, match="has format 2; this release of Ringfence reads format 1"):
            use()
    with closing(sqlite3.connect(flows_path(tmp_path / "k.db"))) as connection:
        assert connection.execute("SELECT format, epoch FROM flow_state").fetchone() == (2, 77)


def test_what_is_wrong_with_it_is_not_said_of_the_key_store(open_memory: Open, tmp_path: Path) -> None:
    memory, path = open_memory(), flows_path(tmp_path / "k.db")
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("DROP TABLE flow_label")
    with pytest.raises(StoreTamperedError, match=f"^flow memory {path} is damaged") as caught:
        settle(memory, ask(memory, "a"))
    assert caught.value.hint == "drop it while the key servers are stopped: it holds no key, and is made anew"
