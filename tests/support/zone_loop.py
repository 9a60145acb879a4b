"""A Java client at work in a zone while a test does something to the cluster under it: see ZoneLoop.java."""

from __future__ import annotations

import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cluster_commands import Cluster

_LOOP = Path(__file__).with_name("ZoneLoop.java")
_DEADLINE_S = 240


class Loop:
    """A Java client that writes and reads in a zone, in a JVM of its own, until it is stopped."""

    def __init__(self, cluster: Cluster, zone: str, directory: Path) -> None:
        self._stop_file = directory / "stop-loop"
        jars = cluster.directory / "hadoop/share/hadoop"
        opened = [f"--add-opens=java.base/{package}=ALL-UNNAMED" for package in ("java.lang", "java.util")]
        command = ["java", *opened, "-cp", f"{cluster.hadoop_conf}:{jars}/*", str(_LOOP)]
        self._process = subprocess.Popen(
            [*command, zone, str(self._stop_file)],
            env=cluster.environ("etl"),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.rounds: list[float] = []
        self._errors = ""
        self._readers = [threading.Thread(target=self._count), threading.Thread(target=self._listen)]
        for reader in self._readers:
            reader.start()

    def _count(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            assert line.startswith("ok ")
            self.rounds.append(time.monotonic())

    def _listen(self) -> None:
        assert self._process.stderr is not None
        self._errors = self._process.stderr.read()

    def wait_for_rounds(self, more: int) -> None:
        wanted, deadline = len(self.rounds) + more, time.monotonic() + _DEADLINE_S
        while len(self.rounds) < wanted:
            assert time.monotonic() < deadline, "the loop stands still"
            assert self._process.poll() is None, self._last_words()
            time.sleep(0.05)

    def finish(self) -> int:
        """How many rounds there were; fails when one of them did."""
        self._stop_file.touch()
        code = self._process.wait(_DEADLINE_S)
        assert code == 0, self._last_words()
        self.close()
        return len(self.rounds)

    def _last_words(self) -> str:
        """What the client said before it ended by itself."""
        self.close()
        return self._errors[-4000:]

    def close(self) -> None:
        """Ends the client, finished or not."""
        self._process.kill()
        self._process.wait()
        for reader in self._readers:
            reader.join()
        for stream in (self._process.stdout, self._process.stderr):
            assert stream is not None
            stream.close()

    def longest_pause_s(self) -> float:
        return max(later - earlier for earlier, later in zip(self.rounds, self.rounds[1:], strict=False))


@contextmanager
def loop_in(cluster: Cluster, zone: str, directory: Path) -> Iterator[Loop]:
    """A loop that has gone round three times; `directory` holds the file that ends it."""
    loop = Loop(cluster, zone, directory)
    try:
        loop.wait_for_rounds(3)
        yield loop
    finally:
        loop.close()
