"""Where to stage what will be renamed: the rename that follows must be one that is allowed."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ringfence_zones.errors import InputError, PathError
from ringfence_zones.model import EncryptionZone
from ringfence_zones.moves import ZoneMap, decide_move
from ringfence_zones.paths import HdfsPath
from ringfence_zones.places import find_places

ZONES = [EncryptionZone(path, "k") for path in ("/data/pii", "/data/pii/inner", "/data/masked")]
MAP = ZoneMap(ZONES)


@pytest.mark.parametrize(
    ("path", "zone", "staging"),
    [
        ("/data/pii/out", "/data/pii", "/data/pii/.staging-etl"),
        ("/data/pii/a/b/c", "/data/pii", "/data/pii/a/b/.staging-etl"),
        ("/data/pii/inner/t", "/data/pii/inner", "/data/pii/inner/.staging-etl"),
        # A zone's root is never renamed onto.
        ("/data/masked", "/data/masked", "/data/masked/.staging-etl"),
        ("/data/pii/inner", "/data/pii/inner", "/data/pii/inner/.staging-etl"),
        # Nor is what holds one.
        ("/data", None, "/data/.staging-etl"),
        ("/", None, "/.staging-etl"),
        ("/tmp/out", None, "/tmp/.staging-etl"),
        ("/data/pii2/out", None, "/data/pii2/.staging-etl"),
    ],
)
def test_places_are_in_the_zone_of_the_target(path: str, zone: str | None, staging: str) -> None:
    found = find_places(MAP, HdfsPath.parse(path), user="etl").to_json()
    assert (found["zone"], found["staging"]) == (zone, staging)
    assert found["scratch"] == staging.replace(".staging", ".scratch")
    assert found["path"] == path
    assert (zone or "no encryption zone") in found["why"]


def test_a_job_has_places_of_its_own() -> None:
    found = find_places(MAP, HdfsPath.parse("/data/pii/out"), user="etl", job="application_1_2")
    assert str(found.staging) == "/data/pii/.staging-etl-application_1_2"


_NAMES = st.sampled_from(["data", "pii", "inner", "masked", "x", "y"])


@given(st.lists(_NAMES, max_size=5), st.sampled_from(["etl", "hive"]))
def test_the_rename_from_staging_to_the_target_is_allowed(parts: list[str], user: str) -> None:
    path = HdfsPath(tuple(parts))
    found = find_places(MAP, path, user=user)
    for place in (found.staging, found.scratch):
        target = path if found.staging.parent != path else path.child("part-0")
        assert decide_move(None, MAP, user=user, src=place.child("part-0"), dst=target).rename
        assert MAP.find_zone_of(place) == found.zone


@pytest.mark.parametrize("path", ["/.reserved/raw/data/pii/x", "/data/pii/.snapshot/s/x"])
def test_nothing_is_staged_where_nothing_is_written(path: str) -> None:
    with pytest.raises(PathError, match="nothing is written there"):
        find_places(MAP, HdfsPath.parse(path), user="etl")


@pytest.mark.parametrize("user", ["a/b", "a:b", "a\nb", "a\u202eb"])
def test_a_name_that_no_path_can_hold_is_refused(user: str) -> None:
    with pytest.raises(InputError):
        find_places(MAP, HdfsPath.parse("/data/pii/x"), user=user)
