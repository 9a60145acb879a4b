"""One transfer from beginning to end: what it leaves when it succeeds, when it fails, when it is killed anywhere."""

from __future__ import annotations

import os
from pathlib import Path

import local_hdfs
import pytest
from crash_points import carry_out, distinct, kill_at, trace_points
from transfer_scenes import FILES, ID, SOURCE, TARGET, Scene

from ringfence_agent.transfer.engine import StoppedError
from ringfence_agent.transfer.hands import Copied, Progress
from ringfence_agent.transfer.record import State
from ringfence_zones.errors import KmsUnavailableError, RefusedError
from ringfence_zones.findings import Rule
from ringfence_zones.receipt import Receipt, read_public_key, verify_receipt


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    made = Scene(tmp_path)
    made.make_source()
    return made


def verified(scene: Scene) -> Receipt:
    """The receipt, verified with the public key as the agent exports it."""
    public = (scene.directory / "receipt-key.pub").read_bytes()
    return verify_receipt(scene.receipt(), read_public_key(public, "receipt-key.pub"))


def assert_nothing_happened(scene: Scene) -> None:
    assert scene.hdfs.content(SOURCE) == FILES
    assert not scene.hdfs.local(TARGET).exists()
    assert scene.leftovers() == []


def test_a_tree_is_copied_verified_placed_and_receipted(scene: Scene) -> None:
    transfer = scene.run()
    assert (transfer.state, transfer.files, transfer.files_verified) == (State.DONE, 3, 3)
    assert scene.hdfs.content(TARGET) == scene.hdfs.content(SOURCE) == FILES
    assert scene.hdfs.local(f"{TARGET}/empty").is_dir()
    assert scene.leftovers() == []
    receipt = verified(scene)
    assert [(file.path, file.bytes) for file in receipt.files] == [("a", 5000), ("b", 0), ("sub/c", 1500)]
    assert (receipt.source.key_versions, receipt.target.key_versions) == (["k-pii@0"], ["k-masked@3"])
    assert (receipt.policy.revision, receipt.source_removed, receipt.bytes) == (7, False, 6500)


def test_a_single_file_is_transferred_under_its_own_name(tmp_path: Path) -> None:
    scene = Scene(tmp_path)
    scene.hdfs.write(SOURCE, b"alone")
    assert scene.run().state is State.DONE
    assert scene.hdfs.content(TARGET) == {"": b"alone"}
    assert [file.path for file in verified(scene).files] == [""]


def test_mode_and_times_are_kept_and_the_receipt_says_what_is_not(scene: Scene) -> None:
    path = scene.hdfs.local(f"{SOURCE}/a")
    path.chmod(0o640)
    os.utime(path, (1_000_000, 2_000_000))
    scene.run()
    status = scene.hdfs.local(f"{TARGET}/a").stat()
    assert (status.st_mode & 0o777, status.st_mtime) == (0o640, 2_000_000)
    receipt = verified(scene)
    assert receipt.kept == ["mode", "times"]
    assert {"acl", "xattr", "owner", "group"} <= set(receipt.not_kept)


def test_without_mode_and_times_the_copy_has_hadoops_own(tmp_path: Path) -> None:
    scene = Scene(tmp_path, keep=())
    scene.make_source()
    scene.hdfs.local(f"{SOURCE}/a").chmod(0o600)
    scene.run()
    assert scene.hdfs.local(f"{TARGET}/a").stat().st_mode & 0o777 == 0o644


def test_the_source_is_removed_after_everything_was_verified(tmp_path: Path) -> None:
    scene = Scene(tmp_path, remove_source=True)
    scene.make_source()
    transfer = scene.run()
    assert (transfer.state, transfer.source_removed, transfer.problem) == (State.DONE, True, None)
    assert not scene.hdfs.local(SOURCE).exists()
    assert scene.hdfs.content(TARGET) == FILES
    assert verified(scene).source_removed
    assert scene.leftovers() == []


def test_a_source_that_changed_after_the_copy_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scene = Scene(tmp_path, remove_source=True)
    scene.make_source()
    real = scene.hdfs.rename

    def rename(source: str, target: str) -> None:
        real(source, target)
        if target == TARGET:  # the copy is placed: whoever still has the name writes once more
            scene.hdfs.write(f"{SOURCE}/a", b"later")

    monkeypatch.setattr(scene.hdfs, "rename", rename)
    transfer = scene.run()
    assert (transfer.state, transfer.source_removed) == (State.DONE, False)
    assert transfer.problem is not None
    assert "a was written to" in transfer.problem.message
    assert scene.hdfs.content(SOURCE)["a"] == b"later"
    assert not verified(scene).source_removed
    assert scene.leftovers() == []


