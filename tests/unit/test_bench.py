"""The benchmark's own arithmetic and honesty: what it counts, what it refuses, what it says when it did not measure."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

BENCH = Path(__file__).parents[2] / "packaging" / "scripts" / "bench.d"
# Uses a quarter of a CPU second, says so, and waits to be told to end.
BURN = """
import os, sys
while sum(os.times()[:2]) < 0.25: pass
os.write(1, b".")
sys.stdin.read()
"""
MODULES = (
    "audit_lines", "figures", "goals", "kms_figures", "kms_load", "move_checks", "process_tree", "report", "reverts",
    "transfers", "transit", "zone_creation",
)  # fmt: skip


@pytest.fixture(scope="module")
def bench() -> Iterator[dict[str, ModuleType]]:
    """The benchmark's modules, which lie beside each other and not in a package."""
    sys.path.insert(0, str(BENCH))
    try:
        yield {name: importlib.import_module(name) for name in MODULES}
    finally:
        sys.path.remove(str(BENCH))
        for name in {path.stem for path in BENCH.glob("*.py")} - {"__main__"}:  # pytest's own is of that name as well
            sys.modules.pop(name, None)


def audit_line(op: str, status: int = 200) -> bytes:
    return json.dumps({"op": op, "key": "k", "status": status}, separators=(",", ":")).encode() + b"\n"


def test_cpu_time_is_read_past_a_command_name_with_blanks_and_brackets(bench: dict[str, Any]) -> None:
    line = "77 (a) b (c) S 5 77 77 0 -1 4194304 1 2 3 4 10 20 300 4000 20 0 1 0 100 0 0"
    assert bench["process_tree"].parse_stat(line) == bench["process_tree"].Stat(parent=5, cpu_ticks=4330)


