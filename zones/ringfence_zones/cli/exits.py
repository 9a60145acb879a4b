"""One of the three edge tables: an error becomes an exit code and two lines on standard error.

The voice: lower case after the prefix, no full stop, the fix on its own line.
"""

from __future__ import annotations

import sys

from ringfence_zones.errors import InputError, RingfenceError

DONE = 0
FAILED = 1
USAGE = 2
FINDINGS = 3
ROLLED_BACK = 4
NOT_ROLLED_BACK = 5


def exit_code(error: RingfenceError) -> int:
    """2 for anything the caller must change in what they gave, 1 for everything else."""
    return USAGE if isinstance(error, InputError) else FAILED


def print_error(error: RingfenceError) -> None:
    """`ringfence: <sentence>`, then the hint and the command when there are any."""
    lines = [f"ringfence: {error.message}"]
    if error.hint:
        lines.append(f"  hint: {error.hint}")
    if error.command:
        lines.append(f"  run:  {error.command}")
    for finding in getattr(error, "findings", ()):
        lines.append(f"  {finding.path}: {finding.message} [{finding.rule.value}]")
        if finding.hint:
            lines.append(f"      hint: {finding.hint}")
        if finding.command:
            lines.append(f"      run:  {finding.command}")
    print("\n".join(lines), file=sys.stderr)  # noqa: T201 - the one place that writes an error
