"""Fuzzes for longer than the tests do and keeps what reached something new: `grow.py [SECONDS [TARGET...]]`.

A failing input is put into the corpus as `found-...` and printed: fix what it shows, and it stays as a test.
"""

from __future__ import annotations

import hashlib
import sys
import time
from pathlib import Path

from mutation import FoundError, Fuzzer
from seeds import CORPUS, seeds_of
from targets import TARGETS, Target


def grow(target: Target, seconds: float) -> bool:
    """One target; whether nothing was found."""
    directory = CORPUS / target.name
    directory.mkdir(parents=True, exist_ok=True)
    seeds = seeds_of(target.name)
    fuzzer = Fuzzer(target.check, target.files, target.words, seed=time.time_ns())
    try:
        found = fuzzer.run(seeds, seconds)
        # Only what a fresh run over the corpus would miss: shortest first.
        fresh = Fuzzer(target.check, target.files)
        fresh.replay(seeds)
        kept = fresh.replay(sorted(found.kept, key=len))
    except FoundError as error:
        _keep(directory, "found", error.data)
        print(f"{target.name}: {error}")
        return False
    for data in kept:
        _keep(directory, "reached", data)
    print(f"{target.name}: {found.tried} inputs, {len(kept)} kept")
    return True


def _keep(directory: Path, kind: str, data: bytes) -> None:
    (directory / f"{kind}-{hashlib.sha256(data).hexdigest()[:16]}").write_bytes(data)


def main() -> int:
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 60.0
    wanted = set(sys.argv[2:])
    results = [grow(target, seconds) for target in TARGETS if not wanted or target.name in wanted]
    return 0 if all(results) else 1


if __name__ == "__main__":
    sys.exit(main())