def test_a_child_counts_to_the_tree_of_its_parent_while_it_runs_and_after(bench: dict[str, Any]) -> None:
    tree_cpu_s = bench["process_tree"].tree_cpu_s
    before = tree_cpu_s(os.getpid())
    child = subprocess.Popen([sys.executable, "-c", BURN], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert child.stdout is not None
    assert child.stdout.read(1) == b"."
    running = tree_cpu_s(os.getpid())
    child.communicate()
    assert running - before >= 0.2
    assert tree_cpu_s(os.getpid()) - before >= 0.2


def test_a_dead_server_has_no_figure(bench: dict[str, Any]) -> None:
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    with pytest.raises(ProcessLookupError):
        bench["process_tree"].tree_cpu_s(child.pid)


def test_a_request_without_an_audit_line_ends_the_benchmark(
    bench: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bench["audit_lines"], "_SETTLE_S", 0.1)
    path = tmp_path / "worker-0.jsonl"
    path.write_bytes(audit_line("DECRYPT_EEK") * 9 + audit_line("DECRYPT_EEK", 403) + audit_line("GENERATE_EEK"))
    log = bench["audit_lines"].AuditLog(tmp_path)
    log.expect("decrypt", 9, in_flight=0)
    with pytest.raises(bench["kms_load"].BenchError, match="9 lines of decrypt, but 10 requests"):
        log.expect("decrypt", 10, in_flight=16)


def test_more_audit_lines_than_requests_ends_the_benchmark_too(bench: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "worker-0.jsonl"
    path.write_bytes(audit_line("DECRYPT_EEK") * 20)
    log = bench["audit_lines"].AuditLog(tmp_path)
    log.expect("decrypt", 18, in_flight=2)
    with pytest.raises(bench["kms_load"].BenchError, match="20 lines"):
        log.expect("decrypt", 17, in_flight=2)


def test_an_audit_line_that_is_half_there_is_counted_when_it_is_whole(bench: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "worker-0.jsonl"
    line = audit_line("GENERATE_EEK")
    path.write_bytes(line + line[:10])
    log = bench["audit_lines"].AuditLog(tmp_path)
    assert log.count("generate") == 1
    with path.open("ab") as stream:
        stream.write(line[10:])
    assert log.count("generate") == 2


def test_a_spread_tells_least_median_and_most(bench: dict[str, Any]) -> None:
    spread = bench["figures"].spread_of([3.0, 1.0, 20.0])
    assert str(spread) == "1.00 / 3.00 / 20.0"
    assert bench["figures"].times(bench["figures"].spread_of([30.0, 60.0, 90.0]), spread) == "30.0 / 20.0 times"


def test_lines_count_once_across_a_rotation_and_to_the_worker_that_wrote_them(
    bench: dict[str, Any], tmp_path: Path
) -> None:
    log = bench["audit_lines"].AuditLog(tmp_path)
    (tmp_path / "worker-0.jsonl").write_bytes(audit_line("DECRYPT_EEK") * 2)
    assert log.count("decrypt") == 2
    (tmp_path / "worker-0.jsonl").rename(tmp_path / "worker-0.20261122T064501.123Z.jsonl")
    (tmp_path / "worker-0.jsonl").write_bytes(audit_line("DECRYPT_EEK"))
    (tmp_path / "worker-1.jsonl").write_bytes(audit_line("DECRYPT_EEK"))
    assert log.count("decrypt") == 4
    assert log.shares("decrypt") == (0.75, 0.25)


def test_what_was_not_measured_says_so_and_meets_no_goal(bench: dict[str, Any]) -> None:
    nothing = bench["kms_figures"].KmsFigures()
    goals = bench["goals"].goals_of(nothing, None, None, None, None)
    assert goals
    assert {goal.met for goal in goals} == {None}
    assert {goal.measured for goal in goals} == {"not measured"}
    text = bench["report"].render([("CPU", "one")], nothing, None, None, None, None, goals)
    goal_rows = [line for line in text.partition("### Goals")[2].splitlines() if line.startswith("|")]
    assert [line.split("|")[-2].strip() for line in goal_rows[2:]] == ["not measured"] * len(goals)


@pytest.mark.parametrize(
    ("seconds", "met"),
    [
        ({100: 0.04, 200: 0.07, 1000: 0.04}, [True, True, True]),
        ({100: 0.03, 200: 0.08, 1000: 0.05}, [False, False, False]),
    ],
)
def test_goals_are_judged_by_the_time_per_zone(
    bench: dict[str, Any], seconds: dict[int, float], met: list[bool]
) -> None:
    zone_creation = bench["zone_creation"]
    figures = zone_creation.ZoneFigures(
        shell=[
            zone_creation.ShellSample("ringfence", 4, 0, 4.5),
            zone_creation.ShellSample("stock", 4, 0, 99.0),
        ],
        apply=[zone_creation.ApplySample("ringfence", size, 0, value) for size, value in seconds.items()],
    )
    goals = bench["goals"].goals_of(bench["kms_figures"].KmsFigures(), figures, None, None, None)
    assert [goal.met for goal in goals if goal.met is not None] == met


@pytest.mark.parametrize(("rate", "p99", "met"), [(2000.0, 5.0, [True, True]), (1999.0, 5.1, [False, False])])
def test_move_checks_are_judged_by_rate_and_tail(
    bench: dict[str, Any], rate: float, p99: float, met: list[bool]
) -> None:
    spread = bench["figures"].spread_of
    figures = bench["move_checks"].MoveChecks(spread([rate]), spread([1.0]), spread([p99]), 300.0, 7)
    goals = bench["goals"].goals_of(bench["kms_figures"].KmsFigures(), None, figures, None, None)
    assert [goal.met for goal in goals if goal.met is not None] == met


@pytest.mark.parametrize(("away_s", "met"), [(1.0, True), (1.01, False)])
def test_a_revert_is_judged_by_the_median(bench: dict[str, Any], away_s: float, met: bool) -> None:
    figures = bench["reverts"].Reverts(bench["figures"].spread_of([0.1, away_s, 9.0]), 300.0)
    goals = bench["goals"].goals_of(bench["kms_figures"].KmsFigures(), None, None, figures, None)
    assert [goal.met for goal in goals if goal.met is not None] == [met]


@pytest.mark.parametrize(("ours", "met"), [(10.0, True), (10.1, False)])
def test_a_transfer_is_judged_against_distcp_with_its_checksum_pass(
    bench: dict[str, Any], ours: float, met: bool
) -> None:
    spread = bench["figures"].spread_of
    figures = bench["transfers"].Transfers(spread([ours]), spread([5.0]), spread([30.0]))
    goals = bench["goals"].goals_of(bench["kms_figures"].KmsFigures(), None, None, None, figures)
    assert [goal.met for goal in goals if goal.met is not None] == [met]


def test_a_lua_script_with_a_cookie_in_it_is_its_owners_alone(bench: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "load.lua"
    bench["kms_load"].write_script(path, ['GET / HTTP/1.1\r\nCookie: hadoop.auth="u=a\\b"\r\n\r\n'])
    assert path.stat().st_mode & 0o777 == 0o600
    assert '"GET / HTTP/1.1\\r\\nCookie: hadoop.auth=\\"u=a\\\\b\\"\\r\\n\\r\\n"' in path.read_text()