def test_a_source_that_was_moved_elsewhere_is_not_said_to_be_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene = Scene(tmp_path, remove_source=True)
    scene.make_source()
    real = scene.hdfs.rename

    def rename(source: str, target: str) -> None:
        real(source, target)
        if target == TARGET:
            real(SOURCE, "/data/pii/hidden")

    monkeypatch.setattr(scene.hdfs, "rename", rename)
    transfer = scene.run()
    assert (transfer.state, transfer.source_removed) == (State.DONE, False)
    assert transfer.problem is not None
    assert "was moved elsewhere" in transfer.problem.message
    assert scene.hdfs.content("/data/pii/hidden") == FILES
    assert not verified(scene).source_removed


@pytest.mark.parametrize(("zone", "root"), [("/data/pii", SOURCE), ("/data/masked", "/data/masked/_ringfence_")])
def test_another_zone_in_the_place_of_one_is_known_by_its_key(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, zone: str, root: str
) -> None:
    # Whoever may rename zone roots puts another one there after the policy was asked.
    monkeypatch.setitem(local_hdfs.ZONES, zone, "k-hr@0")
    transfer = scene.run()
    assert transfer.state is State.FAILED
    assert transfer.problem is not None
    assert transfer.problem.message.startswith(root)
    assert "holds files of the key k-hr" in transfer.problem.message
    assert scene.hdfs.content(TARGET) == {}
    assert scene.leftovers() == []


def write(scene: Scene) -> None:
    scene.hdfs.write(f"{SOURCE}/a", b"other" * 1000)
    os.utime(scene.hdfs.local(f"{SOURCE}/a"), (5, 5))


def lengthen(scene: Scene) -> None:
    scene.hdfs.write(f"{SOURCE}/sub/c", FILES["sub/c"] + b"more")


def add(scene: Scene) -> None:
    scene.hdfs.write(f"{SOURCE}/new", b"")


def remove(scene: Scene) -> None:
    scene.hdfs.local(f"{SOURCE}/a").unlink()


def replace(scene: Scene) -> None:
    """Another file of the same name, length and time: only its inode tells."""
    path = scene.hdfs.local(f"{SOURCE}/a")
    times = path.stat()
    path.rename(scene.directory / "aside")
    path.write_bytes(b"other" * 1000)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


def open_again(scene: Scene) -> None:
    scene.hdfs.open_files.add(f"{SOURCE}/a")


@pytest.mark.parametrize("change", [write, lengthen, add, remove, replace, open_again])
def test_a_source_that_changes_meanwhile_is_found_and_refused(scene: Scene, change: object) -> None:
    def before_copy(path: str) -> None:
        if path.endswith("/sub/c"):  # the last one: everything else is copied by then
            change(scene)  # type: ignore[operator]

    scene.hdfs.before_copy = before_copy
    transfer = scene.run()
    assert transfer.state is State.FAILED
    assert transfer.problem is not None
    assert transfer.problem.kind == "SourceChangedError", transfer.problem.message
    assert not scene.hdfs.local(TARGET).exists()
    assert scene.leftovers() == []


def test_a_source_with_an_open_file_is_not_begun(scene: Scene) -> None:
    open_again(scene)
    transfer = scene.run()
    assert transfer.problem is not None
    assert "is open: somebody writes to it" in transfer.problem.message
    assert_nothing_happened(scene)


def test_a_copy_that_reads_back_otherwise_fails_and_leaves_nothing(scene: Scene) -> None:
    scene.hdfs.after_read = lambda content: content[:-1] + b"?" if content else content
    transfer = scene.run()
    assert transfer.problem is not None
    assert "does not hold what was read" in transfer.problem.message
    assert transfer.state is State.FAILED
    assert_nothing_happened(scene)


def test_a_target_that_is_there_is_never_replaced(scene: Scene) -> None:
    scene.hdfs.write(TARGET, b"mine")
    transfer = scene.run()
    assert transfer.problem is not None
    assert "is there already" in transfer.problem.message
    assert scene.hdfs.content(TARGET) == {"": b"mine"}
    assert scene.leftovers() == []


