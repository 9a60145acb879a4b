"""What a login needs is read from files of a kind, and nothing is waited for."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from ringfence_agent.vault.secret_file import read_public_file, read_secret_file
from ringfence_zones.errors import ConfigError


@pytest.mark.parametrize("read", [read_public_file, read_secret_file])
def test_a_pipe_is_not_waited_for(tmp_path: Path, read: Callable[[Path, str], object]) -> None:
    path = tmp_path / "role-id"
    os.mkfifo(path, 0o600)
    with pytest.raises(ConfigError, match="role-id"):
        read(path, "role id")


def test_a_role_id_may_be_anybodys_to_read(tmp_path: Path) -> None:
    path = tmp_path / "role-id"
    path.write_text("1234-abcd\n")
    path.chmod(0o644)
    assert read_public_file(path, "role id") == "1234-abcd"


@pytest.mark.parametrize("content", ["", "\n", "two\nlines\n", "sp ace", "x" * 20_000, "\x07"])
def test_what_is_not_one_line_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "role-id"
    path.write_text(content)
    path.chmod(0o600)
    for read in (read_public_file, read_secret_file):
        with pytest.raises(ConfigError, match="one line of printable characters"):
            read(path, "role id")
