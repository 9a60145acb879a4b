"""The sample for logrotate: it moves what is being written, to names that are read afterwards."""

from __future__ import annotations

import fnmatch
import re
from pathlib import Path

from ringfence_agent.kms.audit.reader import find_files, find_rotated

FILE = Path(__file__).parents[3] / "packaging/logrotate/ringfence-kms"
LINES = [line.strip() for line in FILE.read_text().splitlines() if line.strip() and not line.startswith("#")]


def setting(name: str) -> str:
    (found,) = [line.split(maxsplit=1)[1] for line in LINES if line.split()[0] == name]
    return found


def test_only_files_that_are_being_written_are_moved_and_to_names_that_audit_reads(tmp_path: Path) -> None:
    patterns = LINES[0].removesuffix("{").split()
    (directory,) = {str(Path(pattern).parent) for pattern in patterns}
    stamp = re.sub("%.", "01", setting("dateformat"))
    for number in (0, 10, 255):
        living = f"worker-{number}.jsonl"
        moved = living.removesuffix(setting("extension")) + stamp + setting("extension")
        ours = f"worker-{number}.20261122T064501.123Z.jsonl"
        for name, wanted in ((living, True), (moved, False), (ours, False)):
            (tmp_path / name).touch()
            assert any(fnmatch.fnmatch(f"{directory}/{name}", pattern) for pattern in patterns) is wanted, name
        assert {tmp_path / moved, tmp_path / ours} <= set(find_rotated(tmp_path))
    assert sum(map(len, find_files([tmp_path]).by_worker)) == 9
    assert not find_files([tmp_path]).skipped


def test_nothing_is_compressed_made_or_removed_and_the_master_alone_is_told() -> None:
    assert {"nocompress", "nocreate", "sharedscripts"} <= set(LINES)
    assert setting("rotate") == "-1"
    told = LINES[LINES.index("postrotate") + 1]
    assert "--signal=SIGUSR1" in told
    assert "--kill-whom=main" in told
    assert told.endswith("ringfence-kms.service")
