"""One agent per state directory, and a log that a machine can read and that gives nothing away."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from ringfence_agent.logging_json import log_to_stderr
from ringfence_agent.serve import StateLock
from ringfence_zones.errors import ConfigError


def test_a_second_agent_is_kept_out_until_the_first_is_gone(tmp_path: Path) -> None:
    first = StateLock(tmp_path / "state")
    with pytest.raises(ConfigError, match="another agent is running"):
        StateLock(tmp_path / "state")
    first.release()
    StateLock(tmp_path / "state").release()


def test_an_unusable_state_directory_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="state directory"):
        StateLock(tmp_path / "file" / "state")


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    root, ours = logging.getLogger(), logging.getLogger("ringfence_agent")
    handlers, level, our_level = list(root.handlers), root.level, ours.level
    written = io.StringIO()
    log_to_stderr(0, written)
    yield written
    root.handlers[:] = handlers
    root.setLevel(level)
    ours.setLevel(our_level)


def test_each_record_is_one_json_object_with_its_fields(stream: io.StringIO) -> None:
    logging.getLogger("ringfence_agent.cycle").info("enforce: %d zones\nthere", 2, extra={"fields": {"cycle": 7}})
    logging.getLogger("other.library").info("chatter")
    (line,) = stream.getvalue().splitlines()
    record = json.loads(line)
    assert (record["message"], record["cycle"], record["level"]) == ("enforce: 2 zones\nthere", 7, "info")
    assert record["time"].endswith("Z")


def test_an_exception_is_logged_by_kind_and_place_never_by_message(stream: io.StringIO) -> None:
    try:
        int("canary-51c0")
    except ValueError:
        logging.getLogger("ringfence_agent").exception("it failed")
    record = json.loads(stream.getvalue())
    assert record["exception"] == "ValueError"
    assert any("test_serve.py" in place for place in record["at"])
    assert "canary-51c0" not in stream.getvalue()
