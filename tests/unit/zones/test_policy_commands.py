"""Exit codes and outputs of `policy test`, `reach` and `replay` that a transcript cannot bring about."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from pydantic import TypeAdapter

from ringfence_zones.cli.policy import policy
from ringfence_zones.schemas import FindingsJson

POLICY = """\
version: 1
cluster: analytics
zones:
  - {path: /data/pii, readers: [masker], writers: [etl]}
  - {path: /data/masked, writers: [masker]}
flows: [{from: /data/pii, to: /data/masked, who: [masker]}]
outside: {/exports: {from: [/data/masked]}}
kms: {namenode_users: [hdfs], admins: [hdfs]}
"""
CASES = "version: 1\ncases: [{user: etl, from: /data/pii/f, to: /data/masked/f, expect: {flow: true}}]\n"


@pytest.fixture
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "zones.yaml").write_text(POLICY, encoding="utf-8")
    (tmp_path / "zones.test.yaml").write_text(CASES, encoding="utf-8")
    return tmp_path


def _run(*arguments: str) -> Result:
    return CliRunner().invoke(policy, arguments, catch_exceptions=False)


def _log(path: Path, user: str, count: int = 2000) -> Path:
    lines = (
        f"2026-11-22 08:{at // 60 % 60:02}:{at % 60:02},000 OK[op=DECRYPT_EEK, key=analytics-data-pii, user={user},"
        f" accessCount=1, interval=0ms] {at * 7919 % 104_729}\n"
        for at in range(count)
    )
    path.write_bytes(gzip.compress("".join(lines).encode()))
    return path


def test_a_log_that_breaks_off_is_no_all_clear(directory: Path) -> None:
    log = _log(directory / "kms-audit.log.gz", "masker")
    assert _run("replay", "--audit", str(log)).exit_code == 0
    log.write_bytes(log.read_bytes()[: log.stat().st_size // 2])
    done = _run("replay", "--audit", str(log))
    assert done.exit_code == 1
    assert f"broke off at {log}:" in done.output


def test_what_was_found_before_a_log_broke_off_is_told(directory: Path) -> None:
    log = _log(directory / "kms-audit.log.gz", "bob")
    log.write_bytes(log.read_bytes()[: log.stat().st_size // 2])
    done = _run("replay", "--json", "--audit", str(log))
    assert done.exit_code == 3
    told = json.loads(done.output)
    assert 0 < told["certain"] < 2000
    assert told["logs"][0]["broken"]


def test_files_may_follow_one_option_as_a_shell_writes_them(directory: Path) -> None:
    logs = [str(_log(directory / f"{user}.gz", user, 3)) for user in ("bob", "eve", "mallory")]
    for arguments in (["--audit", *logs], ["--audit", logs[0], "--audit", logs[1], logs[2]]):
        told = json.loads(_run("replay", "--json", *arguments).output)
        assert [entry["user"] for entry in told["refused"]] == ["bob", "eve", "mallory"]


def test_a_limit_cuts_what_is_shown_and_not_what_is_counted(directory: Path) -> None:
    logs = [str(_log(directory / f"{at}.gz", f"u{at}", 3)) for at in range(5)]
    told = json.loads(_run("replay", "--json", "--limit", "2", "--audit", *logs).output)
    assert (len(told["refused"]), told["left_out"], told["certain"]) == (2, 3, 15)
    assert "and 3 more like these" in _run("replay", "--limit", "2", "--audit", *logs).output


def test_clear_stands_for_every_place_of_outside(directory: Path) -> None:
    told = json.loads(_run("reach", "--to", "clear", "--json").output)
    assert [(path["from"], path["to"]) for path in told["paths"]] == [("/data/pii", "/exports")]


def test_a_pair_without_any_path_is_exit_0(directory: Path) -> None:
    done = _run("reach", "--from", "/data/masked", "--to", "/data/pii")
    assert done.exit_code == 3  # out of clear text, by etl
    (directory / "zones.yaml").write_text(POLICY.replace("outside", "# outside"), encoding="utf-8")
    done = _run("reach", "--from", "/data/masked", "--to", "/data/pii")
    assert (done.exit_code, done.output.splitlines()[0]) == (0, "no path")


@pytest.mark.parametrize("arguments", [("test",), ("reach",), ("replay", "--audit", "log.gz")])
def test_findings_are_as_their_schema_says(directory: Path, arguments: tuple[str, ...]) -> None:
    _log(directory / "log.gz", "bob", 3)
    done = _run(*arguments, "--json")
    told: dict[str, Any] = json.loads(done.output)
    assert done.exit_code == 3
    assert told["schema"] == 1
    assert TypeAdapter(FindingsJson).validate_python({"findings": told["findings"]})["findings"]
