"""Grants that end with a YARN application."""

from __future__ import annotations

from pathlib import Path

import pytest

from ringfence_agent.api.applications import BoundGrants, GrantWatch
from ringfence_zones.errors import GrantNotFoundError, KmsUnavailableError, RingfenceError
from ringfence_zones.yarn import Life

APP, OTHER = "application_1_0001", "application_1_0002"


class _World:
    """YARN and the KMS as a test says they are."""

    def __init__(self, directory: Path) -> None:
        self.bound = BoundGrants(directory / "bound.json")
        self.lives: dict[str, Life | None] = {APP: Life.RUNNING, OTHER: Life.RUNNING}
        self.asked: list[str] = []
        self.ended: list[str] = []
        self.failure: RingfenceError | None = None
        self.watch = GrantWatch(self.bound, self._find_life, lambda: self, interval_s=0.01)  # type: ignore[arg-type,return-value]

    def _find_life(self, application: str) -> Life | None:
        self.asked.append(application)
        return self.lives[application]

    def end_grant(self, grant_id: str) -> None:
        if self.failure is not None:
            raise self.failure
        self.ended.append(grant_id)


@pytest.fixture
def world(tmp_path: Path) -> _World:
    made = _World(tmp_path)
    made.bound.bind("a", APP)
    made.bound.bind("b", APP)
    made.bound.bind("c", OTHER)
    return made


@pytest.mark.parametrize("life", [Life.ENDED, Life.FORGOTTEN])
def test_they_end_with_it_and_others_stay(world: _World, life: Life) -> None:
    world.watch.look()
    assert world.ended == []
    world.lives[APP] = life
    world.watch.look()
    assert world.ended == ["a", "b"]
    assert world.bound.list_all() == {"c": OTHER}
    assert world.asked == [APP, OTHER] * 2  # once for each application


def test_a_resourcemanager_that_does_not_answer_ends_nothing(world: _World) -> None:
    world.lives[APP] = None
    world.watch.look()
    assert world.ended == []
    assert len(world.bound.list_all()) == 3


def test_a_kms_that_is_away_is_asked_again(world: _World) -> None:
    world.lives[APP] = Life.ENDED
    world.failure = KmsUnavailableError("away")
    world.watch.look()
    assert len(world.bound.list_all()) == 3
    world.failure = None
    world.watch.look()
    assert world.ended == ["a", "b"]


def test_a_grant_that_is_not_there_is_forgotten(world: _World) -> None:
    world.lives[APP] = Life.ENDED
    world.failure = GrantNotFoundError("a")
    world.watch.look()
    assert world.bound.list_all() == {"c": OTHER}


def test_what_is_bound_outlives_a_restart(world: _World, tmp_path: Path) -> None:
    again = BoundGrants(tmp_path / "bound.json")
    assert again.list_all() == {"a": APP, "b": APP, "c": OTHER}
    assert again.find("a") == APP
    again.forget("a")
    again.forget("a")
    assert BoundGrants(tmp_path / "bound.json").find("a") is None
    assert (tmp_path / "bound.json").stat().st_mode & 0o777 == 0o600


def test_a_damaged_file_is_said_and_the_agent_starts(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "bound.json").write_text("[]")
    assert BoundGrants(tmp_path / "bound.json").list_all() == {}
    assert "end by their time alone" in caplog.text
