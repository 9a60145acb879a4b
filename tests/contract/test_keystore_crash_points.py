"""kill -9 at every crash point (`crash_points`) of what changes a store, under each protector.

After each kill the store opens and verifies wholly or is not there yet, every key version opens, what was acknowledged
is there; then the same again finishes, and leaves what it leaves when nobody is killed, to the last change number. By
default points that leave the same are driven once (`crash_points.distinct`), with `long` each; and stores in databases,
which `tests/unit/keystore/sql/test_server_crash_points.py` drives without servers that protect them.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from aws_kms_double import AwsKmsDouble
from aws_kms_places import make_key
from crash_points import END, carry_out, distinct, kill_at, trace_points
from crash_scenes import HELD, KEYS, Scene, left_directories, materials, slots_of, state_of
from databases import DatabaseServer
from local_stores import material_of, new_key
from protector_places import RemotePlace
from vault_clusters import VaultCluster

from ringfence_agent.keystore.backup.high_water import Mark, find_mark, put_mark
from ringfence_agent.keystore.backup.places import opened_backup
from ringfence_agent.keystore.protectors import aws_kms
from ringfence_agent.keystore.protectors.aws_kms import open_aws_kms
from ringfence_agent.keystore.protectors.aws_kms_config import AwsKmsSettings
from ringfence_agent.keystore.sql.store import SqlKeyStore
from ringfence_zones.errors import ConfigError, InputError, KeyExistsError, KeyNotFoundError
from ringfence_zones.secret import Secret

ALL = ("file", "vault-transit", "aws-kms")
ENGINES = ("postgresql", "mariadb")


def driven(*names: str, every: Sequence[str] = ALL, engines: Sequence[str] = ENGINES) -> pytest.MarkDecorator:
    """Protectors under which a test drives its distinct points by default; when long, each point under `every`
    protector, and the distinct ones in each engine.
    """
    cases = [pytest.param(name, False, id=name) for name in names]
    cases += [pytest.param(name, True, id=f"{name}-every", marks=pytest.mark.long) for name in every]
    stores = [f"{name}+{engine}" for engine in engines for name in every]
    cases += [pytest.param(store, False, id=store, marks=pytest.mark.long) for store in stores]
    return pytest.mark.parametrize(("protection", "every"), cases, indirect=["protection"])


# What a trace must have met, or it is blind: for each protector a remote call, for each change its commit.
SEALS = {"file": None, "vault-transit": r"answer /v1/.*/encrypt/z-wrap", "aws-kms": r"answer TrentService\.Encrypt"}
OPENS = {"file": None, "vault-transit": r"answer /v1/.*/decrypt/z-wrap", "aws-kms": r"answer TrentService\.Decrypt"}


@dataclass(frozen=True)
class Protection:
    """One of the protectors, and how kms.yaml sets it up. `server` is where stores are, when they are no files."""

    name: str
    blocks: dict[str, Any]
    open: Callable[[], Any] | None
    server: DatabaseServer | None = None

    def scene(self, directory: Path, *names: str) -> Scene:
        remote = self.open
        remotes = (lambda: (remote(),)) if remote else tuple
        named = names or (self.name,)
        return Scene.make(directory, named, self.blocks, remotes, server=self.server, with_held=True)


def before_forks(place: RemotePlace, settings: AwsKmsSettings, monkeypatch: pytest.MonkeyPatch) -> Callable[[], Any]:
    """A client that is made once for all children, since one takes the SDK long; it has no connection before a fork."""
    parent, unused = os.getpid(), open_aws_kms(settings)
    monkeypatch.setattr(aws_kms, "open_aws_kms", lambda _settings: unused)
    return lambda: place.open() if os.getpid() == parent else unused[0]


@pytest.fixture
def protections(
    request: pytest.FixtureRequest, find_remote: Callable[[str], RemotePlace], monkeypatch: pytest.MonkeyPatch
) -> Callable[[str], Protection]:
    """Each by its name."""

    def find(name: str) -> Protection:
        if name == "file":
            return Protection("file", {}, None)
        place = find_remote(name)
        if name == "aws-kms":
            aws: AwsKmsSettings = request.getfixturevalue("aws_kms_settings")
            double: AwsKmsDouble = request.getfixturevalue("aws_kms_double")
            return Protection("aws-kms", {"aws_kms": aws_block(aws, double)}, before_forks(place, aws, monkeypatch))
        cluster: VaultCluster = request.getfixturevalue("vault_cluster_on_double")
        return Protection("vault-transit", {"vault": cluster.block}, place.open)

    return find


def aws_block(settings: AwsKmsSettings, double: AwsKmsDouble) -> dict[str, Any]:
    block = {"key": settings.key, "cluster": settings.cluster, "endpoint": double.url, "deadline": "5s"}
    return {**block, "former_keys": list(settings.former_keys)}


@pytest.fixture
def protection(request: pytest.FixtureRequest, protections: Callable[[str], Protection]) -> Protection:
    name, _, engine = request.param.partition("+")
    server: DatabaseServer | None = request.getfixturevalue(engine) if engine else None
    return replace(protections(name), server=server)


class Storm:
    """Kills an action at its points, each in a copy of one scene."""

    def __init__(self, directory: Path, template: Scene, action: Callable[[Scene], object], *, every: bool) -> None:
        self._directory = directory
        self._template = template
        self._action = action
        rehearsed = template.copied(directory / "rehearsal")
        self.points = trace_points(action, rehearsed)
        self._end = state_of(rehearsed)
        self.numbers = list(range(len(self.points))) if every else distinct(self.points)
        assert self.points[-1] == END

    def met(self, *patterns: str | None) -> None:
        """That the trace is not blind: it has points like these."""
        for pattern in patterns:
            assert pattern is None or any(re.fullmatch(pattern, label) for label in self.points), pattern

    def check_end(self, scene: Scene) -> None:
        """That all is as if nobody had been killed."""
        assert state_of(scene) == self._end

    def check_each(self, check: Callable[[Scene, int], object]) -> None:
        """`check` gets what each kill left."""
        for number in self.numbers:
            scene = self._template.copied(self._directory / str(number))
            kill_at(self.points, number, self._action, scene)
            try:
                check(scene, number)
            except BaseException as error:
                error.add_note(f"killed before point {number}: {self.points[number]}")
                raise
            scene.drop()
        assert len(self.numbers) == len(list(self._directory.glob("[0-9]*")))


# -- keys


def change_keys(scene: Scene) -> None:
    """Each kind of change once; what was acknowledged stands outside of the scene."""
    log = os.open(scene.directory.parent / f"done-{scene.directory.name}", os.O_WRONLY | os.O_CREAT, 0o600)

    def acknowledge(change: str) -> None:
        os.write(log, f"{change}\n".encode())

    with scene.opened() as store:
        store.create_key(new_key("new"))
        acknowledge("create")
        store.roll_key("a", material_of("a", 2))
        acknowledge("roll")
        store.undelete_key("gone", 0)
        acknowledge("undelete")
        store.delete_key("b")
        acknowledge("delete")
        store.create_key(new_key("b", 1))
        acknowledge("recreate")
        store.roll_key("held", HELD[2])
        acknowledge("roll-held")
        store.delete_key("held")
        acknowledge("delete-held")


ORDER = ["create", "roll", "undelete", "delete", "recreate", "roll-held", "delete-held"]


def what_happened(store: SqlKeyStore) -> list[str]:
    found = materials(store)
    deleted = {key.metadata.name: key.metadata.versions for key in store.list_deleted()}
    happened = {
        "create": "new" in found,
        "roll": len(found["a"]) == 3,
        "undelete": "gone" in found,
        "delete": "b" in deleted or found.get("b") == [material_of("b", 1)],
        "recreate": found.get("b") == [material_of("b", 1)],
        "roll-held": 3 in (len(found.get("held", [])), deleted.get("held")),
        "delete-held": "held" in deleted,
    }
    return [change for change, done in happened.items() if done]


@driven(*ALL)
def test_changes_of_keys(protection: Protection, tmp_path: Path, every: bool) -> None:
    storm = Storm(tmp_path, protection.scene(tmp_path / "template"), change_keys, every=every)
    storm.met(SEALS[protection.name], OPENS[protection.name], "INSERT INTO zone_key")
    seen = set()

    def check(scene: Scene, _number: int) -> None:
        log = scene.directory.parent / f"done-{scene.directory.name}"
        acknowledged = log.read_text().split() if log.exists() else []
        with scene.opened() as store:
            happened = what_happened(store)
            assert happened == ORDER[: len(happened)]
            assert len(acknowledged) <= len(happened) <= len(acknowledged) + 1
            seen.add(len(happened))
            finish(store)
            assert what_happened(store) == ORDER
        storm.check_end(scene)
        with scene.opened() as store:
            assert store.roll_key("a", material_of("a", 3)).version == 3
        assert scene.files() == set()

    def finish(store: SqlKeyStore) -> None:
        """As clients do that ask again: what was done already is told to them."""
        with suppress(KeyExistsError):
            store.create_key(new_key("new"))
        if len(materials(store)["a"]) == 2:
            store.roll_key("a", material_of("a", 2))
        with suppress(KeyExistsError):
            store.undelete_key("gone", 0)
        if materials(store).get("b") == [material_of("b", 0)]:
            store.delete_key("b")
        with suppress(KeyExistsError):
            store.create_key(new_key("b", 1))
        if len(materials(store).get("held", [])) == 2:
            store.roll_key("held", HELD[2])
        with suppress(KeyNotFoundError):
            store.delete_key("held")

    storm.check_each(check)
    assert seen == set(range(len(ORDER) + 1))


@driven(*ALL, engines=())
def test_a_new_store(protection: Protection, tmp_path: Path, every: bool) -> None:
    template = protection.scene(tmp_path / "template")
    for path in template.directory.glob("keys.db*"):
        path.unlink()

    def make(scene: Scene) -> None:
        with scene.opened(init=True):
            pass

    storm = Storm(tmp_path, template, make, every=every)
    storm.met(SEALS[protection.name], "os.link /.keys.db.new")

    def check(scene: Scene, _number: int) -> None:
        with scene.opened(init=True):
            pass
        storm.check_end(scene)
        with scene.opened() as store:
            assert store.create_key(new_key("k")).version == 0
            assert slots_of(store) == [(1, True, 1)]
        assert scene.files() == set()

    storm.check_each(check)


# -- what protects them


def protect_and_rewrap(name: str) -> Callable[[Scene], None]:
    def act(scene: Scene) -> None:
        more = ("--new-root-key", str(scene.directory / "second.key")) if name == "file" else ()
        scene.run("protect", "--with", name, *more)
        scene.run("rewrap")

    return act


def moves_to(
    tmp_path: Path, template: Scene, name: str, expected: list[tuple[int, bool, int]], *, every: bool
) -> Sequence[str]:
    """Every key opens after each kill, and the same again finishes. The points."""
    action = protect_and_rewrap(name)
    storm = Storm(tmp_path, template, action, every=every)
    storm.met(SEALS[name], OPENS[name], "COMMIT", "os.link /.second.key.new" if name == "file" else None)
    states = set()

    def check(scene: Scene, _number: int) -> None:
        with scene.opened() as store:
            assert {name: len(found) for name, found in materials(store).items()} == KEYS
            states.add(tuple(slots_of(store)))
        carry_out(action, scene)
        storm.check_end(scene)
        with scene.opened() as store:
            assert slots_of(store) == expected
            assert {name: len(found) for name, found in materials(store).items()} == KEYS
            assert store.create_key(new_key("gone", 1)).version == 1
        assert scene.files() <= {"second.key"}

    storm.check_each(check)
    assert len(states) > 1
    return storm.points


@driven(*ALL)
def test_a_move_to_another_protector(protection: Protection, tmp_path: Path, every: bool) -> None:
    names = ("file",) if protection.name == "file" else ("file", protection.name)
    template = protection.scene(tmp_path / "template", *names)
    # Slots of files give the same root, so what one of them sealed counts for each.
    moved = [(1, False, 4), (2, True, 4)] if protection.name == "file" else [(1, False, 0), (2, True, 4)]
    moves_to(tmp_path, template, protection.name, moved, every=every)


@driven("vault-transit", every=("vault-transit", "aws-kms"))
def test_a_move_back_to_a_root_key_file(protection: Protection, tmp_path: Path, every: bool) -> None:
    template = protection.scene(tmp_path / "template")
    moves_to(tmp_path, template, "file", [(1, False, 0), (2, True, 4)], every=every)


@pytest.mark.long
@pytest.mark.parametrize(("source", "target"), [("vault-transit", "aws-kms"), ("aws-kms", "vault-transit")])
def test_a_move_between_remote_protectors(
    protections: Callable[[str], Protection], tmp_path: Path, source: str, target: str
) -> None:
    there, to = protections(source), protections(target)
    assert there.open is not None and to.open is not None
    opened = there.open, to.open
    both = Scene.make(
        *(tmp_path / "template", (source, target), {**there.blocks, **to.blocks}),
        lambda: tuple(each() for each in opened),
        with_held=True,
    )
    moves_to(tmp_path, both, target, [(1, False, 0), (2, True, 4)], every=False)


@pytest.mark.long
def test_a_move_to_another_key_of_aws_kms(
    protections: Callable[[str], Protection],
    aws_kms_settings: AwsKmsSettings,
    aws_kms_double: AwsKmsDouble,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    """AWS re-encrypts: no material comes here."""
    first = protections("aws-kms").scene(tmp_path / "template")
    settings = replace(aws_kms_settings, key=make_key(aws_kms_double), former_keys=(aws_kms_settings.key,))
    parent, ours, childrens = os.getpid(), open_aws_kms(settings), open_aws_kms(settings)
    monkeypatch.setattr(aws_kms, "open_aws_kms", lambda _settings: childrens)
    moved = replace(
        first,
        blocks={"aws_kms": aws_block(settings, aws_kms_double)},
        remotes=lambda: tuple(ours if os.getpid() == parent else childrens),
    ).named("aws-kms")
    points = moves_to(tmp_path, moved, "aws-kms", [(1, False, 0), (2, True, 4)], every=False)
    assert "answer TrentService.ReEncrypt" in points


def unprotect(scene: Scene) -> None:
    """Again, once the slot is gone, it is told that there is none."""
    with suppress(InputError):
        scene.run("unprotect", "1")


@driven(*ALL)
def test_a_slot_that_is_taken_away(protection: Protection, tmp_path: Path, every: bool) -> None:
    names = ("file",) if protection.name == "file" else ("file", protection.name)
    template = protection.scene(tmp_path / "template", *names)
    carry_out(protect_and_rewrap(protection.name), template)
    template = template.named(protection.name)
    storm = Storm(tmp_path, template, unprotect, every=every)
    storm.met(OPENS[protection.name], "UPDATE store_header")
    numbers_of_slots = set()

    def check(scene: Scene, _number: int) -> None:
        with scene.opened() as store:
            assert {name: len(found) for name, found in materials(store).items()} == KEYS
            numbers_of_slots.add(len(slots_of(store)))
        carry_out(unprotect, scene)
        storm.check_end(scene)
        with scene.opened() as store:
            assert slots_of(store) == [(2, True, 4)]
            assert {name: len(found) for name, found in materials(store).items()} == KEYS

    storm.check_each(check)
    assert numbers_of_slots == {1, 2}


@driven(*ALL)
def test_a_new_root(protection: Protection, tmp_path: Path, every: bool) -> None:
    template = protection.scene(tmp_path / "template")
    with template.opened() as store:
        old = store.derive_secret("cookies")

    def rotate(scene: Scene) -> None:
        scene.run("rotate-root")

    storm = Storm(tmp_path, template, rotate, every=every)
    storm.met(SEALS[protection.name], "UPDATE key_version" if every else None, "COMMIT")
    roots = set()

    def check(scene: Scene, _number: int) -> None:
        first = root_of(scene)
        roots.add(first == old)
        if first == old:  # else it is done, and only nobody was told
            carry_out(rotate, scene)
            assert root_of(scene) != old
        storm.check_end(scene)

    def root_of(scene: Scene) -> Secret:
        with scene.opened() as store:
            assert {name: len(found) for name, found in materials(store).items()} == KEYS
            assert slots_of(store) == [(1, True, 4)]
            return store.derive_secret("cookies")

    storm.check_each(check)
    assert roots == {True, False}


# -- backups


def back_up(scene: Scene) -> None:
    scene.run("backup")


@driven("file", "vault-transit")
def test_a_backup(protection: Protection, tmp_path: Path, every: bool) -> None:
    template = protection.scene(tmp_path / "template")
    storm = Storm(tmp_path, template, back_up, every=every)
    storm.met(OPENS[protection.name], r"os\.link .*rfbackup.*", r"os\.rename .*high-water.*")
    counts = set()

    def drill_all(scene: Scene) -> None:
        for each in scene.backups.glob("*.rfbackup"):
            scene.run("drill", str(each))

    def check(scene: Scene, number: int) -> None:
        left = sorted(scene.backups.glob("*.rfbackup"))
        counts.add(len(left))
        carry_out(back_up, scene)
        if left or number == storm.numbers[0]:
            carry_out(drill_all, scene)
        assert {path.suffix for path in scene.backups.iterdir()} == {".rfbackup", ".high-water"}
        (made,) = set(scene.backups.glob("*.rfbackup")) - set(left)
        with opened_backup(str(made)) as backup:
            mark = find_mark(scene.backups, backup.manifest.store_id)
            assert mark is not None
            assert mark.change_number == backup.manifest.change_number
        storm.check_end(scene)

    storm.check_each(check)
    assert counts == {0, 1}


def the_backup(scene: Scene) -> Path:
    (found,) = scene.backups.glob("*.rfbackup")
    return found


@driven("file", engines=())
@pytest.mark.parametrize("undoes", [pytest.param(False, marks=pytest.mark.long), True], ids=["", "undoing-changes"])
def test_a_restore(protection: Protection, tmp_path: Path, every: bool, undoes: bool) -> None:
    template = protection.scene(tmp_path / "template")
    carry_out(back_up, template)
    with opened_backup(str(the_backup(template))) as backup:
        store_id, number = backup.manifest.store_id, backup.manifest.change_number
    if undoes:
        put_mark(template.audit, store_id, Mark(number + 3, 1))
    for path in template.directory.glob("keys.db*"):
        if "root-key" not in path.name:
            path.unlink()

    def restore(scene: Scene) -> None:
        scene.run("restore", str(the_backup(scene)), *(["--allow-rollback"] if undoes else []))

    storm = Storm(tmp_path, template, restore, every=every)
    storm.met(OPENS[protection.name], "os.link /.keys.db.restoring", r"os\.rename .*high-water.*")
    was_there = set()
    others = left_directories()

    def check(scene: Scene, point: int) -> None:
        left = left_directories() - others
        was_there.add(scene.store.exists())
        if scene.store.exists():
            check_restored(scene)
        else:
            with pytest.raises(ConfigError):  # never taken for a place where no store was
                scene.opened().__enter__()
        carry_out(restore, scene)
        check_restored(scene)
        assert scene.files() == set()
        assert scene.restores_on_record() == 1
        mark = find_mark(scene.audit, store_id)
        assert mark is not None
        assert mark.change_number == number + (4 if undoes else 0)
        assert not left & left_directories()
        storm.check_end(scene)
        if point == storm.numbers[-1]:
            carry_out(restore, scene)
            assert scene.restores_on_record() == 1

    def check_restored(scene: Scene) -> None:
        with scene.opened() as store:
            assert {name: len(found) for name, found in materials(store).items()} == KEYS
            assert store.change_number() == number + (4 if undoes else 0)
            assert [key.metadata.name for key in store.list_deleted()] == ["gone"]
            assert store.find_policy() is not None

    storm.check_each(check)
    assert was_there == {True, False}
    assert not left_directories() - others
