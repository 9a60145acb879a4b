"""A transfer that is copied on YARN, from beginning to end: one job at a time, and only what can be believed of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from crash_points import carry_out, distinct, kill_at, trace_points
from transfer_scenes import FILES, ID, SOURCE, TARGET, Scene

from ringfence_agent.transfer.engine import StoppedError
from ringfence_agent.transfer.job import choose
from ringfence_agent.transfer.record import Job, Problem, State, Transfer, Zone
from ringfence_zones.errors import YarnUnavailableError
from ringfence_zones.receipt import read_public_key, verify_receipt
from ringfence_zones.yarn import Application

TAG = f"ringfence-transfer-{ID}"
Records = list[dict[str, Any]]


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return begin(tmp_path / "scene")


def begin(directory: Path) -> Scene:
    directory.mkdir()
    made = Scene(directory)
    made.job_above = 100
    made.make_source()
    return made


def assert_failed_and_left_nothing(scene: Scene, transfer: Transfer, *words: str) -> None:
    assert transfer.state is State.FAILED
    assert transfer.problem is not None
    for each in words:
        assert each in transfer.problem.message
    assert scene.hdfs.content(SOURCE) == FILES
    assert not scene.hdfs.local(TARGET).exists()
    assert scene.leftovers() == []


def test_a_tree_is_copied_by_one_job_and_receipted(scene: Scene) -> None:
    transfer = scene.run()
    assert (transfer.state, transfer.problem, transfer.files_verified) == (State.DONE, None, 3)
    assert scene.hdfs.content(TARGET) == FILES
    assert scene.hdfs.local(f"{TARGET}/empty").is_dir()
    assert scene.leftovers() == []
    assert [(app["name"], app["state"]) for app in scene.yarn.apps] == [(f"{TAG}-1", "SUCCEEDED")]
    public = (scene.directory / "receipt-key.pub").read_bytes()
    receipt = verify_receipt(scene.receipt(), read_public_key(public, "receipt-key.pub"))
    assert [(file.path, file.bytes) for file in receipt.files] == [("a", 5000), ("b", 0), ("sub/c", 1500)]


def test_progress_counts_what_the_job_reads_on_both_sides(scene: Scene) -> None:
    seen = []

    def alter(records: Records) -> Records:
        seen.append(scene.meter.pace().moved)
        return records

    scene.yarn.alter = alter
    scene.run()
    assert seen == [0, 10_000, 13_000]
    assert scene.meter.pace().moved == 13_000


def test_what_is_not_above_the_size_is_copied_here(scene: Scene) -> None:
    scene.job_above = 6500
    assert scene.run().state is State.DONE
    assert scene.yarn.apps == []


def test_a_single_file_is_copied_by_a_job(tmp_path: Path) -> None:
    scene = Scene(tmp_path / "s")
    scene.job_above = 3
    scene.hdfs.write(SOURCE, b"alone")
    assert scene.run().state is State.DONE
    assert len(scene.yarn.apps) == 1
    assert scene.hdfs.content(TARGET) == {"": b"alone"}


def test_what_the_job_works_with_is_closed_to_others(scene: Scene) -> None:
    modes = {}

    def alter(records: Records) -> Records:
        for path in scene.hdfs.root.rglob("_ringfence_job_*"):
            for each in (path, path / "1", path / "1/copies"):
                modes[each] = each.stat().st_mode & 0o777
        return records

    scene.yarn.alter = alter
    scene.run()
    assert len(modes) == 3
    assert set(modes.values()) == {0o700}


def with_first(**values: Any) -> Callable[[Records], Records]:
    """Every first record of a part, altered."""
    return lambda records: [{**records[0], **values}, *records[1:]]


@pytest.mark.parametrize(
    ("alter", "words"),
    [
        (lambda records: records[:-1], "left out"),
        (lambda records: [*records, records[0]], "twice"),
        (with_first(path="../../other"), "was not given"),
        (with_first(path="a/../a"), "was not given"),
        (with_first(copy="../../../data/pii/x"), "not this file's"),
        (with_first(copy="99.m_000000_0"), "not this file's"),
        (with_first(copy="0.m_000777_3", path="a"), "that is not there"),
        (with_first(sha256_back="0" * 64), "does not hold what was read"),
        (with_first(bytes_read=7, bytes_back=7), "held 5000 bytes when it was listed and 7 when read"),
        (with_first(bytes_back=-1), "no record"),
        (with_first(more="x"), "no record"),
        (lambda records: [{"path": "a", "error": "cat: denied\x1b[2J"}], "could not copy a: cat: denied?[2J"),
    ],
)
def test_a_job_that_says_what_cannot_be_fails_the_transfer(
    scene: Scene, alter: Callable[[Records], Records], words: str
) -> None:
    scene.yarn.alter = alter
    transfer = scene.run()
    assert_failed_and_left_nothing(scene, transfer, words)


def test_a_job_that_failed_fails_the_transfer_with_yarn_s_words(scene: Scene) -> None:
    scene.yarn.fails = True
    assert_failed_and_left_nothing(scene, scene.run(), "application_1_0000", "its last attempt failed")


def test_a_submission_that_hadoop_refuses_fails_with_its_reason(scene: Scene) -> None:
    scene.yarn.refuses = "masker may not submit to the queue"
    assert_failed_and_left_nothing(scene, scene.run(), "masker may not submit to the queue")


def test_a_submission_that_was_taken_and_told_as_an_error_is_followed(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = scene.yarn.submit

    def submit(order: Any) -> None:
        real(order)
        scene.yarn.refuses = "the connection broke off"
        real(order)

    monkeypatch.setattr(scene.yarn, "submit", submit)
    assert scene.run().state is State.DONE
    assert len(scene.yarn.apps) == 1


def test_where_a_grant_would_be_needed_it_is_refused_before_anything_is_written(scene: Scene) -> None:
    scene.ungranted = Zone(path="/data/pii", key="k")
    transfer = scene.run()
    assert_failed_and_left_nothing(scene, transfer, "no edge of the policy lets masker copy from /data/pii")
    assert transfer.problem is not None
    assert "transfers.job.above" in (transfer.problem.hint or "")
    assert scene.yarn.apps == []


@pytest.mark.parametrize("name", ["a,b", "x{1}", "q*", "$HOME", "back\\slash"])
def test_a_target_beside_which_hadoop_s_patterns_mean_another_place_is_refused(tmp_path: Path, name: str) -> None:
    scene = Scene(tmp_path / "s", target=f"/data/masked/{name}/export")
    scene.job_above = 100
    scene.make_source()
    transfer = scene.run()
    assert transfer.problem is not None
    assert "takes characters of that name for a pattern" in transfer.problem.message
    assert scene.yarn.apps == []


def test_yarn_that_is_away_is_waited_for_and_the_job_goes_on_meanwhile(scene: Scene) -> None:
    def alter(records: Records) -> Records:
        scene.yarn.is_away = True
        return records

    scene.yarn.alter = alter
    with pytest.raises(YarnUnavailableError):
        scene.run()
    scene.yarn.is_away, scene.yarn.alter = False, lambda records: records
    assert scene.run().state is State.DONE
    assert len(scene.yarn.apps) == 1


def test_a_finished_job_that_yarn_has_forgotten_is_taken_from_what_it_wrote(scene: Scene) -> None:
    scene.yarn.forgets = True
    with pytest.raises(YarnUnavailableError, match="does not know application_1_0000 any more"):
        scene.run()
    transfer = scene.run()
    assert (transfer.state, transfer.files_verified) == (State.DONE, 3)
    assert len(scene.yarn.apps) == 1


def test_of_a_job_that_yarn_lost_only_what_is_missing_is_submitted_again(scene: Scene) -> None:
    copied = []

    def lose(records: Records) -> Records:
        copied.extend(record["path"] for record in records)
        scene.stop.set()
        return records

    scene.yarn.alter = lose
    with pytest.raises(StoppedError):
        scene.run()
    scene.stop.clear()
    scene.yarn.kill("application_1_0000")
    scene.yarn.forgets = True

    def go_on(records: Records) -> Records:
        copied.extend(record["path"] for record in records)
        scene.yarn.forgets = False
        return records

    scene.yarn.alter = go_on
    transfer = scene.run()
    assert (transfer.state, transfer.problem) == (State.DONE, None)
    assert copied == ["a", "sub/c", "b"]
    assert [app["name"][-2:] for app in scene.yarn.apps] == ["-1", "-2"]
    assert scene.hdfs.content(TARGET) == FILES


def test_an_agent_that_stops_leaves_its_job_and_the_next_one_finds_it(scene: Scene) -> None:
    def alter(records: Records) -> Records:
        scene.stop.set()
        return records

    scene.yarn.alter = alter
    with pytest.raises(StoppedError):
        scene.run()
    scene.stop.clear()
    scene.yarn.alter = lambda records: records
    assert scene.run().state is State.DONE
    assert [app["state"] for app in scene.yarn.apps] == ["SUCCEEDED"]


def test_a_cancelled_transfer_kills_its_job(scene: Scene) -> None:
    def alter(records: Records) -> Records:
        ledger = scene.open_ledger()
        ledger.failing(ID, Problem(kind="CancelledError", message="cancelled by masker"))
        ledger.close()
        return records

    scene.yarn.alter = alter
    assert_failed_and_left_nothing(scene, scene.run(), "cancelled by masker")
    assert [app["state"] for app in scene.yarn.apps] == ["KILLED"]


def test_jobs_of_other_users_under_its_tag_are_not_its_jobs_and_are_left_alone(scene: Scene) -> None:
    scene.yarn.add(f"{TAG}-1", TAG, user="mallory")
    assert scene.run().state is State.DONE
    assert [(app["user"], app["state"]) for app in scene.yarn.apps] == [("mallory", "RUNNING"), ("masker", "SUCCEEDED")]


def test_another_job_of_the_transfer_is_killed_before_the_ledger_s_own_is_submitted(scene: Scene) -> None:
    scene.yarn.add(f"{TAG}-9", TAG)
    assert scene.run().state is State.DONE
    assert [(app["name"][-2:], app["state"]) for app in scene.yarn.apps] == [("-9", "KILLED"), ("-1", "SUCCEEDED")]


def application(number: int, name: str = f"{TAG}-2", *, is_over: bool = False) -> Application:
    return Application(f"application_1_{number:04}", "masker", name, is_over, has_succeeded=False, says="")


def test_the_ledger_s_application_is_followed_and_no_other_may_run_beside_it() -> None:
    mine, old, over = application(3), application(1, f"{TAG}-1"), application(2, is_over=True)
    assert choose(Job(2, None), f"{TAG}-2", [old, mine]) == (mine, [old])
    assert choose(Job(2, mine.id), f"{TAG}-2", [old, over, mine]) == (mine, [old])
    # Before its id is known: the oldest of the name, and a double of it must not run.
    assert choose(Job(2, None), f"{TAG}-2", [mine, application(4)]) == (mine, [application(4)])
    # One that is known is that one or none.
    assert choose(Job(2, "application_1_0009"), f"{TAG}-2", [mine]) == (None, [mine])
    assert choose(Job(0, None), f"{TAG}-0", []) == (None, [])


def test_killed_at_any_point_it_converges_with_one_job_at_a_time(tmp_path: Path) -> None:
    points = trace_points(Scene.run, begin(tmp_path / "rehearsal"))
    assert any("listing" in point for point in points), points
    for number in distinct(points):
        scene = begin(tmp_path / str(number))
        kill_at(points, number, Scene.run, scene)
        carry_out(Scene.run, scene)
        assert scene.run().state is State.DONE, points[number]
        assert scene.hdfs.content(TARGET) == scene.hdfs.content(SOURCE) == FILES, points[number]
        assert scene.leftovers() == [], points[number]
        assert [app["state"] for app in scene.yarn.apps].count("RUNNING") == 0, points[number]
        assert scene.yarn.most_alive <= 1


def test_killed_while_it_ends_a_cancelled_job_it_ends_it_all_the_same(tmp_path: Path) -> None:
    def fail(scene: Scene) -> None:
        scene.yarn.alter = with_first(sha256_back="0" * 64)
        scene.run()

    points = trace_points(fail, begin(tmp_path / "rehearsal"))
    for number in distinct(points):
        scene = begin(tmp_path / str(number))
        kill_at(points, number, fail, scene)
        carry_out(fail, scene)
        assert_failed_and_left_nothing(scene, scene.run())
        assert "RUNNING" not in [app["state"] for app in scene.yarn.apps]