def test_a_target_that_appears_at_the_last_moment_is_not_replaced_either(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = scene.hdfs.rename

    def rename(source: str, target: str) -> None:
        scene.hdfs.write(TARGET, b"mine")
        real(source, target)

    monkeypatch.setattr(scene.hdfs, "rename", rename)
    assert scene.run().state is State.FAILED
    assert scene.hdfs.content(TARGET) == {"": b"mine"}
    assert scene.leftovers() == []


def test_a_copy_that_is_changed_in_the_staging_place_gets_no_receipt(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = scene.hdfs.rename

    def rename(source: str, target: str) -> None:
        scene.hdfs.write(f"{source}/a", b"swapped" * 9)
        real(source, target)

    monkeypatch.setattr(scene.hdfs, "rename", rename)
    transfer = scene.run()
    assert transfer.state is State.FAILED
    assert transfer.problem is not None
    assert "is not what was verified" in transfer.problem.message
    assert scene.hdfs.content(SOURCE) == FILES


def test_a_copy_that_is_swapped_after_it_was_read_back_gets_no_receipt(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Of the same length, and before the engine looks which inodes it has staged: only whose it is tells.
    real = scene.hdfs.copy

    def copy(source: str, target: str, progress: Progress) -> Copied:
        copied = real(source, target, progress)
        if source == f"{SOURCE}/a":
            scene.hdfs.local(target).rename(scene.directory / "aside")
            scene.hdfs.write(target, b"other" * 1000)
            scene.hdfs.strangers.add(scene.hdfs.local(target).stat().st_ino)
        return copied

    monkeypatch.setattr(scene.hdfs, "copy", copy)
    transfer = scene.run()
    assert transfer.state is State.FAILED
    assert transfer.problem is not None
    assert "/a is etl's, and not the copy that was verified" in transfer.problem.message
    assert_nothing_happened(scene)


def test_a_permission_that_was_withdrawn_before_placing_counts(scene: Scene) -> None:
    def withdraw(_path: str) -> None:
        scene.refused = RefusedError("the policy has no flow any more", Rule.ZONE_TO_ZONE)

    scene.hdfs.before_copy = withdraw
    transfer = scene.run()
    assert transfer.problem is not None
    assert (transfer.problem.kind, transfer.problem.rule) == ("RefusedError", "zone_to_zone")
    assert_nothing_happened(scene)


def test_a_source_beyond_the_limit_is_refused_before_anything_is_written(scene: Scene) -> None:
    scene.max_bytes = 6499
    transfer = scene.run()
    assert transfer.problem is not None
    assert "more than this agent transfers (6499)" in transfer.problem.message
    assert_nothing_happened(scene)


def test_what_passes_is_waited_for_and_verified_files_are_not_copied_again(scene: Scene) -> None:
    copied: list[str] = []

    def before_copy(path: str) -> None:
        copied.append(path)
        if path.endswith("/sub/c") and copied.count(path) == 1:
            raise KmsUnavailableError("away")

    scene.hdfs.before_copy = before_copy
    with pytest.raises(KmsUnavailableError):
        scene.run()
    ledger = scene.open_ledger()
    assert (ledger.get(ID).state, ledger.get(ID).files_verified) == (State.COPYING, 2)
    ledger.close()
    assert scene.run().state is State.DONE
    assert sorted(copied) == [f"{SOURCE}/{name}" for name in ("a", "b", "sub/c", "sub/c")]


def test_an_agent_that_stops_leaves_the_transfer_where_it_is(scene: Scene) -> None:
    scene.hdfs.before_copy = lambda _path: scene.stop.set()
    with pytest.raises(StoppedError):
        scene.run()
    scene.stop.clear()
    scene.hdfs.before_copy = lambda _path: None
    assert scene.run().state is State.DONE


# kill -9


def begin(directory: Path, *, remove_source: bool) -> Scene:
    directory.mkdir()
    scene = Scene(directory, remove_source=remove_source)
    scene.make_source()
    return scene


@pytest.mark.parametrize("remove_source", [False, True])
def test_killed_at_any_point_it_converges_and_nothing_is_lost(tmp_path: Path, remove_source: bool) -> None:
    points = trace_points(Scene.run, begin(tmp_path / "rehearsal", remove_source=remove_source))
    assert sum("os.rename" in point for point in points) >= (3 if remove_source else 1), points
    for number in distinct(points):
        scene = begin(tmp_path / str(number), remove_source=remove_source)
        kill_at(points, number, Scene.run, scene)
        # Whatever was done by then: all of the data is in one of the places where it belongs, or on its way back.
        places = (SOURCE, TARGET, f"/data/pii/_ringfence_removal_{ID}")
        assert FILES in [scene.hdfs.content(place) for place in places if scene.hdfs.local(place).exists()], points[
            number
        ]
        carry_out(Scene.run, scene)
        assert scene.run().state is State.DONE, points[number]
        assert scene.hdfs.content(TARGET) == FILES, points[number]
        assert scene.hdfs.local(SOURCE).exists() is not remove_source, points[number]
        assert verified(scene).source_removed is remove_source
        assert scene.leftovers() == [], points[number]


def test_killed_while_it_cleans_up_it_cleans_up_all_the_same(tmp_path: Path) -> None:
    def fail(scene: Scene) -> None:
        # The last file: no other thread is under way then, and points come in one order.
        scene.hdfs.after_read = lambda content: content + b"?" if content.startswith(b"third") else content
        scene.run()

    points = trace_points(fail, begin(tmp_path / "rehearsal", remove_source=True))
    for number in distinct(points):
        scene = begin(tmp_path / str(number), remove_source=True)
        kill_at(points, number, fail, scene)
        carry_out(fail, scene)
        assert scene.run().state is State.FAILED
        assert_nothing_happened(scene)
