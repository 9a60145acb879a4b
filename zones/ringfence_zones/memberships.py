"""Who is in which group, from a file: policies name groups, and a document does not know who is in them.

The file is what `hdfs groups alice bob` prints (`org.apache.hadoop.tools.GetGroupsBase`), one user a line:

    alice : staff pii-readers
    bob : staff

Empty lines and lines that begin with `#` mean nothing. A line that cannot be read is refused, not passed over: a user
who is missing here is taken to be in no group.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ringfence_zones.errors import InputError
from ringfence_zones.findings import Finding, Rule, Severity
from ringfence_zones.policy import document_error

MAX_BYTES = 64 * 1024 * 1024
_SHOWN_PROBLEMS = 20

Memberships = Mapping[str, frozenset[str]]


def load_memberships(path: Path) -> Memberships:
    """The groups of each user, without `@`. Raises PolicyError with the lines that cannot be read, InputError."""
    try:
        with path.open("rb") as stream:
            raw = stream.read(MAX_BYTES + 1)
    except OSError as error:
        hint = "write there what  hdfs groups USER...  prints"
        raise InputError(f"cannot read the groups {path}: {error.strerror}", hint=hint) from error
    if len(raw) > MAX_BYTES:
        raise InputError(f"{path} is larger than {MAX_BYTES} bytes", hint="name the users of the policy alone")
    found: dict[str, frozenset[str]] = {}
    problems = []
    for number, line in enumerate(raw.decode("utf-8", "replace").split("\n"), start=1):
        text = line.strip()
        if not text or text.startswith("#"):
            continue
        user, colon, groups = text.partition(" :")
        if not colon or not user or " " in user or (groups and not groups.startswith(" ")):
            problems.append(_problem(path, number))
            if len(problems) == _SHOWN_PROBLEMS:
                break
            continue
        found[user] = found.get(user, frozenset()) | frozenset(groups.split())
    if problems:
        raise document_error(str(path), problems)
    return found


def _problem(path: Path, number: int) -> Finding:
    return Finding(
        severity=Severity.ERROR,
        rule=Rule.BAD_VALUE,
        path=f"{path}:{number}",
        message="not a user and its groups",
        hint="write  USER : GROUP GROUP  as  hdfs groups  prints it",
    )
