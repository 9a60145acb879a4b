"""How far a store has been seen: the highest change number, kept outside of the store.

A store that is put back from an earlier state verifies: every row in it is genuine. Only something kept elsewhere shows
that there was more. A *mark* is a small file, `<store id>.high-water`, beside the audit log of each node that serves
the store and in the directory of its backups. A restore that would go below one is refused.

Rules:

1. A mark only grows, but for a restore that was told to roll back.
2. It is no secret and not signed: whoever can write beside the audit log can do without it. It keeps operators, not
   intruders, from losing keys unknowingly.
3. One that cannot be read is an error, not an absence.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from ringfence_zones.durable_file import replace_file
from ringfence_zones.errors import BackupError

_SUFFIX = ".high-water"
_MAX_BYTES = 4096


@dataclass(frozen=True, slots=True)
class Mark:
    """The store was at `change_number` at `seen_ms` (epoch milliseconds)."""

    change_number: int
    seen_ms: int


def mark_file(directory: Path, store_id: str) -> Path:
    """Where the mark of a store is; `store_id` in hex."""
    return directory / f"{store_id}{_SUFFIX}"


def find_mark(directory: Path, store_id: str) -> Mark | None:
    """What a directory knows of a store; None when it knows nothing. Raises BackupError."""
    path = mark_file(directory, store_id)
    try:
        with path.open("rb") as stream:
            found = json.loads(stream.read(_MAX_BYTES))
        return _read_mark(found, store_id)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise BackupError(
            f"{path}, which says how far the key store was seen, cannot be read: {error.strerror}"
        ) from None
    except (ValueError, KeyError, TypeError, RecursionError):
        raise BackupError(
            f"{path}, which says how far the key store was seen, cannot be read",
            hint="find out who changed it; without it a restore cannot tell whether it would undo changes."
            " Remove it once you know the answer",
        ) from None


def _read_mark(found: dict[str, object], store_id: str) -> Mark:
    number, seen_ms = found["change_number"], found["seen_ms"]
    if found["store_id"] != store_id or not isinstance(number, int) or not isinstance(seen_ms, int) or number < 0:
        raise ValueError
    return Mark(number, seen_ms)


def raise_mark(directory: Path, store_id: str, mark: Mark) -> Mark:
    """Notes that the store was seen there, unless it was seen further; gives the mark that is there then.

    One process at a time. Raises OSError, and BackupError for a mark that cannot be read.
    """
    known = find_mark(directory, store_id)
    if known is not None and known.change_number >= mark.change_number:
        return known
    put_mark(directory, store_id, mark)
    return mark


def put_mark(directory: Path, store_id: str, mark: Mark) -> None:
    """Replaces the mark, whatever it says. Raises OSError."""
    content = {"change_number": mark.change_number, "seen_ms": mark.seen_ms, "store_id": store_id}
    replace_file(mark_file(directory, store_id), json.dumps(content, sort_keys=True).encode() + b"\n", 0o640)
