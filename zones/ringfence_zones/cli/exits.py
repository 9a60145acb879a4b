"""One of the three edge tables: an error becomes an exit code and what standard error says.

The voice: lower case after the prefix, no full stop, the fix on its own line. Under `--json` the same facts are one
JSON object on standard error, so that standard output holds a result or nothing.
"""

from __future__ import annotations

import json
import sys
from typing import Any

from ringfence_zones import errors
from ringfence_zones.errors import DocumentError, PlanRefusedError, PolicyError, RefusedError, RingfenceError
from ringfence_zones.findings import Finding

DONE = 0
FAILED = 1
USAGE = 2
FINDINGS = 3
ROLLED_BACK = 4
NOT_ROLLED_BACK = 5

# By class; an error takes the entry of its nearest ancestor. 2 is for what the caller must change in what they gave.
EXIT_CODES: dict[type[RingfenceError], int] = {
    errors.RingfenceError: FAILED,
    errors.InputError: USAGE,
    errors.RefusedError: FAILED,
    errors.PlanRefusedError: FAILED,
    errors.AuthenticationError: FAILED,
    errors.AccessDeniedError: FAILED,
    errors.KeyStoreError: FAILED,
    errors.KmsError: FAILED,
    errors.HdfsError: FAILED,
    errors.AgentUnavailableError: FAILED,
    errors.TransferError: FAILED,
    errors.ReceiptError: FAILED,
    errors.AwsError: FAILED,
    errors.SandboxError: FAILED,
    errors.InstallError: FAILED,
    errors.RolledBackError: ROLLED_BACK,
    errors.NotRolledBackError: NOT_ROLLED_BACK,
}


def exit_code(error: RingfenceError) -> int:
    """The exit code of contracts, section 1."""
    return next(EXIT_CODES[kind] for kind in type(error).__mro__ if kind in EXIT_CODES)


def print_error(error: RingfenceError, *, as_json: bool = False) -> None:
    """Writes the error to standard error: `ringfence: SENTENCE`, then rule, hint, command and findings."""
    text = json.dumps({"error": error_json(error)}, ensure_ascii=True) if as_json else "\n".join(_lines(error))
    # A message may quote a name that is not valid UTF-8, or one with control characters.
    sys.stderr.write(_printable(text) + "\n")


def error_json(error: RingfenceError) -> dict[str, Any]:
    """The error's facts; what it does not have is absent."""
    out: dict[str, Any] = {"exit_code": exit_code(error), "message": error.message}
    if isinstance(error, RefusedError):
        out["rule"] = error.rule.value
    if error.hint:
        out["hint"] = error.hint
    if error.command:
        out["command"] = error.command
    if isinstance(error, PolicyError | DocumentError | PlanRefusedError) and error.findings:
        out["findings"] = [finding.to_json() for finding in error.findings]
    return out


def _lines(error: RingfenceError) -> list[str]:
    lines = [f"ringfence: {error.message}"]
    if isinstance(error, RefusedError):
        lines.append(f"  rule: {error.rule.value}: {error.rule.meaning}")
    if error.hint:
        lines.append(f"  hint: {error.hint}")
    if error.command:
        lines.append(f"  run:  {error.command}")
    if isinstance(error, PolicyError | DocumentError | PlanRefusedError):
        for finding in error.findings:
            lines += _finding_lines(finding)
    return lines


def _finding_lines(finding: Finding) -> list[str]:
    lines = [f"  {finding.path}: {finding.message} [{finding.rule.value}]", f"      hint: {finding.hint}"]
    if finding.command:
        lines.append(f"      run:  {finding.command}")
    return lines


def _printable(text: str) -> str:
    return "".join(
        char if char == "\n" or (char.isprintable() and not "\ud800" <= char <= "\udfff") else ascii(char)[1:-1]
        for char in text
    )
