"""Where a step says that its log is."""

from __future__ import annotations

import os
from pathlib import Path

from ringfence_bootstrap.zones_step.log_place import LOG_DIRECTORY, find_log_place

STEP = "s-2I51R27ONRWP5"
WORK = Path("/mnt/var/lib/hadoop/steps") / STEP


def test_a_step_knows_itself_by_its_directory(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    try:
        place = find_log_place("s3://example/logs/", "j-1ABCDEFGHIJKL", WORK, writing)
    finally:
        os.close(reading)
        os.close(writing)
    assert place.step_id == STEP
    assert place.directory == LOG_DIRECTORY / STEP
    assert place.uri == f"s3://example/logs/j-1ABCDEFGHIJKL/steps/{STEP}/"
    assert str(place) == f"{LOG_DIRECTORY}/{STEP}, and minutes later {place.uri}"


def test_output_that_goes_to_a_file_is_found_where_it_is(tmp_path: Path) -> None:
    directory = tmp_path / STEP
    directory.mkdir()
    with (directory / "stdout").open("w") as stream:
        place = find_log_place(None, None, Path("/"), stream.fileno())
    assert (place.step_id, place.directory, place.uri) == (STEP, directory, None)


def test_outside_a_step_there_is_no_log_in_s3() -> None:
    descriptor = os.open("/dev/null", os.O_WRONLY)
    try:
        place = find_log_place("s3://example/logs/", "j-1ABCDEFGHIJKL", Path("/root"), descriptor)
    finally:
        os.close(descriptor)
    assert (place.step_id, place.directory, place.uri) == (None, LOG_DIRECTORY, None)
