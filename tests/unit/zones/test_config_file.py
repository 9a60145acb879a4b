"""A configuration file is read strictly, and every mistake in it is told at once."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import Field

from ringfence_zones.config_file import (
    AbsolutePath,
    ConfigModel,
    DurationS,
    SizeBytes,
    parse_config,
    parse_duration_s,
    read_config,
)
from ringfence_zones.errors import ConfigError


class _Inner(ConfigModel):
    workers: int = 1


class _Optional(ConfigModel):
    needed: int
    secret_file: AbsolutePath | None = None


class _Example(ConfigModel):
    interval: DurationS = 5.0
    name: str
    limits: _Inner = _Inner()


class _Wide(ConfigModel):
    pause: DurationS = Field(60.0, ge=60, le=86_400)
    rest: DurationS | None = Field(None, ge=60)
    room: SizeBytes = Field(1024, ge=1024)
    block: _Optional | None = None


def test_every_problem_is_reported_with_its_line_in_one_go() -> None:
    text = "intervall: 5s\nname: 7\ninterval: 5\nlimits:\n  worker: 2\ninterval: 6s\n"
    with pytest.raises(ConfigError) as caught:
        parse_config(text, "x.yaml", _Example)
    message = caught.value.message
    assert message.startswith("x.yaml has 5 problems:")
    assert "x.yaml:1: 'intervall' is not a setting: did you mean 'interval'?" in message
    assert "x.yaml:2: 'name' input should be a valid string, not 7" in message
    assert "x.yaml:5: 'limits.worker' is not a setting: did you mean 'workers'?" in message
    assert "x.yaml:6: 'interval' is written twice; the first is on line 3" in message


def test_a_missing_setting_is_named() -> None:
    with pytest.raises(ConfigError, match="'name' is missing"):
        parse_config("", "x.yaml", _Example)


def test_the_hint_lists_what_is_known() -> None:
    with pytest.raises(ConfigError) as caught:
        parse_config("zzz: 1\nname: a", "x.yaml", _Example)
    assert caught.value.hint == "known settings: interval, limits, name"


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("block: {neded: 1, needed: 2}", "known settings of block: needed, secret_file"),
        ("block: {}", "known settings of block: needed, secret_file"),
        ("block: x", "known settings of block: needed, secret_file"),
        ("block: {}\nx: 1", "known settings of block: needed, secret_file; known settings: block, pause, rest, room"),
        ("pause: 2d", None),
    ],
)
def test_the_hint_is_of_the_block_where_a_name_is_wrong(text: str, hint: str | None) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_config(text, "x.yaml", _Wide)
    assert caught.value.hint == hint


def test_a_near_name_is_found_in_a_block_that_may_be_left_out() -> None:
    with pytest.raises(ConfigError, match=r"'block\.neded' is not a setting: did you mean 'needed'"):
        parse_config("block: {neded: 1, needed: 2}", "x.yaml", _Wide)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("pause: 30s", "'pause' must be at least 1m, not 30s"),
        ("pause: 2d", "'pause' must be at most 1d, not 2d"),
        ("rest: 30s", "'rest' must be at least 1m, not"),
        ("room: 5B", "'room' must be at least 1KiB, not 5B"),
        ("block: x", "'block' must be a block of settings"),
    ],
)
def test_a_bound_is_told_in_the_units_of_the_file(text: str, told: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_config(text, "x.yaml", _Wide)
    assert told in caught.value.message


@pytest.mark.parametrize("text", ["block: {needed: 1, secret_file: hvs.CANARY}", "pause: https://u:CANARY@host/"])
def test_a_secret_in_the_wrong_place_is_not_quoted(text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_config(text, "x.yaml", _Wide)
    assert "CANARY" not in f"{caught.value.message} {caught.value.hint}"


@pytest.mark.parametrize(
    ("written", "seconds"), [("500ms", 0.5), ("5s", 5.0), ("1.5m", 90.0), ("2 h", 7200.0), ("30d", 2592000.0)]
)
def test_durations_carry_their_unit(written: str, seconds: float) -> None:
    assert parse_duration_s(written) == seconds
    assert parse_config(f"name: a\ninterval: {written}", "x", _Example).interval == seconds


@pytest.mark.parametrize("written", ["5", "5.0", "-5s", "s", "'5 parsecs'", "[5s]", "true"])
def test_a_duration_without_a_unit_is_refused(written: str) -> None:
    with pytest.raises(ConfigError, match="duration with a unit") as caught:
        parse_config(f"name: a\ninterval: {written}", "x", _Example)
    assert not caught.value.message.endswith(f"not {written}s")


@pytest.mark.parametrize(
    ("content", "because"),
    [
        (b"a: [", "well-formed"),
        (b"- a", "mapping"),
        (b"\xff\xfe", "UTF-8"),
        (b"a: !!python/object:os.system {}", "tag"),
    ],
)
def test_an_unusable_file_says_why(tmp_path: Path, content: bytes, because: str) -> None:
    path = tmp_path / "x.yaml"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=because):
        read_config(path, _Example)


def test_an_unreadable_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.yaml"):
        read_config(tmp_path / "none.yaml", _Example)
