"""A disk that fills up under a backup, a restore, a move to another protector and a new root.

Each command is tried with ever more room until that is enough. Until then it ends with a sentence that says what to do,
nothing half-made is there or taken for anything, and what was there is intact; then the same again finishes. A disk is
a tmpfs, which takes root; a limit of the size of files stands in for one, and runs everywhere.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import pytest
from crash_scenes import KEYS, Scene, materials, state_of
from local_stores import can_mount, in_child, read_all, tmpfs
from protector_places import RemotePlace
from vault_clusters import VaultCluster

from ringfence_agent.keystore.backup import unpacked

PAGE_BYTES = 4096
MOST_PAGES = 4096


class Disk(Protocol):
    """A directory where there is so much room, and what a process is told that works there."""

    directory: Path
    only_pages: int | None

    @contextmanager
    def room(self, pages: int) -> Iterator[None]: ...


@dataclass
class SmallTmpfs:
    """A file system of its own. What is unpacked in memory comes here too."""

    directory: Path
    only_pages: int | None = None

    @contextmanager
    def room(self, pages: int) -> Iterator[None]:
        ballast = self.directory / "ballast"
        written = 0
        with ballast.open("wb", buffering=0) as stream:
            try:
                while True:
                    written += stream.write(bytes(PAGE_BYTES))
            except OSError:
                stream.truncate(max(0, written - pages * PAGE_BYTES))
        yield
        ballast.unlink()


@dataclass
class SizeLimit:
    """No file grows beyond that."""

    directory: Path
    only_pages: int | None = None

    @contextmanager
    def room(self, pages: int) -> Iterator[None]:
        self.only_pages = pages
        yield
        self.only_pages = None


@pytest.fixture(params=["limit", "tmpfs"] if can_mount() else ["limit"])
def disk(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Disk]:
    directory = tmp_path / "disk"
    directory.mkdir(mode=0o700)
    # Where backups are unpacked, in memory and where that cannot be.
    monkeypatch.setattr(unpacked, "_IN_MEMORY", directory)
    monkeypatch.setattr(tempfile, "tempdir", str(directory))
    if request.param == "limit":
        yield SizeLimit(directory)
        return
    with tmpfs(directory, "8m"):
        yield SmallTmpfs(directory)


def attempt(scene: Scene, words: Sequence[str], only_pages: int | None) -> dict[str, str] | None:
    """What the command in its own process failed with; None when it did not."""

    def act(report: int) -> None:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 1)  # these are files too
        os.dup2(nowhere, 2)
        if only_pages is not None:
            _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
            resource.setrlimit(resource.RLIMIT_FSIZE, (only_pages * PAGE_BYTES, hard))
        try:
            scene.run(*words)
        except BaseException as error:  # noqa: BLE001 -- another error than ours is a finding
            hint = str(getattr(error, "hint", None) or "")
            told = {"kind": type(error).__name__, "message": str(error), "hint": hint}
            os.write(report, (json.dumps(told) + "\n").encode())

    pid, read_end = in_child(act)
    told = read_all(read_end)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    return json.loads(told[0]) if told else None


@dataclass
class Case:
    """`words` are given with the scene; `intact` looks at what a refused run left; `kinds` are the errors' classes."""

    template: Scene
    words: Callable[[Scene], Sequence[Sequence[str]]]
    intact: Callable[[Scene], object]
    kinds: tuple[str, ...] = ("StoreUnavailableError",)


def is_whole(scene: Scene) -> None:
    with scene.opened() as store:
        assert {name: len(found) for name, found in materials(store).items()} == KEYS
        assert [key.metadata.name for key in store.list_deleted()] == ["gone"]


def has_no_backup(scene: Scene) -> None:
    is_whole(scene)
    assert {path.suffix for path in scene.backups.iterdir()} <= {".high-water"}


def is_not_there_or_whole(scene: Scene) -> None:
    if scene.store.exists():
        is_whole(scene)
    assert not list(scene.directory.glob("*restoring*"))


@pytest.fixture
def vault_blocks(vault_cluster_on_double: VaultCluster) -> dict[str, object]:
    return {"vault": vault_cluster_on_double.block}


CASES = ["backup", "restore", "move", "rotate-root"]


@pytest.fixture(params=CASES)
def case(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    vault_blocks: dict[str, object],
    find_remote: Callable[[str], RemotePlace],
) -> Case:
    if request.param == "move":
        remote = find_remote("vault-transit")
        names = ("file", "vault-transit")
        template = Scene.make(tmp_path / "template", names, vault_blocks, lambda: (remote.open(),), with_held=True)
        return Case(template, lambda _: (("protect", "--with", "vault-transit"), ("rewrap",)), is_whole)
    template = Scene.make(tmp_path / "template", ("file",), {}, with_held=True)
    if request.param == "backup":
        return Case(template, lambda _: (("backup",),), has_no_backup, ("StoreUnavailableError", "BackupError"))
    if request.param == "rotate-root":
        return Case(template, lambda _: (("rotate-root",),), is_whole)
    assert attempt(template, ["backup"], None) is None
    for path in template.directory.glob("keys.db*"):
        if path != template.root_key:
            path.unlink()

    def restore(scene: Scene) -> Sequence[Sequence[str]]:
        return (("restore", str(next(scene.backups.glob("*.rfbackup")))),)

    return Case(template, restore, is_not_there_or_whole, ("BackupError",))


@pytest.mark.parametrize("every", [False, pytest.param(True, marks=pytest.mark.long)])
def test_a_disk_that_fills_up(case: Case, disk: Disk, every: bool) -> None:
    expected = carried_out(case, disk)
    refusals, pages = [], 0
    while True:
        scene = case.template.copied(disk.directory / "scene")
        with disk.room(pages):
            told = run_all(case, scene, disk)
        refusals += told
        case.intact(scene) if told else is_whole(scene)
        for each in told:
            assert each["kind"] in case.kinds, (pages, each)
            assert each["hint"] and str(disk.directory) in each["message"], (pages, each)
            assert ".restoring" not in each["message"] and "ringfence-backup-" not in each["message"], (pages, each)
        assert not list(disk.directory.glob("ringfence-backup-*"))
        assert run_all(case, scene, disk) == [], pages
        if told or case.words(scene)[0][0] != "rotate-root":
            assert state_of(scene) == expected, pages
        shutil.rmtree(scene.directory)
        if not told:
            break
        pages = pages + 1 if every or pages == 0 else 2 * pages
        assert pages < MOST_PAGES
    assert refusals


def carried_out(case: Case, disk: Disk) -> dict[str, object]:
    scene = case.template.copied(disk.directory / "scene")
    assert run_all(case, scene, disk) == []
    state = state_of(scene)
    shutil.rmtree(scene.directory)
    return state


def run_all(case: Case, scene: Scene, disk: Disk) -> list[dict[str, str]]:
    """The refusals; after one nothing more is tried."""
    for words in case.words(scene):
        told = attempt(scene, words, disk.only_pages)
        if told is not None:
            return [told]
    return []
