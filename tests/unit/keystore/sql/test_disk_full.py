"""No space: a full disk and a file size limit. Nothing acknowledged is lost, and the store goes on by itself."""

from __future__ import annotations

import resource
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import pytest
from local_stores import LocalStore, can_mount, new_key, tmpfs

from ringfence_agent.keystore.interface import KeyStore
from ringfence_zones.errors import StoreUnavailableError


@contextmanager
def file_size_limit(limit_bytes: int) -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


class SmallDisk(Protocol):
    """A directory that soon is full, until `make_space()`."""

    place: LocalStore

    def make_space(self) -> None: ...


@dataclass
class SmallTmpfs:
    place: LocalStore

    @property
    def ballast(self) -> Path:
        return self.place.directory / "ballast"

    def make_space(self) -> None:
        self.ballast.unlink()


@dataclass
class SizeLimit:
    place: LocalStore

    def make_space(self) -> None:
        _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))


# A tmpfs takes root; the size limit stands in for everybody else, and runs everywhere.
@pytest.fixture(params=["limit", "tmpfs"] if can_mount() else ["limit"])
def small_disk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[SmallDisk]:
    place = LocalStore(tmp_path / "small")
    place.directory.mkdir(mode=0o700)
    if request.param == "tmpfs":
        with tmpfs(place.directory, "1m"):
            disk = SmallTmpfs(place)
            disk.ballast.write_bytes(b"b" * 500_000)
            yield disk
    else:
        with file_size_limit(300_000):
            yield SizeLimit(place)


def create_until_full(store: KeyStore, most: int = 5000) -> tuple[int, StoreUnavailableError]:
    for number in range(most):
        try:
            store.create_key(new_key(f"k{number}"))
        except StoreUnavailableError as exc:
            return number, exc
    raise AssertionError("the disk never became full")


def names(store: KeyStore) -> set[str]:
    return {metadata.name for metadata in store.list_metadata()}


def assert_whole(store: KeyStore, created: int) -> None:
    assert names(store) == {f"k{number}" for number in range(created)}
    for number in (0, created - 1):
        assert store.find_key(f"k{number}") is not None


def test_python_ignores_the_signal_of_the_file_size_limit() -> None:
    assert signal.getsignal(signal.SIGXFSZ) is signal.SIG_IGN


def test_a_full_disk_loses_nothing_acknowledged_and_the_store_goes_on_when_space_returns(small_disk: SmallDisk) -> None:
    place = small_disk.place
    store = place.open()
    created, refusal = create_until_full(store)
    assert created > 10
    assert "nothing was changed" in str(refusal)
    assert str(place.directory) in str(refusal.hint)
    assert_whole(store, created)
    with pytest.raises(StoreUnavailableError):
        store.publish_policy(0, b"x" * 1_000_000, "root")
    assert_whole(store, created)
    small_disk.make_space()
    store.create_key(new_key(f"k{created}"))
    assert_whole(store, created + 1)
    store.close()
    again = place.open()
    assert_whole(again, created + 1)
    again.close()


@pytest.mark.parametrize("more_bytes", [1, 100, 4096, 4200, 9000, 20_000])
def test_a_file_size_limit_is_a_sentence_and_its_end_is_the_end_of_it(tmp_path: Path, more_bytes: int) -> None:
    place = LocalStore(tmp_path)
    store = place.open()
    for number in range(20):
        store.create_key(new_key(f"k{number}"))
    log = place.path.with_name("keys.db-wal")
    with file_size_limit(log.stat().st_size + more_bytes):
        refused_at = None
        for number in range(20, 40):
            try:
                store.create_key(new_key(f"k{number}"))
            except StoreUnavailableError as exc:
                assert "ulimit -f" in str(exc.hint)
                refused_at = number
                break
        assert refused_at is not None
        assert_whole(store, refused_at)
    store.create_key(new_key(f"k{refused_at}"))
    store.close()
    again = place.open()
    assert_whole(again, refused_at + 1)
    again.close()


@pytest.mark.parametrize("limit_bytes", [0, 10, 100, 5000, 20_000])
def test_a_store_that_cannot_be_made_for_lack_of_space_leaves_nothing_behind(tmp_path: Path, limit_bytes: int) -> None:
    place = LocalStore(tmp_path)
    with file_size_limit(limit_bytes), pytest.raises(StoreUnavailableError) as caught:
        place.open()
    assert str(place.path) in str(caught.value)
    assert list(tmp_path.iterdir()) == []
    place.open().close()


def test_opening_on_a_full_disk_is_a_sentence(tmp_path: Path) -> None:
    place = LocalStore(tmp_path)
    place.open().close()
    with file_size_limit(100), pytest.raises(StoreUnavailableError):
        place.open()
    place.open().close()
