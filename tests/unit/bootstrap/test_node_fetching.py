"""What a node fetches: whole or not at all, within bounds, and with a stand-in for the aws command."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from ringfence_bootstrap.node import fetching
from ringfence_bootstrap.node.fetching import fetch
from ringfence_zones.errors import ConfigError, InstallError

SOURCE = "s3://artifacts/kms.pem"


@pytest.fixture
def aws(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    program = tmp_path / "aws"
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    return program


def does(program: Path, script: str) -> None:
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)


def test_an_object_is_fetched_and_held_against_its_digest(aws: Path) -> None:
    does(aws, '[ "$1 $2 $4 $5" = "s3 cp s3://artifacts/kms.pem -" ] && printf content')
    assert fetch(SOURCE, None) == b"content"
    assert fetch(SOURCE, hashlib.sha256(b"content").hexdigest()) == b"content"
    with pytest.raises(ConfigError, match="is not the file"):
        fetch(SOURCE, "0" * 64)


def test_an_object_without_an_end_is_not_read_to_the_end(aws: Path) -> None:
    does(aws, "exec cat /dev/zero")
    with pytest.raises(ConfigError, match="is larger than"):
        fetch(SOURCE, None)


def test_what_aws_says_of_a_failure_reaches_no_terminal_raw(aws: Path) -> None:
    does(aws, r"printf 'Access\033[2J denied' >&2; exit 1")
    with pytest.raises(InstallError) as refused:
        fetch(SOURCE, None)
    assert refused.value.message == f"{SOURCE} cannot be fetched: Access [2J denied"


def test_an_aws_that_does_not_end_is_not_waited_for(aws: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetching, "_TIMEOUT_S", 0.2)
    does(aws, "printf half; exec sleep 60")
    with pytest.raises(InstallError, match="took more than"):
        fetch(SOURCE, None)


def test_without_aws_nothing_is_fetched(aws: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(aws.parent))
    with pytest.raises(InstallError, match="aws command"):
        fetch(SOURCE, None)
