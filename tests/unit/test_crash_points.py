"""What the tests of crashes call a step: each kind that there is, and nothing that only reads."""

from __future__ import annotations

import http.client
import os
import sqlite3
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest
from crash_points import END, carry_out, distinct, kill_at, trace_points
from scripted_http import scripted_server

from ringfence_zones.durable_file import install_durably, replace_file, write_new_file


@dataclass
class Place:
    directory: Path
    port: int = 0


def act(place: Place) -> None:
    write_new_file(place.directory / "a", b"x")
    install_durably(place.directory / "a", place.directory / "b")
    replace_file(place.directory / "c", b"y")
    (place.directory / "b").read_bytes()
    with closing(sqlite3.connect(place.directory / "d.db", isolation_level=None)) as connection:
        connection.execute("CREATE TABLE t (x)")
        connection.execute("BEGIN")
        connection.execute("SELECT * FROM t").fetchall()
        connection.execute("COMMIT")  # of nothing
        connection.execute("BEGIN IMMEDIATE")
        for number in range(3):
            connection.execute("INSERT INTO t VALUES (?)", [number])
        connection.execute("COMMIT")
    with closing(http.client.HTTPConnection("127.0.0.1", place.port)) as client:
        client.request("POST", "/v1/thing", b"{}")
        assert client.getresponse().read() == b"{}"


STEPS = [
    "open /a",
    "opened /a",
    "os.chmod ",
    "os.link /a",
    "os.remove /a",
    "os.remove /.c.new",
    "open /.c.new",
    "opened /.c.new",
    "os.chmod ",
    "os.rename /.c.new",
    "CREATE TABLE t, alone",
    "INSERT INTO t",
    "INSERT INTO t",
    "INSERT INTO t",
    "COMMIT",
    "close",
    "ask /v1/thing",
    "answer /v1/thing",
    END,
]


@pytest.fixture
def directories(tmp_path: Path) -> list[Path]:
    made = [tmp_path / str(number) for number in range(len(STEPS) + 1)]
    for each in made:
        each.mkdir()
    return made


def test_each_kind_of_step_is_traced_and_stopped_at(directories: list[Path]) -> None:
    with scripted_server(lambda _seen: (200, b"{}")) as server:
        points = trace_points(act, Place(directories[-1], server.port))
        assert points == STEPS
        asked = len(server.seen)
        for number, directory in enumerate(directories[:-1]):
            kill_at(points, number, act, Place(directory, server.port))
        assert len(server.seen) == asked + 2  # when it was answered, and at the end
    there = [{path.name for path in each.iterdir()} for each in directories]
    assert there[0] == set()
    assert there[1] == {"a"}
    assert [len((each / "a").read_bytes()) for each in directories[1:3]] == [0, 1]
    assert there[4] == {"a", "b"}
    assert there[5] == {"b"}
    assert there[10] >= {"b", "c"}
    rows = []
    for directory in directories[11:17]:
        with closing(sqlite3.connect(directory / "d.db")) as connection:
            rows.append(connection.execute("SELECT count(*) FROM t").fetchone()[0])
    assert rows == [0, 0, 0, 0, 3, 3]


def test_of_a_transaction_and_a_call_one_point_stands_for_those_that_leave_the_same() -> None:
    assert [STEPS[number] for number in distinct(STEPS)][10:] == [
        "CREATE TABLE t, alone",
        "INSERT INTO t",
        "COMMIT",
        "close",
        "answer /v1/thing",
        END,
    ]


def test_a_point_that_is_not_met_fails(directories: list[Path]) -> None:
    def nothing(_place: Place) -> None:
        os.getpid()

    assert trace_points(nothing, Place(directories[0])) == [END]
    with pytest.raises(AssertionError, match="was 'open /a' at first, and 'end' now"):
        kill_at(["open /a"], 0, nothing, Place(directories[0]))
    with pytest.raises(AssertionError):
        kill_at([END, END], 1, nothing, Place(directories[0]))
    with pytest.raises(AssertionError):
        carry_out(lambda _place: 1 / 0 and None, Place(directories[0]))
