"""Nothing is skipped quietly: every skip and expected failure must stand in tests/allowed_skips.txt, with its reason.

A pytest plugin. It prints the list with what it was used for and counts, and turns a run with a skip outside the list
into a failed one.
"""

from __future__ import annotations

import fnmatch
from dataclasses import dataclass
from pathlib import Path

import pytest

LIST = Path(__file__).parents[1] / "allowed_skips.txt"


@dataclass(frozen=True, slots=True)
class AllowedSkip:
    """One line of the list: tests by the pattern of their node id, and why they may be skipped."""

    pattern: str
    reason: str

    def covers(self, node_id: str) -> bool:
        """Whether this entry speaks of that test; brackets in a node id are plain characters."""
        return fnmatch.fnmatchcase(node_id, self.pattern.replace("[", "[[]"))


def read_allowed_skips(path: Path) -> list[AllowedSkip]:
    """The entries of the list: `NODE_ID_PATTERN -- REASON` on each line. Raises ValueError for one without a reason."""
    entries = []
    for number, line in enumerate(path.read_text().splitlines(), start=1):
        if not line.strip() or line.startswith("#"):
            continue
        pattern, separator, reason = line.partition(" -- ")
        if not separator or not reason.strip():
            raise ValueError(f"{path}:{number} gives no reason: {line!r}")
        entries.append(AllowedSkip(pattern.strip(), reason.strip()))
    return entries


class SkipReview:
    """Collects what was skipped in a run."""

    def __init__(self, allowed: list[AllowedSkip]) -> None:
        self.allowed = allowed
        self.skipped: list[str] = []

    @property
    def unreviewed(self) -> list[str]:
        """Node ids that were skipped or failed as expected without an entry."""
        return [node for node in self.skipped if not any(entry.covers(node) for entry in self.allowed)]

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        # A test that fails as expected reports `skipped` with `wasxfail`.
        if report.skipped:
            self.skipped.append(report.nodeid)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.skipped:
            self.skipped.append(report.nodeid)

    @pytest.hookimpl(trylast=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        if self.unreviewed and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        write = terminalreporter.write_line
        write(f"reviewed skips: {len(self.allowed)} on the list, {len(self.skipped)} tests skipped in this run")
        for entry in self.allowed:
            used = sum(1 for node in self.skipped if entry.covers(node))
            write(f"  {used} x {entry.pattern} -- {entry.reason}")
        for node in self.unreviewed:
            write(f"ERROR: skipped without an entry in tests/allowed_skips.txt: {node}", red=True)


def pytest_configure(config: pytest.Config) -> None:
    """Pytest's entry."""
    config.pluginmanager.register(SkipReview(read_allowed_skips(LIST)), "ringfence-skip-review")
