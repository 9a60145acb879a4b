"""A server whose clock on the wall a test sets, while the machine's stays as it is.

What Python code reads of `time.time` and `time.time_ns` is ahead by what a file says. C code (TLS, Kerberos, a
database's client) reads the machine's own. As a program: `stepped_clock.py FILE WORDS...` is `ringfence WORDS...` so.
"""

from __future__ import annotations

import mmap
import struct
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from kms_serving import KmsPlace

_AHEAD_S = struct.Struct("<q")


@dataclass
class SteppedPlace(KmsPlace):
    """A KMS with a clock that `set_ahead` sets, for all of its processes at once."""

    @property
    def clock(self) -> Path:
        return self.directory / "clock"

    def set_ahead(self, seconds: int) -> None:
        if not self.clock.exists():
            self.clock.write_bytes(_AHEAD_S.pack(0))
        with self.clock.open("r+b") as stream:
            stream.write(_AHEAD_S.pack(seconds))

    def command(self, *options: str) -> list[str]:
        self.set_ahead(0)
        return [sys.executable, __file__, str(self.clock), *super().command(*options)[1:]]


def _step(path: Path) -> None:
    """From now on, and in every child."""
    with path.open("r+b") as stream:
        memory = mmap.mmap(stream.fileno(), _AHEAD_S.size)
    real_time, real_time_ns = time.time, time.time_ns
    time.time = lambda: real_time() + _AHEAD_S.unpack_from(memory)[0]
    time.time_ns = lambda: real_time_ns() + _AHEAD_S.unpack_from(memory)[0] * 1_000_000_000


if __name__ == "__main__":
    _step(Path(sys.argv[1]))
    from ringfence_zones.cli.main import main

    sys.argv[:2] = ["ringfence"]
    main()
