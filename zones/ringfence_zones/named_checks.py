"""A named check, and what came of it.

A check looks at one thing, changes nothing, and yields a finding for each fault with its fix. One that cannot look,
for want of rights or because there is nothing of the kind, says so: "not checked" is never "nothing found".
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Generic, NamedTuple, TypeVar

from ringfence_zones.errors import RingfenceError
from ringfence_zones.findings import Finding, Rule, Severity

S = TypeVar("S")


class NotChecked(Exception):  # noqa: N818 - control flow of one check: not an error, never seen outside
    """Raised by a check that cannot look; the message says why."""


class Check(NamedTuple, Generic[S]):
    """`name` is stable; `meaning` is what was looked at, for people; `S` is what is looked at."""

    name: str
    meaning: str
    run: Callable[[S], Iterator[Finding]]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a check found; `not_checked` is why it did not look, None when it did."""

    name: str
    meaning: str
    findings: tuple[Finding, ...]
    not_checked: str | None = None

    def to_json(self) -> dict[str, Any]:
        """`{"name", "result": "ok"|"found"|"not_checked", "why"}`; the findings stand apart."""
        result = "found" if self.findings else "not_checked" if self.not_checked is not None else "ok"
        return {"name": self.name, "result": result, "why": self.not_checked}


def run_checks(checks: Iterable[Check[S]], subject: S) -> list[Outcome]:
    """All of them, whatever one of them meets."""
    return [_run(check, subject) for check in checks]


def _run(check: Check[S], subject: S) -> Outcome:
    findings: list[Finding] = []
    try:
        findings.extend(check.run(subject))
    except NotChecked as reason:
        # What was found before it could look no further still counts.
        return Outcome(check.name, check.meaning, tuple(findings), str(reason))
    return Outcome(check.name, check.meaning, tuple(findings))


def finding(
    severity: Severity, rule: Rule, path: object, message: str, hint: str, command: str | None = None
) -> Finding:
    """A finding about a file or a setting."""
    return Finding(severity=severity, rule=rule, path=str(path), message=message, hint=hint, command=command)


def finding_of(error: RingfenceError, rule: Rule, path: object) -> Finding:
    """What the server itself would say."""
    return finding(
        Severity.ERROR,
        rule,
        path,
        error.message,
        error.hint or "the KMS does not start until this is right",
        error.command,
    )
